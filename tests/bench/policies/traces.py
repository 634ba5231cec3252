"""The fourteen traces: what people ask of serverless functions, from one input in minutes to 10,000 at once.

One rule: they were chosen by kind, before any policy was run on them, and are drawn from a seed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator

from tests.bench.policies.simulator import Input, Trace

QUIET_S = 120.0
"""Nothing arrives so long at the end of every trace, so that what a policy keeps is paid for."""

Draw = Callable[[], float]


def traces(seed: int) -> list[Trace]:
    """All of them, drawn from this seed."""
    return [make(random.Random(f"{make.__name__} {seed}")) for make in ALL]


def steady_low(rng: random.Random) -> Trace:
    """One input in two seconds, 0.4 s each."""
    return _trace("steady low", _poisson(rng, lambda _: 0.5, 900.0, 0.5), _exponential(rng, 0.4), 900.0)


def steady_high(rng: random.Random) -> Trace:
    """Twenty slots busy on average."""
    return _trace("steady high", _poisson(rng, lambda _: 40.0, 400.0, 40.0), _exponential(rng, 0.5), 400.0)


def on_off(rng: random.Random) -> Trace:
    """Half a minute of 20 inputs a second, then half a minute of nothing."""
    arrivals = _poisson(rng, lambda t: 20.0 if t % 60.0 < 30.0 else 0.0, 600.0, 20.0)
    return _trace("on/off", arrivals, _exponential(rng, 0.3), 600.0)


def diurnal(rng: random.Random) -> Trace:
    """Twenty minutes stand for a day: from nothing to 20 a second and back."""
    rate = lambda t: 10.0 * (1.0 - math.cos(2.0 * math.pi * t / 1200.0))  # noqa: E731
    return _trace("diurnal", _poisson(rng, rate, 1200.0, 20.0), _lognormal(rng, 0.4, 0.7), 1200.0)


def spike(rng: random.Random) -> Trace:
    """Twice 10,000 inputs of 10 ms at once."""
    arrivals = [at for at in (5.0, 305.0) for _ in range(10_000)]
    return _trace("spike of tiny inputs", arrivals, lambda: 0.010, 400.0)


def long_map(rng: random.Random) -> Trace:
    """A hundred inputs of 60 s at once."""
    return _trace("100 of 60 s", [5.0] * 100, lambda: 60.0 * rng.uniform(0.9, 1.1), 100.0)


def sparse(rng: random.Random) -> Trace:
    """An input in two minutes."""
    return _trace("sparse", _poisson(rng, lambda _: 1 / 120, 7200.0, 1 / 120), _exponential(rng, 1.0), 7200.0)


def cron(rng: random.Random) -> Trace:
    """Twenty inputs every five minutes, which nobody has declared."""
    arrivals = [300.0 * turn + 2.0 for turn in range(12) for _ in range(20)]
    return _trace("cron-like", arrivals, _exponential(rng, 2.0), 3600.0)


def heavy_tailed(rng: random.Random) -> Trace:
    """Five a second, Pareto with an exponent of 1.5: most take 0.3 s, some minutes."""
    service = lambda: min(300.0, 0.3 * rng.paretovariate(1.5))  # noqa: E731
    return _trace("heavy-tailed", _poisson(rng, lambda _: 5.0, 600.0, 5.0), service, 600.0)


def gpu(rng: random.Random) -> Trace:
    """Containers that take 40 s to start; minutes with two inputs a second, and minutes with few."""
    rate = lambda t: 2.0 if t % 600.0 < 300.0 else 0.05  # noqa: E731
    arrivals = _poisson(rng, rate, 2400.0, 2.0)
    return _trace("slow-starting GPU", arrivals, _lognormal(rng, 2.0, 0.5), 2400.0, cold_start_s=40.0)


def concurrent(rng: random.Random) -> Trace:
    """Ten slots a container, forty inputs a second in waves."""
    rate = lambda t: 40.0 * (1.0 + 0.5 * math.sin(2.0 * math.pi * t / 120.0))  # noqa: E731
    return _trace("concurrent", _poisson(rng, rate, 480.0, 60.0), _exponential(rng, 1.0), 480.0, slots=10)


def self_similar(rng: random.Random) -> Trace:
    """Thirty sources that are on and off for Pareto times (exponent 1.4): bursts on every scale."""
    arrivals = [at for _ in range(30) for at in _source(rng, 900.0)]
    return _trace("self-similar", sorted(arrivals), _exponential(rng, 0.3), 900.0)


def interactive(rng: random.Random) -> Trace:
    """Somebody maps fifty inputs of half a second, looks at the results for 6 to 30 s, and maps again."""
    arrivals, at = [], 2.0
    while at < 900.0:
        arrivals += [at] * 50
        at += 1.0 + rng.uniform(6.0, 30.0)
    return _trace("interactive maps", arrivals, _exponential(rng, 0.5), 900.0)


def flash_crowd(rng: random.Random) -> Trace:
    """Two inputs a second; from one second to the next thirty, for two minutes."""
    rate = lambda t: 30.0 if 240.0 <= t < 360.0 else 2.0  # noqa: E731
    return _trace("flash crowd", _poisson(rng, rate, 600.0, 30.0), _exponential(rng, 0.5), 600.0)


ALL: tuple[Callable[[random.Random], Trace], ...] = (
    steady_low,
    steady_high,
    on_off,
    diurnal,
    spike,
    long_map,
    sparse,
    cron,
    heavy_tailed,
    gpu,
    concurrent,
    self_similar,
    interactive,
    flash_crowd,
)


def _trace(
    name: str,
    arrivals: Iterable[float],
    service: Draw,
    until_s: float,
    *,
    cold_start_s: float = 1.5,
    slots: int = 1,
) -> Trace:
    inputs = [Input(at, service()) for at in arrivals]
    return Trace(name, inputs, until_s + QUIET_S, cold_start_s, slots)


def _poisson(rng: random.Random, rate: Callable[[float], float], until_s: float, most: float) -> list[float]:
    """Arrivals of a Poisson process whose rate never exceeds `most` (thinning)."""
    arrivals, at = [], rng.expovariate(most)
    while at < until_s:
        if rng.random() * most < rate(at):
            arrivals.append(at)
        at += rng.expovariate(most)
    return arrivals


def _source(rng: random.Random, until_s: float) -> Iterator[float]:
    """Arrivals of one source that is on for 4 s in the mean and off for 20 s."""
    at = rng.uniform(0.0, 20.0)
    while at < until_s:
        ends = at + 4.0 * (0.4 / 1.4) * rng.paretovariate(1.4)
        while at < min(ends, until_s):
            yield at
            at += rng.expovariate(3.0)
        at = ends + 20.0 * (0.4 / 1.4) * rng.paretovariate(1.4)


def _exponential(rng: random.Random, mean_s: float) -> Draw:
    return lambda: rng.expovariate(1.0 / mean_s)


def _lognormal(rng: random.Random, mean_s: float, sigma: float) -> Draw:
    return lambda: rng.lognormvariate(math.log(mean_s) - sigma * sigma / 2.0, sigma)
