"""An app: functions that start and end together.

One rule: decorating never touches Ray; `run` starts everything, and everything that it started is gone after
it.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import secrets
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, ClassVar, ParamSpec, Protocol, Self, TypeVar, Unpack, cast, overload

from flexray import backend
from flexray.cls import Cls
from flexray.config import FunctionOptions, FunctionSource, check_environment, check_name
from flexray.dual import Dual, in_thread
from flexray.errors import ExecutionError, InvalidError
from flexray.function import Function, Home
from flexray.serialization import pack_function

logger = logging.getLogger("flexray")

P = ParamSpec("P")
R = TypeVar("R")

UNNAMED = "app"
STRATEGIES = ("rolling", "recreate")


@dataclass(frozen=True)
class LocalEntrypoint:
    """A function that runs on the caller's machine, and what `flexray run` starts."""

    name: str
    function: Callable[..., Any]
    app: App

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it here, as a plain function."""
        return self.function(*args, **kwargs)


class FunctionDecorator(Protocol):
    """What `@app.function(...)` is: calls of an async function give what it returns, not a coroutine."""

    @overload
    def __call__(self, raw: Callable[P, Coroutine[Any, Any, R]], /) -> Function[P, R]: ...
    @overload
    def __call__(self, raw: Callable[P, R], /) -> Function[P, R]: ...


class App:
    """A group of functions.

    Args:
        name: 1-64 of letters, digits, `-`, `_`, `.`; shown in Ray's listings.
        runtime_env: Ray's, for all functions of the app; laid over the caller's and under each function's.
        env: Environment variables of all containers of the app.
    """

    lookup: ClassVar[Dual[[str], App]]
    """`App.lookup(name)`: the deployed app of that name.

    Raises:
        NotFoundError: There is none; what is similar is named.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        runtime_env: dict[str, Any] | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        if name is not None:
            check_name("app", name)
        self.name = name
        self.functions: dict[str, Function[..., Any] | Cls] = {}
        self.entrypoints: dict[str, LocalEntrypoint] = {}
        self._runtime_env, self._env = check_environment("App", runtime_env, env)
        self._home = Home(name or UNNAMED)
        self._running: RunningApp | None = None
        self.version: int | None = None
        """Its number, where it was deployed by this process."""

    def __repr__(self) -> str:
        return f"<flexray.App {self.name or 'without a name'}, {len(self.functions)} functions>"

    def __reduce__(self) -> tuple[Any, ...]:
        return App, (self.name,)

    def function(self, *wrong: Any, **options: Unpack[FunctionOptions]) -> FunctionDecorator:
        """Make a function run in containers. Options: see `FunctionOptions`; all are checked here.

        Raises:
            InvalidError: An option is unknown or out of bounds, or what is decorated cannot be a function.
        """
        if wrong:
            raise InvalidError(
                f"@app.function got {wrong[0]!r:.60} where its options go",
                "write @app.function() with parentheses",
            )

        def decorate(raw: Callable[P, R]) -> Function[P, R]:
            _check_function(raw)
            function = Function(self._home, raw, {"env": None, **options})
            self._add(function)
            return function

        return cast(FunctionDecorator, decorate)

    def cls(self, *wrong: Any, **options: Unpack[FunctionOptions]) -> Callable[[type], Cls]:
        """Make a class's methods run in containers, each with one instance. Options: see `FunctionOptions`.

        Raises:
            InvalidError: An option is unknown or out of bounds, or the class cannot be used as one.
        """
        if wrong:
            raise InvalidError(
                f"@app.cls got {wrong[0]!r:.60} where its options go", "write @app.cls() with parentheses"
            )

        def decorate(raw: type) -> Cls:
            if not inspect.isclass(raw):
                name = getattr(raw, "__name__", repr(raw))
                raise InvalidError(
                    f"@app.cls decorates {name:.60}, which is not a class", "use @app.function() for it"
                )
            decorated = Cls(self._home, raw, {"env": None, **options})
            self._add(decorated)
            return decorated

        return decorate

    def _add(self, function: Function[..., Any] | Cls) -> None:
        if function.name in self.functions:
            logger.warning(
                "two functions of %s are called %s: the later one is used", self._home.app_name, function.name
            )
        self.functions[function.name] = function

    def local_entrypoint(
        self, *wrong: Any, name: str | None = None
    ) -> Callable[[Callable[P, R]], LocalEntrypoint]:
        """Mark the function that `flexray run FILE` runs here, with the app running."""
        if wrong and callable(wrong[0]):
            raise InvalidError(
                f"@app.local_entrypoint got {getattr(wrong[0], '__name__', wrong[0])} where its options go",
                "write @app.local_entrypoint() with parentheses",
            )

        def decorate(raw: Callable[P, R]) -> LocalEntrypoint:
            entrypoint = LocalEntrypoint(name or raw.__name__, raw, self)
            self.entrypoints[entrypoint.name] = entrypoint
            return entrypoint

        return decorate

    def include(self, other: App) -> Self:
        """Take in the functions of another app, which from then on live in this one.

        Raises:
            ExecutionError: The other app is running.
        """
        for app in (self, other):
            if app._running is not None:  # noqa: SLF001  # The same class.
                raise ExecutionError(
                    f"app {app._home.app_name} is running",  # noqa: SLF001
                    "include one app in another before either is started",
                )
        for function in other.functions.values():
            function.move_to(self._home)
            self._add(function)
        return self

    def run(self, *, detach: bool = False) -> RunningApp:
        """Start the app for a `with` block: its functions work inside, everything it started is gone after.

        With `detach=True` the app goes on after the block, and after this process: what was spawned runs on.
        Starts or joins Ray as `ray.init()` would. `with` and `async with` both work; in a notebook
        `running = app.run().start()` and `running.stop()` do the same.

        Raises:
            ExecutionError: The app is running already, or the cluster cannot be used.
            SerializationError: A function cannot be packed; it is named.
        """
        return RunningApp(self, detach=detach)

    # Deployed apps.

    @property
    def deploy(self) -> Dual[..., App]:
        """Make it a deployed app, or its next version: it goes on without this process, and after it.

        Args:
            name: Of the deployed app; by default this app's own.
            strategy: "rolling": old containers take inputs until new ones are ready, of which a quarter start
                at a time. "recreate": they take no more from now on. Either way they finish what they run.

        Its functions are found by name from anywhere (`Function.from_name`), and can be called here. Settings
        that were changed by `update_autoscaler` are again what the decorators say.

        Raises:
            InvalidError: It has no name, no functions, or the strategy is unknown.
            ContainerStartError: Its code cannot be loaded in containers; the version before it goes on.
            SerializationError: A function cannot be packed; it is named.
        """
        return Dual(self._deploy, self._deploy_async)

    def _deploy(self, name: str | None = None, *, strategy: str = "rolling") -> App:
        name = name or self.name
        if name is None:
            raise InvalidError(
                "an app is deployed by its name, and this one has none", 'as in App("scraper")'
            )
        check_name("app", name)
        if strategy not in STRATEGIES:
            raise InvalidError(f"strategy is {strategy!r:.60}", f"it is one of {', '.join(STRATEGIES)}")
        if not self.functions:
            raise InvalidError(f"app {name} has no functions", "decorate some with @app.function()")
        home = self._home
        if self._running is not None:
            raise ExecutionError(f"app {name} is running", "deploy it outside of `with app.run():`")
        former = home.app_id, home.started
        home.app_id, home.started = name, frozenset(self.functions)
        try:
            connected = backend.connect()
            sources = _sources(self, name)
            recreate = strategy == "recreate"
            self.version = connected.deploy(name, sources, _environment(self), recreate=recreate)
        except BaseException:
            home.app_id, home.started = former
            raise
        return self

    async def _deploy_async(self, name: str | None = None, *, strategy: str = "rolling") -> App:
        return await in_thread(lambda: self._deploy(name, strategy=strategy))

    @property
    def stop(self) -> Dual[[], None]:
        """End the deployed app of this name with everything of it that runs; ephemeral ones end with `run`.

        Raises:
            NotFoundError: None is deployed.
        """
        return Dual(self._stop, lambda: in_thread(self._stop))

    def _stop(self) -> None:
        if self._running is not None:
            raise ExecutionError(
                f"app {self._home.app_name} is running, and ends with its `with` block",
                "RunningApp.stop() ends it earlier",
            )
        name = self._home.app_id or self.name
        if name is None:
            raise InvalidError("this app has no name, so it is not deployed", "give App(...) a name")
        backend.connect().stop_app(name)
        self.version = self._home.app_id = None


