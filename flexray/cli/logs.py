"""How `flexray app logs` and `flexray container logs` print what containers have printed.

One rule: a line is the time here, the container's function and number, and what was printed; `--json` prints
one object for each print.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any

import typer

from flexray import backend
from flexray.cli.printing import say
from flexray.errors import InvalidError, NotFoundError
from flexray.output import is_terminal

READ_AT_ONCE = 1000
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_CONTROL = re.compile("[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f\u202a-\u202e\u2066-\u2069]|\x1b(?!\\[[0-9;]*m)")
"""What would do something to the terminal, but for colors."""
_COLORS = {"stderr": "\x1b[33m", "failure": "\x1b[31m"}

Follow = Annotated[bool, typer.Option("-f", "--follow", help="Go on with what is printed, until Ctrl-C.")]
Lines = Annotated[
    int, typer.Option("-n", "--lines", help="How many prints, the newest.", min=0, max=10_000_000)
]
Since = Annotated[str | None, typer.Option(metavar="AGO", help="Only what is newer: 90s, 15m, 2h or 1d ago.")]


def show(
    app: str,
    *,
    function: str | None = None,
    container: str | None = None,
    since: str | None,
    lines: int,
    follow: bool,
    as_json: bool,
) -> None:
    """Print the newest lines, and with `follow` what comes."""
    connected = backend.connect(join=True)
    wanted = (app, function, container, None if since is None else time.time() - _seconds(since))
    found = connected.ask_logs("newest", wanted, lines)
    if not found:
        _check_known(connected, app, function, container)
    last = _print(found, as_json)
    if lines and not (found or follow or as_json):
        when = "" if since is None else f" of the last {since}"
        print(f"nothing of {container or app}{when} is kept", file=sys.stderr)  # noqa: T201  # It is no log line.
    if not found and follow:
        newest = connected.ask_logs("newest", (app, None, None, None), 1)
        last = newest[0][0] if newest else 0
    while follow:
        last = _print(connected.ask_logs("after", wanted, last, READ_AT_ONCE), as_json) or last


def _check_known(connected: Any, app: str, function: str | None, container: str | None) -> None:
    """A name that nothing is kept of may be one that nothing has.

    Raises:
        NotFoundError: It is.
    """
    if app in connected.ask_logs("apps") and function is None and container is None:
        return
    known = connected.deployments(app)
    names = sorted({name for one in known for name in one.functions})
    if function is not None and function not in names:
        raise NotFoundError(f"app {app} has no function {function!r:.70}", f"it has {', '.join(names)}")
    running = [one.container_id for one in connected.containers(app)]
    if container is not None and container not in running:
        raise NotFoundError(
            f"there is no container {container!r:.90}, and nothing that it printed is kept",
            "`flexray container list` shows those that run",
        )


def _print(found: Iterable[tuple[int, Any]], as_json: bool) -> int:
    """Print them; the number of the last."""
    last = 0
    for number, (_, function, container, at, stream, text) in found:
        last = number
        if as_json:
            when = datetime.fromtimestamp(at).astimezone().isoformat(timespec="milliseconds")
            say(
                json.dumps(
                    {"at": when, "function": function, "container": container, "stream": stream, "text": text}
                )
            )
        else:
            _print_lines(container, at, stream, text)
    return last


def _print_lines(container: str, at: float, stream: str, text: str) -> None:
    when = datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S")  # noqa: DTZ006  # As the clock here shows it.
    name = container.partition("/")[2]
    color, plain = "", ""
    if is_terminal(sys.stdout):
        when, name, plain = f"\x1b[2m{when}\x1b[0m", f"\x1b[36m{name}\x1b[0m", "\x1b[0m"
        color = _COLORS.get(stream, "")
        text = _CONTROL.sub(lambda found: repr(found.group())[1:-1], text)
    for line in text.split("\n"):
        say(f"{when} {name} | {color}{line}{plain if color else ''}")


def _seconds(text: str) -> float:
    """What "15m" comes to."""
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not number.replace(".", "", 1).isdigit():
        raise InvalidError(f"--since got {text!r:.40}", "give it as 90s, 15m, 2h or 1d")
    return float(number) * _UNITS[unit]
