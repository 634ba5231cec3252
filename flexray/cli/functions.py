"""`flexray function`: the functions of deployed apps, what their pools are at, and their settings.

One rule: a function is named APP/FUNCTION, as the lists show it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from flexray import backend
from flexray.cli.printing import AsJson, ago, labelled, say, say_json, table
from flexray.errors import InvalidError, NotFoundError
from flexray.function import Function, Stats

app = typer.Typer(help="Functions of deployed apps.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="APP/FUNCTION", help="As `flexray function list` shows it.")]
_COLUMNS = ("function", "ready", "starting", "waiting", "running", "schedule")


@app.command("list")
def list_functions(
    of_app: Annotated[str | None, typer.Argument(metavar="APP", help="By default all apps.")] = None,
    as_json: AsJson = False,
) -> Callable[[], None]:
    """Show functions and classes with their containers and inputs."""
    return lambda: _list(of_app, as_json)


@app.command("stats")
def stats(name: Name, as_json: AsJson = False) -> Callable[[], None]:
    """Show one function's pool: inputs, containers, settings, and why it has as many as it has."""
    return lambda: _stats(name, as_json)


@app.command("explain")
def explain(
    name: Name,
    lines: Annotated[int, typer.Option("-n", "--lines", help="How many earlier decisions.", min=0)] = 10,
    as_json: AsJson = False,
) -> Callable[[], None]:
    """Say why a function has as many containers as it has, and what was decided before."""
    return lambda: _explain(name, lines, as_json)


@app.command("autoscaler")
def autoscaler(
    name: Name,
    min_containers: Annotated[int | None, typer.Option("--min", help="Kept warm.")] = None,
    max_containers: Annotated[int | None, typer.Option("--max", help="At most.")] = None,
    buffer_containers: Annotated[int | None, typer.Option("--buffer", help="Idle beside the busy.")] = None,
    scaledown_window: Annotated[
        float | None, typer.Option("--window", help="Seconds that an idle container waits at most.")
    ] = None,
    as_json: AsJson = False,
) -> Callable[[], None]:
    """Show the settings of a function's pool; change those that are given, until the next deploy."""
    changes = {
        "min_containers": min_containers,
        "max_containers": max_containers,
        "buffer_containers": buffer_containers,
        "scaledown_window": scaledown_window,
    }
    return lambda: _autoscaler(name, changes, as_json)


def _list(of_app: str | None, as_json: bool) -> None:
    connected = backend.connect(join=True)
    deployed = [one for one in connected.deployments(of_app) if one.is_current]
    rows = [row for one in deployed for row in _rows(connected, one)]
    if as_json:
        say_json(rows)
        return
    if not rows:
        say("No app is deployed yet: `flexray deploy FILE` does it.")
        return
    right = ("ready", "starting", "waiting", "running")
    shown = [["-" if row[name] is None else row[name] for name in _COLUMNS] for row in rows]
    table(_COLUMNS, shown, right=right)


def _rows(connected: backend.Backend, deployment: Any) -> Iterator[dict[str, Any]]:
    for name in deployment.functions:
        app_id, config, interface = connected.find(deployment.name, name, None)
        row: dict[str, Any] = dict.fromkeys(_COLUMNS)
        row["function"] = f"{deployment.name}/{name}"
        row["schedule"] = None if config.schedule is None else str(config.schedule)
        if interface is None or not interface.parameters:  # Else there is a pool for each parameter set.
            told = connected.stats(f"{app_id}/{name}")
            containers = told["containers"]
            row |= {
                "ready": containers["ready"],
                "starting": containers["launched"] + containers["loading"],
                "waiting": told["backlog"],
                "running": told["num_running_inputs"],
            }
        yield row


def _stats(name: str, as_json: bool) -> None:
    stats: Stats = _function(name).get_current_stats()
    settings = stats.settings.model_dump()
    if as_json:
        say_json(
            {
                "function": name,
                "backlog": stats.backlog,
                "num_total_runners": stats.num_total_runners,
                "num_running_inputs": stats.num_running_inputs,
                "input_headroom": stats.input_headroom,
                "containers": stats.containers,
                "settings": settings,
                "last_decision": stats.last_decision,
                "notice": stats.notice,
            }
        )
        return
    states = ", ".join(f"{count} {state}" for state, count in stats.containers.items() if count)
    say(f"{name}: {stats.backlog:,} waiting, {stats.num_running_inputs:,} running")
    say(f"containers: {states or 'none'}; {stats.input_headroom:,} more inputs would run at once")
    say(f"settings: {_shown(settings)}")
    say(f"newest decision: {stats.last_decision or 'none yet'}")
    if stats.notice is not None:
        say(f"note: {stats.notice}")


def _explain(name: str, lines: int, as_json: bool) -> None:
    app_name, function = _split(name)
    pools: list[Any] = backend.connect(join=True).pools(app_name, function)
    if as_json:
        say_json([_explained(pool, lines) for pool in pools])
        return
    if not pools:
        say(f"{name} is a class, and none of its parameter sets is in use: it has no containers.")
    for number, pool in enumerate(pools):
        if number:
            say("")
        states = ", ".join(f"{count} {state}" for state, count in pool.containers.items() if count)
        say(f"{labelled(pool)}: {pool.waiting:,} waiting, {pool.running:,} running")
        say(f"containers: {states or 'none'}")
        say(f"now: {pool.why}")
        if pool.notice is not None:
            say(f"note: {pool.notice}")
        for at, decision in pool.decisions[:lines]:
            say(f"{ago(at)}: {decision}")


def _explained(pool: Any, lines: int) -> dict[str, Any]:
    return {
        "pool": pool.pool_id,
        "variant": pool.variant,
        "containers": pool.containers,
        "waiting": pool.waiting,
        "running": pool.running,
        "now": pool.why,
        "notice": pool.notice,
        "decisions": [
            {
                "at": datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds"),
                "decision": decision,
            }
            for at, decision in pool.decisions[:lines]
        ],
    }


def _autoscaler(name: str, changes: dict[str, Any], as_json: bool) -> None:
    function = _function(name)
    given = {setting: value for setting, value in changes.items() if value is not None}
    settings = function.update_autoscaler(**given) if given else function.get_current_stats().settings
    if as_json:
        say_json({"function": name, **settings.model_dump()})
    else:
        say(f"{name}: {_shown(settings.model_dump())}")


def _shown(settings: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {'as many as fit' if value is None else format(value, 'g')}"
        for name, value in settings.items()
    )


def _split(text: str) -> tuple[str, str]:
    app_name, separator, name = text.partition("/")
    if not separator or not name:
        raise InvalidError(f"{text!r:.70} names no function", "give it as APP/FUNCTION, as in shop/price")
    return app_name, name


def _function(text: str) -> Function[..., Any]:
    app_name, name = _split(text)
    connected = backend.connect(join=True)
    interface = connected.find(app_name, name, None)[2]
    if interface is not None:
        raise NotFoundError(
            f"{text} is a class, with a pool for each set of parameters",
            f'use flexray.Cls.from_name("{app_name}", "{name}")(...).get_current_stats() in a program',
        )
    return Function.from_name(app_name, name)
