"""The controller: one detached actor on the head node, which hosts the pools and the apps.

One rule: everything happens on its one event loop, and nothing there waits for anything but a parked report;
what it must remember over its own death is in the store before it is acted upon.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import ray
from ray.exceptions import RayError

from flexray.config import AutoscalerSettings, FunctionConfig
from flexray.core.blocking import notices
from flexray.core.events import ContainerRetired, Report, Ticked
from flexray.core.ledger import State
from flexray.core.pool import FORGET_S, SHARING_TICK_S, TICK_S
from flexray.core.schedules import LATE_S, Due, Schedules
from flexray.errors import ExecutionError, NotFoundError
from flexray.runtime.database import state_file
from flexray.runtime.head import cluster_id
from flexray.runtime.launcher import Launcher
from flexray.runtime.liveness import is_alive
from flexray.runtime.poolhost import PoolHost
from flexray.runtime.probe import check_loads
from flexray.runtime.scheduled import spawn_scheduled
from flexray.runtime.shipping import keep_package, merged_runtime_env, packages_of
from flexray.runtime.store import Store
from flexray.runtime.wire import (
    ACTOR_PREFIX,
    EXIT_GRACE_S,
    FORGOTTEN,
    GONE,
    NAMESPACE,
    AppSpec,
    Deployment,
    Found,
    PoolSpec,
    VariantSpec,
    decode,
    encode,
)
from flexray.schedule import Cron

logger = logging.getLogger("flexray")

CALLS_MAX = 1_000_000
"""Calls under way: each dispatcher parks one report per pool."""
LIVENESS_EVERY_S = 2.0
KEEP_PACKAGES_EVERY_S = 3600.0
FIRE_AGAIN_S = 1.0
NUMBERS_KEPT = 100
VERSIONS_KEPT = 10
"""Versions of an app whose code is kept, for rollbacks."""
WATCH_S = 600.0
CLOSE_TIMEOUT_S = 5.0
"""How long the end of an app waits for Ray's word that its containers are dead."""
SILENT_FALLBACK_S = 60.0
"""A silent process of which Ray knows nothing is taken for dead after this long."""


