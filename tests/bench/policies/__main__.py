"""`python -m tests.bench.policies [--seeds N] [--docs DIR] [--peers FILE]`: compare scaling policies.

It says what is missed; it never fails because of that.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.bench.policies.comparison import compare
from tests.bench.policies.page import page
from tests.bench.policies.plot import draw
from tests.bench.policies.reach import all_reached
from tests.bench.policies.report import goals, printed

FIRST_SEED = 100
"""The policy was written with lower seeds in sight; these were drawn when it was done."""


def main() -> None:
    options = _options()
    table = compare(range(FIRST_SEED, FIRST_SEED + options.seeds), _say, options.peers)
    found = goals(table, all_reached(table))
    printed(table, found, _say)
    if options.docs.is_dir():
        (options.docs / "policies.md").write_text(page(table, found, options.seeds))
        draw(table, options.docs / "policies.png")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.policies", description=__doc__)
    parser.add_argument("--seeds", type=int, default=6, help="draws of every trace")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where the page and its plot go")
    parser.add_argument("--peers", type=Path, help="keeps the peers' figures, which do not change, over runs")
    return parser.parse_args()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
