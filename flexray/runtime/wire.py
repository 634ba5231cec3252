"""What travels between dispatcher and container: batches, answers, and the spec of a pool.

One rule: a message is one `bytes`, which Ray carries without looking inside (measured: a fifth faster than a
tuple). Only what is large or is Ray's own (stored arguments, ObjectRefs, large results) travels beside it.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from flexray.config import AutoscalerSettings, FunctionConfig, Interface
from flexray.output import Written
from flexray.serialization import Packed, Parts

NAMESPACE = "flexray"
PROTOCOL = 4
"""What messages between processes mean: raised with every change that an earlier FlexRay would not take."""
EXIT_GRACE_S = 30.0
"""What exit hooks have."""
CONTROLLER_NAME = "flexray:controller"
CALL_QUEUE_NAME = "flexray:call-queue"
LOGS_NAME = "flexray:log-store"
GONE = "gone"
"""Answer to a report of a pool that there is no more."""
PINNED = "@"
"""In the id of an app: an earlier version. No name has it."""
FORGOTTEN = "forgotten"
"""Answer to a report of a pool that was idle for long: whoever uses it opens it again."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """Stands in the arguments for an ObjectRef that Ray resolves before the function runs."""

    number: int
    """Which of the call's ObjectRefs, in order."""


@dataclass(slots=True)
class StoredCall:
    """Arguments that do not fit in a message: large ones, or with references."""

    packed: Packed | None
    """None: they are in the object store, as the first of `objects`."""
    objects: list[Any]
    """Top-level arguments of `run`: the stored arguments, ObjectRefs to resolve, and [ref] to pass on."""
    resolved: int
    """How many ObjectRefs of `objects` Ray resolves."""


class BatchMessage(NamedTuple):
    dispatcher_id: str
    batch_id: int
    lease_number: int
    again: bool
    oldest_open: int
    """The dispatcher's oldest batch whose answer has not arrived: earlier answers may be forgotten."""
    input_ids: tuple[int, ...]
    attempts: dict[int, int]
    """Input id to attempt, where it is not the first."""
    calls: list[Any]
    """By position: packed arguments, or (packed or None, first object, objects, how many Ray resolves)."""
    call_ids: dict[int, str] = {}  # noqa: RUF012  # A named tuple's fields are not shared.
    """Number to id of the calls whose inputs these are, where they were spawned (see `callstore`)."""


class AnswerMessage(NamedTuple):
    statuses: bytes
    payloads: list[Any]
    """By position: a packed result, a packed exception, or an index into the large results beside."""
    sample_s: tuple[float, ...]
    busy_s: float
    ran: int
    bounced: bool
    output: list[Written]
    """What inputs of this dispatcher printed since the last message to it."""


class ResultsMessage(NamedTuple):
    """Results of a generator."""

    payloads: list[Any]
    ended: bool
    """None follows."""


class AccountMessage(NamedTuple):
    """The answer to `reclaim`."""

    positions: tuple[int, ...]
    statuses: bytes
    payloads: list[Any]


@dataclass(frozen=True)
class PoolSpec:
    """Everything that the controller needs to start containers of a pool."""

    pool_id: str
    """`APP_ID/FUNCTION`, and what `with_options` added."""
    app_id: str
    function_name: str
    config: FunctionConfig
    code: bytes
    """The user's function or class, packed."""
    runtime_env: dict[str, Any] = field(default_factory=dict)
    import_paths: tuple[str, ...] = ()
    parameters: dict[str, Any] | None = None
    """Of an instance of a class; None for a function."""
    is_template: bool = False
    """Pools are made of it, and it has none itself."""
    has_exit: bool = False
    interface: Interface | None = None
    """Of a class; None for a function."""
    version: int = 1
    """Of the app that was deployed."""
    is_logged: bool = False
    """What its containers print is kept, as those of deployed apps do."""


@dataclass(frozen=True)
class VariantSpec:
    """A pool with the code of another, whatever version of it is deployed, and options of its own."""

    pool_id: str
    base_pool_id: str
    options: dict[str, Any]
    """What the variant was given, in the place of the base's."""
    runtime_env: dict[str, Any] = field(default_factory=dict)
    """Laid over the base's."""
    parameters: dict[str, Any] | None = None

    @property
    def app_id(self) -> str:
        return self.base_pool_id.partition("/")[0]

    @property
    def words(self) -> str:
        """Its parameters and options, as people read them; of `env`, which may hold secrets, the names."""
        given = {**(self.parameters or {}), **self.options}
        if "env" in given:
            given["env"] = sorted(given["env"])
        return ", ".join(f"{name.removeprefix('@')}={value!r:.40}" for name, value in given.items())


