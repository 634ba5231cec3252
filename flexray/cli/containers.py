"""`flexray container`: the containers that run, of deployed apps and of those that some process has open.

One rule: a container is named as the list shows it, APP/FUNCTION#N.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from flexray import backend
from flexray.cli import logs
from flexray.cli.printing import AsJson, ago, say, say_json, table
from flexray.errors import InvalidError

app = typer.Typer(help="Containers of this cluster.", no_args_is_help=True, rich_markup_mode=None)

Container = Annotated[
    str, typer.Argument(metavar="CONTAINER", help="As `flexray container list` shows it; quote its #.")
]
_COLUMNS = ("container", "state", "slots", "started", "node", "variant")


@app.command("list")
def list_containers(
    of_app: Annotated[str | None, typer.Argument(metavar="APP", help="By default all apps.")] = None,
    as_json: AsJson = False,
) -> Callable[[], None]:
    """Show containers with what they are at."""
    return lambda: _list(of_app, as_json)


@app.command("stop")
def stop(
    container: Container,
    now: Annotated[
        bool, typer.Option("--now", help="Kill it, whatever it runs; its inputs run again elsewhere.")
    ] = False,
    as_json: AsJson = False,
) -> Callable[[], None]:
    """Let a container finish what it runs, and nothing more; the pool starts another if it needs one."""
    return lambda: _stop(container, now, as_json)


@app.command("logs")
def show_logs(
    container: Container,
    follow: logs.Follow = False,
    lines: logs.Lines = 100,
    since: logs.Since = None,
    as_json: AsJson = False,
) -> Callable[[], None]:
    """Show what a container of a deployed app has printed; it may have ended since."""
    return lambda: logs.show(
        _app_of(container),
        container=container,
        since=since,
        lines=lines,
        follow=follow,
        as_json=as_json,
    )


def _list(of_app: str | None, as_json: bool) -> None:
    containers: list[Any] = backend.connect(join=True).containers(of_app)
    if as_json:
        say_json([_row(one) for one in containers])
        return
    if not containers:
        say("No container runs now.")
        return
    rows = [
        (
            one.container_id,
            f"{one.state}, to be replaced" if one.outdated else one.state,
            f"{one.busy} of {one.slots}",
            ago(one.since),
            "-" if one.node is None else one.node[:12],
            one.variant,
        )
        for one in containers
    ]
    columns = len(_COLUMNS) - (not any(one.variant for one in containers))
    table(_COLUMNS[:columns], [row[:columns] for row in rows])


def _row(one: Any) -> dict[str, Any]:
    return {
        "container": one.container_id,
        "app": one.app,
        "function": one.function,
        "variant": one.variant,
        "state": one.state,
        "outdated": one.outdated,
        "busy": one.busy,
        "slots": one.slots,
        "started_at": datetime.fromtimestamp(one.since, UTC).isoformat(timespec="seconds"),
        "node": one.node,
    }


def _stop(container: str, now: bool, as_json: bool) -> None:
    _app_of(container)
    backend.connect(join=True).stop_container(container, now=now)
    if as_json:
        say_json({"container": container, "stopped": now, "draining": not now})
    elif now:
        say(f"{container} is being killed; what it ran runs again elsewhere")
    else:
        say(f"{container} takes nothing new and ends when what it runs is done")


def _app_of(container: str) -> str:
    name, slash, rest = container.partition("/")
    if not slash or not rest.rpartition("#")[2].isdigit():
        raise InvalidError(
            f"{container!r:.70} names no container", "give it as 'APP/FUNCTION#N', as in 'shop/price#3'"
        )
    return name.partition("@")[0]
