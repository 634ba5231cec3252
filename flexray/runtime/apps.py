"""Which apps there are, in which versions, and the pools that they have.

One rule: what must outlive the controller is in the store before it is acted upon.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from flexray.config import AutoscalerSettings, FunctionConfig, overlaid
from flexray.core.pool import FORGET_S
from flexray.errors import ExecutionError, InvalidError, NotFoundError
from flexray.runtime.launcher import Launcher
from flexray.runtime.poolhost import Awake, Left, PoolHost
from flexray.runtime.probe import check_loads
from flexray.runtime.roster import Listed
from flexray.runtime.scheduled import Clockwork
from flexray.runtime.shipping import keep_package, merged_runtime_env, packages_of
from flexray.runtime.store import Store
from flexray.runtime.users import Users
from flexray.runtime.versions import Versions, deployment, similar
from flexray.runtime.wire import (
    EXIT_GRACE_S,
    PINNED,
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

NUMBERS_KEPT = 100
VERSIONS_KEPT = 10
"""Versions of an app whose code is kept, for rollbacks."""
FORGET_EVERY_S = 1.0
CLOSE_TIMEOUT_S = 5.0
"""How long the end of an app waits for Ray's word that its containers are dead."""


class Apps:
    """The apps of the controller and their pools; lives on its event loop."""

    def __init__(self, store: Store, users: Users, clockwork: Clockwork, clock: Callable[[], float]) -> None:
        self.pools: dict[str, PoolHost] = {}
        self.awake = Awake()
        """Whoever ticks these drops those that are idle."""
        self.apps: dict[str, AppSpec] = {}
        self._store = store
        self._users = users
        self._clockwork = clockwork
        self._clock = clock
        self._versions = Versions(store)
        self._epoch = store.next_epoch()
        self._launcher = Launcher(self._use_number)
        self.specs: dict[str, PoolSpec] = {}
        """What apps were started with, classes that take parameters included."""
        self._added: dict[str, float] = {}
        """Pools beside those of the current version, with when they were last asked for: idle ones are
        forgotten."""
        self._variants: dict[str, VariantSpec] = {}
        self._first_containers = store.first_containers()
        """Of pools of deployed apps, the number of the first container of the current version."""
        self._used_numbers = store.used_numbers()
        self._deploying: dict[str, asyncio.Lock] = {}
        self._stops: dict[str, int] = {}
        """How often each app was stopped, for a deploy that is under way."""
        self._pinned_asked: dict[str, float] = {}
        """Earlier versions that were opened by their number, with when they were last asked for."""
        self._forgotten_at = float("-inf")
        """When idle pools were looked for last."""
        self._overridden: dict[str, None] = {}
        """Pools whose settings were changed: they are kept."""

    def save_learned(self) -> None:
        """Keep what the pools that are at work have learned, for their next controller."""
        with self._store.transaction():
            for host in self.awake:
                if host.has_learned():
                    spec = host.spec
                    self._store.save_learned(
                        spec.pool_id, spec.version, encode(host.pool.scaling.lessons.learned)
                    )

    # Ephemeral apps, and pools that are added.

    def open_app(self, app: AppSpec) -> None:
        """Start an app's pools; their minimum containers start at once. Again is fine."""
        if app.app_id in self.apps:
            return  # Asked again, for the answer was lost.
        app = replace(app, deployed_at=self._clock())
        self._store.save_app(app.app_id, encode(app))
        self._take_in(app, self._epoch)
        self._clockwork.start(app.pools, app.deployed_at)

    def _take_in(self, app: AppSpec, epoch: int) -> None:
        self.apps[app.app_id] = app
        self.specs.update((spec.pool_id, spec) for spec in app.pools)
        for spec in app.pools:
            if not spec.is_template:
                self._add_pool(spec, epoch)

    def open_pool(self, variant: VariantSpec) -> None:
        """Add a pool to an app that runs: other options, or parameters of a class. Again is fine."""
        pool_id = variant.pool_id
        self.is_there(variant.app_id)
        base = self.specs.get(variant.base_pool_id)
        if base is None:
            raise not_running(variant.base_pool_id)
        host = self.pools.get(pool_id)
        if host is not None:
            if pool_id in self._added:
                self._added[pool_id] = time.monotonic()
            if host.spec.version < base.version:  # Its function had been removed, and is back.
                self._come_back(variant, host)
            return
        spec = self._of_variant(variant, base)
        self._store.save_variant(pool_id, encode(variant))
        self._variants[pool_id] = variant
        self._added[pool_id] = time.monotonic()
        # An epoch of its own: it may have been here before, and its numbers must not come again.
        self._add_pool(spec, self._store.next_epoch())

    def _come_back(self, variant: VariantSpec, host: PoolHost) -> None:
        spec = self._of_variant(variant, self.specs[variant.base_pool_id])
        with self._store.transaction():
            self._store.save_variant(variant.pool_id, encode(variant))
            self._store.delete_leaving(variant.pool_id)
            self._store.save_first_container(variant.pool_id, host.pool.next_container)
        self._variants[variant.pool_id] = variant
        self._first_containers[variant.pool_id] = host.pool.next_container
        host.redeploy(spec)

    def _of_variant(self, variant: VariantSpec, base: PoolSpec) -> PoolSpec:
        """The base with the variant's changes.

        Raises:
            InvalidError: They contradict each other.
        """
        config = overlaid(base.config, variant.options)
        return replace(
            base,
            pool_id=variant.pool_id,
            config=config.model_copy(update={"env": {**base.config.env, **config.env}}),
            runtime_env=merged_runtime_env(base.runtime_env, {}, variant.runtime_env),
            parameters=variant.parameters,
            is_template=False,
        )

    def variant_of(self, pool_id: str) -> str:
        """What tells the pool from others of its function, in words."""
        variant = self._variants.get(pool_id)
        return "" if variant is None else variant.words

    def _add_pool(self, spec: PoolSpec, epoch: int, left: Left | None = None) -> None:
        record = self._store.learned(spec.pool_id, spec.version)
        if record is not None:
            left = replace(left or Left(), learned=decode(record))
        numbers = self._used_numbers.get(spec.pool_id, 0) + 1, self._first_containers.get(spec.pool_id, 0)
        self.pools[spec.pool_id] = PoolHost(
            spec, epoch, self._launcher, self.awake, numbers=numbers, left=left
        )

    def _use_number(self, pool_id: str, number: int) -> None:
        """A container gets this number, and no other of the pool ever: callers remember dead ones by name.

        They are kept by the hundred, so that few starts wait for the disk.
        """
        if number > self._used_numbers.get(pool_id, 0):
            self._store.save_used_number(pool_id, number + NUMBERS_KEPT - 1)
            self._used_numbers[pool_id] = number + NUMBERS_KEPT - 1

    def host(self, pool_id: str) -> PoolHost:
        """The pool of that id.

        Raises:
            NotFoundError: There is none.
        """
        self.is_there(pool_id.partition("/")[0])
        host = self.pools.get(pool_id)
        if host is None:
            raise not_running(pool_id)
        return host

    def config_of(self, pool_id: str) -> FunctionConfig:
        """The options of a pool, or of a class with parameters, as they are now.

        Raises:
            NotFoundError: There is none.
        """
        spec = self.specs.get(pool_id)
        return self.host(pool_id).spec.config if spec is None else spec.config

    def change_settings(self, pool_id: str, changes: Mapping[str, Any]) -> AutoscalerSettings:
        """Merge these settings into those in force, until the next deploy; returns all of them."""
        host = self.host(pool_id)
        settings = host.pool.scaling.settings.merged(**changes)
        self._store.save_override(pool_id, settings.model_dump_json())
        self._overridden[pool_id] = None
        host.change_settings(settings)
        return settings

    def forget_idle(self) -> None:
        """Drop pools that were added and that nobody has used for a minute; they may come again."""
        if time.monotonic() < self._forgotten_at + FORGET_EVERY_S:
            return
        self._forgotten_at = time.monotonic()
        for pool_id in list(self._added):
            host = self.pools.get(pool_id)
            if host is not None and self._is_forgettable(host):
                self._forget(host)
        long_ago = time.monotonic() - FORGET_S
        for app_id in [app_id for app_id, asked_at in self._pinned_asked.items() if asked_at < long_ago]:
            if all(self._is_unused(host) for host in self._pools_of(app_id).values()):
                self._take_out(app_id)  # As a whole, and it is opened again as a whole.

    def _forget(self, host: PoolHost) -> None:
        pool_id = host.spec.pool_id
        host.close()
        del self.pools[pool_id], self._added[pool_id]
        self._variants.pop(pool_id, None)
        self._users.forget(pool_id)
        self._store.delete_added(pool_id)

    def _is_forgettable(self, host: PoolHost) -> bool:
        asked_at = self._added.get(host.spec.pool_id)
        unasked = asked_at is not None and time.monotonic() - asked_at >= FORGET_S
        return unasked and self._is_unused(host)

    def _is_unused(self, host: PoolHost) -> bool:
        return host.is_idle and host.spec.pool_id not in self._overridden

    def _pools_of(self, app_id: str) -> dict[str, PoolHost]:
        return {pool_id: host for pool_id, host in self.pools.items() if host.spec.app_id == app_id}

    # Deployed apps.

    async def deploy(self, app: AppSpec, token: str, *, recreate: bool) -> int:
        """Make this the current version of its app; its number. A token that comes again changes nothing.

        Raises:
            ContainerStartError: Its code cannot be loaded; the version before it goes on.
        """
        stops = self._stops.get(app.app_id, 0)
        async with self._deploying.setdefault(app.app_id, asyncio.Lock()):
            known = self._store.version_by_token(app.app_id, token)
            if known is not None:
                return known
            _keep_packages(app.pools)
            longest_s = max((spec.config.startup_timeout for spec in app.pools), default=0.0)
            await check_loads(app.pools, longest_s)
            if self._stops.get(app.app_id, 0) != stops:
                raise ExecutionError(
                    f"app {app.name} was stopped while it was being deployed",
                    "deploy it again if it should run",
                )
            version = self._store.newest_version(app.app_id) + 1
            pools = tuple(replace(spec, version=version, is_logged=True) for spec in app.pools)
            app = replace(app, version=version, deployed_at=self._clock(), pools=pools)
            self._install(app, token, recreate=recreate)
            return version

    def _install(self, app: AppSpec, token: str, *, recreate: bool) -> None:
        """The store first; then each pool's containers are replaced, others begin, and the rest goes."""
        former = self.apps.get(app.app_id)
        mine = self._pools_of(app.app_id)
        gone = self._gone(app, mine)
        # Before anything is changed: what fails here changes nothing.
        begin = [spec.pool_id for spec in app.pools if spec.pool_id not in mine]
        epochs = {pool_id: self._store.next_epoch() for pool_id in begin}
        cursors = self._save_version(app, token, mine, gone)
        for pool_id, host in mine.items():
            self._overridden.pop(pool_id, None)
            if pool_id not in gone:
                self._first_containers[pool_id] = host.pool.next_container
        for spec in () if former is None else former.pools:
            self.specs.pop(spec.pool_id, None)
            self._clockwork.stop(spec.pool_id)
        self.apps[app.app_id] = app
        self.specs.update((spec.pool_id, spec) for spec in app.pools)
        for spec in app.pools:
            if spec.is_template:
                continue
            self._added.pop(spec.pool_id, None)  # It had been removed, and is back.
            if spec.pool_id in mine:
                mine.pop(spec.pool_id).redeploy(spec, recreate=recreate)
            else:
                self._add_pool(spec, epochs[spec.pool_id])
        for pool_id, host in mine.items():
            if pool_id in gone:
                self._leave(host)
            else:
                variant = self._variants[pool_id]
                base = self.specs[variant.base_pool_id]
                host.redeploy(self._of_variant(variant, base), recreate=recreate)
        self._clockwork.start(app.pools, app.deployed_at, cursors)

    def _gone(self, app: AppSpec, pools: Iterable[str]) -> set[str]:
        """Pools that the new version has no function for, or none that takes their options."""
        bases = {spec.pool_id: spec for spec in app.pools}
        return {pool_id for pool_id in pools if not self._stays(pool_id, bases)}

    def _stays(self, pool_id: str, bases: Mapping[str, PoolSpec]) -> bool:
        variant = self._variants.get(pool_id)
        base = bases.get(pool_id if variant is None else variant.base_pool_id)
        if base is None or variant is None:
            return base is not None and not base.is_template
        try:
            self._of_variant(variant, base)
        except InvalidError as error:
            logger.warning("%s ends, for it contradicts the new version: %s", pool_id, error)
            return False
        return True

    def _save_version(
        self, app: AppSpec, token: str, mine: Mapping[str, PoolHost], gone: set[str]
    ) -> dict[str, float]:
        """All of it or nothing; returns when schedules last fired that go on, by pool."""
        app_id, data = app.app_id, encode(app)
        crons = {spec.pool_id for spec in app.pools if self._goes_on(spec)}
        cursors = {i: at for i, at in self._store.cursors().items() if i.startswith(f"{app_id}/")}
        with self._store.transaction():
            for pool_id, host in mine.items():
                if pool_id in gone:
                    self._store.save_leaving(pool_id, encode(host.spec))
                else:
                    self._store.delete_leaving(pool_id)
                    self._store.save_first_container(pool_id, host.pool.next_container)
            self._store.save_version(app_id, app.version, token, data)
            self._store.drop_old_code(app_id, VERSIONS_KEPT)
            self._store.save_app(app_id, data)
            self._store.delete_overrides(app_id)
            for pool_id in set(cursors) - crons:  # They begin anew.
                self._store.delete_cursor(pool_id)
        return {pool_id: at for pool_id, at in cursors.items() if pool_id in crons}

    def _goes_on(self, spec: PoolSpec) -> bool:
        """Its schedule is the one it had: a `Cron` goes on; a `Period` or another `Cron` begins anew."""
        former = self.specs.get(spec.pool_id)
        schedule = spec.config.schedule
        return isinstance(schedule, Cron) and former is not None and former.config.schedule == schedule

    def _leave(self, host: PoolHost) -> None:
        """Its function is gone: what waits may run; then the pool is forgotten as any that is not used."""
        settings = host.pool.scaling.settings
        host.change_settings(settings.merged(min_containers=0, buffer_containers=0))
        self._added[host.spec.pool_id] = time.monotonic()

    def keep_packages(self) -> None:
        """Ask Ray to keep what was uploaded for deployed apps, for nodes that come later."""
        _keep_packages(spec for app in self.apps.values() if app.opener is None for spec in app.pools)

    def find(self, app_name: str, function: str, version: int | None) -> Found:
        """What a deployed app has under that name.

        Raises:
            NotFoundError: There is none; what is similar is named.
        """
        app = self.deployed(app_name)
        if version is not None:  # Even the current one: it will not be that for ever.
            app = self._pinned(app, version)
        names = {spec.function_name: spec for spec in app.pools}
        spec = names.get(function)
        if spec is None:
            raise NotFoundError(
                f"app {app_name} has no function {function!r:.70}",
                similar(function, names, "its functions are"),
            )
        return Found(app.app_id, spec.config, spec.interface)

    def deployed(self, app_name: str) -> AppSpec:
        """The current version of the app of that name.

        Raises:
            NotFoundError: There is none; what is similar is named.
        """
        app = self.apps.get(app_name)
        if app is None or not app.version:
            names = [name for name, one in self.apps.items() if one.version]
            raise NotFoundError(
                f"no app {app_name!r:.70} is deployed on this cluster", similar(app_name, names, "there is")
            )
        return app

    def _pinned(self, current: AppSpec, version: int) -> AppSpec:
        """An earlier version as an app of its own, beside the current one; forgotten when nobody uses it."""
        app_id = f"{current.name}{PINNED}{version}"
        if app_id not in self.apps:
            app = self._versions.pinned(current, version)
            self._store.save_app(app_id, encode(app))
            self._take_in(app, self._store.next_epoch())
        self._pinned_asked[app_id] = time.monotonic()
        return self.apps[app_id]

    def is_there(self, app_id: str) -> bool:
        """Whether that app runs; an earlier version that was forgotten while it was idle is opened again."""
        name, pinned, version = app_id.partition(PINNED)
        if app_id in self._pinned_asked:
            self._pinned_asked[app_id] = time.monotonic()
        elif pinned:
            with contextlib.suppress(NotFoundError):  # The app was stopped, or its code is kept no more.
                self._pinned(self.deployed(name), int(version))
        return app_id in self.apps

    async def rollback(self, app_name: str, version: int | None, token: str) -> int:
        """Deploy an earlier version again, by default the one before the current; the number that it gets.

        Raises:
            NotFoundError: There is no such version, or its code is not kept any more.
        """
        current = self.deployed(app_name)
        version = self._versions.before(current) if version is None else version
        old = replace(self._versions.get(app_name, version), rolled_back_to=version)
        return await self.deploy(old, token, recreate=False)

    def deployments(self, app_name: str | None) -> list[Deployment]:
        """The current version of every deployed app by name, or all versions of one, the newest first."""
        if app_name is None:
            return [deployment(app, app.version) for app in self.apps.values() if app.version]
        return self._versions.history(self.deployed(app_name))

    # Ends.

    async def stop_app(self, app_name: str) -> None:
        """End a deployed app.

        Raises:
            NotFoundError: There is none of that name.
        """
        self._stops[app_name] = self._stops.get(app_name, 0) + 1
        lock = self._deploying.get(app_name)
        if app_name not in self.apps and lock is not None and lock.locked():
            return  # The deploy sees it, and gives up.
        app = self.deployed(app_name)
        pinned = [app_id for app_id in self.apps if app_id.startswith(f"{app.name}{PINNED}")]
        await _ended([host for app_id in (*pinned, app.app_id) for host in self._take_out(app_id)])

    async def close_app(self, app_id: str) -> None:
        """End an app with everything that it started; returns when its containers are being killed."""
        await _ended(self._take_out(app_id))

    async def end(self) -> None:
        """End every container, and keep what is in the store."""
        hosts = list(self.pools.values())
        for host in hosts:
            host.close()
        await _ended(hosts)

    def _take_out(self, app_id: str) -> list[PoolHost]:
        """Forget the app, here and in the store; its pools are closed, and may take a while to end.

        All at once: while they end another may be deployed under its name.
        """
        app = self.apps.get(app_id)
        if app is None:
            return []
        # A deployed one may come again, and its containers be named anew.
        comes_again = bool(app.version) or app.is_pinned
        self._store.delete_app(app_id, comes_again=comes_again)
        del self.apps[app_id]
        self._pinned_asked.pop(app_id, None)
        if not comes_again:
            for pool_id in [i for i in self._used_numbers if i.startswith(f"{app_id}/")]:
                del self._used_numbers[pool_id]
        mine = self._pools_of(app_id)
        for pool_id, host in mine.items():
            del self.pools[pool_id]
            host.close()
        for spec in app.pools:
            self.specs.pop(spec.pool_id, None)
            self._clockwork.stop(spec.pool_id)
        for pool_id in [*mine, *(spec.pool_id for spec in app.pools)]:
            self._added.pop(pool_id, None)
            self._variants.pop(pool_id, None)
            self._overridden.pop(pool_id, None)
            self._users.forget(pool_id)
        return list(mine.values())

    # Restart.

    def recover(self, found: dict[str, Listed]) -> None:
        """Take up the apps of the store and the containers that Ray has (protocol rule 9).

        Args:
            found: Containers by their ids; those that belong to no app any more are left in it.
        """
        overrides = {
            pool_id: AutoscalerSettings.model_validate_json(settings)
            for pool_id, settings in self._store.overrides().items()
        }
        self._overridden.update(dict.fromkeys(overrides))
        cursors = self._store.cursors()
        for app_id, data in self._store.apps().items():
            with _logged(f"app {app_id} cannot be taken up again"):
                self._recover_app(decode(data), found, overrides, cursors)
        leavings = self._store.leavings()
        for pool_id, data in self._store.variants().items():
            with _logged(f"{pool_id} cannot be taken up again"):
                variant: VariantSpec = decode(data)
                base = self.specs.get(variant.base_pool_id)
                self._variants[pool_id] = variant
                if base is not None and pool_id not in leavings:
                    self._recover_pool(self._of_variant(variant, base), found, overrides)
                    self._added[pool_id] = time.monotonic()
        for pool_id, data in leavings.items():
            with _logged(f"{pool_id} cannot be taken up again"):
                leaving: PoolSpec = decode(data)
                if leaving.app_id in self.apps and pool_id not in self.pools:
                    self._recover_pool(leaving, found, {})
                    self._leave(self.pools[pool_id])

    def _recover_app(
        self,
        app: AppSpec,
        found: dict[str, Listed],
        overrides: Mapping[str, AutoscalerSettings],
        cursors: Mapping[str, float],
    ) -> None:
        self.apps[app.app_id] = app
        self.specs.update((spec.pool_id, spec) for spec in app.pools)
        if app.is_pinned:
            self._pinned_asked[app.app_id] = time.monotonic()
        else:
            self._clockwork.start(app.pools, app.deployed_at, cursors)
        for spec in app.pools:
            if not spec.is_template:
                self._recover_pool(spec, found, overrides)

    def _recover_pool(
        self, spec: PoolSpec, found: dict[str, Listed], overrides: Mapping[str, AutoscalerSettings]
    ) -> None:
        mine = {i: found.pop(i) for i in list(found) if i.rpartition("#")[0] == spec.pool_id}
        left = Left(overrides.get(spec.pool_id), mine, self._users.of(spec.pool_id))
        self._add_pool(spec, self._epoch, left)


@contextlib.contextmanager
def _logged(failure: str) -> Iterator[None]:
    """One record that cannot be used must not keep the others from being so."""
    try:
        yield
    except Exception:
        logger.exception(failure)


def _keep_packages(specs: Iterable[PoolSpec]) -> None:
    for uri in {uri for spec in specs for uri in packages_of(spec.runtime_env)}:
        keep_package(uri)


async def _ended(hosts: Iterable[PoolHost]) -> None:
    """Until the containers of closed pools are being killed."""
    ending = [task for host in hosts for task in host.busy_tasks]
    if ending:
        graceful = any(host.spec.has_exit for host in hosts)
        await asyncio.wait(ending, timeout=CLOSE_TIMEOUT_S + (EXIT_GRACE_S if graceful else 0.0))


def not_running(pool_id: str) -> Exception:
    """The error of whoever asks for a pool that is not there."""
    return NotFoundError(
        f"{pool_id.rsplit('/', maxsplit=1)[-1]} has no pool: its app is not running",
        "call it inside `with app.run():`, or start the program with `flexray run`",
    )
