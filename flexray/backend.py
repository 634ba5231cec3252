"""What the API needs of the runtime.

One rule: this is the only way from the API to Ray, and `connect` holds the one import of it, so that
`import flexray` and decorating functions never touch Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from flexray.config import AutoscalerSettings, FunctionConfig, FunctionSource
from flexray.core.status import CallInfo, Kept, PoolView, Sink, SpawnedCall


class Results(Protocol):
    """The results of one input that is a generator, on their way."""

    outcome: tuple[int, Any] | None
    """(status, payload) once it is over."""

    @property
    def is_readable(self) -> bool:
        """Whether results can be asked for, or none will come."""

    @property
    def must_ask(self) -> bool:
        """Whether there may be results that have not been fetched."""

    def fetch(self) -> list[Any]:
        """The next packed results; blocks until there are some, or news of another kind."""

    async def fetch_async(self) -> list[Any]:
        """The same for a coroutine."""

    def close(self) -> None:
        """Nobody reads any more: the generator is to end."""


class Client(Protocol):
    """One pool, as this process uses it."""

    def prepare(self, args: tuple[Any, ...], kwargs: dict[str, Any], method: str = "") -> Any:
        """Pack the arguments of one input, for that method of a class."""

    def stream(self, prepared: Any, changed: Callable[[], None]) -> Results:
        """Run one input whose results are read one by one; `changed` is called when there may be news."""

    def call(self, prepared: Any) -> tuple[int, Any]:
        """Run one input; blocks for its (status, payload)."""

    def submit(self, prepared: Sequence[Any], sink: Sink, *, patient: bool) -> list[int]:
        """Run inputs; patient ones wait for room instead of being refused. Returns their ids."""

    def cancel(self, input_ids: Sequence[int], *, interrupt: bool = True) -> None:
        """Settle these inputs as cancelled, unless they are settled; end them where they run, or let them."""

    def cancel_sink(self, sink: Sink) -> None:
        """Settle whatever this sink still waits for as cancelled."""

    @property
    def is_gone(self) -> bool:
        """The pool has ended, and nothing here can run any more."""

    @property
    def view(self) -> PoolView:
        """The pool as last heard of."""

    @property
    def notice(self) -> str | None:
        """Why inputs wait, where that takes more than time."""

    @property
    def counts(self) -> tuple[int, int, int]:
        """(waiting, running, held back for room) of this process's inputs."""


class Backend(Protocol):
    """One cluster, as this process is connected to it."""

    @property
    def is_current(self) -> bool:
        """Whether the connection still stands."""

    def client(self, pool_id: str, config: FunctionConfig) -> Client:
        """The client of a pool; nothing is sent."""

    def open_app(
        self,
        app_id: str,
        name: str,
        functions: Sequence[FunctionSource],
        environment: Mapping[str, Any],
        *,
        detach: bool = False,
    ) -> None:
        """Start an ephemeral app, which ends with this process at the latest, unless it is detached.

        `environment` is the app's runtime_env, laid under that of each function.
        """

    def deploy(
        self,
        name: str,
        functions: Sequence[FunctionSource],
        environment: Mapping[str, Any],
        *,
        recreate: bool,
    ) -> int:
        """Make this the current version of the app of that name; returns its number, from 1.

        Raises:
            ContainerStartError: Its code cannot be loaded in containers; the version before it goes on.
        """

    def find(self, app_name: str, function: str, version: int | None) -> Any:
        """(app id, config, interface of a class or None) of a function of a deployed app.

        Raises:
            NotFoundError: There is none; what is similar is named.
        """

    def rollback(self, app_name: str, version: int | None) -> int:
        """Deploy an earlier version again, by default the one before; returns the number that it gets."""

    def deployments(self, app_name: str | None = None) -> list[Any]:
        """Every deployed app, or all kept versions of one, as `runtime.wire.Deployment`."""

    def stop_app(self, app_name: str) -> None:
        """End a deployed app with everything of it that runs."""

    def close_app(self, app_id: str) -> None:
        """End an app with everything that it started."""

    def open_variant(
        self,
        pool_id: str,
        base_pool_id: str,
        config: FunctionConfig,
        options: Mapping[str, Any],
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a pool with the code of another, and with options and parameters of its own; again is fine.

        `options` are laid over those of the other as it is deployed now; `config` is what that comes to here.
        """

    def add_inputs(
        self, pool_id: str, config: FunctionConfig, call: SpawnedCall, first: int, arguments: Sequence[bytes]
    ) -> Kept:
        """Keep inputs of a call, from that position on; see `Kept`.

        Of a whole call all are accepted or none, of a part as many as there is room for.
        """

    async def add_inputs_async(
        self, pool_id: str, config: FunctionConfig, call: SpawnedCall, first: int, arguments: Sequence[bytes]
    ) -> Kept:
        """The same for a coroutine."""

    def ask_queue(self, method: str, *args: Any) -> Any:
        """What that method of `runtime.callqueue.CallQueue` answers; restarts are waited out, up to 30 s."""

    async def ask_queue_async(self, method: str, *args: Any) -> Any:
        """The same for a coroutine."""

    def outcomes(
        self, call_id: str, first: int, limit: int, wait_s: float
    ) -> tuple[CallInfo, list[tuple[int, Any]]]:
        """What is known of a call, and the outcomes of inputs from that position on, without a gap.

        Waits so long for the first of them, and no longer once it is known that there is none.
        """

    async def outcomes_async(
        self, call_id: str, first: int, limit: int, wait_s: float
    ) -> tuple[CallInfo, list[tuple[int, Any]]]:
        """The same for a coroutine."""

    def update_autoscaler(self, pool_id: str, changes: dict[str, Any]) -> AutoscalerSettings:
        """Merge these settings into those in force."""

    def info(self) -> Any:
        """A look at the controller, as `runtime.wire.ControllerInfo`."""

    def pools(self, app_name: str | None = None, function: str | None = None) -> list[Any]:
        """What pools are at, and why, as `runtime.wire.PoolInfo`: of a function, an app, or all.

        Raises:
            NotFoundError: There is no such app or function.
        """

    def containers(self, app_name: str | None = None) -> list[Any]:
        """Those of a deployed app, or of all apps, as `runtime.wire.ContainerInfo`."""

    def stop_container(self, container_id: str, *, now: bool) -> None:
        """End a container when it has run what it has, or `now`, so that its inputs run again elsewhere.

        Raises:
            NotFoundError: There is none of that id.
        """

    def ask_logs(self, method: str, *args: Any) -> Any:
        """What that method of `runtime.logs.Logs` answers; restarts are waited out, up to 30 s."""

    def stats(self, pool_id: str) -> dict[str, Any]:
        """A look at the pool; its settings are None where it is not there yet."""


def connect(*, join: bool = False) -> Backend:
    """Start or join Ray and find or start the controller; with `join` no Ray is started."""
    from flexray.runtime.session import connect  # noqa: PLC0415  # The one import of the runtime.

    return connect(join=join)


def cluster_view() -> Any:
    """What the cluster has and what of FlexRay runs there, as `runtime.cluster.ClusterView`."""
    from flexray.runtime.cluster import view  # noqa: PLC0415

    return view()


def shutdown(*, stop_apps: bool) -> int:
    """End everything of FlexRay on the cluster, whatever version it is of; returns how many actors that were.

    What is deployed and spawned is kept on the head node, unless `stop_apps`.
    """
    from flexray.runtime.cluster import shutdown  # noqa: PLC0415

    return shutdown(stop_apps=stop_apps)
