"""`flexray call`: look at spawned calls, fetch their results, cancel them.

One rule: it asks a cluster that is there, and never starts one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flexray import backend
from flexray.call import FunctionCall
from flexray.cli.printing import AsJson, ago, say, say_json, table
from flexray.errors import ExecutionError

if TYPE_CHECKING:
    from flexray.core.status import CallInfo

app = typer.Typer(help="Spawned calls of this cluster.", no_args_is_help=True, rich_markup_mode=None)

CallId = Annotated[str, typer.Argument(metavar="ID", help="As `flexray call list` shows it.")]


@app.command("list")
def list_calls(
    limit: Annotated[int, typer.Option(help="How many, the newest first.", min=1)] = 20,
    as_json: AsJson = False,
) -> Callable[[], None]:
    """Show the newest calls."""
    return lambda: _list(limit, as_json)


@app.command("get")
def get_result(
    call_id: CallId,
    index: Annotated[int, typer.Option(help="Position of the input, from 0.", min=0)] = 0,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds to wait; by default as long as it takes.", min=0)
    ] = None,
    as_json: AsJson = False,
) -> Callable[[], None]:
    """Print the result of one input; fails as the input did."""
    return lambda: _get(FunctionCall.from_id(call_id), index, timeout, as_json)


@app.command("cancel")
def cancel_call(
    call_id: CallId,
    terminate_containers: Annotated[
        bool, typer.Option("--terminate-containers", help="Kill the containers that run it.")
    ] = False,
    as_json: AsJson = False,
) -> Callable[[], None]:
    """End every input of a call that is not over."""
    return lambda: _cancel(FunctionCall.from_id(call_id), terminate_containers, as_json)


def _list(limit: int, as_json: bool) -> None:
    calls: Sequence[CallInfo] = backend.connect(join=True).ask_queue("newest", limit)
    if as_json:
        say_json([_row(call) for call in calls])
        return
    if not calls:
        say("No calls yet: f.spawn(...) makes one.")
        return
    rows = []
    for call in calls:
        row = _row(call)
        counts = f"{call.added:,}", f"{call.done:,}"
        rows.append((call.call_id, call.function, row["app"], *counts, row["state"], ago(call.created_at)))
    columns = ("call", "function", "app", "inputs", "over", "state", "spawned")
    table(columns, rows, right=("inputs", "over"))


def _get(call: FunctionCall[Any], index: int, timeout: float | None, as_json: bool) -> None:
    backend.connect(join=True)
    try:
        result = call.get(timeout=timeout, index=index)
    except TimeoutError as error:
        raise ExecutionError(str(error), "ask again later, or give --timeout more seconds") from None
    if as_json:
        told = {"call": call.object_id, "index": index, "result": result}
        try:
            say(json.dumps(told, default=repr))
        except (TypeError, ValueError):  # Keys that are no text, or a circle.
            say(json.dumps({**told, "result": repr(result)}))
    elif result is not None:
        say(result)


def _cancel(call: FunctionCall[Any], terminate_containers: bool, as_json: bool) -> None:
    before: CallInfo = backend.connect(join=True).ask_queue("info", call.object_id)
    call.cancel(terminate_containers=terminate_containers)
    count = before.added - before.done
    if as_json:
        say(json.dumps({"call": call.object_id, "cancelled": count}))
    else:
        say(f"{count:,} of {before.added:,} inputs were not over and are cancelled")


def _row(call: CallInfo) -> dict[str, Any]:
    return {
        "call": call.call_id,
        "function": call.function,
        "app": call.pool_id.partition("/")[0],
        "inputs": call.added,
        "over": call.done,
        "state": _state(call),
        "spawned_at": datetime.fromtimestamp(call.created_at, UTC).isoformat(timespec="seconds"),
    }


def _state(call: CallInfo) -> str:
    if call.over_at is not None:
        return "over"
    return "open" if call.size is not None else "adding"
