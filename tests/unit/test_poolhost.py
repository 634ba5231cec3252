"""What a pool's host does where Ray's answers are not those that it hoped for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from ray.exceptions import RaySystemError

from flexray.config import AutoscalerSettings, FunctionConfig, Gpu, Resources
from flexray.core import ledger
from flexray.core.events import Ticked
from flexray.runtime.poolhost import Awake, Left, PoolHost
from flexray.runtime.roster import Listed
from flexray.runtime.wire import PoolSpec

H100, A100 = Gpu(kind="H100"), Gpu(kind="A100")


class Unplaced:
    """The handle of an actor for which Ray has no place."""

    def __getattr__(self, name: str) -> Any:
        return self

    def remote(self, *_: object) -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()


class FakeLauncher:
    def __init__(self) -> None:
        self.started: list[str] = []
        self.killed: list[object] = []
        self.forgotten: list[str] = []
        self.gpu: Gpu | None = None
        self.failure: Exception | None = None
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()

    async def start(self, container_id: str, spec: PoolSpec, spec_data: bytes, slots: int) -> Listed:
        self.started.append(container_id)
        await self.may_go_on.wait()
        if self.failure is not None:
            raise self.failure
        return Listed(Unplaced(), self.gpu)

    async def kill(self, handle: object) -> None:
        self.killed.append(handle)

    async def forget(self, container_id: str) -> None:
        self.forgotten.append(container_id)


def hosted(play: Callable[[FakeLauncher, Callable[..., PoolHost]], Awaitable[None]]) -> None:
    """Play with a launcher and a function that makes the host of a pool which keeps one container."""

    async def run() -> None:
        launcher = FakeLauncher()
        config = FunctionConfig(
            name="f",
            autoscaler=AutoscalerSettings(min_containers=1),
            resources=Resources(cpu=0, gpu=["H100", "A100"]),
        )
        spec = PoolSpec("a/f", "a", "f", config, b"")

        def make(left: Left | None = None) -> PoolHost:
            return PoolHost(spec, 1, launcher, Awake(), left=left)  # type: ignore[arg-type]

        await play(launcher, make)

    asyncio.run(run())


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def node_type(kind: str, refused: str | None = None) -> dict[str, Any]:
    resources = {"GPU": 1, f"accelerator_type:{kind}": 1}
    return {"Alive": True, "NodeType": kind, "Resources": resources, "Labels": {}, "SoldOut": refused}


def test_a_launch_for_what_is_sold_out_makes_way_for_another() -> None:
    async def play(launcher: FakeLauncher, make: Callable[..., PoolHost]) -> None:
        launcher.gpu = H100
        host = make()
        await settled()
        assert host.may_ask_otherwise
        host.ask_otherwise([node_type("H100"), node_type("A100")])
        assert launcher.started == ["a/f#1"]
        host.ask_otherwise([node_type("H100", "none is left"), node_type("A100")])
        host.handle(Ticked())
        await settled()
        assert launcher.started == ["a/f#1", "a/f#2"]
        assert len(launcher.killed) == 1

    hosted(play)


def test_so_does_one_that_an_earlier_controller_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "ANSWER_S", -1.0)  # It had the time to say that it is placed after all.

    async def play(launcher: FakeLauncher, make: Callable[..., PoolHost]) -> None:
        host = make(Left(found={"a/f#1": Listed(Unplaced(), H100)}))
        await settled()
        host.ask_otherwise([node_type("H100", "none is left"), node_type("A100")])
        await settled()
        assert len(launcher.killed) == 1

    hosted(play)


def test_a_container_that_is_made_while_its_pool_ends_is_ended_and_forgotten() -> None:
    async def play(launcher: FakeLauncher, make: Callable[..., PoolHost]) -> None:
        launcher.may_go_on.clear()
        host = make()
        await settled()
        host.close()
        launcher.may_go_on.set()
        await settled()
        assert len(launcher.killed) == 1
        assert launcher.forgotten == ["a/f#1"]

    hosted(play)


def test_that_rays_head_does_not_answer_is_no_reason_to_give_up() -> None:
    async def play(launcher: FakeLauncher, make: Callable[..., PoolHost]) -> None:
        launcher.failure = RaySystemError("the head is away")
        host = make()
        await settled()
        assert (host.pool.scaling.failed_starts, host.pool.scaling.broken) == (1, False)

    hosted(play)


def test_that_ray_refuses_the_options_is() -> None:
    async def play(launcher: FakeLauncher, make: Callable[..., PoolHost]) -> None:
        launcher.failure = ValueError("no such option")
        host = make()
        await settled()
        assert host.pool.scaling.broken

    hosted(play)
