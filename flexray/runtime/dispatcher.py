"""The dispatcher of this process: one thread on which answers arrive, for all pools.

One rule: Ray calls back on a thread of its own, which must never wait for Ray; so whatever it brings is put
into a queue and taken in here.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from ray.exceptions import ActorDiedError

from flexray.config import FunctionConfig
from flexray.errors import ExecutionError, InputCancelledError
from flexray.runtime.poolclient import PoolClient

logger = logging.getLogger("flexray")

Item = tuple[Callable[[Any], None], Any]
"""What takes it in, and the future that has come; None: it is called for its own sake."""

AT_ONCE_MAX = 64
"""Answers taken in before what follows from them is sent."""
TICK_S = 0.020
"""How often clocks in the core are looked at, while anything is under way."""
WATCH_PAUSE_S = 0.2
CLOSE_TIMEOUT_S = 2.0
FIND_AGAIN_S = 1.0
"""Pause before a controller is looked for again, where somebody does not give up without one."""


class Dispatcher:
    """The pools that this process uses. `process` is its identity at the controller."""

    def __init__(
        self, process: str, find_controller: Callable[[], Any], is_connected: Callable[[], bool]
    ) -> None:
        self.process = process
        self._find_controller = find_controller
        self.controller = find_controller()
        self._is_connected = is_connected
        self._clients: dict[str, PoolClient] = {}
        self._lock = threading.Lock()
        self._active: dict[PoolClient, None] = {}
        self._sending: dict[PoolClient, None] = {}
        self._queue: SimpleQueue[Item | None] = SimpleQueue()
        self._ticked_at = 0.0
        self._acting = threading.Lock()
        """Held by whoever acts for the pools as the dispatcher's thread does."""
        self._closed = False
        self._watch_at = 0.0
        self._watching = False
        self._thread = threading.Thread(target=self._run, name="flexray-dispatcher", daemon=True)
        self._thread.start()

    def client(self, pool_id: str, config: FunctionConfig) -> PoolClient:
        """The client of a pool; the same one every time."""
        client = self._clients.get(pool_id)
        if client is None:
            with self._lock:
                client = self._clients.setdefault(pool_id, PoolClient(pool_id, config, self))
        return client

    def add(self, client: PoolClient) -> None:
        """Take in a client that was made elsewhere."""
        self._clients[client.pool_id] = client

    def forget(self, client: PoolClient) -> None:
        """The pool is gone; one of the same name would be another."""
        self._clients.pop(client.pool_id, None)
        self._active.pop(client, None)

    def close_app(self, app_id: str) -> None:
        """Whatever waits in the pools of an app that has ended is cancelled."""
        for client in [c for c in self._clients.values() if c.pool_id.startswith(f"{app_id}/")]:
            client.close(
                InputCancelledError(f"an input of {client.pool_id} was cancelled: its app has ended")
            )
            self.forget(client)

    def follow(self, ref: Any, take: Callable[[Any], None]) -> None:
        """Give what the ref comes to, value or exception, to `take` on the dispatcher's thread."""
        queue = self._queue
        ref.future().add_done_callback(lambda future: queue.put((take, future)))

    def call_soon(self, act: Callable[[], None]) -> None:
        """Call it on the dispatcher's thread."""
        self._queue.put((lambda _: act(), None))

    @contextlib.contextmanager
    def borrowed(self, wait_s: float = 0.0) -> Iterator[bool]:
        """Whether the block may act in the place of the dispatcher's thread: nobody else does so by then."""
        is_mine = self._acting.acquire(timeout=max(0.0, wait_s))
        try:
            yield is_mine
        finally:
            if is_mine:
                self._acting.release()

    def wake(self, client: PoolClient) -> None:
        """The client may have clocks running."""
        if client not in self._active:
            self._active[client] = None
            self._queue.put(None)

    def send_soon(self, client: PoolClient) -> bool:
        """Have `client.send` called when what has arrived is taken in; False: this is another thread."""
        if threading.current_thread() is not self._thread:
            return False
        self._sending[client] = None
        return True

    def close(self) -> None:
        """Fail whatever waits and end the thread: Ray is being shut down, or has been."""
        self._closed = True
        self._disconnect()
        self._queue.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join(CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        while True:
            items = self._next_items()
            with self._acting:
                if not self._act(items):
                    return

    def _act(self, items: Sequence[Item]) -> bool:
        """Take these in, and do what follows and what it is time for; False: Ray was shut down."""
        for take, future in items:
            if self._is_connected():
                self._attempt(partial(_take_in, take, future))
        if not self._is_connected():
            self._disconnect()  # Any further call of Ray would start a new one.
            return False
        now = time.monotonic()
        if now - self._ticked_at >= TICK_S:
            self._ticked_at = now
            self._attempt(partial(self._tick, now))
        while self._sending:
            self._attempt(self._sending.popitem()[0].send)
        return True

    def _next_items(self) -> list[Item]:
        """Wait for something to take in, or for the next tick; then all that is there."""
        items = []
        try:
            item = self._queue.get(timeout=TICK_S if self._active else None)
            while True:
                if item is not None:
                    items.append(item)
                if len(items) == AT_ONCE_MAX:
                    break
                item = self._queue.get_nowait()
        except Empty:
            pass
        return items

    def _attempt(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception:
            if not self._closed:
                logger.exception("in the dispatcher")

    def _disconnect(self) -> None:
        for client in list(self._clients.values()):
            client.close(ExecutionError(f"an input of {client.pool_id} is lost: Ray was shut down meanwhile"))
        self._clients.clear()

    def _tick(self, now: float) -> None:
        for client in list(self._active):
            self._active.pop(client, None)  # Before the look, so that a wake in between is not lost.
            if not client.is_idle:
                self._active[client] = None
                client.tick(now)
        if self._active and not self._watching and now >= self._watch_at:
            self._watching = True
            self.follow(self.controller.watch.remote(), self._watch_ended)

    def _watch_ended(self, error: Any) -> None:
        """It fails only when the controller is dead; the successor must hear from every pool."""
        if not isinstance(error, BaseException) or not self._active:
            self._watching = False  # Where nothing is under way, a controller is found when there is.
        elif isinstance(error, ActorDiedError):
            dead = self.controller
            threading.Thread(target=self._succeed_controller, args=(dead,), daemon=True).start()
        else:
            self._watch_again()

    def _watch_again(self) -> None:
        for client in list(self._clients.values()):
            client.controller_lost()
        self._watch_at = time.monotonic() + WATCH_PAUSE_S
        self._watching = False

    def replace_controller(self, dead: Any) -> None:
        """Find or start the successor of a controller that Ray will not restart: somebody has ended it.

        Raises:
            ExecutionError: None can be started.
        """
        with self._lock:
            if self.controller is dead:
                self.controller = self._find_controller()

    def _succeed_controller(self, dead: Any) -> None:
        while True:
            try:
                self.replace_controller(dead)
                break
            except Exception as error:  # noqa: BLE001  # Ray refuses in many ways; all are told to the callers.
                self.call_soon(partial(self._give_up, error))
                time.sleep(FIND_AGAIN_S)
                if self._closed or not self._clients:
                    break
        self.call_soon(self._watch_again)

    def _give_up(self, error: Exception) -> None:
        for client in list(self._clients.values()):
            client.give_up(error)


def _take_in(take: Callable[[Any], None], future: Any) -> None:
    error = None if future is None else future.exception()
    take(error if future is None or error is not None else future.result())
