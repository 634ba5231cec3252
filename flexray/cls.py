"""A decorated class: containers make one instance, run its enter hooks, and then inputs on its methods.

One rule: an instance made here is a handle: its parameters name its pool, and nothing runs until a method is
called.
"""

from __future__ import annotations

import difflib
import inspect
import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar, Generic, ParamSpec, Self, TypeVar, cast

from flexray import backend
from flexray.config import AutoscalerSettings, FunctionConfig, Interface, check_options
from flexray.decorators import (
    ENTER,
    EXIT,
    Parameter,
    hooks_of,
    marks_of,
    methods_of,
    new_instance,
    parameters_of,
    set_handle,
    wrapped_marks,
)
from flexray.dual import Dual
from flexray.errors import InvalidError
from flexray.function import Function, Home, Stats, check_batched, is_generator
from flexray.variants import Variant, Variants, overridden, suffix

P = ParamSpec("P")
R = TypeVar("R")

PARAMETER_TYPES = {"str": str, "int": int, "bytes": bytes, "bool": bool}
PARAMETERS_MAX_BYTES = 16 * 1024
RESERVED = ("update_autoscaler", "get_current_stats")
"""What every handle to an instance has."""


class Cls(Variants):
    """A class whose methods run in containers. Made by `@app.cls`; called, it gives a handle to one pool."""

    from_name: ClassVar[Callable[..., Cls]]
    """`Cls.from_name(app_name, name, *, version=None)`: as `Function.from_name`, of a class."""

    def __init__(
        self,
        home: Home,
        raw: type,
        options: Mapping[str, Any],
        variant: Variant = (),
    ) -> None:
        given: dict[str, Any] = {**options, **dict(variant)}
        self._raw = raw
        marks = marks_of(raw)
        _ = self.parameters  # Checked here, and not when they are used.
        for method in self.methods.values():
            if "batching" in (said := marks_of(method)):
                marks["batching"] = said["batching"]
        config = check_options(raw.__name__, given, overridden(marks, given))
        if config.schedule is not None:
            raise InvalidError(
                f"class {config.name} has a schedule", "schedule a function that calls one of its methods"
            )
        if config.batching is not None and len(self.methods) > 1:
            raise InvalidError(
                f"class {config.name} has {len(self.methods)} methods and is batched",
                "give a batched method a class of its own",
            )
        if config.batching is not None:
            for name, method in self.methods.items():
                check_batched(f"{config.name}.{name}", method.__wrapped__, is_method=True)
        self.__name__ = config.name
        self.__doc__ = raw.__doc__
        self.home = home
        self._config = config
        self._options = dict(options)
        self._variant = variant
        if not variant:
            set_handle(raw, self)

    @cached_property
    def methods(self) -> dict[str, Any]:
        """Its methods for containers, by name."""
        return _checked_methods(self._raw)

    @cached_property
    def parameters(self) -> dict[str, tuple[type, Parameter]]:
        """Its parameters: name to (type, what was declared)."""
        return _checked_parameters(self._raw)

    @property
    def name(self) -> str:
        """The class's name in its app."""
        return self._config.name

    @property
    def function(self) -> type:
        """The class as the user wrote it."""
        return self._raw

    @property
    def config(self) -> FunctionConfig:
        """Everything that its options say."""
        return self._config

    @property
    def is_template(self) -> bool:
        """Whether it takes parameters, so that there is a pool for each set of them."""
        return bool(self.parameters)

    @property
    def has_exit(self) -> bool:
        """Whether it has exit hooks."""
        return bool(hooks_of(self._raw, EXIT))

    @property
    def interface(self) -> Interface:
        """What a handle to it must know elsewhere."""
        return Interface(
            {
                name: (kind.__name__, declared.has_default, declared.default)
                for name, (kind, declared) in self.parameters.items()
            },
            {name: is_generator(method.__wrapped__) for name, method in self.methods.items()},
        )

    def move_to(self, home: Home) -> None:
        """Live in another app from now on."""
        self.home = home

    def look_again(self) -> None:
        """Its pools are gone; nothing is known here that could be wrong."""

    def __repr__(self) -> str:
        return f"<flexray.Cls {self.home.app_name}/{self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # The class comes as state, for its own methods may name this handle: then it is not whole yet.
        skipped = ("methods", "parameters", "home")
        state = {name: value for name, value in self.__dict__.items() if name not in skipped}
        return object.__new__, (Cls,), {**state, "home": Home(self.home.app_name, self.home.app_id)}

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self._raw)

    def __call__(self, *wrong: Any, **parameters: Any) -> Obj:
        """A handle to the pool of these parameters; no I/O.

        Raises:
            InvalidError: A parameter is unknown, missing, or of the wrong type; it is named.
        """
        if wrong:
            raise InvalidError(
                f"{self.name} takes its parameters by keyword and got {wrong[0]!r:.60}",
                self._shown_parameters(),
            )
        return Obj(self, self._checked(parameters))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_raw" not in self.__dict__:
            raise AttributeError(name)
        if name in self.methods:
            return _Uninstantiated(self.name, name)
        own = self.__name__
        if name not in RESERVED and name not in self.parameters and hasattr(self._raw, name):
            return getattr(self._raw, name)  # A constant, or a static method.
        if name in RESERVED:
            raise AttributeError(f"{name} is of one instance's pool: use {own}(...).{name}(...)")
        raise AttributeError(f"class {own} has no method {name!r} for containers")

    def _checked(self, parameters: dict[str, Any]) -> dict[str, Any]:
        if not parameters.keys() <= self.parameters.keys():
            self.look_again()  # A newer version may have it.
        for name in parameters:
            if name not in self.parameters:
                similar = difflib.get_close_matches(name, self.parameters, n=1)
                raise InvalidError(
                    f"{self.name} has no parameter {name!r}",
                    f"did you mean {similar[0]}?" if similar else self._shown_parameters(),
                )
        values = {}
        for name, (kind, declared) in self.parameters.items():
            if name not in parameters and not declared.has_default:
                raise InvalidError(f"{self.name} needs its parameter {name!r}", self._shown_parameters())
            value = values[name] = parameters.get(name, declared.default)
            _check_type(f"parameter {name!r} of {self.name}", kind, value)
        size = sum(_size_of(value) for value in values.values())
        if size > PARAMETERS_MAX_BYTES:
            raise InvalidError(
                f"the parameters of {self.name} have {size:,} bytes, over {PARAMETERS_MAX_BYTES:,}",
                "pass what is large to a method, or name where it is stored",
            )
        return values

    def _shown_parameters(self) -> str:
        if not self.parameters:
            return f"it has none: {self.name}()"
        shown = ", ".join(f"{name}: {kind.__name__}" for name, (kind, _) in self.parameters.items())
        return f"its parameters are {shown}"

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type]:
        """What a class inherits that names this one as its base."""
        return (self._raw,)

    def _new(self, variant: Variant) -> Self:
        return type(self)(self.home, self._raw, self._options, variant)

    def pool_of(self, app_id: str, parameters: Mapping[str, Any]) -> tuple[str, str]:
        """(pool, base pool) of these parameters."""
        base = f"{app_id}/{self.name}"
        given = tuple(sorted(parameters.items()))
        return base + suffix(self._variant) + suffix(given), base


