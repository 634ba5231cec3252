"""`flexray run`: runs a local entrypoint or a function of a file, with the file's app up meanwhile.

One rule: everything that can be wrong with what was typed is found before the app starts.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from flexray import progress
from flexray.cli.loading import Target, find_target, load_file, load_module, split_target
from flexray.cli.options import parse_arguments

CONTEXT_SETTINGS = {"allow_interspersed_args": False}
"""Everything after FILE belongs to the entrypoint, `--help` included."""


def run(
    target: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="A path, or path::NAME for one of several entrypoints or a function."
        ),
    ],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="ARGS", help="Options of the entrypoint.")
    ] = None,
    as_module: Annotated[
        bool, typer.Option("-m", help="FILE is a module, as package.module, and not a path.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="The app goes on when this command has ended.")
    ] = False,
) -> Callable[[], None]:
    """Run a local entrypoint of FILE, or a function, on the cluster.

    The parameters of the entrypoint are options: `flexray run FILE --help` lists them.
    """
    words = list(arguments or ())
    return lambda: run_target(target, words[1:] if words[:1] == ["--"] else words, as_module, detach)


def run_target(text: str, words: Sequence[str], as_module: bool, detach: bool) -> None:
    """Loads what `FILE[::NAME]` names, reads the words as its arguments, and runs it while its app is up.

    Raises:
        InvalidError: The file, the name or an argument is wrong; the app was not started.
        Exception: Whatever the user's code raises.
    """
    source, name = split_target(text)
    module = load_module(source) if as_module else load_file(source)
    target = find_target(module, name, source)
    user_function = _user_function(target)
    program = f"flexray run {'-m ' if as_module else ''}{text}"
    arguments = parse_arguments(user_function, words, program)
    if arguments is None:
        return
    progress.show_by_default(True)
    try:
        with target.app.run(detach=detach):
            if target.function is not None:
                _print_result(target.function.remote(*arguments.args, **arguments.kwargs))
            elif inspect.iscoroutinefunction(user_function):
                asyncio.run(user_function(*arguments.args, **arguments.kwargs))
            else:
                user_function(*arguments.args, **arguments.kwargs)
    finally:
        progress.show_by_default(False)


def _user_function(target: Target) -> Callable[..., Any]:
    """The function as the user wrote it."""
    one = target.entrypoint or target.function
    assert one is not None
    function: Callable[..., Any] = one.function
    return function


def _print_result(result: Any) -> None:
    if result is not None:
        print(result, flush=True)  # noqa: T201  # It is what was asked for.
