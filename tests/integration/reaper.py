"""Ends what is left of a test cluster, however its session ended: even by SIGKILL.

Run with the cluster's folder. It waits until its stdin closes, which the end of the session does, then kills
the processes that name the folder in their environment (as every process of that cluster does, and no other)
and deletes the folder. It prints what it killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path


def reap(folder: str) -> list[str]:
    """The processes of the cluster that were still there, now killed."""
    killed = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"={folder}/".encode() in (process / "environ").read_bytes():
                name = (process / "comm").read_text().strip()
                os.kill(int(process.name), signal.SIGKILL)
                killed.append(f"{name} ({process.name})")
        except OSError:
            pass  # It has ended meanwhile, or belongs to somebody else.
    return killed


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the session, which has to end first.
    sys.stdin.read()
    for line in reap(sys.argv[1]):
        print(line, flush=True)  # noqa: T201
    shutil.rmtree(sys.argv[1], ignore_errors=True)
