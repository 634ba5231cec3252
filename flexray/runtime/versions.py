"""The versions of deployed apps that the store has.

One rule: a version's number is never used again; its code is kept for the newest ones only.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import replace

from flexray.errors import NotFoundError
from flexray.runtime.store import Store
from flexray.runtime.wire import PINNED, AppSpec, Deployment, PoolSpec, decode


class Versions:
    """What can be rolled back to, or used by its number beside the current version."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, app_name: str, version: int) -> AppSpec:
        """That version as it was deployed.

        Raises:
            NotFoundError: There is no such version, or its code is not kept any more.
        """
        known = self._store.versions(app_name)
        if not known.get(version):
            kept = ", ".join(str(number) for number, record in known.items() if record)
            raise NotFoundError(f"app {app_name} has no version {version}", f"the versions kept are {kept}")
        app: AppSpec = decode(known[version])
        return app

    def before(self, current: AppSpec) -> int:
        """The number of the one before the current.

        Raises:
            NotFoundError: There is none whose code is kept.
        """
        kept = [number for number, record in self._store.versions(current.name).items() if record]
        earlier = [number for number in kept if number < current.version]
        if not earlier:
            raise NotFoundError(f"app {current.name} has no version before {current.version}", "deploy it")
        return earlier[-1]

    def history(self, current: AppSpec) -> list[Deployment]:
        """Those whose code is kept, the newest first."""
        records = self._store.versions(current.name).values()
        return [deployment(decode(record), current.version) for record in reversed(records) if record]

    def pinned(self, current: AppSpec, version: int) -> AppSpec:
        """That version as an app of its own, which nothing keeps warm and no clock runs.

        Raises:
            NotFoundError: As `get`.
        """
        old, app_id = self.get(current.name, version), f"{current.name}{PINNED}{version}"
        pools = tuple(_pinned_spec(spec, current.app_id, app_id) for spec in old.pools)
        return replace(old, app_id=app_id, version=0, pools=pools)


def deployment(app: AppSpec, current: int) -> Deployment:
    """A version of an app as it is listed; `current` is the number of the current one."""
    names = tuple(spec.function_name for spec in app.pools)
    return Deployment(
        app.name, app.version, app.deployed_at, names, app.version == current, app.rolled_back_to
    )


def similar(name: str, known: Iterable[str], introduction: str) -> str:
    """A hint: what is close to the name, or else all that there is."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"{introduction} {', '.join(names[:10])}" if names else "deploy it with `flexray deploy FILE`"


def _pinned_spec(spec: PoolSpec, of_app: str, app_id: str) -> PoolSpec:
    config = spec.config
    return replace(
        spec,
        pool_id=spec.pool_id.replace(f"{of_app}/", f"{app_id}/", 1),
        app_id=app_id,
        config=config.model_copy(
            update={"autoscaler": config.autoscaler.merged(min_containers=0), "schedule": None}
        ),
    )
