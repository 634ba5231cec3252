"""The call queue dies, alone and in company, or loses its disk: what it has acknowledged ends once.

FLEXRAY_FAULT_SEED repeats the order of the deaths.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import pytest

import flexray
from flexray import backend
from flexray.errors import ExecutionError, InputLostError
from tests.fault.actors import CALL_QUEUE, CONTROLLER, Actors, is_gone, kill
from tests.fault.drivers import lines_until
from tests.fault.runs import Runs
from tests.integration.conftest import Cluster
from tests.waiting import wait_until

SEED = int(os.environ.get("FLEXRAY_FAULT_SEED") or random.SystemRandom().randrange(10**6))

Work = flexray.Function[[int, float], tuple[int, int]]


def make_app(name: str, runs: Runs, *, at_most_once: bool = False) -> tuple[flexray.App, Work]:
    app = flexray.App(name)

    @app.function(cpu=0, max_containers=2, at_most_once=at_most_once)
    def work(x: int, lasting_s: float) -> tuple[int, int]:
        with runs.of(x, lasting_s):
            return x, os.getpid()

    return app, work


@contextmanager
def detached(app: flexray.App) -> Iterator[None]:
    """The app, which outlives its opener, until the end of the block."""
    running = app.run(detach=True).start()
    app_id = running.app_id
    assert app_id
    try:
        yield
    finally:
        running.stop()
        backend.connect().close_app(app_id)


def wait_for_begin(runs: Runs, *names: int) -> dict[str, int]:
    """Input to the process that runs it, of these inputs."""
    wait_until(lambda: {str(name) for name in names} <= set(runs.counts()), timeout_s=30)
    return {run.name: run.pid for run in runs.all()}


def check_ends(inputs: list[tuple[flexray.FunctionCall[tuple[int, int]], int, int]]) -> list[int]:
    """Wait for (call, index, result wanted) of inputs; returns those that are lost."""
    lost = []
    for call, index, x in inputs:
        try:
            assert call.get(60, index=index)[0] == x
        except InputLostError:
            lost.append(x)
    return lost


# One death, or two at once.


@pytest.mark.parametrize("at_most_once", [pytest.param(False, marks=pytest.mark.long), True])
def test_an_input_that_runs_while_the_call_queue_dies_runs_once(
    actors: Actors, runs: Runs, at_most_once: bool
) -> None:
    app, work = make_app("queue-dies", runs, at_most_once=at_most_once)
    with detached(app):
        running = work.spawn_map([0, 1], [3.0, 3.0])
        waiting = work.spawn_map(range(2, 40), [0.01] * 38)
        wait_for_begin(runs, 0, 1)
        actors.kill_call_queue()
        assert [x for x, _ in running.iter()] == [0, 1]
        assert [x for x, _ in waiting.iter()] == list(range(2, 40))
        assert running.get(0)[0] == 0
    assert runs.counts() == {str(x): 1 for x in range(40)}


@pytest.mark.parametrize("at_most_once", [pytest.param(False, marks=pytest.mark.long), True])
def test_an_input_that_ends_while_there_is_no_call_queue_has_run_once(
    actors: Actors, runs: Runs, at_most_once: bool
) -> None:
    app, work = make_app("queue-away", runs, at_most_once=at_most_once)
    with detached(app):
        call = work.spawn(0, 0.5)
        wait_for_begin(runs, 0)
        for _ in range(3):
            actors.wait_for_call_queue(actors.kill_call_queue())
        assert call.get(60)[0] == 0
        assert runs.counts() == {"0": 1}


@pytest.mark.long
def test_a_get_that_has_waited_for_long_outlives_the_call_queue(actors: Actors, runs: Runs) -> None:
    app, work = make_app("waits", runs)
    with detached(app):
        call = work.spawn(0, 33.0)
        wait_for_begin(runs, 0)

        def kill_late() -> None:
            Event().wait(28.5)  # One question waits for 30 s, and a restart is waited out for as long.
            kill(actors.call_queue)

        killer = Thread(target=kill_late)
        killer.start()
        assert call.get(timeout=60)[0] == 0
        killer.join()
    assert runs.counts() == {"0": 1}


def test_queue_and_controller_die_together_and_every_input_runs_once(actors: Actors, runs: Runs) -> None:
    app, work = make_app("queue-and-controller", runs)
    with detached(app):
        call = work.spawn_map(range(200), [1.0] * 2 + [0.01] * 198)
        wait_for_begin(runs, 0)
        os.kill(actors.call_queue, 9)
        actors.kill_controller()
        assert [x for x, _ in call.iter()] == list(range(200))
        assert work.spawn(200, 0.0).get(30)[0] == 200
    assert runs.counts() == {str(x): 1 for x in range(201)}


@pytest.mark.parametrize("at_most_once", [pytest.param(False, marks=pytest.mark.long), True])
def test_queue_and_container_die_together(actors: Actors, runs: Runs, at_most_once: bool) -> None:
    app, work = make_app("queue-and-container", runs, at_most_once=at_most_once)
    with detached(app):
        victim = work.spawn(0, 2.0)
        others = work.spawn_map(range(1, 60), [0.05] * 59)
        pid = wait_for_begin(runs, 0)["0"]
        os.kill(actors.call_queue, 9)
        kill(pid)
        if at_most_once:
            with pytest.raises(InputLostError, match=r"an input of work is lost: .*container"):
                victim.get(60)
        else:
            assert victim.get(60)[0] == 0
        lost = check_ends([(others, x - 1, x) for x in range(1, 60)])
        assert len(lost) <= at_most_once  # The other container was just being sent one.
    assert runs.counts()["0"] == (1 if at_most_once else 2)
    assert runs.repeated() <= {run.name for run in runs.all() if run.pid == pid}
    assert not runs.overlapping()


@pytest.mark.parametrize("at_most_once", [pytest.param(False, marks=pytest.mark.long), True])
def test_everything_dies_at_once_and_every_call_ends(actors: Actors, runs: Runs, at_most_once: bool) -> None:
    app, work = make_app("all-die", runs, at_most_once=at_most_once)
    with detached(app):
        calls = [work.spawn(x, 0.3) for x in range(30)]
        wait_for_begin(runs, 0, 1)
        killed = set(actors.containers("all-die").values())
        for pid in (actors.call_queue, actors.controller, *killed):
            os.kill(pid, 9)
        lost = check_ends([(call, 0, x) for x, call in enumerate(calls)])
    if at_most_once:
        assert 1 <= len(lost) <= 2  # One for each container.
        assert not runs.repeated()
    else:
        assert not lost
    assert not runs.overlapping()


# Callers.

SPAWNING = """
import os, sys
import flexray
from pathlib import Path
from tests.fault.runs import Runs
runs = Runs(Path({folder!r}))
app = flexray.App({name!r})

