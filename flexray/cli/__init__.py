"""The `flexray` command.

One rule: a command says what is wrong in one sentence and a hint, never with a traceback of FlexRay's.

A module of this package holds one command or one group of them, and is registered at the end of this file.
A command that runs the user's code returns it as a callable, and `main` calls it: typer would take the user's
own KeyboardInterrupt, EOFError and the like for its own.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from flexray.cli import call, cluster, containers, deployed, functions, run
from flexray.cli.options import UsageError, sentence_of
from flexray.cli.reporting import report
from flexray.errors import InvalidError

app = typer.Typer(add_completion=False, rich_markup_mode=None)


def main(words: Sequence[str] | None = None) -> None:
    """Runs the command in the words, by default those of the process, and exits.

    Raises:
        SystemExit: Always, with the exit code that `flexray.cli.reporting` lists.
    """
    try:
        outcome = _understand(list(sys.argv[1:] if words is None else words))
        if callable(outcome):
            outcome()
        code = outcome if isinstance(outcome, int) else 0
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001  # Whatever it is ends the command.
        code = report(error)
    sys.exit(code)


def _understand(words: list[str]) -> Any:
    """What the command that the words name returns."""
    try:
        return typer.main.get_command(app).main(
            words or ["--help"], prog_name="flexray", standalone_mode=False
        )
    except UsageError as error:
        program = error.ctx.command_path if error.ctx is not None else "flexray"
        raise InvalidError(sentence_of(error), f"`{program} --help` shows how it is used") from None
    except typer.Abort:
        raise KeyboardInterrupt from None


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"flexray {importlib.metadata.version('flexray')}")
        raise typer.Exit


@app.callback()
def flexray(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Run functions of your own on a Ray cluster, in pools of containers that follow their inputs."""


app.command(context_settings=run.CONTEXT_SETTINGS)(run.run)
app.command()(deployed.deploy)
app.add_typer(deployed.app, name="app")
app.add_typer(functions.app, name="function")
app.add_typer(containers.app, name="container")
app.add_typer(call.app, name="call")
app.add_typer(cluster.app, name="cluster")
app.command()(cluster.shutdown)
