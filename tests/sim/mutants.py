"""Planted faults: what the checks are worth.

Each mutant of `mutants.toml` leaves one rule of the protocol out, or breaks one promise, by a change of the
source of one function or of one constant while a `with` block lasts.
"""

from __future__ import annotations
import __future__

import importlib
import inspect
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from tests.sim.play import failure_of
from tests.sim.promises import PROMISES
from tests.sim.scenarios import KINDS, scenario

EVENTS_MAX = 60_000
"""A mutant that goes round in circles is known by then."""


@dataclass(frozen=True)
class Mutant:
    """One planted fault; the fields are explained in `mutants.toml`."""

    name: str
    rule: str
    where: str
    new: Any
    hunts: list[str]
    old: str = ""
    first: int = 0
    spare: bool = False

    @contextmanager
    def planted(self) -> Iterator[None]:
        """The fault is there while the block lasts."""
        module_name, _, rest = self.where.partition(".")
        owner: Any = importlib.import_module(f"flexray.core.{module_name}")
        *path, name = rest.split(".")
        for part in path:
            owner = getattr(owner, part)
        kept = owner.__dict__[name]
        if not self.old:
            setattr(owner, name, self.new)
            try:
                yield
            finally:
                setattr(owner, name, kept)
            return
        kept = kept.fget if isinstance(kept, property) else kept
        code = kept.__code__  # Replaced in place, wherever the function was imported to.
        kept.__code__ = _edited(kept, self.old, self.new)
        try:
            yield
        finally:
            kept.__code__ = code

    def noticed_by(self, seeds: int) -> str | None:
        """What noticed it, and what was said; None: nothing did within so many seeds of each kind."""
        kinds = [kind for kind in self.hunts if kind in KINDS]
        with self.planted():
            for promise in self.hunts:
                failure = None if promise in kinds else _failure_of_promise(promise)
                if failure is not None:
                    return f"{promise}: {failure}"
            for seed in range(self.first, self.first + seeds):
                for kind in kinds:
                    failure = failure_of(scenario(seed, kind), events_max=EVENTS_MAX)
                    if failure is not None:
                        return f"{kind} {seed}: {failure}"
        return None


def _failure_of_promise(name: str) -> str | None:
    try:
        PROMISES[name]()
    except Exception as error:  # noqa: BLE001 - a crash is a way of being noticed.
        return str(error)
    return None


def _edited(function: Callable[..., Any], old: str, new: str) -> CodeType:
    source = textwrap.dedent(inspect.getsource(function)).removeprefix("@property\n")
    assert source.count(old) == 1, f"{function.__qualname__} has {source.count(old)} times {old!r}"
    names: dict[str, Any] = {}
    flags = __future__.annotations.compiler_flag
    exec(compile(source.replace(old, new), "<mutant>", "exec", flags), function.__globals__, names)
    (edited,) = names.values()
    assert isinstance(edited, FunctionType)
    return edited.__code__


def all_mutants() -> list[Mutant]:
    """Every mutant of the table."""
    table = tomllib.loads((Path(__file__).parent / "mutants.toml").read_text())
    return [Mutant(**row) for row in table["mutant"]]