@app.function(cpu=0, max_containers=3)
def work(x):
    with runs.of(x, lasting_s={lasting_s}):
        return 2 * x

def tell(call, first, end):
    print("call", call.object_id, first, end, flush=True)

with app.run(detach=True) as running:
    print("app", running.app_id, flush=True)
    for first, end in {shares!r}:
        if end == first + 1:
            tell(work.spawn(first), first, end)
        else:
            tell(work.spawn_map(range(first, end)), first, end)
    print("spawned", flush=True)
    sys.stdin.readline()
print("left", flush=True)
"""


@dataclass(frozen=True)
class Told:
    """A call that a driver has spawned: inputs `first` to `end`, each of which gives its double."""

    call: flexray.FunctionCall[int]
    first: int
    end: int

    def check(self) -> int:
        """Wait for every outcome and compare it; returns how many there are."""
        assert list(self.call.iter()) == [2 * x for x in range(self.first, self.end)]
        info = backend.connect().ask_queue("info", self.call.object_id)
        assert (info.size, info.added, info.done) == (self.end - self.first,) * 3
        return int(info.done)


class Spawner:
    """A driver that spawns shares of the inputs to a detached app of its own."""

    def __init__(
        self, cluster: Cluster, name: str, folder: Path, shares: list[tuple[int, int]], lasting_s: float
    ) -> None:
        code = SPAWNING.format(name=name, folder=str(folder), shares=shares, lasting_s=lasting_s)
        self.process: subprocess.Popen[str] = cluster.start_driver(code)
        self.app_id = ""
        self.calls: list[Told] = []

    def wait_for_spawned(self) -> None:
        """Everything is acknowledged."""
        for kind, *rest in lines_until(self.process, "spawned"):
            if kind == "app":
                self.app_id = rest[0]
            else:
                call = flexray.FunctionCall.from_id(rest[0])
                self.calls.append(Told(call, int(rest[1]), int(rest[2])))

    def close(self) -> None:
        self.process.kill()
        if self.app_id:
            backend.connect().close_app(self.app_id)


def test_what_a_caller_spawned_goes_on_when_it_dies_at_once(
    cluster: Cluster, actors: Actors, runs: Runs
) -> None:
    spawner = Spawner(cluster, "dies-at-once", runs.folder, [(0, 1), (1, 101), (101, 102)], 0.02)
    try:
        spawner.wait_for_spawned()
        spawner.process.kill()
        spawner.process.wait()
        assert sum(told.check() for told in spawner.calls) == 102
        assert runs.counts() == {str(x): 1 for x in range(102)}
    finally:
        spawner.close()


# Random deaths.


def kill_some(actors: Actors, chance: random.Random) -> set[int]:
    """The call queue, the controller, a container, or several of them; returns their processes."""
    alive = actors.alive()
    victims = []
    if chance.random() < 0.5:
        victims.append(alive.get(CALL_QUEUE, 0))
    if chance.random() < 0.3:
        victims.append(alive.get(CONTROLLER, 0))
    containers = sorted(actors.containers_like("").values())
    if containers and chance.random() < 0.6:
        victims.append(chance.choice(containers))
    victims = [pid for pid in victims if pid and not is_gone(pid)]
    for pid in victims:
        os.kill(pid, 9)
    return set(victims)


def run_under_deaths(
    cluster: Cluster, actors: Actors, runs: Runs, count: int, *, deaths: int, lasting_s: float
) -> None:
    """Two drivers spawn `count` inputs, one of them dies, and so does everything else, again and again."""
    third, half = count // 3, count // 2
    ones = list(zip(range(half - 10, half), range(half - 9, half + 1), strict=True))
    victim = Spawner(cluster, "victim", runs.folder, [(0, third), (third, half - 10), *ones], lasting_s)
    other = Spawner(cluster, "other", runs.folder, [(half, half + 1), (half + 1, count)], lasting_s)
    chance = random.Random(SEED)
    killed: set[int] = set()
    try:
        for spawner in (victim, other):
            spawner.wait_for_spawned()
        victim.process.kill()
        for _ in range(deaths):
            Event().wait(chance.uniform(0.5, 2.5))  # Until the next death.
            killed |= kill_some(actors, chance)
        calls = [*victim.calls, *other.calls]
        assert sum(told.check() for told in calls) == count, f"seed {SEED}"
        assert set(runs.counts()) == {str(x) for x in range(count)}, f"seed {SEED}"
        ran = runs.all()
        untouched = runs.repeated() - {run.name for run in ran if run.pid in killed}
        assert not untouched, f"seed {SEED}: {[run for run in ran if run.name in untouched]}"
        assert not runs.overlapping(), f"seed {SEED}: {runs.overlapping()}"
    finally:
        victim.close()
        other.close()


@pytest.mark.long
def test_two_thousand_spawned_inputs_end_once_under_some_deaths(
    cluster: Cluster, actors: Actors, runs: Runs
) -> None:
    run_under_deaths(cluster, actors, runs, 2000, deaths=5, lasting_s=0.01)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_twenty_thousand_spawned_inputs_end_once_under_random_deaths(
    cluster: Cluster, actors: Actors, runs: Runs
) -> None:
    run_under_deaths(cluster, actors, runs, 20_000, deaths=80, lasting_s=0.02)


# The disk.


@dataclass(frozen=True)
class Disk:
    """The call queue's files."""

    database: Path

    @property
    def files(self) -> list[Path]:
        return sorted(self.database.parent.glob(f"{self.database.name}*"))

    @contextmanager
    def replaced(self, actors: Actors, content: bytes | None) -> Iterator[None]:
        """The database is this content, or not to be had, for a queue that starts again; then it is back."""
        away = self.database.parent.with_name("away")
        away.mkdir()
        moved = [(path, away / path.name) for path in self.files]
        for path, kept in moved:
            path.rename(kept)
        if content is None:
            self.database.mkdir()
        else:
            self.database.write_bytes(content)
        kill(actors.call_queue)
        try:
            yield
        finally:
            for path in self.files:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            for path, kept in moved:
                kept.rename(path)
            away.rmdir()


