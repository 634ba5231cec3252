"""`python -m tests.bench [NAME ...] [--repeat N] [--json FILE]`: measure, print the table.

It says by how much a row misses; it never fails because of that.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path

from tests.bench.cluster import private_ray
from tests.bench.measure import Plan, Row
from tests.bench.report import as_json, machine, markdown, table
from tests.bench.suite import BENCHMARKS, WITH_SERVE, WITHOUT_RAY, serve_is_installed


def main() -> None:
    options = _options()
    plan = Plan(options.repeat, options.share)
    load_before = os.getloadavg()[0]
    rows = _measure(options.names or list(BENCHMARKS), plan)
    about = machine()
    _say(f"\n{about['cpu']}, {about['cores']} cores, Python {about['python']}, Ray {about['ray']}")
    _say(f"{plan.repeat} turns, medians; load of the machine before: {load_before:.2f}\n")
    _say(markdown(rows) if options.markdown else table(rows))
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(rows, plan, load_before), indent=2) + "\n")


def _measure(names: list[str], plan: Plan) -> list[Row]:
    rows: list[Row] = []
    with ExitStack() as stack:
        needs_ray = [name for name in names if name not in WITHOUT_RAY]
        for name in [name for name in names if name in WITHOUT_RAY] + needs_ray:
            if name in WITH_SERVE and not serve_is_installed():
                _say(f"{name}: left out, for Ray Serve is not installed: pip install 'flexray[bench]'")
                continue
            if needs_ray and name == needs_ray[0]:
                stack.enter_context(private_ray())
            _say(f"{name} ...")
            rows += BENCHMARKS[name](plan)
    return rows


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all if none")
    parser.add_argument("--repeat", type=int, default=Plan.repeat, help="turns of every comparison")
    parser.add_argument("--share", type=float, default=Plan.share, help="of the inputs of every row, up to 1")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    parser.add_argument("--markdown", action="store_true", help="print the table for a document")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    return options


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
