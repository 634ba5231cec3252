"""How a command ends: with which words on stderr and which exit code.

One rule: the user's own mistakes are told in a sentence with a hint, and failures of the user's own code by
its own traceback, without FlexRay's frames around it.

| what happened | shown | exit code |
|---|---|---|
| a wrong option, name or file | the sentence and its hint | 2 |
| the user's file does not parse | the place, the line and the reason | 2 |
| an exception in the user's code | the user's traceback | 1 |
| FlexRay could not do it | the sentence and its hint | 1 |
| Ctrl-C | "stopped" | 130 |
| the reader of its output is gone | nothing | 1 |
| sys.exit in the user's code | what Python shows | what it said |
"""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from pathlib import Path

from flexray.errors import Error, InvalidError
from flexray.output import is_terminal
from flexray.serialization.users_files import OWN_FOLDER

_LOADER = "<frozen importlib"
_INSTALLED = (OWN_FOLDER, sysconfig.get_path("stdlib"), "<frozen ")


def report(error: BaseException) -> int:
    """Prints what the user should know of the exception that ended a command; returns the exit code."""
    if isinstance(error, KeyboardInterrupt):
        # Over the ^C that the terminal shows.
        _print("\r\x1b[2Kstopped" if is_terminal(sys.stderr) else "stopped")
        return 130
    if isinstance(error, BrokenPipeError):  # Whoever read the output, as `head` does, has had enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    failure = traceback.TracebackException.from_exception(error)
    if isinstance(error, SyntaxError) and _is_of_a_file(error, failure):
        _print_syntax_error(error)
        return 2
    _drop_own_frames(failure, of_user=isinstance(error, Error) or _came_from_afar(error))
    if isinstance(error, Error) and not failure.stack:
        print_error(error.sentence(), error.hint)
        return 2 if isinstance(error, InvalidError) else 1
    _print("".join(failure.format()).rstrip())
    return 1


def print_error(message: str, hint: str | None) -> None:
    """Prints the sentence of an error and, below it, what to do."""
    label, hint_label = "error:", "hint:"
    if is_terminal(sys.stderr):
        label, hint_label = f"\x1b[1;31m{label}\x1b[0m", f"\x1b[1;36m{hint_label}\x1b[0m"
    _print(f"{label} {message}" if hint is None else f"{label} {message}\n\n{hint_label} {hint}")


def _print_syntax_error(error: SyntaxError) -> None:
    shown = "".join(traceback.format_exception_only(error)).splitlines()
    place = f"{error.filename}, line {error.lineno}"
    print_error("\n".join([f"{place} is not valid Python: {error.msg}", *shown[1:-1]]), None)


def _is_of_a_file(error: SyntaxError, failure: traceback.TracebackException) -> bool:
    """Whether a file was being imported, as against text that the user's code parses."""
    loading = bool(failure.stack) and failure.stack[-1].filename.startswith(_LOADER)
    return loading and error.filename is not None and Path(error.filename).is_file()


def _drop_own_frames(failure: traceback.TracebackException, *, of_user: bool) -> None:
    """Starts every traceback of the chain at the user's first frame.

    FlexRay's frames below the user's last one go too if the error is the user's, and stay if it may be
    FlexRay's own.
    """
    frames = list(failure.stack)
    first = next((i for i, frame in enumerate(frames) if not _is_installed(frame.filename)), None)
    frames = frames[first or 0 :]
    while of_user and frames and _is_installed(frames[-1].filename):
        frames.pop()
    failure.stack = traceback.StackSummary.from_list(frames)
    for other in (failure.__cause__, failure.__context__, *(failure.exceptions or ())):
        if other is not None:
            _drop_own_frames(other, of_user=of_user)


def _is_installed(filename: str) -> bool:
    """Whether the file is FlexRay's or Python's own."""
    return filename.startswith(_INSTALLED) and "site-packages" not in filename.removeprefix(OWN_FOLDER)


def _came_from_afar(error: BaseException) -> bool:
    """Whether it is the failure of an input, which was raised in a container."""
    return any(str(note).startswith("Remote traceback:") for note in getattr(error, "__notes__", ()))


def _print(text: str) -> None:
    if sys.stderr is not None:
        print(text, file=sys.stderr, flush=True)  # noqa: T201  # A command speaks on stderr.