class Controller:
    """See the module. `ControllerActor` is this class as Ray runs it; workers import this one by its name."""

    def __init__(self) -> None:
        self._store = Store(state_file(cluster_id(), "controller"))
        self._epoch = self._store.next_epoch()
        self._launcher = Launcher(self._use_number)
        self._apps: dict[str, AppSpec] = {}
        self._pools: dict[str, PoolHost] = {}
        self._users: dict[str, dict[str, None]] = {}
        """Processes that ever reported, by pool; the store has them too."""
        for user in self._store.dispatchers():
            process, _, pool_id = user.partition(" ")
            self._users.setdefault(pool_id, {})[process] = None
        self._specs: dict[str, PoolSpec] = {}
        """What apps were started with, classes that take parameters included."""
        self._variants: dict[str, float] = {}
        """Pools that were added since, with when they were last asked for; idle ones are forgotten."""
        self._variant_specs: dict[str, VariantSpec] = {}
        self._first_containers = self._store.first_containers()
        """Of pools of deployed apps, the number of the first container of the current version."""
        self._used_numbers = self._store.used_numbers()
        self._deploying: dict[str, asyncio.Lock] = {}
        self._stops: dict[str, int] = {}
        """How often each app was stopped, for a deploy that is under way."""
        self._overridden: dict[str, None] = {}
        """Pools whose settings were changed: they are kept."""
        self._unknown_since: dict[str, float] = {}
        self._schedules = Schedules()
        self._firing: set[asyncio.Task[None]] = set()
        self.clock: Callable[[], float] = time.time
        """Of schedules: seconds since the epoch of Unix."""
        self._recover()
        loop = asyncio.get_event_loop()
        self._tasks = [
            loop.create_task(self._tick()),
            loop.create_task(self._watch_lives()),
            loop.create_task(self._keep_all_packages()),
        ]

    # Apps.

    async def open_app(self, data: bytes) -> None:
        """Start an app's pools; their minimum containers start at once."""
        app: AppSpec = decode(data)
        if app.app_id in self._apps:
            return  # Asked again, for the answer was lost.
        app = replace(app, deployed_at=self.clock())
        self._store.save_app(app.app_id, encode(app))
        self._apps[app.app_id] = app
        self._specs.update((spec.pool_id, spec) for spec in app.pools)
        for spec in app.pools:
            if not spec.is_template:
                self._add_pool(spec, self._epoch)
        self._schedule(app, {})

    async def open_pool(self, data: bytes) -> None:
        """Add a pool to an app that runs: other options, or parameters of a class. Again is fine."""
        variant: VariantSpec = decode(data)
        pool_id = variant.pool_id
        if variant.base_pool_id not in self._specs:
            raise _not_running(variant.base_pool_id)
        if pool_id in self._pools:
            if pool_id in self._variants:
                self._variants[pool_id] = time.monotonic()
            return
        self._store.save_variant(pool_id, data)
        self._variant_specs[pool_id] = variant
        self._variants[pool_id] = time.monotonic()
        # An epoch of its own: it may have been here before, and its numbers must not come again.
        self._add_pool(self._of_variant(variant), self._store.next_epoch())

    def _of_variant(self, variant: VariantSpec) -> PoolSpec:
        """The base as it is now, with the variant's changes."""
        base = self._specs[variant.base_pool_id]
        return replace(
            base,
            pool_id=variant.pool_id,
            config=base.config.model_copy(update=variant.changes),
            runtime_env=merged_runtime_env(base.runtime_env, {}, variant.runtime_env),
            parameters=variant.parameters,
            is_template=False,
        )

    def _add_pool(self, spec: PoolSpec, epoch: int, **recovered: Any) -> None:
        numbers = self._used_numbers.get(spec.pool_id, 0) + 1, self._first_containers.get(spec.pool_id, 0)
        self._pools[spec.pool_id] = PoolHost(spec, epoch, self._launcher, numbers=numbers, **recovered)

    def _use_number(self, pool_id: str, number: int) -> None:
        """A container gets this number, and no other of the pool ever: callers remember dead ones by name.

        They are kept by the hundred, so that few starts wait for the disk.
        """
        if number > self._used_numbers.get(pool_id, 0):
            self._store.save_used_number(pool_id, number + NUMBERS_KEPT - 1)
            self._used_numbers[pool_id] = number + NUMBERS_KEPT - 1

    async def pool_config(self, pool_id: str) -> FunctionConfig:
        """The options of a pool as they are now."""
        host = self._pools.get(pool_id)
        spec = self._specs.get(pool_id) if host is None else host.spec
        if spec is None:
            raise _not_running(pool_id)
        return spec.config

    # Deployed apps.

    async def deploy(self, data: bytes, token: str, recreate: bool) -> int:
        """Make this the current version of its app; its number. A token that comes again changes nothing.

        Raises:
            ContainerStartError: Its code cannot be loaded; the version before it goes on.
        """
        app: AppSpec = decode(data)
        async with self._deploying.setdefault(app.app_id, asyncio.Lock()):
            known = self._store.version_by_token(app.app_id, token)
            if known is not None:
                return known
            stops = self._stops.get(app.app_id, 0)
            self._keep_packages(app.pools)
            longest_s = max((spec.config.startup_timeout for spec in app.pools), default=0.0)
            await check_loads(app.pools, longest_s)
            if self._stops.get(app.app_id, 0) != stops:
                raise ExecutionError(
                    f"app {app.name} was stopped while it was being deployed",
                    "deploy it again if it should run",
                )
            version = self._store.newest_version(app.app_id) + 1
            pools = tuple(replace(spec, version=version) for spec in app.pools)
            app = replace(app, version=version, deployed_at=self.clock(), pools=pools)
            self._install(app, token, recreate=recreate)
            return version

    def _install(self, app: AppSpec, token: str, *, recreate: bool) -> None:
        """The store first; then each pool's containers are replaced, others begin, and the rest goes."""
        app_id, data = app.app_id, encode(app)
        mine = {i: host for i, host in self._pools.items() if host.spec.app_id == app_id}
        with self._store.transaction():
            for pool_id, host in mine.items():
                self._store.save_first_container(pool_id, host.pool.next_container)
            self._store.save_version(app_id, app.version, token, data)
            self._store.drop_old_code(app_id, VERSIONS_KEPT)
            self._store.save_app(app_id, data)
            self._store.delete_overrides(f"{app_id}/")
            crons = {spec.pool_id for spec in app.pools if isinstance(spec.config.schedule, Cron)}
            cursors = {i: at for i, at in self._store.cursors().items() if i.startswith(f"{app_id}/")}
            for pool_id in set(cursors) - crons:  # Periods begin anew.
                self._store.delete_cursor(pool_id)
        for pool_id, host in mine.items():
            self._first_containers[pool_id] = host.pool.next_container
            self._overridden.pop(pool_id, None)
        former = self._apps.get(app_id)
        for spec in () if former is None else former.pools:
            self._specs.pop(spec.pool_id, None)
            self._schedules.remove(spec.pool_id)
        self._apps[app_id] = app
        self._specs.update((spec.pool_id, spec) for spec in app.pools)
        for spec in app.pools:
            if spec.is_template:
                continue
            self._variants.pop(spec.pool_id, None)  # It had been removed, and is back.
            if spec.pool_id in mine:
                mine.pop(spec.pool_id).redeploy(spec, recreate=recreate)
            else:
                self._add_pool(spec, self._store.next_epoch())
        for pool_id, host in mine.items():
            variant = self._variant_specs.get(pool_id)
            if variant is not None and variant.base_pool_id in self._specs:
                host.redeploy(self._of_variant(variant), recreate=recreate)
            else:
                self._remove(pool_id, host)
        self._schedule(app, {pool_id: at for pool_id, at in cursors.items() if pool_id in crons})

    def _remove(self, pool_id: str, host: PoolHost) -> None:
        """Its function is gone: what waits may run; then the pool is forgotten as any that is not used."""
        window = host.spec.config.autoscaler.scaledown_window
        host.change_settings(AutoscalerSettings(scaledown_window=window))
        self._variants[pool_id] = time.monotonic()

    def _keep_packages(self, specs: Iterable[PoolSpec]) -> None:
        """Ask Ray to keep what was uploaded, for nodes that come later; again as long as it is deployed."""
        for uri in {uri for spec in specs for uri in packages_of(spec.runtime_env)}:
            keep_package(uri)

    async def find(self, app_name: str, function: str, version: int | None) -> Found:
        """What a deployed app has under that name.

        Raises:
            NotFoundError: There is none; what is similar is named.
        """
        app = self._deployed(app_name)
        if version is not None:  # Even the current one: it will not be that for ever.
            app = self._pinned(app, version)
        names = {spec.function_name: spec for spec in app.pools}
        spec = names.get(function)
        if spec is None:
            raise NotFoundError(
                f"app {app_name} has no function {function!r:.70}",
                _similar(function, names, "its functions are"),
            )
        return Found(app.app_id, spec.config, spec.interface)

    def _deployed(self, app_name: str) -> AppSpec:
        app = self._apps.get(app_name)
        if app is None or not app.version:
            names = [name for name, one in self._apps.items() if one.version]
            raise NotFoundError(
                f"no app {app_name!r:.70} is deployed on this cluster", _similar(app_name, names, "there are")
            )
        return app

    def _pinned(self, current: AppSpec, version: int) -> AppSpec:
        """An earlier version as an app of its own, beside the current one; opened at its first use."""
        app_id = f"{current.name}@{version}"
        if app_id not in self._apps:
            old = self._version(current.name, version)
            pools = tuple(
                replace(
                    spec,
                    pool_id=spec.pool_id.replace(f"{current.app_id}/", f"{app_id}/", 1),
                    app_id=app_id,
                    config=spec.config.model_copy(
                        update={
                            "autoscaler": spec.config.autoscaler.merged(min_containers=0),
                            "schedule": None,
                        }
                    ),
                )
                for spec in old.pools
            )
            app = replace(old, app_id=app_id, version=0, pools=pools)
            self._store.save_app(app_id, encode(app))
            self._apps[app_id] = app
            self._specs.update((spec.pool_id, spec) for spec in pools)
            for spec in pools:
                if not spec.is_template:
                    self._add_pool(spec, self._store.next_epoch())
        return self._apps[app_id]

    def _version(self, app_name: str, version: int) -> AppSpec:
        known = self._store.versions(app_name)
        if not known.get(version):
            kept = ", ".join(str(number) for number, record in known.items() if record)
            raise NotFoundError(f"app {app_name} has no version {version}", f"the versions kept are {kept}")
        app: AppSpec = decode(known[version])
        return app

    async def rollback(self, app_name: str, version: int | None, token: str) -> int:
        """Deploy an earlier version again, by default the one before the current; the number that it gets.

        Raises:
            NotFoundError: There is no such version, or its code is not kept any more.
        """
        current = self._deployed(app_name)
        if version is None:
            kept = [number for number, record in self._store.versions(app_name).items() if record]
            earlier = [number for number in kept if number < current.version]
            if not earlier:
                raise NotFoundError(f"app {app_name} has no version before {current.version}", "deploy it")
            version = earlier[-1]
        old = replace(self._version(app_name, version), rolled_back_to=version)
        return await self.deploy(encode(old), token, False)

    async def deployments(self, app_name: str | None) -> list[Deployment]:
        """The current version of every deployed app by name, or all versions of one, the newest first."""
        if app_name is None:
            return [_deployment(app, app.version) for app in self._apps.values() if app.version]
        current = self._deployed(app_name)
        records = self._store.versions(app_name)
        apps = [decode(record) for record in records.values() if record]
        return [_deployment(app, current.version) for app in reversed(apps)]

    async def stop_app(self, app_name: str) -> None:
        """End a deployed app.

        Raises:
            NotFoundError: There is none of that name.
        """
        self._stops[app_name] = self._stops.get(app_name, 0) + 1
        lock = self._deploying.get(app_name)
        if app_name not in self._apps and lock is not None and lock.locked():
            return  # The deploy sees it, and gives up.
        app = self._deployed(app_name)
        pinned = [app_id for app_id in self._apps if app_id.startswith(f"{app.name}@")]
        await _ended([host for app_id in (*pinned, app.app_id) for host in self._take_out(app_id)])

    async def close_app(self, app_id: str) -> None:
        """End an app with everything that it started; returns when its containers are being killed."""
        await _ended(self._take_out(app_id))

    def _take_out(self, app_id: str) -> list[PoolHost]:
        """Forget the app, here and in the store; its pools are closed, and may take a while to end.

        All at once: while they end another may be deployed under its name.
        """
        app = self._apps.get(app_id)
        if app is None:
            return []
        with self._store.transaction():
            self._store.delete_app(app_id)
            for delete in (
                self._store.delete_cursors,
                self._store.delete_variants,
                self._store.delete_overrides,
            ):
                delete(f"{app_id}/")
            if app.opener is not None:  # A deployed one may come again, and its containers be named anew.
                self._store.delete_numbers(f"{app_id}/")
        del self._apps[app_id]
        if app.opener is not None:
            for pool_id in [i for i in self._used_numbers if i.startswith(f"{app_id}/")]:
                del self._used_numbers[pool_id]
        mine = [pool_id for pool_id, host in self._pools.items() if host.spec.app_id == app_id]
        hosts = [self._pools.pop(pool_id) for pool_id in mine]
        for host in hosts:
            host.close()
        for spec in app.pools:
            self._specs.pop(spec.pool_id, None)
            self._schedules.remove(spec.pool_id)
        for pool_id in [*mine, *(spec.pool_id for spec in app.pools)]:
            self._variants.pop(pool_id, None)
            self._variant_specs.pop(pool_id, None)
            self._overridden.pop(pool_id, None)
            self._forget_users(pool_id)
        return hosts

    def _forget_users(self, pool_id: str) -> None:
        for process in self._users.pop(pool_id, {}):
            self._store.delete_dispatcher(f"{process} {pool_id}")

    # Schedules.

    def _schedule(self, app: AppSpec, cursors: Mapping[str, float]) -> None:
        """Its functions run by the clock: from their last ticks on, or from its deploy."""
        for spec in app.pools:
            if spec.config.schedule is not None:
                after = cursors.get(spec.pool_id, app.deployed_at)
                self._schedules.set(spec.pool_id, spec.config.schedule, after)

    def _run_due(self) -> None:
        for due in self._schedules.due(self.clock()):
            if due.missed:
                self._note_missed(due)
            else:
                task = asyncio.get_running_loop().create_task(self._fire(due))
                self._firing.add(task)
                task.add_done_callback(self._firing.discard)

    async def _fire(self, due: Due) -> None:
        """Spawn the function; the call's id is that of the tick, so whatever happens there is one call."""
        while (spec := self._specs.get(due.pool_id)) is not None:
            try:
                await spawn_scheduled(spec, due.tick)
                self._note_tick(due)
            except (RayError, ExecutionError) as error:
                logger.warning("%s cannot be run by its schedule yet: %s", due.pool_id, error)
            else:
                return
            if self.clock() - due.tick > LATE_S:
                self._note_missed(due)
                return
            await asyncio.sleep(FIRE_AGAIN_S)

    def _note_tick(self, due: Due) -> None:
        """A restart goes on after this tick, or after a later one that was noted before."""
        if due.pool_id in self._specs:
            self._store.save_cursor(due.pool_id, due.tick)

    def _note_missed(self, due: Due) -> None:
        self._note_tick(due)
        at = datetime.fromtimestamp(due.tick, UTC).isoformat(timespec="seconds")
        logger.warning("%s was not run by its schedule at %s: nobody was there to do it", due.pool_id, at)

    # Pools.

    async def report(self, pool_id: str, data: bytes) -> Any:
        """A dispatcher's report; parked until there is something to say."""
        report: Report = decode(data)
        host = self._pools.get(pool_id)
        if host is None:
            return FORGOTTEN if pool_id.partition("/")[0] in self._apps else GONE
        users = self._users.setdefault(pool_id, {})
        if report.dispatcher_id not in users:
            users[report.dispatcher_id] = None
            self._store.save_dispatcher(f"{report.dispatcher_id} {pool_id}")
        return await host.report(report)

    async def watch(self) -> None:
        """Parked: its failure tells a process that this controller is dead. It ends, for callers die too."""
        await asyncio.sleep(WATCH_S)

    async def hello(self, container_id: str) -> bool:
        """Whether a container that has been idle for long is still wanted."""
        host = self._pools.get(container_id.rpartition("#")[0])
        return host is not None and container_id in host.pool.ledger.containers

    async def retire(self, container_id: str) -> None:
        """A container holds an input that cannot be stopped: it takes nothing new and stops when it can."""
        host = self._pools.get(container_id.rpartition("#")[0])
        if host is not None:
            host.handle(ContainerRetired(container_id))

    async def update_autoscaler(self, pool_id: str, changes: dict[str, Any]) -> AutoscalerSettings:
        """Merge these settings into those in force; returns all of them."""
        host = self._host(pool_id)
        settings = host.pool.scaling.settings.merged(**changes)
        self._store.save_override(pool_id, settings.model_dump_json())
        self._overridden[pool_id] = None
        host.change_settings(settings)
        return settings

    async def stats(self, pool_id: str) -> dict[str, Any]:
        """What `get_current_stats` shows; creates nothing, so the pool may not be there (any more)."""
        host = self._pools.get(pool_id)
        if host is None:
            if pool_id.partition("/")[0] not in self._apps:
                raise _not_running(pool_id)
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
            "last_decision": None if decision is None else str(decision.decision.reason),
        }

    def _host(self, pool_id: str) -> PoolHost:
        host = self._pools.get(pool_id)
        if host is None:
            raise _not_running(pool_id)
        return host

    # Time.

    async def _tick(self) -> None:
        due_at = 0.0
        while True:
            now = time.monotonic()
            whole = now >= due_at
            if whole:
                due_at = now + TICK_S
            for host in list(self._pools.values()):
                try:
                    if host.pool.is_sharing or (whole and not host.is_idle):
                        host.handle(Ticked())
                    elif whole:
                        self._forget_idle(host)
                except Exception:
                    logger.exception("in pool %s", host.spec.pool_id)
            if whole:
                try:
                    self._run_due()
                    self._say_what_waits()
                except Exception:
                    logger.exception("of schedules, or of what inputs wait for")
            sharing = any(host.pool.is_sharing for host in self._pools.values())
            await asyncio.sleep(SHARING_TICK_S if sharing else TICK_S)

    def _say_what_waits(self) -> None:
        found = {pool_id: host.standstill() for pool_id, host in self._pools.items() if not host.is_idle}
        stuck = {pool_id: standstill for pool_id, standstill in found.items() if standstill is not None}
        names = {pool_id: host.spec.function_name for pool_id, host in self._pools.items()} if stuck else {}
        said = notices(stuck, names)
        for pool_id in found:
            self._pools[pool_id].say(said.get(pool_id))

    def _forget_idle(self, host: PoolHost) -> None:
        """Drop a pool that was added, has nothing and was used by nobody for a minute; it may come again."""
        pool_id = host.spec.pool_id
        asked_at = self._variants.get(pool_id)
        if asked_at is None or time.monotonic() - asked_at < FORGET_S:
            return
        if pool_id not in self._overridden:
            host.close()
            del self._pools[pool_id], self._variants[pool_id]
            self._variant_specs.pop(pool_id, None)
            self._forget_users(pool_id)
            self._store.delete_variant(pool_id)

    async def _keep_all_packages(self) -> None:
        while True:
            deployed = [app for app in self._apps.values() if app.opener is None]
            try:
                self._keep_packages(spec for app in deployed for spec in app.pools)
            except Exception:
                logger.exception("packages may be lost")
            await asyncio.sleep(KEEP_PACKAGES_EVERY_S)

    async def _watch_lives(self) -> None:
        """Ask Ray whether the silent and the openers of apps live (protocol rule 5)."""
        while True:
            await asyncio.sleep(LIVENESS_EVERY_S)
            self._forget_empty_users()
            silent = {i for host in self._pools.values() for i in host.pool.silent()}
            openers = {app.opener for app in self._apps.values() if app.opener is not None}
            recovering = [host.spec.pool_id for host in self._pools.values() if host.pool.recovering]
            expected = {process for pool_id in recovering for process in self._users.get(pool_id, ())}
            for process in sorted(silent | openers | expected):
                try:
                    if await self._is_dead(process, silent=process in silent):
                        await self._lose_process(process)
                except Exception:
                    logger.exception("about process %s", process)

    def _forget_empty_users(self) -> None:
        """Whoever has had nothing for a minute is not waited for after a restart: it need not even report."""
        for pool_id, users in self._users.items():
            host = self._pools.get(pool_id)
            if host is None or host.pool.recovering:
                continue
            for process in [one for one in users if host.pool.callers.get(one) is None]:
                del users[process]
                self._store.delete_dispatcher(f"{process} {pool_id}")

    async def _is_dead(self, process: str, *, silent: bool) -> bool:
        alive = await asyncio.get_running_loop().run_in_executor(None, is_alive, process)
        if alive is None and silent:
            since = self._unknown_since.setdefault(process, time.monotonic())
            return time.monotonic() - since > SILENT_FALLBACK_S
        self._unknown_since.pop(process, None)
        return alive is False

    async def _lose_process(self, process: str) -> None:
        for pool_id, users in self._users.items():
            if users.pop(process, "") is None:
                self._store.delete_dispatcher(f"{process} {pool_id}")
        for host in self._pools.values():
            host.lose_dispatcher(process)
        for app in [app for app in self._apps.values() if app.opener == process]:
            logger.info("app %s ends: the process that opened it is gone", app.name)
            await self.close_app(app.app_id)

    # Restart.

    def _recover(self) -> None:
        """Take up the apps of the store and the containers that Ray has (protocol rule 9)."""
        overrides = self._store.overrides()
        self._overridden.update(dict.fromkeys(overrides))
        found = _containers_in_ray()
        cursors = self._store.cursors()
        variants: dict[str, list[VariantSpec]] = {}
        for data in self._store.variants().values():
            variant: VariantSpec = decode(data)
            variants.setdefault(variant.app_id, []).append(variant)
        for app_id, data in self._store.apps().items():
            app: AppSpec = decode(data)
            self._apps[app_id] = app
            self._specs.update((spec.pool_id, spec) for spec in app.pools)
            if app.opener is not None or app.version:  # Not an earlier version, which somebody has named.
                self._schedule(app, cursors)
            specs = list(app.pools)
            for variant in variants.get(app_id, ()):
                if variant.base_pool_id in self._specs:
                    self._variants[variant.pool_id] = time.monotonic()
                    self._variant_specs[variant.pool_id] = variant
                    specs.append(self._of_variant(variant))
            for spec in specs:
                if spec.is_template:
                    continue
                mine = {i: found.pop(i) for i in list(found) if i.rpartition("#")[0] == spec.pool_id}
                settings = overrides.get(spec.pool_id)
                self._add_pool(
                    spec,
                    self._epoch,
                    settings=None if settings is None else AutoscalerSettings.model_validate_json(settings),
                    found=mine,
                    expected=self._users.get(spec.pool_id, ()),
                )
        for handle in found.values():  # Of apps that ended while nobody was there to end them.
            ray.kill(handle)


