"""The messages, events and effects of both state machines.

One rule: an event says what happened (past tense), an effect says what to do (imperative); both carry ids
and numbers, never arguments or results. What a payload holds is opaque to the core.

```
caller's process                      controller                         container
Dispatch  --Report-->                 Pool
          <--Reply--                        --StartContainer, StopContainer, ReleaseLease-->
          --SendBatch, ReclaimBatch, CancelInputs------------------------> Occupancy
          <--BatchReturned, BatchReclaimed--------------------------------
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from flexray.config import AutoscalerSettings, Limits
from flexray.core.status import PoolView

# Messages between a dispatcher and the controller: whole states, numbered (protocol rule 1).


class Lease(NamedTuple):
    """The right of one dispatcher to use one slot of a container, until returned, lost or taken back."""

    number: int
    """Used once, rises for ever: controller epoch times 2**40 plus a count."""
    container_id: str
    whole: bool = False
    """All slots of a container that has several, for one input at a time that was lost on a shared one."""


@dataclass(frozen=True, slots=True)
class ServiceSummary:
    """Service times seen since the last report: how many, their sum, and at most 32 of them."""

    count: int = 0
    total_s: float = 0.0
    sample_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What one dispatcher holds, what waits there and what it asks for, of one pool."""

    dispatcher_id: str
    number: int
    """Rises with every report of this dispatcher; a lower one than already seen is ignored."""
    seen: int
    """Number of the newest reply taken in; 0 before the first."""
    held: tuple[Lease, ...] = ()
    asked: int = 0
    """Inputs asked for since birth."""
    decided: int = 0
    """Of those, the ones whose verdict was seen; `asked - decided` are open."""
    admitted: int = 0
    """Of the decided, the ones admitted."""
    waiting: int = 0
    """Admitted inputs not assigned to a slot; sent but unstarted ones included."""
    assigned: int = 0
    """Held slots with anything sent and not returned."""
    resting: int = 0
    """Of the waiting, those in a retry's back-off: they count in the limits, not in the demand."""
    suspects: int = 0
    """Of the waiting, those that run next with a container to themselves (rule 14)."""
    patient: int = 0
    """Of the open asks, those of maps: admitted last, and refused without harm."""
    held_back: int = 0
    """Inputs of maps that wait for room before they are asked for."""
    arrived: int = 0
    """Inputs submitted since birth."""
    returned: tuple[tuple[int, float], ...] = ()
    """(lease number, seconds its slot had been idle) of leases returned since the last report."""
    service: ServiceSummary = field(default_factory=ServiceSummary)
    spawned: bool = False
    """Its inputs were spawned: they count in no limit but their own, which is kept where they are stored."""
    home: str | None = None
    """The pool of the container in which this dispatcher lives (rule 17)."""

    @property
    def is_empty(self) -> bool:
        """Nothing held, waiting or open: this dispatcher does not use the pool any more."""
        open_asks = self.asked - self.decided
        return not (self.held or self.waiting or self.assigned or open_asks or self.held_back)


@dataclass(frozen=True, slots=True)
class Reply:
    """The leases one dispatcher may use, and the verdict on what it asked for."""

    number: int
    leases: tuple[Lease, ...]
    decided: int
    admitted: int
    room: bool
    """Under nine tenths of the pending limit: maps may ask."""
    keep: int | None = None
    """How many slots this dispatcher may keep, where others need some; None: all."""
    keep_busy: bool = False
    """It has just got them: beyond `keep` it gives back only what it does not use."""
    notice: str | None = None
    """Why inputs wait, where that takes more than time."""
    failure: object = None
    """Why no container can start; every input that waits here fails with it."""
    next_in_s: float = 0.25
    view: PoolView = field(default_factory=PoolView)
    version: int = 1
    """Of the function; its options may be others than those of the last reply's."""


# Events of a Dispatch.


@dataclass(frozen=True, slots=True)
class InputsSubmitted:
    input_ids: Sequence[int]
    patient: bool = False
    """Inputs of a map: they wait for room instead of being refused."""
    once: bool = False
    """They travel one by one, never ahead, and are not run again where they may have started."""
    attempts: tuple[tuple[int, int], ...] = ()
    """(input, attempt) of those that an earlier process has run: they rest first."""


@dataclass(frozen=True, slots=True)
class StoredChanged:
    """Spawned inputs are waiting where they are stored, to be submitted when there is room in memory."""

    stored: int
    arrived: int = 0
    """How many have come since the last such event."""


@dataclass(frozen=True, slots=True)
class InputsCancelled:
    input_ids: Sequence[int]
    interrupt: bool = True
    """Whether those that run are ended, too; else they run on and their outcomes count for nothing."""


@dataclass(frozen=True, slots=True)
class ReplyReceived:
    reply: Reply
    report_number: int
    """The report that it answers."""


@dataclass(frozen=True, slots=True)
class ReportReleased:
    """The controller answered this report with nothing, since a newer one had come."""

    number: int


@dataclass(frozen=True, slots=True)
class ReportFailed:
    """The call that carried this report failed: the controller is away."""

    number: int


@dataclass(frozen=True, slots=True)
class ControllerLost:
    """The controller died: whoever it knew reports to its successor, which waits for that (rule 9)."""


@dataclass(frozen=True, slots=True)
class BatchReturned:
    """The answer to `run`: accounts for every input of the batch, in its order."""

    batch_id: int
    statuses: bytes
    payloads: Sequence[object]
    sample_s: tuple[float, ...] = ()
    busy_s: float = 0.0
    ran: int = 0
    bounced: bool = False
    """The lease it came under is gone: nothing of it was begun, or the container was for one input."""


