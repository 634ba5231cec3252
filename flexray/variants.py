"""Handles with other options, of functions and classes: `with_options` and its like.

One rule: a variant is its options, sorted; the same options name the same pool in any process.
"""

from __future__ import annotations

import hashlib
from typing import Any, Self, Unpack

from flexray.config import Batching, Concurrency, FunctionOptions, Marks
from flexray.errors import InvalidError

Variant = tuple[tuple[str, Any], ...]
"""(option, value) of what differs from the decorator's options."""

CONCURRENCY, BATCHING = "@concurrent", "@batched"
"""What `with_concurrency` and `with_batching` are called among the options of a variant."""


class Variants:
    """What has variants."""

    _variant: Variant

    @property
    def varied(self) -> dict[str, Any]:
        """The options that differ from the decorator's."""
        return dict(self._variant)

    @property
    def name(self) -> str:
        """Its name in its app."""
        raise NotImplementedError

    def with_options(self, **options: Unpack[FunctionOptions]) -> Self:
        """A handle to the same code with other options and a pool of its own; no I/O.

        The same options give the same pool; handles stack.

        Raises:
            InvalidError: As the decorator does. A variant keeps its name.
        """
        if "name" in options:
            raise InvalidError(
                f"with_options of {self.name} got name={options['name']!r}, and a variant keeps its name",
                "decorate it again with name=... for another name",
            )
        if "schedule" in options:
            raise InvalidError(
                f"with_options of {self.name} got a schedule, and only a decorated function has one",
                "give it to @app.function(...)",
            )
        return self._with(**options)

    def with_concurrency(self, max_inputs: int, target_inputs: int | None = None) -> Self:
        """A handle whose containers run several inputs at once, as `@flexray.concurrent`; see `with_options`.

        Raises:
            InvalidError: A value is out of bounds.
        """
        return self._with(**{CONCURRENCY: Concurrency(max_inputs=max_inputs, target_inputs=target_inputs)})

    def with_batching(self, max_batch_size: int, wait_ms: int) -> Self:
        """A handle whose inputs are gathered into lists, as `@flexray.batched`; see `with_options`.

        Raises:
            InvalidError: A value is out of bounds.
        """
        return self._with(**{BATCHING: Batching(max_batch_size=max_batch_size, wait_ms=wait_ms)})

    def _with(self, **options: Any) -> Self:
        return self._new(tuple(sorted({**dict(self._variant), **options}.items())))

    def _new(self, variant: Variant) -> Self:
        """The same with this variant's options."""
        raise NotImplementedError


def overridden(marks: Marks, options: dict[str, Any]) -> Marks:
    """The marks with those in their place that a variant has among its options, which are taken out."""
    if CONCURRENCY in options:
        marks["concurrency"] = options.pop(CONCURRENCY)
    if BATCHING in options:
        marks["batching"] = options.pop(BATCHING)
    return marks


def suffix(given: Variant) -> str:
    """What tells the pool of a variant, or of a class's parameters, from the others; empty without any."""
    if not given:
        return ""
    return "~" + hashlib.sha256(repr(given).encode()).hexdigest()[:12]