ControllerActor: Any = ray.remote(  # type: ignore[call-overload]  # Ray types no max_concurrency.
    num_cpus=0, max_restarts=-1, max_task_retries=0, max_concurrency=CALLS_MAX
)(Controller)


def _containers_in_ray() -> dict[str, Any]:
    """Container id to handle of every container that Ray lists, unplaced ones included."""
    containers = {}
    for name in _names():
        container_id = name.removeprefix(ACTOR_PREFIX)
        if "#" in container_id:
            try:
                containers[container_id] = ray.get_actor(name, namespace=NAMESPACE)
            except ValueError:
                continue  # Died in between.
    return containers


def _names() -> Iterable[str]:
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["namespace"] == NAMESPACE and actor["name"].startswith(ACTOR_PREFIX):
            yield actor["name"]


async def _ended(hosts: Iterable[PoolHost]) -> None:
    """Until the containers of closed pools are being killed."""
    ending = [task for host in hosts for task in host.busy_tasks]
    if ending:
        graceful = any(host.spec.has_exit for host in hosts)
        await asyncio.wait(ending, timeout=CLOSE_TIMEOUT_S + (EXIT_GRACE_S if graceful else 0.0))


def _deployment(app: AppSpec, current: int) -> Deployment:
    names = tuple(spec.function_name for spec in app.pools)
    return Deployment(
        app.name, app.version, app.deployed_at, names, app.version == current, app.rolled_back_to
    )


def _similar(name: str, known: Iterable[str], introduction: str) -> str:
    """A hint: what is close to the name, or else all that there is."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"{introduction} {', '.join(names[:10])}" if names else "deploy it with `flexray deploy FILE`"


def _not_running(pool_id: str) -> Exception:
    return NotFoundError(
        f"{pool_id.rsplit('/', maxsplit=1)[-1]} has no pool: its app is not running",
        "call it inside `with app.run():`, or start the program with `flexray run`",
    )
