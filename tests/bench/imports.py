"""What `import flexray` costs a program that may never use a cluster."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.bench.measure import Plan, Row

RUNS = 7
PROGRAM = """
import json, sys, time
before, began = len(sys.modules), time.perf_counter()
import flexray
took = time.perf_counter() - began
print(json.dumps([took, len(sys.modules) - before, "ray" in sys.modules]))
"""


def import_time(plan: Plan) -> list[Row]:
    """Seconds and modules, the best of several new processes: the files are in the disk's cache."""
    runs = [_import() for _ in range(plan.count(RUNS, 2))]
    took_s, modules, has_ray = min(runs)
    note = f"{modules} modules, Ray {'IS' if has_ray else 'is not'} among them; best of {len(runs)}"
    bound_s = 0.0 if has_ray else 0.15
    return [Row("import flexray", "s", [took_s], "-", (), bound_s, note=note)]


def _import() -> tuple[float, int, bool]:
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True, text=True)
    took_s, modules, has_ray = json.loads(run.stdout)
    return took_s, modules, has_ray
