"""Which pools give up idle containers, for others that Ray has no room for.

One rule: only what would help is given up: a container that has every resource that the other pool waits for.
How many, and from whom, is decided by `core.sharing`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from flexray.config import Resources
from flexray.core.ledger import State
from flexray.core.sharing import PoolNeed, share
from flexray.runtime.poolhost import PoolHost

NO_ROOM_S = 1.0
"""Ray has not placed a launch for so long: there is no room for it."""


def give_ups(hosts: Sequence[PoolHost]) -> dict[str, int]:
    """Idle containers to stop now, by pool."""
    found: dict[str, int] = {}
    for host in hosts:
        if not _lacks_room(host):
            continue
        wanted = _kinds(host.spec.config.resources)
        others = [
            other for other in hosts if other is not host and wanted <= _kinds(other.spec.config.resources)
        ]
        needs = [_need(host), *(_need(other) for other in others)]
        # What was given up a moment ago is on its way: launches that wait come first for that.
        leaving = sum(other.pool.ledger.count(State.STOPPING) for other in others)
        for pool_id, count in share(needs, room=0, unplaced=leaving).give_ups.items():
            found[pool_id] = max(found.get(pool_id, 0), count)
    return found


def _lacks_room(host: PoolHost) -> bool:
    oldest = next(iter(host.pool.ledger.by_state[State.LAUNCHED].values()), None)
    waits = oldest is not None and time.monotonic() - oldest.launched_at > NO_ROOM_S
    return waits and bool(host.pool.callers.demand)


def _need(host: PoolHost) -> PoolNeed:
    """Its launches without a place are what it misses."""
    need = host.pool.scaling.need(host.spec.pool_id, time.monotonic())
    unplaced = host.pool.ledger.count(State.LAUNCHED)
    return PoolNeed(need.pool_id, need.want, need.live - unplaced, need.waited_s, need.spare)


def _kinds(resources: Resources) -> set[str]:
    """The kinds of resources that a container of it holds."""
    kinds = {name for name, amount in resources.resources.items() if amount}
    if resources.cpu:
        kinds.add("CPU")
    if resources.gpu or resources.num_gpus:
        kinds.add("GPU")
    return kinds
