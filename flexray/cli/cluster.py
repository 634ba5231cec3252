"""`flexray cluster` and `flexray shutdown`: FlexRay on the cluster as a whole.

One rule: a look starts nothing.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from flexray import backend
from flexray.cli.printing import AsJson, ago, say, say_json, table
from flexray.errors import InvalidError
from flexray.output import is_terminal

app = typer.Typer(help="The cluster as a whole.", no_args_is_help=True, rich_markup_mode=None)

GIB = 1 << 30
NODE_COLUMNS = ("node", "address", "CPU", "GPU", "memory GiB", "containers")


@app.command("status")
def status(as_json: AsJson = False) -> Callable[[], None]:
    """Show nodes with what is free, and what of FlexRay runs."""
    return lambda: _status(as_json)


def shutdown(
    stop_apps: Annotated[
        bool, typer.Option("--stop-apps", help="Stop deployed apps, too, so that they do not come back.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> Callable[[], None]:
    """End everything of FlexRay on the cluster; Ray itself stays.

    What is deployed and spawned is kept on the head node, and goes on when somebody uses FlexRay again.
    """
    return lambda: _shutdown(stop_apps, yes, as_json)


def _status(as_json: bool) -> None:
    view = backend.cluster_view()
    states = Counter(one.state for one in view.containers)
    if as_json:
        say_json(_as_json(view, states))
        return
    _say_controller(view, states)
    say("")
    table(NODE_COLUMNS, node_rows(view), right=NODE_COLUMNS[2:])
    say("\nof CPU, GPU and memory: what is taken, and what there is")


def node_rows(view: Any) -> list[tuple[object, ...]]:
    """A row for each node, with what is taken of what it has."""
    on = Counter(one.node for one in view.containers)
    return [
        (
            f"{node.node_id[:12]}{' (head)' if node.is_head else ''}",
            node.address,
            _used(node, "CPU"),
            _used(node, "GPU"),
            _used(node, "memory", GIB),
            on[node.node_id],
        )
        for node in view.nodes
    ]


def _say_controller(view: Any, states: Counter[str]) -> None:
    if view.controller is None:
        say(f"No controller runs on this cluster (Ray {view.ray_version}): it starts at the first use.")
        return
    one = view.controller
    running = [name for name, there in (("call queue", view.call_queue), ("log store", view.logs)) if there]
    beside = f"; beside it {' and '.join(running)}" if running else ""
    say(f"FlexRay {one.version} on Ray {view.ray_version}; controller started {ago(one.since)}{beside}")
    say(f"apps: {one.deployed} deployed, {one.ephemeral} of a process")
    shown = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    say(f"containers: {shown or 'none'}")
    say(f"inputs: {one.waiting:,} waiting, {one.running:,} running")
    for notice in one.notices:
        say(f"note: {notice}")


def _used(node: Any, resource: str, unit: int = 1) -> str:
    total = node.total.get(resource, 0.0) / unit
    if not total:
        return "-"
    taken = "?" if node.free is None else f"{total - node.free.get(resource, 0.0) / unit:.3g}"
    return f"{taken}/{total:.3g}"


def _as_json(view: Any, states: Counter[str]) -> dict[str, Any]:
    one = view.controller
    return {
        "ray": view.ray_version,
        "controller": None
        if one is None
        else {
            "version": one.version,
            "started_at": datetime.fromtimestamp(one.since, UTC).isoformat(timespec="seconds"),
            "apps_deployed": one.deployed,
            "apps_ephemeral": one.ephemeral,
            "inputs_waiting": one.waiting,
            "inputs_running": one.running,
            "notices": list(one.notices),
        },
        "call_queue": view.call_queue,
        "log_store": view.logs,
        "containers": dict(sorted(states.items())),
        "nodes": [
            {
                "node": node.node_id,
                "address": node.address,
                "head": node.is_head,
                "total": node.total,
                "free": node.free,
            }
            for node in view.nodes
        ],
    }


def _shutdown(stop_apps: bool, yes: bool, as_json: bool) -> None:
    if not yes:
        if not is_terminal(sys.stdin):
            raise InvalidError("shutdown asks before it ends everything, and nobody can answer", "use --yes")
        try:
            agreed = typer.confirm("End every container and the controller of FlexRay on this cluster?")
        except typer.Abort:
            raise KeyboardInterrupt from None
        if not agreed:
            return
    ended = backend.shutdown(stop_apps=stop_apps)
    if as_json:
        say_json({"ended": ended, "apps_stopped": stop_apps})
    elif ended:
        say(f"ended: {ended} actors of FlexRay")
    else:
        say("nothing of FlexRay runs on this cluster")
