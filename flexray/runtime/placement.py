"""Where a container may run: what a function asks for, in Ray's words, and whether any node has it.

One rule: Ray waits in silence for what no node has, so FlexRay compares by itself and says what is missing.

Nodes are passed in as `ray.nodes()` lists them, with the types of node that may be added beside them
(`nodetypes.py`), so nothing here needs a cluster. Only totals count: what is busy now is free later.

| asked for | Ray's actor options |
|---|---|
| `gpu="any"`, `num_gpus=0.5` | `num_gpus` |
| `gpu="A100:2"` | `num_gpus=2, accelerator_type="A100"`: a node must declare that kind |
| `gpu=["H100", "A100"]` | the same, for the first kind that a node has enough of, else that may be had |
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from flexray.config import Gpu, Resources

Node = Mapping[str, Any]
"""One entry of `ray.nodes()`: Alive, Resources (name to total) and Labels, among others.

A type of node that may be added looks the same and has its name in NodeType; if the cloud has just refused
one, SoldOut is what it said.
"""

MIB = 1024 * 1024

KIND = "accelerator_type:"
"""The prefix of the resource by which a node declares its kind of GPU."""

KIND_SHARE = 0.001
"""What Ray asks of that resource, so that one unit of it serves every actor on the node."""


def actor_options(resources: Resources, nodes: Sequence[Node] = ()) -> dict[str, Any]:
    """The keywords of Ray's `Actor.options(...)` that place one container; those not needed are left out."""
    gpu = gpu_choice(resources, nodes)
    options = {
        "num_cpus": resources.cpu,
        "num_gpus": resources.num_gpus,
        "memory": resources.memory * MIB if resources.memory else None,
        "resources": dict(resources.resources or {}),
        "label_selector": dict(resources.label_selector or {}),
        **(_gpu_options(gpu, nodes) if gpu else {}),
    }
    # 0 CPUs must be said: without it Ray asks for one while the actor starts.
    return {name: value for name, value in options.items() if value or name == "num_cpus"}


def gpu_choice(resources: Resources, nodes: Sequence[Node]) -> Gpu | None:
    """The first GPU asked for that a living node has enough of, else that a type of node has, else the first.

    None if none is asked for. What runs goes before what may be added, and what is sold out comes last.
    """
    alive = _alive(nodes)
    on_sale = [node for node in alive if node.get("SoldOut") is None]
    for candidates in ([node for node in alive if "NodeType" not in node], on_sale, alive):
        for gpu in resources.gpu:
            if any(not _lacking(_gpu_options(gpu, nodes), node) for node in candidates):
                return gpu
    return resources.gpu[0] if resources.gpu else None


def superseded(asked: Gpu, resources: Resources, nodes: Sequence[Node]) -> bool:
    """Whether the GPU that a launch asked for is sold out by now, and another that would do is not."""
    best = gpu_choice(resources, nodes)
    if best is None or best == asked or sold_out(_gpu_options(best, nodes), nodes) is not None:
        return False
    return sold_out(_gpu_options(asked, nodes), nodes) is not None


def hidden_gpus(resources: Resources) -> bool:
    """Whether the container sets `CUDA_VISIBLE_DEVICES=""` before it loads user code, as it asked for no GPU.

    Ray leaves them visible to such actors.
    """
    return not resources.gpu and not resources.num_gpus


def shape(options: Mapping[str, Any]) -> str:
    """What one container asks for, as people read it: `{CPU: 4, GPU: 1, accelerator_type:H100: 0.001}`."""
    return _braced(_wanted(options), options.get("label_selector") or {})


def infeasible(options: Mapping[str, Any], nodes: Sequence[Node]) -> str | None:
    """Why no node can ever hold such a container, with a hint; None if one can.

    Names the shape and the nearest node or type of node: the one that lacks least of what is asked, then the
    largest. Not every cluster tells its types of node, so this is a notice and no refusal.
    """
    alive = _alive(nodes)
    if not alive:
        return f"no node is alive to hold {shape(options)}\n\nhint: see `ray status`"
    nearest = max(alive, key=lambda node: _nearness(options, node))
    lacking = _lacking(options, nearest)
    if not lacking:
        return None
    place = _place(nearest, alive)
    hint = _hint(lacking[0], nearest, alive)
    return f"no node can hold {shape(options)}: {place} has {_shown(options, nearest)}\n\nhint: {hint}"


def sold_out(options: Mapping[str, Any], nodes: Sequence[Node]) -> str | None:
    """What the cloud said, where all nodes that can hold such a container are of types that it refused."""
    able = [node for node in _alive(nodes) if not _lacking(options, node)]
    refused = [node for node in able if node.get("SoldOut") is not None]
    if not refused or len(refused) < len(able):
        return None
    told = next((f": {node['SoldOut']}" for node in refused if node["SoldOut"]), "")
    return f"no {' or '.join(node['NodeType'] for node in refused)} node can be had now{told}"


