"""Functions and classes of deployed apps, found by name.

One rule: a handle is made without asking anybody; what it stands for is looked up at its first use, and again
when the connection or the pool that it found is gone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, Self, cast

from flexray import backend
from flexray.cls import PARAMETER_TYPES, Cls
from flexray.config import FunctionConfig, Interface, check_name, overlaid
from flexray.decorators import Marked, Parameter
from flexray.errors import ExecutionError, InvalidError
from flexray.function import Function, Home
from flexray.variants import Variant


class _Look:
    """One look-up, shared by a handle and its variants."""

    def __init__(self, app_name: str, name: str, version: int | None) -> None:
        check_name("app", app_name)
        check_name("function", name)
        if version is not None and (type(version) is not int or version < 1):
            raise InvalidError(
                f"version is {version!r:.60}", "it is a number, from 1; see `flexray app history`"
            )
        self.app_name = app_name
        self.name = name
        self.version = version
        self.home = Home(app_name)
        self._found: tuple[backend.Backend, FunctionConfig, Interface | None] | None = None
        self._lock = threading.Lock()

    def result(self) -> tuple[FunctionConfig, Interface | None]:
        """Its options, and what a class has.

        Raises:
            NotFoundError: There is no such app, function or version.
        """
        found = self._found
        if found is None or not found[0].is_current:
            with self._lock:
                connected = backend.connect()
                self.home.app_id, config, interface = connected.find(self.app_name, self.name, self.version)
                found = self._found = connected, config, interface
        return found[1:]

    def again(self) -> None:
        """What was found is gone."""
        self._found = None

    @property
    def shown(self) -> str:
        version = "" if self.version is None else f", version={self.version}"
        return f"from_name({self.app_name!r}, {self.name!r}{version})"


class FoundFunction(Function[..., Any]):
    """A function of a deployed app; see `Function.from_name`."""

    def __init__(self, look: _Look, variant: Variant = ()) -> None:
        self._look = look
        self.__name__ = look.name
        self._home = look.home
        self._options = {}
        self._variant = variant
        self._method = ""
        self._connection = None

    @property
    def _config(self) -> FunctionConfig:  # type: ignore[override]
        config, interface = self._look.result()
        if interface is not None:
            raise InvalidError(
                f"{self._look.name} of app {self._look.app_name} is a class",
                f"use flexray.Cls.{self._look.shown}",
            )
        return overlaid(config, dict(self._variant))

    @property
    def _raw(self) -> Callable[..., Any]:  # type: ignore[override]
        _refuse_code(self._look.name)

    @property
    def name(self) -> str:
        """Its name in its app."""
        return self._look.name

    def __repr__(self) -> str:
        return f"<flexray.Function.{self._look.shown}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _found_function, (self._look.app_name, self._look.name, self._look.version, self._variant)

    def local(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: its code is where it was deployed from."""
        _refuse_code(self._look.name)

    def _new(self, variant: Variant) -> Self:
        return type(self)(self._look, variant)

    def _pool_id(self) -> str:
        _ = self._config  # Which finds its app, and that it is no class.
        return super()._pool_id()

    def _forget(self) -> None:
        super()._forget()
        self._look.again()


class FoundCls(Cls):
    """A class of a deployed app; see `Cls.from_name`."""

    def __init__(self, look: _Look, variant: Variant = ()) -> None:
        self._look = look
        self.__name__ = look.name
        self.__doc__ = None
        self.home = look.home
        self._options = {}
        self._variant = variant

    @property
    def _config(self) -> FunctionConfig:  # type: ignore[override]
        return overlaid(self._look.result()[0], dict(self._variant))

    @property
    def _raw(self) -> type:  # type: ignore[override]
        _refuse_code(self._look.name)

    @property
    def _interface(self) -> Interface:
        interface = self._look.result()[1]
        if interface is None:
            raise InvalidError(
                f"{self._look.name} of app {self._look.app_name} is a function",
                f"use flexray.Function.{self._look.shown}",
            )
        return interface

    @property
    def methods(self) -> dict[str, Any]:
        """Its methods for containers, by name; their code is not here."""
        return {name: _stub(name, is_generator) for name, is_generator in self._interface.methods.items()}

    @property
    def parameters(self) -> dict[str, tuple[type, Parameter]]:
        """Its parameters: name to (type, what was declared)."""
        return {
            name: (PARAMETER_TYPES[kind], Parameter(default, has_default))
            for name, (kind, has_default, default) in self._interface.parameters.items()
        }

    @property
    def name(self) -> str:
        """Its name in its app."""
        return self._look.name

    def __repr__(self) -> str:
        return f"<flexray.Cls.{self._look.shown}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _found_cls, (self._look.app_name, self._look.name, self._look.version, self._variant)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(f"{name} is of an instance: use {self._look.name}(...).{name}")

    def _new(self, variant: Variant) -> Self:
        return type(self)(self._look, variant)

    def look_again(self) -> None:
        """What was found is gone."""
        self._look.again()


def _stub(name: str, is_generator: bool) -> Marked[..., Any]:
    def method(self: object, *args: Any, **kwargs: Any) -> Any:
        _refuse_code(name)

    def generator(self: object, *args: Any, **kwargs: Any) -> Iterator[Any]:
        yield _refuse_code(name)

    stub = cast("Callable[..., Any]", generator if is_generator else method)
    stub.__name__ = name
    return Marked(stub)


def _refuse_code(name: str) -> NoReturn:
    raise ExecutionError(
        f"the code of {name} is not here: it was looked up by name", f"use {name}.remote(...), or import it"
    )


def _found_function(app_name: str, name: str, version: int | None, variant: Variant) -> FoundFunction:
    return FoundFunction(_Look(app_name, name, version), variant)


def _found_cls(app_name: str, name: str, version: int | None, variant: Variant) -> FoundCls:
    return FoundCls(_Look(app_name, name, version), variant)


def _function_from_name(app_name: str, name: str, *, version: int | None = None) -> Function[..., Any]:
    return _found_function(app_name, name, version, ())


def _cls_from_name(app_name: str, name: str, *, version: int | None = None) -> Cls:
    return _found_cls(app_name, name, version, ())


Function.from_name = staticmethod(_function_from_name)
Cls.from_name = staticmethod(_cls_from_name)
