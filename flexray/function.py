"""A decorated function: every way to call it, and to look at and retune its pool.

One rule: a handle is made without any I/O; the first call that needs the cluster connects to it.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, ParamSpec, Self, TypedDict, TypeVar, Unpack, cast

from flexray import backend
from flexray.call import FunctionCall
from flexray.config import AutoscalerSettings, FunctionConfig, check_options
from flexray.core.cron import next_tick
from flexray.decorators import marks_of
from flexray.dual import Dual, DualIterable, in_thread
from flexray.errors import ExecutionError, InvalidError
from flexray.generators import results, results_async
from flexray.mapping import Map, MapOptions, arguments_in, check_iterators, logger, spread, zipped
from flexray.outcome import value_of
from flexray.schedule import Schedule
from flexray.spawning import Spawning, lasting, needs_wait
from flexray.variants import Variant, Variants, overridden, suffix

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(slots=True)
class Home:
    """Where the functions of one app live: shared by all of them, filled in when the app starts."""

    app_name: str
    app_id: str | None = None
    started: frozenset[str] | None = None
    """Names of the functions that the app started with; None: not known in this process."""


class MapKeywords(TypedDict, total=False):
    """The keywords of `map` and `starmap`."""

    kwargs: dict[str, Any]
    order_outputs: bool
    return_exceptions: bool
    wrap_returned_exceptions: bool | None
    progress: bool | None


@dataclass(frozen=True)
class Stats:
    """A look at a function's pool."""

    backlog: int
    """Inputs that wait for a slot, of all callers; at most one report old."""
    num_total_runners: int
    """Containers that are ready or starting."""
    num_running_inputs: int
    input_headroom: int
    """Free slots of ready containers."""
    containers: dict[str, int] = field(default_factory=dict)
    """By state: launched, loading, ready, stopping."""
    settings: AutoscalerSettings = field(default_factory=AutoscalerSettings)
    last_decision: str | None = None
    """The newest decision that started or stopped a container, in words."""