class Found(NamedTuple):
    """What a look-up by name found."""

    app_id: str
    config: FunctionConfig
    interface: Interface | None


class ContainerInfo(NamedTuple):
    """One container, as whoever looks at the cluster sees it."""

    container_id: str
    app: str
    function: str
    state: str
    """`launched` (Ray has not placed it), `loading`, `ready`, `draining` (takes nothing new), `stopping`."""
    since: float
    """When it was started, or found by a restarted controller: seconds since the epoch of Unix."""
    busy: int
    """Slots that callers hold."""
    slots: int
    outdated: bool
    """Of an earlier version, or on a node that will go: another is to take its place."""
    node: str | None
    """Ray's id of its node; None: not placed."""
    variant: str = ""
    """Parameters and options that tell its pool from others of the function, in words."""


class PoolInfo(NamedTuple):
    """One pool, as whoever looks at it sees it."""

    pool_id: str
    app: str
    function: str
    containers: dict[str, int]
    """By state."""
    waiting: int
    running: int
    settings: AutoscalerSettings
    why: str
    """The autoscaler's word on how many containers there should be now."""
    notice: str | None
    """Why inputs wait, where time alone does not help."""
    decisions: tuple[tuple[float, str], ...]
    """(seconds since the epoch of Unix, in words) of those that changed something, the newest first."""
    variant: str = ""
    """As of a container."""


class ControllerInfo(NamedTuple):
    """The controller, as whoever looks at the cluster sees it."""

    version: str
    """Of FlexRay."""
    since: float
    """When it was started, or came back: seconds since the epoch of Unix."""
    deployed: int
    ephemeral: int
    waiting: int
    """Inputs, of all pools."""
    running: int
    notices: tuple[str, ...]
    """Why inputs wait, where time alone does not help."""


class Deployment(NamedTuple):
    """One version of a deployed app."""

    name: str
    version: int
    deployed_at: float
    """Seconds since the epoch of Unix."""
    functions: tuple[str, ...]
    is_current: bool
    rolled_back_to: int | None = None
    """The version of which this is a repetition."""


@dataclass(frozen=True)
class AppSpec:
    """An app that runs: its pools, and whose death ends it."""

    app_id: str
    name: str
    opener: str | None
    """The process that opened an ephemeral app; None: it does not end by itself."""
    pools: tuple[PoolSpec, ...]
    version: int = 0
    """Of a deployed app, from 1; 0: it is not deployed."""
    deployed_at: float = 0.0
    rolled_back_to: int | None = None

    @property
    def is_pinned(self) -> bool:
        """An earlier version that somebody has asked for by its number, beside the current one."""
        return PINNED in self.app_id


class LoadAnswer(NamedTuple):
    """How loading the user's code went in a container."""

    ready: bool
    busy: tuple[int, ...] = ()
    reason: str = ""
    remote_traceback: str | None = None
    permanent: bool = False
    slots: int = 1


def encode(message: Any) -> bytes:
    return pickle.dumps(message, protocol=5)


def decode(data: bytes) -> Any:
    return pickle.loads(data)


def encode_batch(message: BatchMessage) -> bytes:
    """As a plain tuple, which costs half of a named one."""
    return pickle.dumps(tuple(message), protocol=5)


def decode_batch(data: bytes) -> BatchMessage:
    return BatchMessage._make(pickle.loads(data))


def encode_answer(answer: AnswerMessage | AccountMessage | ResultsMessage) -> Any:
    """One `bytes`, or (bytes, large results), whose buffers Ray stores without a copy."""
    large: list[Parts] = []
    for position, payload in enumerate(answer.payloads):
        if type(payload) is Parts:
            answer.payloads[position] = len(large)
            large.append(payload)
    data = pickle.dumps(tuple(answer), protocol=5)
    return (data, large) if large else data


def decode_answer(data: Any) -> AnswerMessage:
    return AnswerMessage._make(_with_large(data))


def decode_results(data: Any) -> ResultsMessage:
    return ResultsMessage._make(_with_large(data))


def decode_account(data: Any) -> AccountMessage:
    return AccountMessage._make(_with_large(data))


def _with_large(data: Any) -> Any:
    """The message, with the large results that travelled beside it put in their places."""
    if type(data) is bytes:
        return pickle.loads(data)
    message = pickle.loads(data[0])
    payloads = next(field for field in message if type(field) is list)
    for position, payload in enumerate(payloads):
        if type(payload) is int:
            payloads[position] = data[1][payload]
    return message
