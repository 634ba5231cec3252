"""How many containers a pool should have, and why.

One rule: start a container only when the backlog would otherwise outlive its cold start.

The policy minimises container-seconds plus `VALUE_OF_WAITING` times the seconds that inputs wait; the user's
settings are hard bounds around it. With u slots per container, service time S and cold start C:

    tau  = max(0.02, sqrt(2 (C + T) S / v) - S) within which, after a cold start, all of a backlog is to begin
    m(t) = max(0, t/S - (1 - cv2)/2)            further inputs that a slot picks up in t seconds
    N(t) = min(busy t/S, t/L) + sum over starts u (1 + m(t - max(C - age, 0.1 C)))
    E    = Q + lam (C + tau) - N(C + tau)       inputs that today's containers will not have started by then
    extra = ceil(E / (u (1 + tau/S)))           where anything waits and E > 0

Q are the inputs that wait and those of running maps that are to come. With k inputs one after the other in
each of Q/k slots, the last begins (k - 1) S after the first, the waits cost v Q (k - 1) S/2 and the slots
Q/k (C + T): least at k S = sqrt(2 (C + T) S / v), whence tau.

How long each busy slot has been running is not known here. A slot met at a random moment is in equilibrium:
its input has S (1 + cv2)/2 left on average and is over within t with the chance F(t), the integral of
P(service > x)/S over 0..t; further inputs follow for the rest of t. Together these are t/S, exactly and for
every distribution (the renewal theorem). It is too hopeful where long inputs follow short ones. So where
nothing has ended for L seconds though something waited, longer than two service times and a cold start, the
next end is taken to be as far away as the last, and S to be what has run over what has ended.

Square-root staffing is from Borst, Mandelbaum and Reiman, Operations Research 52(1), 2004.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from itertools import islice, pairwise
from typing import Any

from flexray.config import AutoscalerSettings
from flexray.core.facts import Decision as Decision
from flexray.core.facts import Facts as Facts
from flexray.core.facts import Reason as Reason
from flexray.core.facts import Rule as Rule
from flexray.core.idling import SHORTEST_IDLE_S

VALUE_OF_WAITING = 30.0
"""Container-seconds that one second of one input's wait is worth (v)."""
GIVE_UP_AFTER = 10
"""Failed starts in a row, none ever ready, after which the waiting inputs fail with the start error."""
UNPLACED_MAX = 8
"""Containers per pool that Ray has been asked for and cannot place."""
AGES_MAX = 32
"""Ages of starts that one decision looks at."""
SHORTEST_DRAIN_S = 0.02
RAMP_FIRST = 128
RAMP_DOUBLING_S = 1.0
SHORTEST_SERVICE_S = 1e-6


