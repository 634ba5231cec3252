"""Performs one pool's effects: the hands of `core.pool`.

One rule: an effect is one Ray call or one answered report; nothing is decided here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError

from flexray.config import AutoscalerSettings, Gpu
from flexray.core.blocking import Place, Standstill, Watch
from flexray.core.estimates import Learned
from flexray.core.events import (
    AnswerReport,
    ContainerLost,
    ContainerPlaced,
    ContainerReady,
    ContainerRetired,
    DispatcherLost,
    LeaseReleased,
    NodeLeaving,
    NoticeChanged,
    PoolEvent,
    Redeployed,
    ReleaseLease,
    Reply,
    Report,
    ReportReceived,
    SettingsChanged,
    StartContainer,
    StartFailed,
    StopContainer,
    Ticked,
)
from flexray.core.ledger import State
from flexray.core.pool import Pool, PoolConfig
from flexray.core.sharing import PoolNeed, Shape
from flexray.errors import ContainerStartError, ExecutionError
from flexray.runtime.deaths import cause_of
from flexray.runtime.head import find_logs
from flexray.runtime.launcher import Handle, Launcher
from flexray.runtime.logstore import Printed
from flexray.runtime.nodetypes import known_nodes
from flexray.runtime.placement import Node, actor_options, infeasible, shape, sold_out, superseded
from flexray.runtime.roster import Listed
from flexray.runtime.wire import EXIT_GRACE_S, PINNED, ContainerInfo, LoadAnswer, PoolInfo, PoolSpec, encode

logger = logging.getLogger("flexray")

UNREACHED_PAUSE_S = 0.5
STOP_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Left:
    """What an earlier controller left of a pool."""

    settings: AutoscalerSettings | None = None
    """Changed since its deploy."""
    found: Mapping[str, Listed] = field(default_factory=dict)
    """Its containers."""
    users: Iterable[str] = ()
    """The processes that used it."""
    learned: Learned = field(default_factory=Learned)
    """Of this version of the function."""


class Awake(dict["PoolHost", None]):
    """Pools in which something has happened and time may change something."""

    def __init__(self) -> None:
        self._any = asyncio.Event()

    def add(self, host: PoolHost) -> None:
        """Something has happened there."""
        self[host] = None
        self._any.set()

    async def wait(self, timeout_s: float) -> None:
        """Until there are any; no longer than that."""
        if not self:
            self._any.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._any.wait(), timeout_s)


class PoolHost:
    """One pool with its actors and its parked reports; lives on the controller's event loop."""

    def __init__(
        self,
        spec: PoolSpec,
        epoch: int,
        launcher: Launcher,
        awake: Awake,
        *,
        numbers: tuple[int, int] = (1, 0),
        left: Left | None = None,
    ) -> None:
        left = left or Left()
        self.spec = spec
        self.closed = False
        self._spec_data = encode(spec)
        self._launcher = launcher
        self._awake = awake
        self._handles: dict[str, Handle] = {i: listed.handle for i, listed in left.found.items()}
        self._asked: dict[str, Gpu] = {i: listed.gpu for i, listed in left.found.items() if listed.gpu}
        """What containers without a place ask for."""
        self._parked: dict[tuple[str, int], asyncio.Future[Any]] = {}
        self._held: dict[str, frozenset[int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._learned_seen = 0
        config = PoolConfig(
            name=spec.pool_id,
            epoch=epoch,
            settings=left.settings or spec.config.autoscaler,
            limits=spec.config.limits,
            slots=spec.config.slots,
            target_slots=spec.config.target_slots,
            single_use=spec.config.single_use_containers,
            startup_timeout_s=spec.config.startup_timeout,
            version=spec.version,
            first_container=numbers[0],
            outdated_below=numbers[1],
            found=tuple(self._handles),
            expected_dispatchers=tuple(left.users),
            learned=left.learned,
        )
        self.pool = Pool(config, time.monotonic())
        self._watch = Watch(spec.function_name, self.pool)
        for container_id in list(self._handles):
            self._run(self._follow(container_id))
        self.handle(Ticked())

    # Events in.

    def handle(self, event: PoolEvent) -> None:
        """Take in one event and perform what follows."""
        if self.closed:
            return
        self._awake.add(self)
        for effect in self.pool.handle(event, time.monotonic()):
            match effect:
                case AnswerReport(dispatcher_id, report_number, reply):
                    self._answer(dispatcher_id, report_number, reply)
                case StartContainer(container_id):
                    self._run(self._start(container_id))
                case StopContainer(container_id, placed):
                    self._run(self._stop(container_id, placed=placed))
                case ReleaseLease(container_id, lease_number):
                    self._run(self._release(container_id, lease_number))

    async def report(self, report: Report) -> Any:
        """Park a report until it is answered: (reply, new handles), or None where a newer one released it."""
        if self.closed:
            return None
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._parked[report.dispatcher_id, report.number] = answer
        self._held[report.dispatcher_id] = frozenset(lease.number for lease in report.held)
        self.handle(ReportReceived(report))
        return await answer

    def lose_dispatcher(self, dispatcher_id: str) -> None:
        self._held.pop(dispatcher_id, None)
        self.handle(DispatcherLost(dispatcher_id))
        for key in [key for key in self._parked if key[0] == dispatcher_id]:
            answer = self._parked.pop(key)
            if not answer.done():
                answer.set_result(None)  # Nobody is there to read it.

    def leave_nodes(self, nodes: Collection[str]) -> None:
        """These nodes will go soon: what is there is replaced."""
        for container in list(self.pool.ledger.containers.values()):
            if container.node in nodes and not (container.leaves_node or container.draining):
                self.handle(NodeLeaving(container.container_id))

    @property
    def may_ask_otherwise(self) -> bool:
        """Whether launches without a place could ask for another kind of GPU."""
        return len(self.spec.config.resources.gpu) > 1 and bool(self._asked)

    def ask_otherwise(self, nodes: Sequence[Node]) -> None:
        """Launches that ask for what is sold out make way for others of a kind that may be had."""
        resources = self.spec.config.resources
        for container_id, gpu in list(self._asked.items()):
            if superseded(gpu, resources, nodes):
                self.handle(ContainerRetired(container_id))

    def change_settings(self, settings: AutoscalerSettings) -> None:
        self.handle(SettingsChanged(settings))

    def redeploy(self, spec: PoolSpec, *, recreate: bool = False) -> None:
        """Another version of the function: its containers take the place of those that are there."""
        self.spec, self._spec_data = spec, encode(spec)
        config = spec.config
        self.handle(
            Redeployed(
                spec.version,
                config.autoscaler,
                config.limits,
                config.slots,
                config.target_slots,
                config.single_use_containers,
                config.startup_timeout,
                recreate=recreate,
            )
        )

    def close(self) -> None:
        """End every container, busy or not, and release every parked report."""
        self.closed = True
        self._awake.pop(self, None)
        for answer in self._parked.values():
            if not answer.done():
                answer.set_result(None)
        self._parked.clear()
        for container_id in list(self.pool.ledger.containers):
            self._run(self._end(container_id))

    def rest(self) -> None:
        """It is idle: nothing is to be said of it, and it needs no ticks until something happens."""
        self.say(None)
        self._held.clear()
        self._awake.pop(self, None)

    @property
    def is_idle(self) -> bool:
        """A tick could change nothing."""
        pool = self.pool
        has_any = len(pool.ledger) or len(pool.callers) or pool.recovering
        return not has_any and not pool.scaling.settings.min_containers

    @property
    def busy_tasks(self) -> set[asyncio.Task[None]]:
        return self._tasks

    # Effects out.

    def _answer(self, dispatcher_id: str, report_number: int, reply: Reply | None) -> None:
        answer = self._parked.pop((dispatcher_id, report_number), None)
        if answer is None or answer.done():
            return
        if reply is None:
            answer.set_result(None)
            return
        if isinstance(reply.failure, str):
            reply = replace(reply, failure=self._failure(self._explained(reply.failure)))
        held = self._held.get(dispatcher_id, frozenset())
        handles = {
            lease.container_id: self._handles[lease.container_id]
            for lease in reply.leases
            if lease.number not in held and lease.container_id in self._handles
        }
        answer.set_result((encode(reply), handles) if handles else encode(reply))

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_event_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("in pool %s", self.spec.pool_id, exc_info=task.exception())

    async def _start(self, container_id: str) -> None:
        try:
            handle, gpu = await self._launcher.start(
                container_id, self.spec, self._spec_data, self.pool.ledger.slots
            )
        except (ExecutionError, RayError) as error:  # The disk is full, say, or Ray's head does not answer.
            reason = error.sentence() if isinstance(error, ExecutionError) else cause_of(error)
            self._not_started(container_id, reason, permanent=False)
            return
        except Exception as error:  # noqa: BLE001  # Ray refuses bad options in many ways.
            self._not_started(container_id, f"Ray refuses to create it: {error}", permanent=True)
            return
        self._handles[container_id] = handle
        if gpu is not None:
            self._asked[container_id] = gpu
        if self.closed:
            await self._end(container_id)
            await self._launcher.forget(container_id)
        else:
            await self._follow(container_id)

    def _not_started(self, container_id: str, reason: str, *, permanent: bool) -> None:
        self.handle(StartFailed(container_id, self._failure(reason), permanent=permanent))
        self.handle(ContainerLost(container_id, reason))

    async def _follow(self, container_id: str) -> None:
        """See a container through its life; the error that ends it is Ray's word of its death."""
        handle = self._handles[container_id]
        while True:
            try:
                node = await handle.placed.remote()
                self._asked.pop(container_id, None)
                self.handle(ContainerPlaced(container_id, node))
                answer: LoadAnswer = await handle.load.remote()
                if answer.ready:
                    self.handle(ContainerReady(container_id, answer.busy, answer.slots))
                else:
                    failure = self._failure(answer.reason, answer.remote_traceback)
                    self.handle(StartFailed(container_id, failure, permanent=answer.permanent))
                    await self._launcher.kill(handle)
                await handle.attend.remote()
            except ActorUnavailableError:
                await asyncio.sleep(UNREACHED_PAUSE_S)
            except ActorDiedError as error:
                self._lost(container_id, cause_of(error))
                return
            except RayError as error:  # The runtime_env could not be set up, say.
                failure = self._failure(f"{type(error).__name__}: {cause_of(error)}")
                self.handle(StartFailed(container_id, failure, permanent=False))
                self._lost(container_id, cause_of(error))
                return

    def _lost(self, container_id: str, cause: str) -> None:
        container = self.pool.ledger.containers.get(container_id)
        expected = container is None or container.state is State.STOPPING
        if self.spec.is_logged and not expected and not self.closed:
            self._run(self._log_death(container_id, cause))
        self._handles.pop(container_id, None)
        self._asked.pop(container_id, None)
        self._run(self._launcher.forget(container_id))
        self.handle(ContainerLost(container_id, cause))

    async def _log_death(self, container_id: str, cause: str) -> None:
        """What it printed last may be missing in the log, and whoever reads that should know why."""
        app = self.spec.app_id.partition(PINNED)[0]
        text = f"the container died: {cause}"
        line = Printed(app, self.spec.function_name, container_id, time.time(), "failure", text)
        with contextlib.suppress(RayError, ExecutionError):
            logs = await asyncio.get_running_loop().run_in_executor(None, find_logs)
            await logs.add.remote([line])

    async def _stop(self, container_id: str, *, placed: bool) -> None:
        handle = self._handles.get(container_id)
        while handle is None:  # The launcher has not come to it yet.
            await asyncio.sleep(0.01)
            if self.closed or container_id not in self.pool.ledger.containers:
                return
            handle = self._handles.get(container_id)
        if placed:
            with contextlib.suppress(TimeoutError, RayError):
                await asyncio.wait_for(_awaited(handle.stop.remote()), self._grace_s)
        if container_id in self._handles:
            await self._launcher.kill(handle)

    async def _end(self, container_id: str) -> None:
        handle = self._handles.pop(container_id, None)
        if handle is None:
            return
        container = self.pool.ledger.containers.get(container_id)
        if self.spec.has_exit and container is not None and container.state is State.READY:
            with contextlib.suppress(TimeoutError, RayError):
                await asyncio.wait_for(_awaited(handle.stop.remote()), self._grace_s)
        await self._launcher.kill(handle)

    @property
    def _grace_s(self) -> float:
        """How long a container that was told to stop may take."""
        return STOP_GRACE_S + (EXIT_GRACE_S if self.spec.has_exit else 0.0)

    async def _release(self, container_id: str, lease_number: int) -> None:
        handle = self._handles.get(container_id)
        if handle is None:
            return
        try:
            await handle.release.remote(lease_number)
        except RayError:
            return  # Dead, which `_follow` sees; or not reached, and asked again.
        self.handle(LeaseReleased(container_id, lease_number))

    def _failure(self, reason: str, remote_traceback: str | None = None) -> ContainerStartError:
        return ContainerStartError(self.spec.function_name, reason, remote_traceback)

    def _explained(self, reason: str) -> str:
        """The reason with what no node has, where that is why."""
        why = self._place(known_nodes()).impossible
        return reason if why is None else f"{reason}: {why.splitlines()[0]}"

    @property
    def waited_s(self) -> float:
        """How long some input has waited without a pause."""
        since = self.pool.scaling.demand_since
        return 0.0 if since is None else time.monotonic() - since

    def has_learned(self) -> bool:
        """Whether anything was learned since this was asked last."""
        seen = self.pool.scaling.seen
        known, self._learned_seen = self._learned_seen, seen
        return seen != known

    # Looks.

    def containers(self) -> list[ContainerInfo]:
        """Its containers, in the order in which they were started."""
        now, clock = time.monotonic(), time.time()
        return [
            ContainerInfo(
                container_id=container.container_id,
                app=self.spec.app_id,
                function=self.spec.function_name,
                state="draining" if container.draining else container.state.value,
                since=clock - (now - container.launched_at),
                busy=len(container.leases),
                slots=container.slots,
                outdated=container.outdated,
                node=container.node,
            )
            for container in self.pool.ledger.containers.values()
        ]

    def info(self) -> PoolInfo:
        """What it is at, and why."""
        ledger, callers, scaling = self.pool.ledger, self.pool.callers, self.pool.scaling
        now, clock = time.monotonic(), time.time()
        return PoolInfo(
            pool_id=self.spec.pool_id,
            app=self.spec.app_id,
            function=self.spec.function_name,
            containers={state.value: ledger.count(state) for state in State},
            waiting=callers.backlog,
            running=callers.assigned,
            settings=scaling.settings,
            why=scaling.explain(now),
            notice=self.pool.notice,
            decisions=tuple((clock - (now - one.at), str(one)) for one in reversed(scaling.decisions)),
        )

    async def kill(self, container_id: str) -> None:
        """End a container now, whatever it does; Ray's word of its death follows."""
        handle = self._handles.get(container_id)
        if handle is not None:
            await self._launcher.kill(handle)

    # Notices.

    def standstill(self) -> Standstill | None:
        """What holds inputs up."""
        return self._watch.look(time.monotonic(), lambda: self._place(known_nodes()))

    def need(self, now: float, nodes: Sequence[Node]) -> PoolNeed:
        """What the pool wants and could spare; room that no node can ever have is not made."""
        need = self.pool.scaling.need(self.spec.pool_id, Shape.of(self.spec.config.resources), now)
        return replace(need, lacks_room=need.lacks_room and self._place(nodes).impossible is None)

    def _place(self, nodes: Sequence[Node]) -> Place:
        options = actor_options(self.spec.config.resources, nodes)
        return Place(shape(options), infeasible(options, nodes), sold_out(options, nodes))

    def say(self, notice: str | None) -> None:
        """Tell the callers why their inputs wait, if that has changed."""
        if notice != self.pool.notice:
            self.handle(NoticeChanged(notice))


async def _awaited(ref: Any) -> Any:
    return await ref
