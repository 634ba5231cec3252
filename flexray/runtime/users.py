"""Which processes use which pools: a restarted controller waits for their reports.

One rule: the store has them too, as long as they may hold something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from flexray.runtime.store import Store


class Users:
    """Processes by pool; each is noted before its first report is taken in."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._by_pool: dict[str, dict[str, None]] = {}
        for user in store.dispatchers():
            process, _, pool_id = user.partition(" ")
            self._by_pool.setdefault(pool_id, {})[process] = None

    def of(self, pool_id: str) -> Iterable[str]:
        """The processes that use this pool."""
        return self._by_pool.get(pool_id, ())

    def add(self, pool_id: str, process: str) -> None:
        """It reports to this pool; a second time changes nothing."""
        users = self._by_pool.setdefault(pool_id, {})
        if process not in users:
            self._store.save_dispatcher(f"{process} {pool_id}")
            users[process] = None

    def forget(self, pool_id: str) -> None:
        """The pool is gone."""
        for process in self._by_pool.pop(pool_id, {}):
            self._store.delete_dispatcher(f"{process} {pool_id}")

    def forget_process(self, process: str) -> None:
        """It is dead."""
        for pool_id, users in self._by_pool.items():
            if process in users:
                self._store.delete_dispatcher(f"{process} {pool_id}")
                del users[process]

    def forget_where(self, has_nothing: Callable[[str, str], bool]) -> None:
        """Forget each process at each pool of which that is true: it need not even report."""
        for pool_id, users in self._by_pool.items():
            for process in [one for one in users if has_nothing(pool_id, one)]:
                self._store.delete_dispatcher(f"{process} {pool_id}")
                del users[process]
