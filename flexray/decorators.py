"""Decorators that only leave a mark on what they decorate; `@app.function` and `@app.cls` read the marks.

One rule: a marked function or class is still the user's own, so it runs, is tested and travels as it is.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar, overload

from flexray.config import Batching, Concurrency, Marks
from flexray.errors import InvalidError

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

ENTER, EXIT, METHOD = "enter", "exit", "method"
_ROLE = "__flexray_role__"
_CONCURRENCY = "__flexray_concurrency__"
_BATCHING = "__flexray_batching__"
_HANDLE = "__flexray_handle__"

REMOTE_FORMS = ("remote", "remote_gen", "map", "starmap", "for_each", "spawn", "spawn_map")

MISSING: Any = object()


@dataclass(frozen=True)
class Parameter:
    """A class's parameter, as `parameter()` made it."""

    default: Any = None
    has_default: bool = False


def parameter(*, default: Any = MISSING) -> Any:
    """A value that each instance of an `@app.cls` class is made with; annotate it str, int, bytes or bool.

    ```python
    @app.cls()
    class Model:
        version: str = flexray.parameter(default="1")
    ```

    `flexray container list` and the like show the values; secrets belong in `env=`.
    """
    return Parameter() if default is MISSING else Parameter(default, has_default=True)


class Marked(Generic[P, R]):
    """A method that containers run. On an instance it is the method itself, with `.local` as another name."""

    def __init__(self, function: Callable[P, R]) -> None:
        self.__wrapped__ = function
        functools.update_wrapper(self, function)

    @overload
    def __get__(self, instance: None, owner: Any) -> Marked[P, R]: ...
    @overload
    def __get__(self, instance: object, owner: Any) -> Any: ...  # A handle has `.remote`, an instance not.
    def __get__(self, instance: object | None, owner: Any = None) -> Any:
        return self if instance is None else BoundMethod(self.__wrapped__, instance)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function as the user wrote it."""
        return self.__wrapped__(*args, **kwargs)


class BoundMethod:
    """A method of an instance, called by the instance's own code; `.remote` and its like run it elsewhere."""

    def __init__(self, function: Callable[..., Any], instance: object) -> None:
        self.__wrapped__ = self._call = function.__get__(instance)
        self.__name__ = function.__name__
        self._instance = instance

    def __getattr__(self, name: str) -> Any:
        handle = None if name not in REMOTE_FORMS else type(self._instance).__dict__.get(_HANDLE)
        if handle is None:
            hint = "; decorate the class with @app.cls()" if name in REMOTE_FORMS else ""
            raise AttributeError(f"a method of an instance has no attribute {name!r}{hint}")
        parameters = {parameter: getattr(self._instance, parameter) for parameter in handle.parameters}
        return getattr(getattr(handle(**parameters), self.__name__), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it here."""
        return self._call(*args, **kwargs)

    def local(self, *args: Any, **kwargs: Any) -> Any:
        """The same."""
        return self._call(*args, **kwargs)


def method(*wrong: Any) -> Callable[[Callable[P, R]], Marked[P, R]]:
    """Mark a method of an `@app.cls` class that containers run: `Model().predict.remote(x)`."""
    _check_parentheses("method", wrong)

    def decorate(function: Callable[P, R]) -> Marked[P, R]:
        if isinstance(function, Marked):
            function = function.__wrapped__
        marked = Marked(function)
        setattr(marked, _ROLE, METHOD)
        return marked

    return decorate


def enter(*wrong: Any) -> Callable[[T], T]:
    """Mark a method of an `@app.cls` class that runs once in each container, before any input."""
    _check_parentheses("enter", wrong)
    return lambda function: _with_mark(function, _ROLE, ENTER)


def exit(*wrong: Any) -> Callable[[T], T]:  # noqa: A001  # The name that programs know.
    """Mark a method of an `@app.cls` class that runs before a container ends; it has 30 s."""
    _check_parentheses("exit", wrong)
    return lambda function: _with_mark(function, _ROLE, EXIT)


def concurrent(*wrong: Any, max_inputs: int, target_inputs: int | None = None) -> Callable[[T], T]:
    """Let a container run several inputs at once: sync ones on threads, async ones on one event loop.

    Args:
        wrong: Nothing; told where the parentheses are missing.
        max_inputs: The most at once, 1 to 1000.
        target_inputs: How many the pool is sized for; `max_inputs` by default. Above it, further containers
            are started, and inputs run in the meantime.

    Raises:
        InvalidError: A value is out of bounds, or the decorators are in the wrong order.
    """
    _check_parentheses("concurrent", wrong)
    concurrency = Concurrency(max_inputs=max_inputs, target_inputs=target_inputs)
    return lambda target: _with_mark(_undecorated("concurrent", target), _CONCURRENCY, concurrency)


def batched(*wrong: Any, max_batch_size: int, wait_ms: int) -> Callable[[T], T]:
    """Gather single inputs into one call: the function gets lists and returns a list of the same length.

    Args:
        wrong: Nothing; told where the parentheses are missing.
        max_batch_size: A batch of so many starts at once, 1 to 1000.
        wait_ms: A smaller one starts so many milliseconds after its first input, 0 to 600000.

    Raises:
        InvalidError: A value is out of bounds, or the decorators are in the wrong order.
    """
    _check_parentheses("batched", wrong)
    batching = Batching(max_batch_size=max_batch_size, wait_ms=wait_ms)
    return lambda target: _with_mark(_undecorated("batched", target), _BATCHING, batching)


def marks_of(target: Any) -> Marks:
    """What the decorators said about a function, or about a class and its methods."""
    marks: Marks = {}
    function = getattr(target, "__wrapped__", target)
    for owner in (function, target):
        if hasattr(owner, _CONCURRENCY):
            marks["concurrency"] = getattr(owner, _CONCURRENCY)
        if hasattr(owner, _BATCHING):
            marks["batching"] = getattr(owner, _BATCHING)
    return marks


def role_of(member: object) -> str | None:
    """`enter`, `exit` or `method`; None for what containers do not call."""
    role = getattr(member, _ROLE, None)
    return role if isinstance(role, str) else None


def methods_of(cls: type) -> dict[str, Marked[..., Any]]:
    """The methods of a class that containers run, those of its bases included, by name."""
    found: dict[str, Marked[..., Any]] = {}
    for base in reversed(cls.__mro__):
        for name, member in vars(base).items():
            if role_of(member) == METHOD or hasattr(member, _BATCHING):
                found[name] = member if isinstance(member, Marked) else Marked(member)
            elif name in found and callable(member):  # Overridden without the decorator: the same method.
                found[name] = Marked(member)
    return found


def hooks_of(cls: type, role: str) -> list[str]:
    """The names of a class's hooks, in the order in which they run: enter from the base, exit to the base."""
    names: dict[str, None] = {}
    for base in reversed(cls.__mro__):
        names.update((name, None) for name, member in vars(base).items() if role_of(member) == role)
    return list(names) if role == ENTER else list(reversed(names))


def new_instance(cls: Any, parameters: Mapping[str, Any]) -> Any:
    """An instance with these parameters, whose enter hooks have not run.

    A newer version of the class may have more of them than the parameter set knows: those are the defaults.
    """
    instance = cls.__new__(cls)
    declared: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        declared.update(vars(base))
    for name, value in declared.items():
        if isinstance(value, Parameter) and value.has_default:
            setattr(instance, name, value.default)
    for name, value in parameters.items():
        setattr(instance, name, value)
    return instance


def set_handle(cls: type, handle: object) -> None:
    """What the class is to its users, by which its own methods find each other's remote forms."""
    setattr(cls, _HANDLE, handle)


def wrapped_marks(cls: type) -> list[tuple[str, str]]:
    """(staticmethod or classmethod, name) of what has its mark inside of one, where it is not found."""
    found = []
    for base in cls.__mro__:
        for name, member in vars(base).items():
            if isinstance(member, staticmethod | classmethod) and (
                role_of(member.__func__) or hasattr(member.__func__, _BATCHING)
            ):
                found.append((type(member).__name__, name))
    return found


def parameters_of(cls: type) -> dict[str, tuple[Any, Parameter]]:
    """Name to (annotation, parameter) of a class, those of its bases included."""
    found: dict[str, tuple[Any, Parameter]] = {}
    for base in reversed(cls.__mro__):
        annotations = inspect.get_annotations(base)
        for name, member in vars(base).items():
            if isinstance(member, Parameter):
                found[name] = (annotations.get(name), member)
            else:  # Fixed by a derived class: no parameter any more.
                found.pop(name, None)
    return found


def _with_mark(target: T, mark: str, value: object) -> T:
    setattr(target, mark, value)
    return target


def _undecorated(decorator: str, target: T) -> T:
    if type(target).__module__ in ("flexray.function", "flexray.cls"):
        name = getattr(target, "__name__", target)
        raise InvalidError(
            f"@flexray.{decorator} decorates {name}, which is a FlexRay function or class already",
            f"swap the decorators: @flexray.{decorator} goes below @app.function and @app.cls",
        )
    return target


def _check_parentheses(decorator: str, wrong: tuple[Any, ...]) -> None:
    if wrong:
        name = getattr(wrong[0], "__name__", repr(wrong[0]))
        raise InvalidError(
            f"@flexray.{decorator} got {name:.60} where its options go",
            f"write @flexray.{decorator}(...) with parentheses",
        )
