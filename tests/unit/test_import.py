"""`import flexray` is light."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = ("ray", "typer", "rich", "croniter", "numpy", "asyncio", "concurrent.futures", "sqlite3")

PROBE = f"""
import json, sys, time
began = time.perf_counter()
import flexray
took_s = time.perf_counter() - began
app = flexray.App("light")
f = app.function(max_containers=2, gpu="H100")(lambda x: x)
f.with_options(cpu=2)
f.map([1]).close
print(json.dumps([took_s, [name for name in {HEAVY!r} if name in sys.modules]]))
"""


def test_importing_and_decorating_load_nothing_heavy() -> None:
    runs = [
        subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
        for _ in range(3)
    ]
    outcomes = [json.loads(run.stdout) for run in runs]
    fastest_s = min(took_s for took_s, _ in outcomes)
    print(f"import flexray took {fastest_s:.3f} s")  # noqa: T201  # Told, not judged: machines differ.
    assert [heavy for _, heavy in outcomes] == [[]] * len(runs)