def _lookup(name: str) -> App:
    app = App(name)
    app.version = next(one.version for one in backend.connect().deployments(name) if one.is_current)
    app._home.app_id = name  # noqa: SLF001  # The same module.
    return app


async def _lookup_async(name: str) -> App:
    return await in_thread(lambda: _lookup(name))


App.lookup = Dual(_lookup, _lookup_async)


class RunningApp:
    """An app between its start and its end."""

    def __init__(self, app: App, *, detach: bool = False) -> None:
        self.app = app
        self.detach = detach
        self.app_id: str | None = None
        self._backend: backend.Backend | None = None

    def start(self) -> Self:
        """Start it; returns itself. Minimum containers begin to start at once."""
        app = self.app
        home = app._home  # noqa: SLF001  # Two halves of one thing.
        if home.app_id is not None:
            raise ExecutionError(
                f"app {home.app_name} is running already", "stop it first, or use another App"
            )
        app_id = f"{home.app_name}.{secrets.token_hex(3)}"
        home.app_id, home.started = app_id, frozenset(app.functions)
        try:
            self._backend = backend.connect()
            sources = _sources(app, app_id)
            self._backend.open_app(app_id, home.app_name, sources, _environment(app), detach=self.detach)
        except BaseException as error:
            home.app_id = None
            if self._backend is not None and not isinstance(error, Exception):
                with contextlib.suppress(Exception):  # Ctrl-C: the cluster may have begun to start it.
                    self._backend.close_app(app_id)
            raise
        app._running = self  # noqa: SLF001
        self.app_id = app_id
        return self

    def stop(self) -> None:
        """End it with everything that it started, running inputs included; a detached one goes on."""
        app_id, self.app_id = self.app_id, None
        if app_id is None or self._backend is None:
            return
        self.app._home.app_id = None  # noqa: SLF001
        self.app._running = None  # noqa: SLF001
        if self._backend.is_current and not self.detach:
            self._backend.close_app(app_id)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        import asyncio  # noqa: PLC0415  # Whoever runs this has imported it already.

        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import asyncio  # noqa: PLC0415

        await asyncio.to_thread(self.stop)


def _sources(app: App, app_id: str) -> list[FunctionSource]:
    env = app._env  # noqa: SLF001
    sources = []
    for function in app.functions.values():
        config = function.config.model_copy(update={"env": {**env, **function.config.env}})
        source = FunctionSource(f"{app_id}/{function.name}", config, pack_function(function.function))
        if isinstance(function, Cls):
            source = replace(
                source,
                parameters={},
                is_template=function.is_template,
                has_exit=function.has_exit,
                interface=function.interface,
            )
        sources.append(source)
    return sources


def _environment(app: App) -> Mapping[str, Any]:
    return app._runtime_env or {}  # noqa: SLF001


def _check_function(raw: Any) -> None:
    what = f"@app.function decorates {getattr(raw, '__name__', raw)!s:.60}"
    if inspect.isclass(raw):
        raise InvalidError(f"{what}, which is a class", "use @app.cls() for it")
    if isinstance(raw, Function):
        raise InvalidError(f"{what}, which is decorated already", "give one @app.function all its options")
    if not callable(raw) or not hasattr(raw, "__name__"):
        raise InvalidError(f"{what}, which is not a function but {type(raw).__name__}", "wrap it in a def")
