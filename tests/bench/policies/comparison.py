"""Every policy on every trace, and what follows: regrets, and who is better in waiting and in cost.

The regret of a policy on a trace is its price J over the best J that any policy reached there; the mean over
traces is geometric. J is container-seconds plus `v` times the seconds that inputs waited.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench.policies.ours import Ours
from tests.bench.policies.peers.beta9 import Beta9
from tests.bench.policies.peers.dask import Dask
from tests.bench.policies.peers.knative import Knative
from tests.bench.policies.peers.one_per_input import OnePerInput
from tests.bench.policies.peers.serve import Serve
from tests.bench.policies.simulator import Outcome, Policy, Simulation, Trace
from tests.bench.policies.traces import traces

VALUES = (1.0, 10.0, 30.0, 100.0)
"""What a second of waiting may be worth, in container-seconds."""

PEERS: tuple[Callable[[], Policy], ...] = (
    lambda: OnePerInput(60.0),
    lambda: OnePerInput(10.0),
    lambda: OnePerInput(3.0),
    Knative,
    lambda: Serve(tuned=False),
    lambda: Serve(tuned=True),
    Beta9,
    Dask,
)


@dataclass(frozen=True)
class Figures:
    """What one policy made of one trace: means over the seeds."""

    trace: str
    policy: str
    p50_s: float
    p99_s: float
    mean_wait_s: float
    container_s: float
    launches: float
    waited_s: float

    def price(self, value_of_waiting: float) -> float:
        return self.container_s + value_of_waiting * self.waited_s


Table = dict[str, dict[str, Figures]]
"""By trace, then by policy, in the order in which they are shown."""


def compare(seeds: Iterable[int], say: Callable[[str], None], peers_file: Path | None = None) -> Table:
    """Run all policies on all traces; `peers_file` keeps the peers' figures for the next time."""
    known = _read(peers_file)
    table: Table = {}
    of_seeds = [traces(seed) for seed in seeds]
    for same in zip(*of_seeds, strict=True):
        name = same[0].name
        say(f"{name} ...")
        rows = {Ours.name: figures(Ours, same)}
        rows |= known.get(name) or {row.policy: row for row in (figures(make, same) for make in PEERS)}
        table[name] = rows
    _write(peers_file, table)
    return table


def figures(make: Callable[..., Policy], same: Sequence[Trace]) -> Figures:
    """One policy on one trace, drawn from several seeds."""
    outcomes, name = [], ""
    for seed, trace in enumerate(same):  # Cold starts are drawn from another seed than inputs.
        policy = make(trace) if make is Ours else make()
        name = policy.name
        outcomes.append(Simulation(trace, policy, seed).run())
    return _mean(same[0].name, name, outcomes)


def _mean(trace: str, policy: str, outcomes: Sequence[Outcome]) -> Figures:
    def mean(of: Callable[[Outcome], float]) -> float:
        return sum(map(of, outcomes)) / len(outcomes)

    return Figures(
        trace,
        policy,
        p50_s=mean(lambda outcome: outcome.wait_s(0.50)),
        p99_s=mean(lambda outcome: outcome.wait_s(0.99)),
        mean_wait_s=mean(lambda outcome: outcome.mean_wait_s),
        container_s=mean(lambda outcome: outcome.container_s),
        launches=mean(lambda outcome: outcome.launches),
        waited_s=mean(lambda outcome: outcome.waited_s),
    )


def policies(table: Table) -> list[str]:
    """Their names, ours first."""
    return list(next(iter(table.values())))


def regret_on(rows: dict[str, Figures], policy: str, value: float) -> float:
    """The policy's J on this trace over the best of all."""
    return rows[policy].price(value) / min(row.price(value) for row in rows.values())


def mean_regret(table: Table, policy: str, value: float) -> float:
    """The geometric mean over the traces."""
    logs = [math.log(regret_on(rows, policy, value)) for rows in table.values()]
    return math.exp(sum(logs) / len(logs))


def better_in_both(table: Table) -> list[tuple[str, str]]:
    """(trace, peer) where the peer's inputs wait less and its containers cost less than ours."""
    return [
        (trace, row.policy)
        for trace, rows in table.items()
        for row in rows.values()
        if row.waited_s < rows[Ours.name].waited_s and row.container_s < rows[Ours.name].container_s
    ]


def _read(path: Path | None) -> Table:
    if path is None or not path.exists():
        return {}
    rows = [Figures(**row) for row in json.loads(path.read_text())]
    table: Table = {}
    for row in rows:
        table.setdefault(row.trace, {})[row.policy] = row
    return table


def _write(path: Path | None, table: Table) -> None:
    if path is not None:
        rows = [asdict(row) for rows in table.values() for row in rows.values() if row.policy != Ours.name]
        path.write_text(json.dumps(rows))
