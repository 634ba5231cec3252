"""Runs the examples as a user would: in processes of their own, which see a Ray of the tests' own or none.

One head with a dashboard serves the session; examples join it by RAY_ADDRESS as they would join any cluster.
Every process carries the session's folder in its environment, by which the reaper finds what is left.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.ports import free_ports
from tests.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "examples"
REAPER = REPOSITORY / "tests" / "integration" / "reaper.py"
PROGRAMS = Path(sys.executable).parent


@dataclass
class Desk:
    """A folder, an environment, and a way to run programs in them."""

    folder: Path
    environment: Mapping[str, str]

    def run(self, program: str, *words: str | Path, timeout_s: float = 100, cwd: Path = REPOSITORY) -> str:
        """What the program printed; fails the test, showing everything, if it failed."""
        return self.run_command([str(PROGRAMS / program), *map(str, words)], timeout_s, cwd).stdout

    def run_command(
        self, command: Sequence[str], timeout_s: float = 100, cwd: Path = REPOSITORY
    ) -> subprocess.CompletedProcess[str]:
        """What is left of any command; fails the test as `run` does."""
        done = subprocess.run(
            command,
            check=False,
            cwd=cwd,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        shown = f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == 0, shown
        assert "Traceback" not in done.stderr, shown
        return done

    def processes(self) -> list[str]:
        """Processes that have this folder in their environment."""
        return [name for name, environment in _environments() if f"={self.folder}/".encode() in environment]


@dataclass
class Head(Desk):
    """A Ray head that runs, and the environment of those who join it."""

    dashboard: str = field(default="")
    client: str = field(default="")
    """Where Ray Client connects."""


HEADS_TRIED = 3
HEAD_RUNS = "Ray runtime started"
"""What `ray start` says once its node is there."""


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """Holds everything that the session writes; short, for the paths of sockets end at 107 characters."""
    folder = Path(tempfile.mkdtemp(prefix="fx", dir="/tmp"))
    with subprocess.Popen([sys.executable, str(REAPER), str(folder)], stdin=subprocess.PIPE) as reaper:
        yield folder
        reaper.communicate()


@pytest.fixture
def desk(folder: Path) -> Desk:
    """No Ray runs here: whoever needs one starts it."""
    alone = Path(tempfile.mkdtemp(prefix="d", dir=folder))
    return Desk(alone, _environment(alone))


@pytest.fixture(scope="session")
def head(folder: Path) -> Iterator[Head]:
    """A head of two cores, to which nothing else on this machine is connected.

    Ray gives up now and then while it starts a node ("timed out during startup"), so there are three tries.
    """
    for number in range(1, HEADS_TRIED + 1):
        process, started = _start_head(folder / f"head{number}")
        if started is not None or number == HEADS_TRIED:
            break
        process.kill()
        process.wait()
    assert started is not None, (folder / f"head{HEADS_TRIED}" / "head.log").read_text()
    yield started
    ended_with = process.poll()
    process.kill()  # Ended politely it takes half a minute; the reaper ends the rest.
    process.wait()
    assert ended_with is None, (started.folder / "head.log").read_text()


def _start_head(mine: Path) -> tuple[subprocess.Popen[bytes], Head | None]:
    """The process, and the head once it says that it runs; None: it has ended."""
    environment = {**_environment(mine), "RAY_AUTH_MODE": "token"}
    port, dashboard_port, *other_ports = free_ports(6)
    flags = ["client-server-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port"]
    flags = [f"ray-{flags[0]}", *flags[1:], "metrics-export-port"]
    command = [
        str(PROGRAMS / "ray"),
        "start",
        "--head",
        "--block",
        "--num-cpus=2",
        "--include-dashboard=true",
        "--object-store-memory=104857600",
        f"--temp-dir={mine}/ray",
        f"--port={port}",
        f"--dashboard-port={dashboard_port}",
        "--min-worker-port=0",
        "--max-worker-port=0",
        *(f"--{flag}={other}" for flag, other in zip(flags, other_ports, strict=True)),
    ]
    log = mine / "head.log"
    with log.open("w") as written:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=written, stderr=written
        )

    def is_up() -> bool:
        return HEAD_RUNS in log.read_text() and _listens(port) and _listens(other_ports[0])

    wait_until(lambda: process.poll() is not None or is_up(), timeout_s=150)
    if process.poll() is not None:
        return process, None
    joining = {**environment, "RAY_ADDRESS": f"127.0.0.1:{port}"}
    client = f"ray://127.0.0.1:{other_ports[0]}"
    return process, Head(mine, joining, f"http://127.0.0.1:{dashboard_port}", client)


def _environment(folder: Path) -> dict[str, str]:
    for name in ("ray", "state", "jupyter", "ipython", "matplotlib"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
        "PYTHONWARNINGS": "default",
        "RAY_TMPDIR": f"{folder}/ray",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),  # Else Ray writes one into the user's home.
        "FLEXRAY_STATE_DIR": f"{folder}/state",
        "JUPYTER_DATA_DIR": f"{folder}/jupyter",
        "JUPYTER_RUNTIME_DIR": f"{folder}/jupyter",
        "IPYTHONDIR": f"{folder}/ipython",
        "MPLCONFIGDIR": f"{folder}/matplotlib",
    }


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _environments() -> Iterator[tuple[str, bytes]]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            yield (process / "comm").read_text().strip(), (process / "environ").read_bytes()
        except OSError:
            continue  # It has ended meanwhile, or belongs to somebody else.
