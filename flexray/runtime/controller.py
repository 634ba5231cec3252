"""The controller: one detached actor on the head node, which hosts the pools and the apps.

One rule: everything happens on its one event loop, and nothing there waits for anything but a parked report.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import ray

from flexray.config import AutoscalerSettings, FunctionConfig
from flexray.core.blocking import held_up, notices
from flexray.core.events import ContainerRetired, GiveUp, Report, Ticked, TickExpected
from flexray.core.ledger import State
from flexray.core.pool import SHARING_TICK_S, TICK_S
from flexray.core.sharing import Sharing
from flexray.errors import NotFoundError
from flexray.runtime import roster
from flexray.runtime.apps import Apps, not_running
from flexray.runtime.database import state_file
from flexray.runtime.head import cluster_id
from flexray.runtime.liveness import is_alive, leaving_nodes
from flexray.runtime.memory import give_back_free_memory
from flexray.runtime.metrics import Metrics
from flexray.runtime.nodetypes import known_nodes, look_for_refusals
from flexray.runtime.poolhost import PoolHost
from flexray.runtime.roster import Listed
from flexray.runtime.scheduled import Clockwork
from flexray.runtime.store import Store
from flexray.runtime.users import Users
from flexray.runtime.wire import (
    FORGOTTEN,
    GONE,
    PINNED,
    PROTOCOL,
    ContainerInfo,
    ControllerInfo,
    Deployment,
    Found,
    PoolInfo,
    decode,
)

logger = logging.getLogger("flexray")

IDLE_TICK_S = 1.0
"""Where there is no pool in use and no schedule."""
LIVENESS_EVERY_S = 2.0
KEEP_PACKAGES_EVERY_S = 3600.0
TIDY_EVERY_S = 30.0
FORESEEN_S = 600.0
"""How long before a tick its pool is told of it: longer than any start takes."""
WATCH_S = 600.0
END_AFTER_S = 10.0
SILENT_FALLBACK_S = 60.0
"""A silent process of which Ray knows nothing is taken for dead after this long."""


class Controller:
    """See the module. Its public methods are what others may ask: `faces.Controller` names them."""

    def __init__(self) -> None:
        store = Store(state_file(cluster_id(), "controller"))
        self.clock: Callable[[], float] = time.time
        """Of schedules: seconds since the epoch of Unix."""
        self._users = Users(store)
        self._clockwork = Clockwork(store, self._wall_clock)
        self._apps = Apps(store, self._users, self._clockwork, self._wall_clock)
        self._pools, self._awake = self._apps.pools, self._apps.awake
        self._began_at = time.time()
        self._metrics = Metrics()
        self._sharing = Sharing()
        self._unknown_since: dict[str, float] = {}
        found = _listed()
        self._apps.recover(found)
        for container_id, listed in found.items():  # Of apps that ended while nobody was there to end them.
            ray.kill(listed.handle)
            roster.drop(container_id)
        loop = asyncio.get_event_loop()
        self._tasks = [
            loop.create_task(self._tick()),
            loop.create_task(self._watch_lives()),
            loop.create_task(self._keep_all_packages()),
            loop.create_task(self._tidy()),
        ]

    def _wall_clock(self) -> float:
        return self.clock()

    # Apps: see there.

    async def open_app(self, data: bytes) -> None:
        """Start an ephemeral app."""
        self._apps.open_app(decode(data))

    async def close_app(self, app_id: str) -> None:
        """End it."""
        await self._apps.close_app(app_id)

    async def open_pool(self, data: bytes) -> None:
        """Add a pool to an app that runs."""
        self._apps.open_pool(decode(data))

    async def pool_config(self, pool_id: str) -> FunctionConfig:
        """The options of a pool as they are now."""
        return self._apps.config_of(pool_id)

    async def deploy(self, data: bytes, token: str, recreate: bool) -> int:
        """Make this the current version of its app; its number."""
        return await self._apps.deploy(decode(data), token, recreate=recreate)

    async def rollback(self, app_name: str, version: int | None, token: str) -> int:
        """Deploy an earlier version again; the number that it gets."""
        return await self._apps.rollback(app_name, version, token)

    async def deployments(self, app_name: str | None) -> list[Deployment]:
        """All deployed apps, or the versions of one."""
        return self._apps.deployments(app_name)

    async def stop_app(self, app_name: str) -> None:
        """End a deployed app."""
        await self._apps.stop_app(app_name)

    async def find(self, app_name: str, function: str, version: int | None) -> Found:
        """What a deployed app has under that name."""
        return self._apps.find(app_name, function, version)

    # Looks.

    async def greet(self, protocol: int) -> tuple[int, str]:
        """What this controller speaks, and its version of FlexRay; a process asks before anything else."""
        return PROTOCOL, importlib.metadata.version("flexray")

    async def info(self) -> ControllerInfo:
        """A look at it, for people."""
        pools = [host.pool for host in self._pools.values()]
        notices = {pool.notice: None for pool in pools if pool.notice is not None}
        return ControllerInfo(
            version=importlib.metadata.version("flexray"),
            since=self._began_at,
            deployed=len(self._apps.deployments(None)),
            ephemeral=sum(app.opener is not None for app in self._apps.apps.values()),
            waiting=sum(pool.callers.backlog for pool in pools),
            running=sum(pool.callers.assigned for pool in pools),
            notices=tuple(notices),
        )

    async def pools(self, app_name: str | None, function: str | None) -> list[PoolInfo]:
        """Of a function of a deployed app, of all its functions, or all there are."""
        app_id = None
        if app_name is not None:
            app_id = self._apps.deployed(app_name).app_id
            if function is not None:
                self._apps.find(app_name, function, None)
        return [
            host.info()._replace(variant=self._apps.variant_of(host.spec.pool_id))
            for host in self._pools.values()
            if app_id in (None, host.spec.app_id) and function in (None, host.spec.function_name)
        ]

    async def containers(self, app_name: str | None) -> list[ContainerInfo]:
        """Those of a deployed app, earlier versions included, or of all apps."""
        app_id = None if app_name is None else self._apps.deployed(app_name).app_id
        return [
            container._replace(variant=self._apps.variant_of(host.spec.pool_id))
            for host in self._pools.values()
            if app_id is None or host.spec.app_id.partition(PINNED)[0] == app_id
            for container in host.containers()
        ]

    async def stop_container(self, container_id: str, now: bool) -> None:
        """Let it end what it runs, and nothing more; or end it `now`, so that its inputs run again elsewhere.

        Raises:
            NotFoundError: There is none of that id.
        """
        host = self._pools.get(container_id.rpartition("#")[0])
        if host is None or container_id not in host.pool.ledger.containers:
            raise NotFoundError(
                f"there is no container {container_id!r:.90}",
                "it may have ended; `flexray container list` shows those that run",
            )
        if now:
            await host.kill(container_id)
        else:
            host.handle(ContainerRetired(container_id))

    async def end(self) -> None:
        """End every container; what is deployed stays in the store. Whoever asked ends this actor then.

        If it does not, this process ends by itself, and Ray starts it again.
        """
        for task in self._tasks:
            task.cancel()
        await self._apps.end()
        asyncio.get_running_loop().call_later(END_AFTER_S, os._exit, 1)

    # Pools.

    async def report(self, pool_id: str, data: bytes) -> Any:
        """A dispatcher's report; parked until there is something to say."""
        report: Report = decode(data)
        host = self._pools.get(pool_id)
        if host is None:
            if not self._apps.is_there(pool_id.partition("/")[0]):
                return GONE
            host = self._pools.get(pool_id)
            if host is None:
                return FORGOTTEN
        self._users.add(pool_id, report.dispatcher_id)
        return await host.report(report)

    async def leave(self, process: str) -> None:
        """A process ends in order: what it holds is taken back now, and its apps end."""
        await self._lose_process(process)

    async def watch(self) -> None:
        """Parked: its failure tells a process that this controller is dead. It ends, for callers die too."""
        await asyncio.sleep(WATCH_S)

    async def hello(self, container_id: str) -> bool:
        """Whether a container that has been idle for long is still wanted."""
        host = self._pools.get(container_id.rpartition("#")[0])
        return host is not None and container_id in host.pool.ledger.containers

    async def is_outdated(self, container_id: str) -> bool:
        """Whether another is to take this container's place, or has."""
        host = self._pools.get(container_id.rpartition("#")[0])
        container = None if host is None else host.pool.ledger.containers.get(container_id)
        return container is None or container.outdated

    async def retire(self, container_id: str) -> None:
        """A container holds an input that cannot be stopped: it takes nothing new and stops when it can."""
        host = self._pools.get(container_id.rpartition("#")[0])
        if host is not None:
            host.handle(ContainerRetired(container_id))

    async def update_autoscaler(self, pool_id: str, changes: dict[str, Any]) -> AutoscalerSettings:
        """Merge these settings into those in force; returns all of them."""
        return self._apps.change_settings(pool_id, changes)

    async def stats(self, pool_id: str) -> dict[str, Any]:
        """What `get_current_stats` shows; creates nothing, so the pool may not be there (any more)."""
        host = self._pools.get(pool_id)
        if host is None:
            if pool_id.partition("/")[0] not in self._apps.apps:
                raise not_running(pool_id)
            return {
                "backlog": 0,
                "num_total_runners": 0,
                "num_running_inputs": 0,
                "input_headroom": 0,
                "containers": {state.value: 0 for state in State},
                "settings": None,
            }
        pool = host.pool
        ledger, callers = pool.ledger, pool.callers
        ready = ledger.count(State.READY)
        decision = pool.scaling.decisions[-1] if pool.scaling.decisions else None
        return {
            "backlog": callers.backlog,
            "num_total_runners": ready + ledger.count(State.LAUNCHED) + ledger.count(State.LOADING),
            "num_running_inputs": callers.assigned,
            "input_headroom": max(0, ready * ledger.slots - callers.assigned),
            "containers": {state.value: ledger.count(state) for state in State},
            "settings": pool.scaling.settings,
            "last_decision": None if decision is None else str(decision),
            "notice": pool.notice,
        }

    # Time.

    async def _tick(self) -> None:
        due_at = second_at = 0.0
        while True:
            now = time.monotonic()
            whole = now >= due_at
            for host in list(self._awake):
                if whole or host.pool.is_sharing:
                    self._tick_pool(host)
            if whole:
                due_at = now + TICK_S
                try:
                    self._clockwork.run_due()
                    self._say_what_waits()
                    if now >= second_at:
                        second_at = now + 1.0
                        self._each_second()
                except Exception:
                    logger.exception("of schedules, or of what inputs wait for")
            if not (self._awake or self._clockwork.schedules):
                await self._awake.wait(IDLE_TICK_S)  # What nobody uses should cost nothing.
                continue
            sharing = any(host.pool.is_sharing for host in self._awake)
            await asyncio.sleep(SHARING_TICK_S if sharing else TICK_S)

    def _each_second(self) -> None:
        self._apps.forget_idle()
        now = self.clock()
        for tick, pool_id in self._clockwork.schedules.upcoming():
            host = self._pools.get(pool_id)
            if host is not None and (tick - now < FORESEEN_S or host in self._awake):
                host.handle(TickExpected(tick - now))
        self._make_room()
        self._metrics.observe(self._awake)

    def _make_room(self) -> None:
        """Let pools give up what is idle for others that Ray has no room for."""
        now = time.monotonic()
        if any(host.pool.scaling.lacks_room(now) for host in self._awake):
            nodes = known_nodes()
            needs = [host.need(now, nodes) for host in self._awake]
            for pool_id, count in self._sharing.give_ups(needs, now).items():
                self._pools[pool_id].handle(GiveUp(count))

    async def _tidy(self) -> None:
        was_awake = False
        while True:
            await asyncio.sleep(TIDY_EVERY_S)
            try:
                self._apps.save_learned()
            except Exception:
                logger.exception("what was learned of the load may be lost")
            if self._awake or was_awake:
                give_back_free_memory()
            was_awake = bool(self._awake)

    def _tick_pool(self, host: PoolHost) -> None:
        """The next event wakes it where it is idle: hundreds of pools that nobody calls cost nothing."""
        if host.is_idle:
            host.rest()
            return
        try:
            host.handle(Ticked())
        except Exception:
            logger.exception("in pool %s", host.spec.pool_id)

    def _say_what_waits(self) -> None:
        found = {host.spec.pool_id: host.standstill() for host in self._awake}
        stuck = {pool_id: standstill for pool_id, standstill in found.items() if standstill is not None}
        names = {pool_id: host.spec.function_name for pool_id, host in self._pools.items()} if stuck else {}
        said = notices(stuck, names)
        held = held_up({host.spec.pool_id: host.pool for host in self._awake})
        for host in list(self._awake):
            host.pool.scaling.held_up = host.spec.pool_id in held
            host.say(said.get(host.spec.pool_id))

    async def _keep_all_packages(self) -> None:
        while True:
            try:
                self._apps.keep_packages()
            except Exception:
                logger.exception("packages may be lost")
            await asyncio.sleep(KEEP_PACKAGES_EVERY_S)

    async def _watch_lives(self) -> None:
        """Ask Ray whether the silent and the openers of apps live (protocol rule 5)."""
        while True:
            await asyncio.sleep(LIVENESS_EVERY_S)
            try:
                await self._look_after_lives()
            except Exception:  # The disk is full, say.
                logger.exception("whether others live was not seen to")

    async def _look_after_lives(self) -> None:
        self._users.forget_where(self._has_nothing)
        run_in_thread = partial(asyncio.get_running_loop().run_in_executor, None)
        if self._awake:
            leaving = await run_in_thread(leaving_nodes)
            for host in list(self._awake) if leaving else ():
                host.leave_nodes(leaving)
            await run_in_thread(look_for_refusals)
        asking = [host for host in self._awake if host.may_ask_otherwise]
        nodes = await run_in_thread(known_nodes) if asking else ()
        for host in asking:
            host.ask_otherwise(nodes)
        silent = {i for host in self._awake for i in host.pool.silent()}
        openers = {app.opener for app in self._apps.apps.values() if app.opener is not None}
        recovering = [host.spec.pool_id for host in self._awake if host.pool.recovering]
        expected = {process for pool_id in recovering for process in self._users.of(pool_id)}
        for process in sorted(silent | openers | expected):
            try:
                if await self._is_dead(process, silent=process in silent):
                    await self._lose_process(process)
            except Exception:
                logger.exception("about process %s", process)

    def _has_nothing(self, pool_id: str, process: str) -> bool:
        """Whoever has had nothing for a minute is not waited for after a restart."""
        host = self._pools.get(pool_id)
        return host is not None and not host.pool.recovering and host.pool.callers.get(process) is None

    async def _is_dead(self, process: str, *, silent: bool) -> bool:
        alive = await asyncio.get_running_loop().run_in_executor(None, is_alive, process)
        if alive is None and silent:
            since = self._unknown_since.setdefault(process, time.monotonic())
            return time.monotonic() - since > SILENT_FALLBACK_S
        self._unknown_since.pop(process, None)
        return alive is False

    async def _lose_process(self, process: str) -> None:
        for host in self._pools.values():
            host.lose_dispatcher(process)
        for app in [app for app in self._apps.apps.values() if app.opener == process]:
            logger.info("app %s ends: the process that opened it is gone", app.name)
            await self.close_app(app.app_id)
        self._users.forget_process(process)


def _listed() -> dict[str, Listed]:
    """All containers that there may be, unplaced ones included, by their ids; the rest of the roster goes."""
    found = {container_id: roster.find(container_id) for container_id in roster.container_ids()}
    for container_id in [one for one, listed in found.items() if listed is None]:
        roster.drop(container_id)
    return {container_id: listed for container_id, listed in found.items() if listed is not None}