@pytest.fixture
def disk(cluster: Cluster) -> Disk:
    (database,) = (cluster.directory / "state").glob("*.calls.sqlite")
    return Disk(database)


def newer(folder: Path) -> bytes:
    path = folder / "newer"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    return path.read_bytes()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            lambda _: b"garbage" * 10_000,
            r"the call queue does not start .*not a database.*\n\nhint: .*damaged",
        ),
        (newer, r"the call queue does not start .*newer FlexRay: schema 99.*\n\nhint: upgrade"),
        (lambda _: None, r"the call queue does not start .*cannot be used.*\n\nhint: .*DIR"),
    ],
    ids=["garbage", "newer", "unreadable"],
)
def test_a_database_that_cannot_be_read_is_told_and_kept(
    cluster: Cluster,
    actors: Actors,
    runs: Runs,
    tmp_path: Path,
    content: Callable[[Path], bytes | None],
    says: str,
) -> None:
    app, work = make_app("unreadable", runs)
    with detached(app):
        done = work.spawn(0, 0.0)
        assert done.get()[0] == 0
        (database,) = (cluster.directory / "state").glob("*.calls.sqlite")
        with Disk(database).replaced(actors, content(tmp_path)):
            began_at = time.monotonic()
            with pytest.raises(ExecutionError, match=says):
                work.spawn(1, 0.0)
            with pytest.raises(ExecutionError, match=says):
                done.get()
            assert time.monotonic() - began_at < 60
            assert work.remote(2, 0.0)[0] == 2
        assert done.get(30)[0] == 0
        assert work.spawn(3, 0.0).get(30)[0] == 3
    assert "1" not in runs.counts()