class Obj:
    """An instance of a decorated class: a handle to the pool of its parameters."""

    def __init__(self, cls: Cls, parameters: dict[str, Any]) -> None:
        self._cls = cls
        self._parameters = parameters
        self._made: dict[str, Method[..., Any]] = {}
        self._local: Any = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self._parameters.items())
        return f"<flexray.Obj {self._cls.name}({given})>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Obj, (self._cls, self._parameters)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_cls" not in self.__dict__:
            raise AttributeError(name)
        if name in self._parameters:
            return self._parameters[name]
        if name not in self._cls.methods:
            self._cls.look_again()  # A newer version may have it.
        if name not in self._cls.methods:
            similar = difflib.get_close_matches(name, self._cls.methods, n=1)
            hint = f"; did you mean {similar[0]}?" if similar else ""
            raise AttributeError(f"{self._cls.name} has no method {name!r} for containers{hint}")
        method = self._made.get(name)
        if method is None:
            method = self._made[name] = Method(self, name)
        return method

    @property
    def update_autoscaler(self) -> Dual[..., AutoscalerSettings]:
        """Change settings of this parameter set's pool alone; see `Function.update_autoscaler`."""
        return self._pool.update_pool

    @property
    def get_current_stats(self) -> Dual[[], Stats]:
        """A look at this parameter set's pool; see `Function.get_current_stats`."""
        return self._pool.get_current_stats

    @property
    def _pool(self) -> Method[..., Any]:
        return cast("Method[..., Any]", getattr(self, next(iter(self._cls.methods))))

    def _local_instance(self) -> Any:
        """The user's own object in this process, entered once."""
        with self._lock:
            if self._local is None:
                raw = self._cls.function
                instance = new_instance(raw, self._parameters)
                for hook in hooks_of(raw, ENTER):
                    _finished(getattr(instance, hook)())
                self._local = instance
            return self._local