def _place(nearest: Node, alive: Sequence[Node]) -> str:
    """Which one that is, among how many: `the nearest of 3 nodes`."""
    types = sum("NodeType" in node for node in alive)
    nodes = len(alive) - types
    if not types:
        return "the only node" if nodes == 1 else f"the nearest of {nodes} nodes"
    among = f"{nodes} node{'' if nodes == 1 else 's'} and {types} type{'' if types == 1 else 's'} of node"
    name = nearest.get("NodeType")
    return f"the nearest of {among} that may be added" + (f", {name}," if name else "")


def _gpu_options(gpu: Gpu, nodes: Sequence[Node]) -> dict[str, Any]:
    if gpu.kind == "any":
        return {"num_gpus": gpu.count}
    # Nodes declare kinds as Ray or their owner spelled them, and a user may well write "h100" or "A100-80GB".
    declared = {_folded(kind): kind for node in nodes for kind in _kinds(node)}
    return {"num_gpus": gpu.count, "accelerator_type": declared.get(_folded(gpu.kind), gpu.kind)}


def _folded(kind: str) -> str:
    return kind.upper().removesuffix("B")


def _alive(nodes: Sequence[Node]) -> list[Node]:
    return [node for node in nodes if node["Alive"]]


def _total(node: Node, name: str) -> float:
    return float(node["Resources"].get(name, 0))


def _kinds(node: Node) -> list[str]:
    return [name.removeprefix(KIND) for name in node["Resources"] if name.startswith(KIND)]


def _wanted(options: Mapping[str, Any]) -> dict[str, float]:
    """Ray's resource names to amounts above 0, as its scheduler will see them."""
    kind = options.get("accelerator_type")
    wanted = {
        "CPU": options.get("num_cpus"),
        "GPU": options.get("num_gpus"),
        f"{KIND}{kind}": KIND_SHARE if kind else None,
        "memory": options.get("memory"),
        **options.get("resources", {}),
    }
    return {name: float(amount) for name, amount in wanted.items() if amount}


def _lacking(options: Mapping[str, Any], node: Node) -> list[str]:
    """The resources that the node has too little of, then the labels that do not match."""
    labels = node.get("Labels") or {}
    conditions = options.get("label_selector", {})
    short = [name for name, amount in _wanted(options).items() if _total(node, name) < amount]
    return short + [key for key, condition in conditions.items() if not _matches(labels.get(key), condition)]


def _nearness(options: Mapping[str, Any], node: Node) -> tuple[int, float]:
    shares = [_total(node, name) / amount for name, amount in _wanted(options).items()]
    return -len(_lacking(options, node)), sum(min(share, 1.0) for share in shares)


def _matches(value: str | None, condition: str) -> bool:
    """Whether a label's value meets Ray's condition: `a`, `!a`, `in(a, b)` or `!in(a, b)`."""
    positive = condition.removeprefix("!")
    listed = re.fullmatch(r"in\((.*)\)", positive)
    choices = [choice.strip() for choice in listed[1].split(",")] if listed else [positive]
    return (value in choices) == (positive == condition)


def _hint(lacking: str, nearest: Node, alive: Sequence[Node]) -> str:
    grow = "or add a type of node that has it"
    if lacking.startswith(KIND):
        kinds = sorted({kind for node in alive for kind in _kinds(node)})
        known = (
            f"the cluster's kinds of GPU are {', '.join(kinds)}" if kinds else "no node names its kind of GPU"
        )
        return f'{known}; ask for one that it has, or for gpu="any", {grow}'
    option = {"CPU": "cpu=", "GPU": "gpu=", "memory": "memory="}.get(lacking, repr(lacking))
    has = _total(nearest, lacking)
    return f"ask for {option} up to {_amount(lacking, has)}, {grow}" if has else f"leave out {option}, {grow}"


def _shown(options: Mapping[str, Any], node: Node) -> str:
    """The part of a node's totals and labels that bears on the options."""
    names = ["CPU", "GPU", *(KIND + kind for kind in _kinds(node)), *_wanted(options)]
    asked = options.get("label_selector", {})
    labels = {key: value for key, value in (node.get("Labels") or {}).items() if key in asked}
    return _braced({name: _total(node, name) for name in names}, labels)


def _braced(amounts: Mapping[str, float], labels: Mapping[str, str]) -> str:
    parts = [f"{name}: {_amount(name, amount)}" for name, amount in amounts.items()]
    parts += [f"{key}={value}" for key, value in labels.items()]
    return "{" + ", ".join(parts or ["CPU: 0"]) + "}"


def _amount(name: str, amount: float) -> str:
    if name == "memory":
        return f"{int(amount) // MIB:,} MiB"
    return f"{amount:,.4f}".rstrip("0").rstrip(".")