def decide(facts: Facts) -> Decision:
    """Return the number of containers wanted now and the rule that set it.

    The largest of these wins, the first of equals; then the maximum bounds it:

    | rule | containers | applies |
    |---|---|---|
    | backlog | ready + starting + extra | active; extra only while something waits |
    | hold | ceil((a + y sqrt(a)) / u), at least 1 | active; above 1 only while something waits |
    | prewarm | those for the next tick | a declared schedule fires within a cold start |
    | buffer | those that the load occupies + buffer_containers | active, buffer_containers > 0 |
    | replace | ready + those of an earlier version that are to be replaced | after a deploy |
    | minimum | min_containers | always |

    Hold starts nothing while nothing waits, and keeps one that is there: a container that nobody needed for a
    whole window, or that was given up for another pool, would come back at once.
    Stale starts occupy room without being supply, so the last three rules count beyond them.
    """
    settings = facts.settings
    active = facts.active or facts.demand > 0 or facts.assigned > 0
    lost = _starts_lost(facts)
    target, rule, level = settings.min_containers + lost, Rule.MINIMUM, settings.min_containers
    if not settings.min_containers:
        target, rule = 0, Rule.INACTIVE
    if active:
        candidates = [_by_backlog(facts, lost)]
        if not facts.single_use:
            live = facts.ready + facts.starting + facts.unplaced
            hold = hold_containers(facts) if facts.demand else min(1, live)
            candidates.append((hold + lost, Rule.HOLD if hold > 1 else Rule.ONE, hold))
        if settings.buffer_containers:
            candidates.append((_with_buffer(facts) + lost, Rule.BUFFER, settings.buffer_containers))
        if settings.min_containers:
            candidates.append((target, Rule.MINIMUM, settings.min_containers))
        target, rule, level = max(candidates, key=lambda candidate: candidate[0])
    if facts.prewarmed + lost > target and facts.prewarmed:
        target, rule, level = facts.prewarmed + lost, Rule.PREWARM, facts.prewarmed
    if facts.replacing and facts.ready + facts.replacing + lost > target:
        target, rule, level = facts.ready + facts.replacing + lost, Rule.REPLACE, 0
    withdrawn = 0
    if settings.max_containers is not None and target > settings.max_containers:
        withdrawn = min(lost, target - settings.max_containers, facts.starting // 2)
        target, rule, level = settings.max_containers, Rule.MAXIMUM, settings.max_containers
    return Decision(target, _reason(facts, target, rule, level), withdrawn)


def starts_now(facts: Facts, target: int) -> int:
    """Return how many launches may begin towards `target`: one at a time after a failed start.

    When that one may begin is `start_backoff_s` after the failure.
    """
    missing = max(0, target - facts.ready - facts.starting - facts.unplaced)
    if facts.failed_starts == 0:
        return missing
    return min(missing, 0 if facts.starting + facts.unplaced else 1)


def start_backoff_s(failed_starts: int) -> float:
    """Return the seconds to wait after this many failed starts in a row: 0, 1, 2, 4, 8, 16, 30, 30..."""
    if failed_starts <= 0:
        return 0.0
    return min(30.0, 0.5 * 2.0 ** min(failed_starts, GIVE_UP_AFTER))


def idle_limit_s(facts: Facts, idle: int) -> float | None:
    """Return how long the least recently used of `idle` idle containers may stay idle; None: it stays.

    The first rule that applies:

    | case | seconds |
    |---|---|
    | more ready than max_containers | 0 |
    | no more ready than min_containers, or than a near tick needs | stays |
    | active and no more idle than buffer_containers | stays |
    | the last one, where the window was learned to be too long | what was learned, in 2 s..window |
    | the last one, while active | stays |
    | substantially overprovisioned: ready > max(min, hold, 1) | T, learned, in 2 s..window |
    | otherwise, and so for the last container | the window |
    """
    settings = facts.settings
    if settings.max_containers is not None and facts.ready > settings.max_containers:
        return 0.0
    if facts.ready <= max(settings.min_containers, facts.prewarmed):
        return None
    active = facts.active or not _is_idle(facts)
    if active and idle <= settings.buffer_containers:
        return None
    if facts.ready == 1 and facts.last_tail_s is not None and _is_idle(facts):
        return early_idle_s(settings, facts.last_tail_s)
    if active and facts.ready == 1:
        return None
    if facts.ready > max(settings.min_containers, hold_containers(facts), 1):
        return early_idle_s(settings, facts.idle_tail_s)
    return settings.scaledown_window


def early_idle_s(settings: AutoscalerSettings, seconds: float) -> float:
    """Return `seconds`, but at least two and at most the window."""
    return min(settings.scaledown_window, max(SHORTEST_IDLE_S, seconds))


def _is_idle(facts: Facts) -> bool:
    return not (facts.demand or facts.assigned)


def hold_containers(facts: Facts) -> int:
    """Return the containers that the sustained load needs so that few inputs wait (square-root staffing).

    Slots that are busy while nothing arrives work off a backlog, which is no load that lasts.
    """
    load = facts.occupancy if facts.arrival_rate > 0.0 else 0.0
    return math.ceil((load + STAFFING * math.sqrt(load)) / facts.slots) if load > 0.0 else 0


def sample(values: Collection[Any]) -> list[Any]:
    """Return at most 32 of these values, evenly chosen, in their order, the first among them."""
    step = -(-len(values) // AGES_MAX) or 1
    return list(islice(values, 0, None, step))


def staffing(value_of_waiting: float) -> float:
    """Return y, the safety factor of square-root staffing: linear in log v between tabled points."""
    table = ((1.0, 0.89), (10.0, 1.68), (30.0, 1.84), (100.0, 2.32))
    v = min(max(value_of_waiting, table[0][0]), table[-1][0])
    for (v0, y0), (v1, y1) in pairwise(table):
        if v <= v1:
            return y0 + (y1 - y0) * math.log(v / v0) / math.log(v1 / v0)
    return table[-1][1]


STAFFING = staffing(VALUE_OF_WAITING)


def _by_backlog(facts: Facts, lost: int) -> tuple[int, Rule, int]:
    """Today's containers and what the backlog needs beyond them; those of an earlier version serve, too."""
    live = facts.ready + facts.starting
    base = max(live, facts.ready + facts.replacing)
    if facts.demand == 0:
        return live, Rule.QUIET, 0
    if facts.service_s is None:
        wanted = math.ceil(_backlog_slots(facts) / facts.slots) - (facts.starting - lost)
        return (base + wanted, Rule.FIRST, 0) if wanted > 0 else (live, Rule.SOON, 0)
    drain_s = _drain_target_s(facts)
    until_s = facts.cold_start_s + drain_s
    excess = facts.demand + facts.held_back + facts.arrival_rate * until_s - _supply(facts, until_s, lost)
    if excess <= 1e-9:  # Not 0: rounding must not start a container.
        return live, Rule.SOON, 0
    extra = math.ceil(excess / (facts.slots * _per_slot(facts)))
    if facts.stalled_s:  # No more than where nothing at all is known.
        extra = min(extra, max(0, _ramp(facts.stalled_s) - (facts.starting - lost)))
    return base + extra, Rule.BACKLOG, 0


def _with_buffer(facts: Facts) -> int:
    """The containers that the load occupies, and the buffer beyond them."""
    return (
        math.ceil((_backlog_slots(facts) + facts.assigned) / facts.slots) + facts.settings.buffer_containers
    )


def _backlog_slots(facts: Facts) -> float:
    """Slots that the backlog deserves: one per long input, fewer where a slot takes several in time.

    Before anything has finished every input may be long, so it is one per input. It may as well be 10,000
    inputs of a millisecond, so at most 128 containers start at once, and twice as many after each second.
    """
    if facts.service_s is None:
        return min(facts.demand + facts.held_back, _ramp(facts.waited_s) * facts.slots)
    return (facts.demand + facts.held_back) / _per_slot(facts)


def _ramp(seconds: float) -> int:
    """Containers that may be started after so long by who does not know how long inputs take."""
    return int(RAMP_FIRST * 2.0 ** min(max(0.0, seconds) / RAMP_DOUBLING_S, 20.0))


def _per_slot(facts: Facts) -> float:
    """Inputs that a slot begins from the end of its cold start to tau: k of the module's formulas."""
    return 1.0 + _drain_target_s(facts) / max(facts.service_s or 0.0, SHORTEST_SERVICE_S)


def _drain_target_s(facts: Facts) -> float:
    """Return tau of the module's formulas."""
    price_s = facts.cold_start_s + facts.idle_tail_s
    service_s = facts.service_s or 0.0
    return max(SHORTEST_DRAIN_S, math.sqrt(2.0 * price_s * service_s / VALUE_OF_WAITING) - service_s)


def _more(facts: Facts, seconds: float) -> float:
    """Return m of the module's formulas."""
    service_s = max(facts.service_s or 0.0, SHORTEST_SERVICE_S)
    return max(0.0, seconds / service_s - _first_loss(facts))


def _first_loss(facts: Facts) -> float:
    """What regular service times take from m: up to half an input."""
    return 0.0 if facts.service_cv2 is None else (1.0 - min(1.0, facts.service_cv2)) / 2.0


def _supply(facts: Facts, until_s: float, lost: int) -> float:
    """Inputs that today's containers will have started within `until_s` (N of the module's formulas)."""
    service_s = max(facts.service_s or 0.0, SHORTEST_SERVICE_S)
    busy = _ends_per_s(facts) * until_s
    if not facts.starting:
        return busy
    cold_s, soonest_s, first_loss = facts.cold_start_s, 0.1 * facts.cold_start_s, _first_loss(facts)
    stale_after_s = _stale_after_s(facts)
    ages = facts.starting_ages or (0.0,)
    supply = 0.0
    fresh = 0
    for age in ages:
        if age <= stale_after_s:
            fresh += 1
            wait_s = cold_s - age
            more = (until_s - (max(soonest_s, wait_s))) / service_s - first_loss
            supply += 1.0 + more if more > 0.0 else 1.0
    forgiven = facts.starting - lost - fresh * facts.starting / len(ages)
    supply = supply * facts.starting / len(ages) + max(0.0, forgiven) * (
        1.0 + _more(facts, until_s - soonest_s)
    )
    return busy + facts.slots * supply


def _ends_per_s(facts: Facts) -> float:
    """How many inputs the busy slots end per second, each followed by another."""
    ends_per_s = facts.assigned / max(facts.service_s or 0.0, SHORTEST_SERVICE_S)
    return min(ends_per_s, 1.0 / facts.stalled_s) if facts.stalled_s else ends_per_s


def _stale_after_s(facts: Facts) -> float:
    return 3.0 * facts.cold_start_s if facts.stale_after_s is None else facts.stale_after_s


def _starts_lost(facts: Facts) -> int:
    """Starts that no longer count as supply: the stale ones, but never more than half of all, rounded up.

    Where everything starts slowly, replacements are slow too: so the starts at most double.
    """
    ages = facts.starting_ages
    if not facts.starting or not ages:
        return 0
    stale_after_s = _stale_after_s(facts)
    if max(ages) <= stale_after_s:
        return 0
    stale = sum([age > stale_after_s for age in ages])
    return min(math.ceil(stale * facts.starting / len(ages)), -(-facts.starting // 2))


def _reason(facts: Facts, target: int, rule: Rule, level: int) -> Reason:
    gone_in_s = None
    if facts.demand and facts.service_s is not None:
        started_per_s = facts.slots * facts.starting / max(facts.service_s, SHORTEST_SERVICE_S)
        ends_per_s = _ends_per_s(facts) + started_per_s
        if ends_per_s:
            gone_in_s = (facts.demand + facts.held_back) / ends_per_s
            if started_per_s and (facts.stalled_s or not facts.assigned):
                gone_in_s += facts.cold_start_s
    window_s = facts.settings.scaledown_window
    return Reason(
        rule=rule,
        before=facts.ready + facts.starting + facts.unplaced,
        target=target,
        waiting=facts.demand,
        level=level,
        gone_in_s=gone_in_s,
        ready_in_s=facts.cold_start_s,
        failed_starts=facts.failed_starts,
        short_window_s=window_s if window_s < facts.cold_start_s else None,
    )