class Method(Function[P, R], Generic[P, R]):
    """A method of an instance: a function that shares its pool with the other methods."""

    def __init__(self, obj: Obj, name: str) -> None:
        cls = obj._cls  # noqa: SLF001  # Two halves of one thing.
        self._obj = obj
        self._parameters = obj._parameters  # noqa: SLF001
        self._cls = cls
        raw = cls.methods[name].__wrapped__
        self.__name__ = f"{cls.name}.{name}"
        self.__doc__ = raw.__doc__
        self.__wrapped__ = raw
        self._home = cls.home
        self._raw = raw
        self._options = {}
        self._variant = ()
        self._config = cls.config.model_copy(
            update={"name": self.__name__, "is_generator": is_generator(raw)}
        )
        self._method = name
        self._connection = None

    @property
    def name(self) -> str:
        """`Class.method`."""
        return self.__name__

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self._obj, self._method)

    def local(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the method here, on an instance of this process whose enter hooks run once."""
        instance = self._obj._local_instance()  # noqa: SLF001
        return cast(R, getattr(instance, self._method)(*args, **kwargs))

    @property
    def update_autoscaler(self) -> Dual[..., AutoscalerSettings]:
        """Refuse: a method has no pool of its own."""
        cls = self._cls.name
        raise InvalidError(
            f"{self.name} shares the pool of its instance and cannot be retuned alone",
            f"use {cls}(...).update_autoscaler(...), which retunes the pool of that instance",
        )

    @property
    def update_pool(self) -> Dual[..., AutoscalerSettings]:
        """`update_autoscaler` of the instance."""
        return super().update_autoscaler

    def _new(self, variant: Variant) -> Self:
        raise InvalidError(
            f"{self.name} shares the options of its class",
            f"use {self._cls.name}.with_options(...)(...).{self._method}",
        )

    def _forget(self) -> None:
        super()._forget()
        self._cls.look_again()
        _ = self._cls.config  # Which finds where it is now.

    def _base_pool_id(self, app_id: str) -> str:
        return self._cls.pool_of(app_id, self._parameters)[0]

    @property
    def _pool_config(self) -> FunctionConfig:
        return self._cls.config

    def _started_name(self) -> str:
        return self._cls.name

    def _connect(self) -> tuple[str, backend.Backend, backend.Client]:
        self._home = self._cls.home  # The class may have been included in another app.
        pool_id = self._pool_id()
        connected = backend.connect()
        app_id = cast(str, self._home.app_id)
        _, base = self._cls.pool_of(app_id, {})
        if pool_id != base:
            connected.open_variant(pool_id, base, self._cls.config, self._cls.varied, self._parameters)
        self._connection = (app_id, connected, connected.client(pool_id, self._cls.config))
        return self._connection


class _Uninstantiated:
    """A method of the class itself; every use says what is missing."""

    def __init__(self, cls: str, method: str) -> None:
        self.__dict__.update(_cls=cls, _name=method)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self._refuse(f".{name}")

    def __call__(self, *_: Any, **__: Any) -> Any:
        self._refuse("")

    def _refuse(self, use: str) -> Any:
        cls, method = self.__dict__["_cls"], self.__dict__["_name"]
        raise InvalidError(
            f"{cls}.{method}{use} was used on the class itself",
            f"instantiate it first: {cls}().{method}{use}(...)",
        )


def _checked_methods(raw: type) -> dict[str, Any]:
    name = raw.__name__
    for kind, method in wrapped_marks(raw):
        raise InvalidError(
            f"{name}.{method} is a {kind} above its @flexray decorator, whose mark nobody sees there",
            f"leave out @{kind}: containers call it on an instance",
        )
    methods = methods_of(raw)
    if not methods:
        raise InvalidError(
            f"class {name} has no method for containers", "mark those that they run with @flexray.method()"
        )
    taken = [method for method in methods if method in RESERVED]
    if taken:
        raise InvalidError(f"class {name} has a method {taken[0]!r}, which its handles have", "rename it")
    batched = [method for method, function in methods.items() if "batching" in marks_of(function)]
    if batched and len(methods) > 1:
        raise InvalidError(
            f"class {name} has {len(methods)} methods, and {batched[0]} is batched",
            "give a batched method a class of its own",
        )
    concurrent = [method for method, function in methods.items() if "concurrency" in marks_of(function)]
    if concurrent:
        raise InvalidError(
            f"{name}.{concurrent[0]} has @flexray.concurrent, and methods share their containers",
            f"decorate the class: @flexray.concurrent goes between @app.cls() and class {name}",
        )
    for maker, made in (("__init__", raw.__init__), ("__new__", raw.__new__)):  # type: ignore[misc]
        if made is not getattr(object, maker):
            raise InvalidError(
                f"class {name} has {'an' if maker == '__init__' else 'a'} {maker} of its own",
                "declare parameters with flexray.parameter(), and prepare it in an @flexray.enter() method",
            )
    if inspect.isabstract(raw):
        missing = ", ".join(sorted(raw.__abstractmethods__))  # type: ignore[attr-defined]
        raise InvalidError(
            f"class {name} is abstract: it lacks {missing}", "decorate the class that defines them"
        )
    for role in (ENTER, EXIT):
        for hook in hooks_of(raw, role):
            _check_hook(f"{role} hook {hook} of class {name}", getattr(raw, hook))
    return methods


def _check_hook(what: str, hook: Any) -> None:
    if is_generator(hook):
        raise InvalidError(f"the {what} is a generator, and nobody would iterate it", "let it return instead")
    try:
        inspect.signature(hook).bind(None)
    except TypeError:
        raise InvalidError(
            f"the {what} takes arguments, and there are none",
            "take self alone; what differs between instances is a flexray.parameter()",
        ) from None


def _checked_parameters(raw: type) -> dict[str, tuple[type, Parameter]]:
    checked = {}
    for name, (annotation, declared) in parameters_of(raw).items():
        kind = PARAMETER_TYPES.get(annotation if isinstance(annotation, str) else _name_of(annotation))
        if kind is None:
            shown = "no annotation" if annotation is None else f"the annotation {_name_of(annotation)}"
            raise InvalidError(
                f"parameter {name!r} of {raw.__name__} has {shown}",
                f"annotate it with one of {', '.join(PARAMETER_TYPES)}",
            )
        if name in RESERVED:
            raise InvalidError(
                f"class {raw.__name__} has a parameter {name!r}, which its handles have", "rename it"
            )
        if declared.has_default:
            _check_type(f"the default of parameter {name!r} of {raw.__name__}", kind, declared.default)
        checked[name] = (kind, declared)
    return checked


def _check_type(what: str, kind: type, value: object) -> None:
    if type(value) is not kind:
        raise InvalidError(
            f"{what} is {value!r:.60}, of type {type(value).__name__}", f"it must be of type {kind.__name__}"
        )


def _size_of(value: object) -> int:
    """Bytes that a parameter needs."""
    if isinstance(value, str):
        return len(value.encode())
    return len(value) if isinstance(value, bytes) else 8


def _name_of(annotation: object) -> str:
    return getattr(annotation, "__name__", str(annotation))


def _finished(result: Any) -> None:
    """Wait for an enter hook that is async, wherever it was called."""
    if not hasattr(result, "__await__"):
        return
    import asyncio  # noqa: PLC0415

    failures: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(result)
        except BaseException as error:  # noqa: BLE001  # Raised by whoever waits.
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