@pytest.mark.long
def test_a_state_directory_that_vanishes_is_told_at_once_and_taken_up_again(
    cluster: Cluster, actors: Actors, runs: Runs
) -> None:
    app, work = make_app("vanished", runs)
    state, away = cluster.directory / "state", cluster.directory / "away"
    with detached(app):
        done, running = work.spawn(0, 0.0), work.spawn(1, 2.0)
        assert done.get()[0] == 0
        wait_for_begin(runs, 1)
        state.rename(away)
        try:
            for call in (lambda: work.spawn(2, 0.0), lambda: work.spawn_map([3], [0.0]), done.num_inputs):
                with pytest.raises(ExecutionError, match=r"state in .* cannot be used.*\n\nhint: "):
                    call()
            assert done.get()[0] == 0  # The queue has it in mind.
            time.sleep(2.5)  # What ran is over, and its outcome waits to be written.
            began_at = time.monotonic()
            for call in (lambda: work.spawn(2, 0.0), lambda: work.spawn_map([3], [0.0])):
                with pytest.raises(ExecutionError, match=r"state in .* cannot be used.*\n\nhint: "):
                    call()
            assert time.monotonic() - began_at < 2.0
            assert work.remote(4, 0.0)[0] == 4
        finally:
            away.rename(state)
        assert done.get(30)[0] == 0
        assert running.get(30)[0] == 1
        assert work.spawn(5, 0.0).get(30)[0] == 5
    assert runs.counts() == {str(x): 1 for x in (0, 1, 4, 5)}


@pytest.mark.long
def test_a_full_disk_is_told_and_what_was_kept_stays_and_ends(actors: Actors, runs: Runs) -> None:
    app, work = make_app("full", runs)
    with detached(app):
        done, running = work.spawn(0, 0.0), work.spawn(1, 3.0)
        assert done.get()[0] == 0
        wait_for_begin(runs, 1)
        queue = actors.call_queue
        before = resource.prlimit(queue, resource.RLIMIT_FSIZE)
        resource.prlimit(queue, resource.RLIMIT_FSIZE, (1, before[1]))  # No file of it grows any more.
        try:
            for _ in range(3):
                with pytest.raises(ExecutionError, match=r"state in .* cannot be used.*\n\nhint: free space"):
                    work.spawn(2, 0.0)
            assert done.get(10)[0] == 0
            with pytest.raises(TimeoutError):
                running.get(4)
            assert work.remote(3, 0.0)[0] == 3
        finally:
            resource.prlimit(queue, resource.RLIMIT_FSIZE, before)
        assert running.get(30)[0] == 1
        assert work.spawn(4, 0.0).get(30)[0] == 4
        assert actors.call_queue == queue
    assert runs.counts() == {str(x): 1 for x in (0, 1, 3, 4)}


# Many.


def test_the_first_of_twenty_thousand_runs_soon_after_a_restart(actors: Actors, runs: Runs) -> None:
    app, work = make_app("many", runs)
    with detached(app):
        call = work.spawn_map(range(20_000), [0.05] * 20_000)
        wait_for_begin(runs, 10)
        actors.wait_for_call_queue(actors.kill_call_queue())
        back_at = time.monotonic()
        wait_until(lambda: runs.all()[-1].began_at > back_at + 0.5, timeout_s=10)
        before = len(runs.all())
        wait_until(lambda: len(runs.all()) > before + 40, timeout_s=10)
        call.cancel()
        assert call.num_inputs() == 20_000
    assert not runs.repeated()