class Function(Variants, Generic[P, R]):
    """A function whose calls run in containers of a pool. Made by `@app.function`."""

    from_name: ClassVar[Callable[..., Function[..., Any]]]
    """`Function.from_name(app_name, name, *, version=None)`: a function of a deployed app, from anywhere.

    Nobody is asked before its first use. A version that is named has containers of its own.

    Raises:
        NotFoundError: At its first use: there is no such app, function or version.
    """

    def __init__(
        self,
        home: Home,
        raw: Callable[P, R],
        options: Mapping[str, Any],
        variant: Variant = (),
    ) -> None:
        given: dict[str, Any] = {**options, **dict(variant)}
        marks = marks_of(raw)
        marks["is_generator"] = is_generator(raw)
        config = check_options(raw.__name__, given, overridden(marks, given))
        if config.batching is not None:
            check_batched(config.name, raw)
        if config.schedule is not None:
            _check_scheduled(config.name, raw)
            _check_comes(config.name, config.schedule)
        self.__name__ = config.name
        self.__doc__ = raw.__doc__
        self.__wrapped__ = raw
        self._home = home
        self._raw = raw
        self._config = config
        self._options = dict(options)
        self._variant = variant
        self._method = ""
        """Which of a class's methods it is; a function is none."""
        self._connection: tuple[str, backend.Backend, backend.Client] | None = None

    @property
    def name(self) -> str:
        """The function's name in its app."""
        return self._config.name

    @property
    def function(self) -> Callable[P, R]:
        """The function as the user wrote it."""
        return self._raw

    @property
    def config(self) -> FunctionConfig:
        """Everything that its options say."""
        return self._config

    def move_to(self, home: Home) -> None:
        """Live in another app from now on."""
        self._home = home
        self._connection = None

    def __repr__(self) -> str:
        return f"<flexray.Function {self._home.app_name}/{self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Function, (
            Home(self._home.app_name, self._home.app_id),
            self._raw,
            self._options,
            self._variant,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> R:
        """Refuse: it would be unclear where the call runs."""
        name, how = self.name, "remote_gen" if self.is_generator else "remote"
        raise TypeError(
            f"{name} is a FlexRay function and is not called directly: use {name}.{how}(...) to run it in a "
            f"container, or {name}.local(...) to run it here"
        )

    # One input.

    @property
    def remote(self) -> Dual[P, R]:
        """Run one input in a container and return its result.

        Raises:
            Exception: The user's own, with the remote traceback.
            ResourceExhaustedError: The limits are reached; the input never ran.
            InputLostError: Three containers died while running it alone.
            ContainerStartError: No container can start; the input never ran.
            SerializationError: An argument cannot be packed; the input never ran.
            ExecutionError: The app is not running.
        """
        return Dual(self._remote, self._remote_async)

    def _remote(self, *args: P.args, **kwargs: P.kwargs) -> R:
        self._refuse_generator("remote")
        _warn_in_loop(self.name)
        client = self._client()
        status, payload = client.call(client.prepare(args, kwargs, self._method))
        return cast(R, value_of(self.name, self._config.at_most_once, client, status, payload))

    async def _remote_async(self, *args: P.args, **kwargs: P.kwargs) -> R:
        self._refuse_generator("remote")
        client = self._client()
        waiter = _AsyncWaiter()
        input_ids = client.submit([client.prepare(args, kwargs, self._method)], waiter, patient=False)
        try:
            status, payload = await waiter.future
        except BaseException:  # Cancelled: the input is not wanted any more.
            client.cancel(input_ids)
            raise
        value = value_of(self.name, self._config.at_most_once, client, status, payload)
        return cast(R, value)

    @property
    def remote_gen(self) -> DualIterable[..., Any]:
        """Run a generator function in a container; an iterable of what it yields, as it yields.

        The generator is at most 16 results ahead of the reader, and is closed where the reader leaves its
        loop. It runs once: where its container dies, `InputLostError` follows the results read so far.

        Raises:
            InvalidError: The function is not a generator.
            Exception: As `remote`; what the generator raises comes after the results before it.
        """
        return DualIterable(
            self._remote_gen, self._remote_gen_async, f"{self.name}.remote_gen", self._check_generator
        )

    def _remote_gen(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        client = self._client()
        return results(client, self.name, client.prepare(args, kwargs, self._method))

    def _remote_gen_async(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        self._check_generator()
        client = self._client()
        return results_async(client, self.name, client.prepare(args, kwargs, self._method))

    @property
    def is_generator(self) -> bool:
        """Whether its results come one by one."""
        return self._config.is_generator

    def _check_generator(self, *_: Any, **__: Any) -> None:
        if not self.is_generator:
            raise InvalidError(
                f"{self.name}.remote_gen is for generator functions, and {self.name} is none",
                f"use {self.name}.remote(...)",
            )

    def _refuse_generator(self, method: str) -> None:
        if self.is_generator:
            raise InvalidError(
                f"{self.name}.{method} gives one result, and {self.name} is a generator function",
                f"use `for result in {self.name}.remote_gen(...)`",
            )

    def local(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here, in this process; returns what it returns (a coroutine if it is async)."""
        return self._raw(*args, **kwargs)

    # Calls that nobody waits for.

    @property
    def spawn(self) -> Dual[..., FunctionCall[R]]:
        """Have the function run, and go on; the result can be fetched later, from any process.

        When it returns, the input is on the head node's disk: nothing but its own end, or that of its app,
        keeps it from running. Arguments that are `ray.ObjectRef`s are resolved first.

        Raises:
            ResourceExhaustedError: A million spawned inputs wait (`limits`); nothing of this one is kept.
            SerializationError: An argument cannot be packed.
            InvalidError: The function is a generator.
            ExecutionError: The app is not running, or the call queue did not come back within 30 s.
        """
        return Dual(self._spawn, self._spawn_async)

    def _spawn(self, *args: P.args, **kwargs: P.kwargs) -> FunctionCall[R]:
        spawning = self._spawning("spawn")
        return spawning.finish(spawning.add_whole(lasting(args, kwargs, self._method)))

    async def _spawn_async(self, *args: P.args, **kwargs: P.kwargs) -> FunctionCall[R]:
        spawning = await in_thread(lambda: self._spawning("spawn"))
        if needs_wait(args, kwargs):
            arguments = await in_thread(lambda: lasting(args, kwargs, self._method))
        else:
            arguments = lasting(args, kwargs, self._method)
        return spawning.finish(await spawning.add_whole_async(arguments))

    @property
    def spawn_map(self) -> Dual[..., FunctionCall[R]]:
        """Have the function run for each tuple of the zipped iterators; returns when all of them are kept.

        `kwargs` go with every input. Where a million spawned inputs wait (`limits`) it waits, too, and logs
        why. `call.iter()` gives the results in order, `call.get(index=3)` one of them.

        Raises:
            InvalidError: No iterator, or one that cannot be iterated; the function is a generator.
            SerializationError: An input cannot be packed; its position is named. The call is cancelled, as
                after any error that ends the reading of inputs.
        """
        return Dual(self._spawn_map, self._spawn_map_async)

    def _spawn_map(self, *iterators: Any, kwargs: Mapping[str, Any] | None = None) -> FunctionCall[R]:
        inputs, _ = zipped(iterators)
        given = _checked_kwargs(f"spawn_map of {self.name}", kwargs)
        return self._spawning("spawn_map").run(inputs, given, self._method)

    async def _spawn_map_async(
        self, *iterators: Any, kwargs: Mapping[str, Any] | None = None
    ) -> FunctionCall[R]:
        if any(hasattr(iterator, "__aiter__") for iterator in iterators):
            inputs: Any = _zipped_async(iterators)
        else:
            inputs, _ = zipped(iterators)
        given = _checked_kwargs(f"spawn_map of {self.name}", kwargs)
        spawning = await in_thread(lambda: self._spawning("spawn_map"))
        return await spawning.run_async(inputs, given, self._method)

    def _spawning(self, method: str) -> Spawning[R]:
        self._refuse_generator(method)
        self._client()
        assert self._connection is not None
        _, connected, _ = self._connection
        return Spawning(connected, self._pool_id(), self.name, self._pool_config, is_whole=method == "spawn")

    @property
    def _pool_config(self) -> FunctionConfig:
        """Of the pool, whose name may be that of a class."""
        return self._config

    # Many inputs.

    @property
    def map(self) -> DualIterable[..., R]:
        """Run the function for each tuple of the zipped iterators; an iterable of the results.

        Keywords: `kwargs` go with every input; `order_outputs=False` gives results as they finish;
        `return_exceptions=True` puts an exception in the place of its result; `progress=True` shows a bar.
        Inputs are read while results are read, at most 1,000 outstanding. At the limits it waits.

        Raises:
            InvalidError: No iterator, or one that cannot be iterated.
            Exception: The first failure, as soon as it arrives; the rest is cancelled.
        """
        return DualIterable(self._map, self._map_async, f"{self.name}.map", self._check_map)

    @property
    def starmap(self) -> DualIterable[..., R]:
        """As `map`, with one iterator of argument tuples."""
        return DualIterable(self._starmap, self._starmap_async, f"{self.name}.starmap", self._check_starmap)

    @property
    def for_each(self) -> Dual[..., None]:
        """Run the function for each tuple of the zipped iterators and drop the results.

        `ignore_exceptions=True` goes on after failures.
        """
        return Dual(self._for_each, self._for_each_async)

    def _check_map(self, *iterators: Any, **keywords: Any) -> None:
        _map_options(self.name, cast(MapKeywords, keywords))
        if not any(hasattr(iterator, "__aiter__") for iterator in iterators):
            check_iterators(iterators)

    def _check_starmap(self, iterator: Any, **keywords: Any) -> None:
        _map_options(self.name, cast(MapKeywords, keywords))
        if not hasattr(iterator, "__aiter__"):
            spread(iterator)

    def _map(self, *iterators: Any, **keywords: Unpack[MapKeywords]) -> Iterator[R]:
        return self._run_map("map", zipped(iterators), keywords)

    def _starmap(self, iterator: Any, **keywords: Unpack[MapKeywords]) -> Iterator[R]:
        return self._run_map("starmap", spread(iterator), keywords)

    def _for_each(
        self, *iterators: Any, ignore_exceptions: bool = False, **keywords: Unpack[MapKeywords]
    ) -> None:
        keywords = {"order_outputs": False, **keywords, "return_exceptions": ignore_exceptions}
        for _ in self._run_map("for_each", zipped(iterators), keywords):
            pass

    def _run_map(
        self, method: str, inputs: tuple[Iterator[tuple[Any, ...]], int | None], keywords: MapKeywords
    ) -> Iterator[R]:
        _refuse_in_loop(self.name, method)
        iterator, total = inputs
        return self._new_map(keywords, total).outputs(iterator)

    def _map_async(self, *iterators: Any, **keywords: Unpack[MapKeywords]) -> AsyncIterator[R]:
        if any(hasattr(iterator, "__aiter__") for iterator in iterators):
            return self._run_map_async((_zipped_async(iterators), None), keywords)
        return self._run_map_async(zipped(iterators), keywords)

    def _starmap_async(self, iterator: Any, **keywords: Unpack[MapKeywords]) -> AsyncIterator[R]:
        if hasattr(iterator, "__aiter__"):
            return self._run_map_async((_spread_async(iterator), None), keywords)
        return self._run_map_async(spread(iterator), keywords)

    async def _for_each_async(
        self, *iterators: Any, ignore_exceptions: bool = False, **keywords: Unpack[MapKeywords]
    ) -> None:
        keywords = {"order_outputs": False, **keywords, "return_exceptions": ignore_exceptions}
        async for _ in self._map_async(*iterators, **keywords):
            pass

    def _run_map_async(self, inputs: tuple[Any, int | None], keywords: MapKeywords) -> AsyncIterator[R]:
        iterator, total = inputs
        return self._new_map(keywords, total).outputs_async(iterator)

    def _new_map(self, keywords: MapKeywords, total: int | None) -> Map:
        self._refuse_generator("map")
        options = _map_options(self.name, keywords)
        options.method = self._method
        if keywords.get("wrap_returned_exceptions") is not None:  # Here, for options are checked twice.
            logger.warning("wrap_returned_exceptions does nothing: FlexRay never wraps exceptions")
        return Map(self._client(), self.name, self._config.at_most_once, options, total)

    # The pool.

    @property
    def update_autoscaler(self) -> Dual[..., AutoscalerSettings]:
        """Change settings of the running pool; returns all of those in force.

        Keywords: min_containers, max_containers, buffer_containers, scaledown_window (seconds). None leaves a
        setting as it is; changes merge, take effect at once, and last until the app ends.

        Raises:
            InvalidError: A setting is out of its bounds, alone or together with the others.
        """
        return Dual(self._update_autoscaler, self._update_autoscaler_async)

    def _update_autoscaler(
        self,
        *,
        min_containers: int | None = None,
        max_containers: int | None = None,
        buffer_containers: int | None = None,
        scaledown_window: float | None = None,
    ) -> AutoscalerSettings:
        changes = {
            "min_containers": min_containers,
            "max_containers": max_containers,
            "buffer_containers": buffer_containers,
            "scaledown_window": scaledown_window,
        }
        given = {name: value for name, value in changes.items() if value is not None}
        return self._connect()[1].update_autoscaler(self._pool_id(), given)

    async def _update_autoscaler_async(self, **changes: Any) -> AutoscalerSettings:
        return await in_thread(lambda: self._update_autoscaler(**changes))

    @property
    def get_current_stats(self) -> Dual[[], Stats]:
        """A look at the pool: cheap enough to poll ten times a second; starts nothing."""
        return Dual(self._get_current_stats, self._get_current_stats_async)

    def _get_current_stats(self) -> Stats:
        pool_id = self._pool_id()  # First: where the app does not run, no Ray is started for it.
        told = backend.connect().stats(pool_id)
        return Stats(**{**told, "settings": told["settings"] or self._config.autoscaler})

    async def _get_current_stats_async(self) -> Stats:
        return await in_thread(self._get_current_stats)

    def _new(self, variant: Variant) -> Self:
        return type(self)(self._home, self._raw, self._options, variant)

    # Connection.

    def _pool_id(self) -> str:
        app_id = self._home.app_id
        if app_id is None:
            raise ExecutionError(
                f"{self.name} was used while its app {self._home.app_name} is not running",
                f"call it inside `with app.run():`, or start the program with `flexray run`; "
                f"{self.name}.local(...) runs it here",
            )
        started = self._home.started
        if started is not None and self._started_name() not in started:
            raise ExecutionError(
                f"{self.name} was added to its app {self._home.app_name} after that had started",
                "stop the app and start it again",
            )
        return self._base_pool_id(app_id) + suffix(self._variant)

    def _started_name(self) -> str:
        """What its app knows it by."""
        return self.name

    def _base_pool_id(self, app_id: str) -> str:
        return f"{app_id}/{self.name}"

    def _client(self) -> backend.Client:
        connection = self._connection
        if connection is not None and connection[2].is_gone:
            self._forget()
            connection = None
        if connection is None or connection[0] != self._home.app_id or not connection[1].is_current:
            connection = self._connect()
        return connection[2]

    def _forget(self) -> None:
        """The pool is gone; one of its name may have come since."""
        self._connection = None

    def _connect(self) -> tuple[str, backend.Backend, backend.Client]:
        pool_id = self._pool_id()
        connected = backend.connect()
        app_id = cast(str, self._home.app_id)
        if self._variant:
            base = self._base_pool_id(app_id)
            connected.open_variant(pool_id, base, self._config, self.varied)
        self._connection = (app_id, connected, connected.client(pool_id, self._config))
        return self._connection


class _AsyncWaiter:
    """A sink for one input, on which a coroutine waits."""

    def __init__(self) -> None:
        import asyncio  # noqa: PLC0415  # Whoever runs this has imported it already.

        self._loop = asyncio.get_running_loop()
        self.future: Any = self._loop.create_future()

    def settle(self, input_ids: Any, statuses: bytes, payloads: Any) -> None:
        outcome = (statuses[0], payloads[0])
        with contextlib.suppress(RuntimeError):  # The loop was closed, and nobody waits any more.
            self._loop.call_soon_threadsafe(
                lambda: None if self.future.done() else self.future.set_result(outcome)
            )


def _map_options(name: str, keywords: MapKeywords) -> MapOptions:
    known = MapKeywords.__annotations__
    for keyword in keywords:
        if keyword not in known:
            raise InvalidError(
                f"map of {name} got an unknown keyword {keyword!r}",
                f"it takes {', '.join(known)}; arguments of the function go into kwargs={{...}}",
            )
    return MapOptions(
        kwargs=_checked_kwargs(f"map of {name}", keywords.get("kwargs")),
        ordered=keywords.get("order_outputs", True),
        return_exceptions=keywords.get("return_exceptions", False),
        progress=keywords.get("progress"),
    )


def _checked_kwargs(what: str, kwargs: Any) -> dict[str, Any]:
    if kwargs and not isinstance(kwargs, Mapping):
        raise InvalidError(
            f"{what} got kwargs={kwargs!r:.80}, of type {type(kwargs).__name__}",
            'kwargs is a dict of arguments that go with every input, as in kwargs={"scale": 2}',
        )
    return dict(kwargs or {})


def _loop_is_running() -> bool:
    """Whether a blocking call here would stop an event loop that other code needs."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or asyncio._get_running_loop() is None:  # noqa: SLF001  # The cheap form.
        return False
    ipython = sys.modules.get("IPython")
    return ipython is None or ipython.get_ipython() is None  # In a notebook a loop always runs.


def _refuse_in_loop(name: str, method: str) -> None:
    if _loop_is_running():
        raise InvalidError(
            f"{name}.{method} would block the event loop that runs here",
            f"use `async for result in {name}.{method}.aio(...)`"
            if method != "for_each"
            else f"use `await {name}.for_each.aio(...)`",
        )


def _warn_in_loop(name: str) -> None:
    if _loop_is_running():
        logger.warning(
            "%s.remote blocks the event loop that runs here: use `await %s.remote.aio(...)`", name, name
        )


async def _zipped_async(iterators: tuple[Any, ...]) -> AsyncIterator[tuple[Any, ...]]:
    """The argument tuples of a map over iterators of both kinds; the shortest wins."""
    sources = [i.__aiter__() if hasattr(i, "__aiter__") else iter(i) for i in iterators]
    while True:
        args = []
        for source in sources:
            try:
                args.append(await source.__anext__() if hasattr(source, "__anext__") else next(source))
            except (StopAsyncIteration, StopIteration):
                return
        yield tuple(args)


async def _spread_async(iterator: Any) -> AsyncIterator[tuple[Any, ...]]:
    async for item in iterator:
        yield arguments_in(item)


def is_generator(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a generator, sync or async."""
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def check_batched(name: str, function: Callable[..., Any], *, is_method: bool = False) -> None:
    """Refuse what cannot be called with one list for each of its parameters.

    Raises:
        InvalidError: It is a generator, or takes something that has no name to give it by.
    """
    if is_generator(function):
        raise InvalidError(f"{name} is batched and a generator", "return a list of results")
    for parameter in list(inspect.signature(function).parameters.values())[is_method:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise InvalidError(
                f"{name} is batched and takes {parameter}"
                + (" by position only" if parameter.kind is parameter.POSITIONAL_ONLY else ""),
                "name its parameters: it is called with one list for each of them",
            )


def _check_scheduled(name: str, function: Callable[..., Any]) -> None:
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise InvalidError(
            f"{name} is scheduled and cannot be called without arguments: {error}",
            "give its parameters defaults, or schedule a function that calls it",
        ) from None


def _check_comes(name: str, schedule: Schedule) -> None:
    if next_tick(schedule, 0.0) is None:
        raise InvalidError(
            f"{name} is scheduled by {schedule}, which never comes", "look at its day and month"
        )
