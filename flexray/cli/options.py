"""From a function's signature to command line options, and from the user's words to its arguments.

One rule: a parameter that cannot be given on a command line is refused by name before anything runs.

| parameter | on the command line |
|---|---|
| `count: int`, float, str | `--count 3` |
| `fast: bool` | `--fast` or `--no-fast` |
| `since: datetime` | `--since 2026-05-01T06:00`, ISO 8601 |
| `size: Literal["s", "m"]` | `--size m`, one of them |
| `x: Optional[T]` | as `T`; None where it is left out |
| no annotation | as its default's type, or str |
| `*names: T` | what is left: `a b c`; str, int or float |
| `**anything` | never given |
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Union

import typer

from flexray.errors import InvalidError

UsageError: Any = typer.BadParameter.__base__
"""The base of what typer raises for a wrong command line; it has no public name of its own."""


def parse_arguments(
    function: Callable[..., Any], words: Sequence[str], program: str
) -> inspect.BoundArguments | None:
    """The arguments to call the function with; None when help was asked for, and is now printed.

    Args:
        function: The user's function. It is not called.
        words: What the user wrote after `FILE::NAME`.
        program: How the user called it, for help and messages.

    Raises:
        InvalidError: A parameter has an annotation that no option can give, or the words do not fit.
    """
    signature = _signature_of(function)
    parsed: list[dict[str, Any]] = []

    def take(**values: Any) -> None:
        parsed.append(values)

    parameters = [
        _option_for(parameter, function.__name__)
        for parameter in signature.parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    take.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    take.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    cli = typer.Typer(add_completion=False, rich_markup_mode=None)
    cli.command(help=_summary_of(function), context_settings={"token_normalize_func": _with_dashes})(take)
    try:
        typer.main.get_command(cli).main(list(words), prog_name=program, standalone_mode=False)
        return _bind(signature, parsed[0]) if parsed else None
    except UsageError as error:
        raise InvalidError(sentence_of(error), f"`{program} --help` shows its options") from None


def sentence_of(error: Any) -> str:
    """What a usage error says, without the full stop."""
    return str(error.format_message()).removesuffix(".")


def _bind(signature: inspect.Signature, values: dict[str, Any]) -> inspect.BoundArguments:
    bound = signature.bind_partial()
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            read = _reader_of(_plain_type(parameter)[0])
            bound.arguments[name] = tuple(map(read, values[name] or ()))
        elif name in values:
            bound.arguments[name] = values[name]
    return bound


def _option_for(parameter: inspect.Parameter, function_name: str) -> inspect.Parameter:
    """The parameter as typer wants it: a keyword whose annotation says how it is read."""
    plain, optional = _plain_type(parameter)
    kind = inspect.Parameter.KEYWORD_ONLY
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        if plain not in {str, int, float}:
            _refuse(parameter, function_name, "str, int or float")
        several: Any = Annotated[list[str] | None, typer.Argument(metavar=parameter.name.upper())]
        return inspect.Parameter(parameter.name, kind, annotation=several, default=None)
    flag = "--" + _with_dashes(parameter.name).strip("-")
    if plain is bool:
        option = typer.Option(f"{flag}/--no-{flag[2:]}")
    elif plain in {str, int, float, datetime} or typing.get_origin(plain) is Literal:
        option = typer.Option(flag, parser=_reader_of(plain), metavar=_metavar_of(plain))
    else:
        _refuse(parameter, function_name, "str, int, float, bool, datetime, Literal or Optional of these")
    default = None if optional and parameter.default is parameter.empty else parameter.default
    read_as = bool if plain is bool else str
    annotation: Any = Annotated[read_as | None if default is None else read_as, option]
    return inspect.Parameter(parameter.name, kind, annotation=annotation, default=default)


def _plain_type(parameter: inspect.Parameter) -> tuple[Any, bool]:
    """The parameter's type without Annotated and None, and whether None is allowed."""
    annotation = parameter.annotation
    if annotation is parameter.empty:
        guessed = type(parameter.default)
        return (guessed if guessed in {int, float, bool, datetime} else str), False
    while typing.get_origin(annotation) is Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in {Union, types.UnionType}:
        others = [one for one in typing.get_args(annotation) if one is not types.NoneType]
        if len(others) == 1:
            return others[0], True
    return annotation, False


def _refuse(parameter: inspect.Parameter, function_name: str, allowed: str) -> typing.NoReturn:
    annotation = inspect.formatannotation(parameter.annotation)
    message = (
        f"the parameter {parameter.name} of {function_name} is annotated {annotation}, "
        "which cannot be given on a command line"
    )
    raise InvalidError(message, f"use {allowed}")


def _signature_of(function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function, eval_str=True)
    except NameError as error:
        message = f"an annotation of {function.__name__} cannot be read: {error}"
        raise InvalidError(message, "import what it names, outside of `if TYPE_CHECKING:`") from None


def _metavar_of(plain: Any) -> str:
    if typing.get_origin(plain) is Literal:
        return f"<{'|'.join(map(str, typing.get_args(plain)))}>"
    return f"<{plain.__name__}>"


def _reader_of(plain: Any) -> Callable[[Any], Any]:
    """What turns a word into a value of that type; a value that is no word is a default and stays."""
    choices = {str(choice): choice for choice in typing.get_args(plain)}

    def read(word: Any) -> Any:
        if not isinstance(word, str):
            return word
        try:
            if choices:
                return choices[word]
            return datetime.fromisoformat(word) if plain is datetime else plain(word)
        except (KeyError, ValueError):
            expected = f"one of {', '.join(choices)}" if choices else _WORDS_FOR[plain]
            raise typer.BadParameter(f"{word!r} is not {expected}") from None

    return read


_WORDS_FOR: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    datetime: "a date and time, as 2026-05-01T06:00",
}


def _with_dashes(name: str) -> str:
    return name.replace("_", "-")


def _summary_of(function: Callable[..., Any]) -> str:
    """The first paragraph of the docstring."""
    return (inspect.getdoc(function) or "").partition("\n\n")[0]
