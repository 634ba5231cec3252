# ruff: noqa: T201 - the trace is the output.
"""Replays one seed with a readable trace: `python -m tests.sim SEED [KIND] [--from S] [--to S]`."""

from __future__ import annotations

import argparse
import sys

from tests.sim.play import play
from tests.sim.scenarios import KINDS, scenario


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("kind", nargs="?", choices=KINDS, help="the seed's own if left out")
    parser.add_argument(
        "--from", dest="from_s", type=float, default=0.0, metavar="S", help="trace from this time"
    )
    parser.add_argument(
        "--to", dest="to_s", type=float, default=float("inf"), metavar="S", help="trace to this time"
    )
    options = parser.parse_args()
    played = scenario(options.seed, options.kind)

    def trace(now: float, line: str) -> None:
        if options.from_s <= now <= options.to_s:
            print(f"{now:10.4f}  {line}")

    print(played)
    try:
        world = play(played, trace)
    except Exception as error:
        print(f"\nseed {played.seed}: {type(error).__name__}: {error}")
        if not isinstance(error, AssertionError):
            raise
        return 1
    print(
        f"\nseed {played.seed}: passed at {world.now:.1f} s, {world.starts} starts, {world.bounces} bounces"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
