"""What batching buys: 1,176 double pendulums are let go, one at a time and then in batches.

    flexray run examples/batching.py

A step of NumPy takes almost as long for one pendulum as for 64: a batch costs little more than one of them.
The picture shows which of them turn over, and how soon.
"""

import time
from collections import Counter
from itertools import product
from typing import Any

import numpy as np

import flexray

COLUMNS, ROWS = 56, 21
GRAVITY, STEP_S, LAST_S = 9.81, 0.025, 5.0
SHADES = "█▓▒░ "

Angles = tuple[float, float]

app = flexray.App("batching")


def change(state: np.ndarray) -> np.ndarray:
    """The derivative of (upper angle, lower angle, and how fast they turn), for all pendulums at once."""
    a, b, fast_a, fast_b = state
    sine, cosine = np.sin(a - b), np.cos(a - b)
    pull = 3 - np.cos(2 * (a - b))
    lower = 2 * sine * (2 * fast_a**2 + 2 * GRAVITY * np.cos(a) + fast_b**2 * cosine)
    upper = -GRAVITY * (3 * np.sin(a) + np.sin(a - 2 * b)) - 2 * sine * (fast_b**2 + fast_a**2 * cosine)
    return np.array([fast_a, fast_b, upper / pull, lower / pull])


# A caller passes two numbers and gets one answer; here they arrive as two lists of up to 64.
@app.function(cpu=0.5, max_containers=1, scaledown_window=2, env={"OPENBLAS_NUM_THREADS": "1"})
@flexray.batched(max_batch_size=64, wait_ms=100)
def swing(upper: list[float], lower: list[float]) -> list[tuple[float, int]]:
    """For each of them, after how many seconds it turns over, and how many there were in its batch."""
    state = np.array([upper, lower, np.zeros(len(upper)), np.zeros(len(upper))])
    turned_s = np.full(len(upper), np.inf)
    for at_s in np.arange(STEP_S, LAST_S, STEP_S):
        one = change(state)
        two = change(state + one * STEP_S / 2)
        three = change(state + two * STEP_S / 2)
        four = change(state + three * STEP_S)
        state = state + (one + 2 * two + 2 * three + four) * STEP_S / 6
        turned_s[(np.abs(state[:2]) > np.pi).any(axis=0) & np.isinf(turned_s)] = at_s
    return [(float(turned), len(upper)) for turned in turned_s]


def measure(
    title: str, function: flexray.Function[..., Any], pendulums: list[Angles]
) -> tuple[list[float], float]:
    """When they turned over, and how many of them were computed in a second."""
    function.remote(0.0, 0.0)  # Now a container is up.
    began_at = time.perf_counter()
    answers = list(function.starmap(pendulums))
    rate = len(pendulums) / (time.perf_counter() - began_at)
    sizes = Counter(size for _, size in answers)
    batches = " + ".join(f"{count // size} x {size}" for size, count in sorted(sizes.items(), reverse=True))
    print(f"  {title:<14}{len(pendulums):>6,} pendulums{rate:7,.0f} a second   batches: {batches}")
    return [turned_s for turned_s, _ in answers], rate


def draw(turned: list[float]) -> None:
    for first in range(0, len(turned), COLUMNS):
        shades = [int(min(turned_s / LAST_S, 1) * (len(SHADES) - 1)) for turned_s in turned[first:][:COLUMNS]]
        print(" ", "".join(SHADES[shade] for shade in shades))


@app.local_entrypoint()
def main() -> None:
    across, down = np.linspace(-3.1, 3.1, COLUMNS).tolist(), np.linspace(-3.1, 3.1, ROWS).tolist()
    pendulums = [(upper, lower) for lower, upper in product(down, across)]
    _, single = measure(
        "one at a time", swing.with_batching(max_batch_size=1, wait_ms=0), pendulums[:COLUMNS]
    )
    turned, batched = measure("up to 64", swing, pendulums)
    print(f"\nIn batches, one container computes {batched / single:.0f} times as many.\n")
    draw(turned)
    print(f"\n  across: the upper arm's angle, down: the lower arm's; {SHADES[0]} turns over at once,")
    print(f"  {SHADES[-2]} within {LAST_S:.0f} s, blank not at all: it has not the energy, or takes its time")


if __name__ == "__main__":
    with app.run():
        main()
