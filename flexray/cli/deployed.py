"""`flexray deploy` and `flexray app`: apps that go on without the process that deployed them.

One rule: only `deploy` runs the user's code, and that here; the others ask a cluster that is there.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from flexray import backend
from flexray.app import App
from flexray.cli import logs
from flexray.cli.loading import find_app, load_file, load_module, split_target
from flexray.cli.printing import AsJson, ago, say, say_json, table
from flexray.errors import InvalidError

app = typer.Typer(help="Deployed apps of this cluster.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="APP", help="As `flexray app list` shows it.")]


class Strategy(StrEnum):
    """See `App.deploy`."""

    ROLLING = "rolling"
    RECREATE = "recreate"


def deploy(
    target: Annotated[
        str, typer.Argument(metavar="FILE", help="A path, or path::APP for one of several apps.")
    ],
    name: Annotated[str | None, typer.Option(help="Of the deployed app; by default the app's own.")] = None,
    strategy: Annotated[
        Strategy,
        typer.Option(help="Old containers serve until new ones are ready, or take no more."),
    ] = Strategy.ROLLING,
    as_module: Annotated[
        bool, typer.Option("-m", help="FILE is a module, as package.module, and not a path.")
    ] = False,
    as_json: AsJson = False,
) -> Callable[[], None]:
    """Make the app of FILE a deployed app, or the next version of one.

    It goes on when this command has ended, until `flexray app stop`.
    """
    return lambda: _deploy(target, name, strategy, as_module, as_json)


@app.command("list")
def list_apps(as_json: AsJson = False) -> Callable[[], None]:
    """Show the deployed apps."""
    return lambda: _list(None, as_json)


@app.command("history")
def history(name: Name, as_json: AsJson = False) -> Callable[[], None]:
    """Show the versions of an app that can be rolled back to."""
    return lambda: _list(name, as_json)


@app.command("rollback")
def rollback(
    name: Name,
    version: Annotated[
        int | None, typer.Argument(metavar="VERSION", help="By default the one before the current.")
    ] = None,
    as_json: AsJson = False,
) -> Callable[[], None]:
    """Deploy an earlier version of an app again."""
    return lambda: _rollback(name, version, as_json)


@app.command("stop")
def stop(name: Name, as_json: AsJson = False) -> Callable[[], None]:
    """End an app with everything of it that runs."""
    return lambda: _stop(name, as_json)


@app.command("logs")
def show_logs(
    name: Name,
    follow: logs.Follow = False,
    lines: logs.Lines = 100,
    since: logs.Since = None,
    function: Annotated[str | None, typer.Option(help="Only of this function.")] = None,
    as_json: AsJson = False,
) -> Callable[[], None]:
    """Show what the containers of an app have printed, and the failures of its inputs."""
    return lambda: logs.show(
        name, function=function, since=since, lines=lines, follow=follow, as_json=as_json
    )


def _deploy(text: str, name: str | None, strategy: Strategy, as_module: bool, as_json: bool) -> None:
    source, variable = split_target(text)
    module = load_module(source) if as_module else load_file(source)
    found: App = find_app(module, variable, source)
    if name == "":
        raise InvalidError("--name is empty", "leave it out for the app's own name")
    backend.connect(join=True)  # A Ray of this command's own would end with it, and the app with that.
    found.deploy(name, strategy=strategy.value)
    deployed = name or found.name
    if as_json:
        say_json({"app": deployed, "version": found.version, "functions": list(found.functions)})
        return
    say(f"{deployed} is deployed as version {found.version}: {', '.join(found.functions)}")


def _list(name: str | None, as_json: bool) -> None:
    deployments: list[Any] = backend.connect(join=True).deployments(name)
    if as_json:
        say_json([_row(one) for one in deployments])
        return
    if not deployments:
        say("No app is deployed yet: `flexray deploy FILE` does it.")
        return
    rows = []
    for one in deployments:
        what = "current" if one.is_current else ""
        if one.rolled_back_to is not None:
            what = f"{what} (again {one.rolled_back_to})".strip()
        first = (one.name, one.version) if name is None else (one.version, what)
        rows.append((*first, ago(one.deployed_at), ", ".join(one.functions)))
    table(("app", "version", "deployed", "functions") if name is None else _HISTORY, rows)


_HISTORY = ("version", "", "deployed", "functions")


def _row(one: Any) -> dict[str, Any]:
    return {
        "app": one.name,
        "version": one.version,
        "current": one.is_current,
        "again": one.rolled_back_to,
        "deployed_at": datetime.fromtimestamp(one.deployed_at, UTC).isoformat(timespec="seconds"),
        "functions": list(one.functions),
    }


def _rollback(name: str, version: int | None, as_json: bool) -> None:
    connected = backend.connect(join=True)
    number = connected.rollback(name, version)
    again = next(one.rolled_back_to for one in connected.deployments(name) if one.version == number)
    if as_json:
        say_json({"app": name, "version": number, "again": again})
    else:
        say(f"{name} is at version {number}, which is version {again} again")


def _stop(name: str, as_json: bool) -> None:
    backend.connect(join=True).stop_app(name)
    if as_json:
        say_json({"app": name, "stopped": True})
    else:
        say(f"{name} is stopped")
