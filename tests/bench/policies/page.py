"""The page docs/policies.md: the comparison with what it means, and where our policy loses."""

from __future__ import annotations

from collections.abc import Sequence

from tests.bench.policies.comparison import Table
from tests.bench.policies.reach import Reach
from tests.bench.policies.report import by_trace, goals_table, losses, regrets, regrets_by_trace

PAGE = """# Scaling policies compared

How many containers a function should have is a choice between waiting and cost. This page compares FlexRay's
policy with those of other systems in a simulated pool: the same inputs, the same cold starts, the same
dispatch for all; only the decisions differ. `make policies` runs it and writes this page.

![Waiting against cost, by trace](policies.png)

Each panel is one trace, each mark one policy: to the left is cheaper, further down waits less. On the dotted
line every point has the J of the best policy there, at v = 30.

## What is compared

**J = container-seconds + v times the seconds that inputs waited**, where a container costs from its launch to
its end. FlexRay's policy is built for v = 30. The regret of a policy on a trace is its J over the best J that
any of the policies reached on it; the mean over the {traces} traces is geometric.

{regrets}

FlexRay's row is the shipped code (`flexray/core/scaling.py` and what it calls), at `scaledown_window=60`. The
others are written from their public sources, named in the files of `tests/bench/policies/peers/`:

- *one per input*: a container for each waiting input that none is starting for; idle ones stay 60, 10 or 3 s.
- *Knative KPA*: mean concurrency of 60 s over 70 % of a container's; of 6 s in panic mode; every 2 s.
- *Ray Serve*: mean of ongoing requests over the target per replica. *default*: its default settings (at least
  one replica, up after 30 s, down after 600 s). *tuned*: up at once, down after 30 s, to zero, over 3 s.
- *beta9*: inputs in flight over inputs per container, each second; an idle container stays 10 s.
- *Dask adaptive*: so many workers that all known work takes 5 s; each second, down after three looks.

A cold start takes 1.5 s (GPU: 40 s), give or take a fifth. The cluster holds 1,000 containers and places 500
launches a second. Schedules are not declared. The traces were chosen by kind before any policy was run, and
`tests/bench/policies/traces.py` has them; they are drawn from {seeds} seeds, none of them looked at while
the policy was written.

## What FlexRay's policy must reach

{goals}

## Where it loses

{losses}

What is behind that, as far as it is a choice:

- The policy does not know v of your function. Where a second of waiting is worth far more than 30
  container-seconds, set `buffer_containers` or `min_containers`; where far less, a short `scaledown_window`.
- It learns. The first time that something happens it has neither service times nor cold starts nor gaps to
  go by: the first of several bursts is served worse than the later ones, and most of a short trace is new.
- The last container keeps the window until three idle periods in a row, or twelve in all, have shown that
  this is too long: a function that is called every few minutes pays for that at first.
- It stops idle containers before the window is over where it has learned that the next use is far, and pays
  a cold start when that was wrong.
- With other seeds the figures move by some hundredths. On the first three of the six seeds alone, *one per
  input, 10 s* is ahead on the heavy-tailed trace in waiting and in cost, by 2 % in cost.

The simulation leaves out what is the same for all: messages between processes, nodes that must be started,
images that must be fetched.

## By trace

Regrets at v = 30:

{regrets_by_trace}

All figures; waits in seconds:

{by_trace}
"""


def page(table: Table, found: Sequence[Reach], seeds: int) -> str:
    """The whole page."""
    return PAGE.format(
        traces=len(table),
        seeds=seeds,
        regrets=regrets(table),
        goals=goals_table(found),
        losses=losses(table),
        regrets_by_trace=regrets_by_trace(table),
        by_trace=by_trace(table),
    )