@dataclass(frozen=True, slots=True)
class BatchReclaimed:
    """The answer to `reclaim`: what finished or was taken out of the batch, the running left out."""

    batch_id: int
    positions: tuple[int, ...]
    statuses: bytes
    payloads: Sequence[object]


@dataclass(frozen=True, slots=True)
class BatchUnreached:
    """The call that carried the batch failed otherwise than by the container's death: it may have run."""

    batch_id: int


@dataclass(frozen=True, slots=True)
class ContainerLost:
    """Ray's word that the container is dead (both machines)."""

    container_id: str
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time has passed (both machines)."""


DispatchEvent = (
    InputsSubmitted
    | StoredChanged
    | InputsCancelled
    | ReplyReceived
    | ReportReleased
    | ReportFailed
    | ControllerLost
    | BatchReturned
    | BatchReclaimed
    | BatchUnreached
    | ContainerLost
    | Ticked
)


# Effects of a Dispatch.


@dataclass(frozen=True, slots=True)
class SendReport:
    report: Report


@dataclass(frozen=True, slots=True)
class SendBatch:
    batch_id: int
    lease: Lease
    input_ids: tuple[int, ...]
    again: bool = False
    """Sent before under the same id, to the same container."""
    oldest_open: int = 0
    """This dispatcher's batches with lower ids have been answered: the container may forget them."""


@dataclass(frozen=True, slots=True)
class ReclaimBatch:
    batch_id: int
    container_id: str


@dataclass(frozen=True, slots=True)
class CancelInputs:
    batch_id: int
    container_id: str
    positions: tuple[int, ...]
    interrupts: tuple[int, ...] = ()
    """Of the positions, those to end where they run."""


@dataclass(frozen=True, slots=True)
class Settle:
    """These inputs are over; each input is named by exactly one Settle."""

    input_ids: Sequence[int]
    statuses: bytes
    payloads: Sequence[object]


@dataclass(frozen=True, slots=True)
class ForgetContainer:
    """No lease of this container is held any more: its handle may be dropped."""

    container_id: str


DispatchEffect = SendReport | SendBatch | ReclaimBatch | CancelInputs | Settle | ForgetContainer


# Events of a Pool.


@dataclass(frozen=True, slots=True)
class ReportReceived:
    report: Report


@dataclass(frozen=True, slots=True)
class DispatcherLost:
    """Ray's word that the caller's process is dead."""

    dispatcher_id: str


@dataclass(frozen=True, slots=True)
class ContainerPlaced:
    """Ray gave the container a place; the user's code is not loaded yet."""

    container_id: str
    node: str | None = None
    """Ray's id of its node."""


@dataclass(frozen=True, slots=True)
class ContainerReady:
    container_id: str
    busy: tuple[int, ...] = ()
    """Leases under which something is on it; empty but after a controller's restart."""
    slots: int | None = None
    """How many it has; told after a controller's restart, for an outdated one may have others."""


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The container was there and could not load the user's code; Ray's word of its death follows."""

    container_id: str
    failure: object
    permanent: bool = False
    """Another try cannot do better (the function does not unpickle there)."""


@dataclass(frozen=True, slots=True)
class ContainerRetired:
    """The container holds an input that cannot be stopped: it takes nothing new (rule 13)."""

    container_id: str


@dataclass(frozen=True, slots=True)
class LeaseReleased:
    """The container dropped the lease; nothing of it runs any more."""

    container_id: str
    lease_number: int


@dataclass(frozen=True, slots=True)
class SettingsChanged:
    settings: AutoscalerSettings


@dataclass(frozen=True, slots=True)
class Redeployed:
    """There is a new version of the function: its containers take the place of those that run the old one."""

    version: int
    settings: AutoscalerSettings
    limits: Limits
    slots: int = 1
    target_slots: int | None = None
    single_use: bool = False
    startup_timeout_s: float = 300.0
    recreate: bool = False
    """The old ones take nothing new from now on; otherwise each does until a new one is ready."""


@dataclass(frozen=True, slots=True)
class TickExpected:
    """When the function's declared schedule fires next; None: it has none any more."""

    in_s: float | None
    inputs: int = 1


@dataclass(frozen=True, slots=True)
class NodeLeaving:
    """The container's node will go soon: another container is to take its place."""

    container_id: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Another pool waits for room: so many idle containers beyond this pool's need are to end now."""

    count: int


@dataclass(frozen=True, slots=True)
class NoticeChanged:
    notice: str | None


PoolEvent = (
    ReportReceived
    | DispatcherLost
    | ContainerPlaced
    | ContainerReady
    | ContainerLost
    | StartFailed
    | ContainerRetired
    | LeaseReleased
    | SettingsChanged
    | Redeployed
    | NoticeChanged
    | TickExpected
    | GiveUp
    | NodeLeaving
    | Ticked
)


# Effects of a Pool.


@dataclass(frozen=True, slots=True)
class AnswerReport:
    dispatcher_id: str
    report_number: int
    reply: Reply | None
    """None: released by a newer report; not a reply."""


@dataclass(frozen=True, slots=True)
class StartContainer:
    container_id: str


@dataclass(frozen=True, slots=True)
class StopContainer:
    container_id: str
    placed: bool
    """False: Ray has not placed it, or it hangs; kill it instead of asking it to stop."""


@dataclass(frozen=True, slots=True)
class ReleaseLease:
    container_id: str
    lease_number: int


PoolEffect = AnswerReport | StartContainer | StopContainer | ReleaseLease
