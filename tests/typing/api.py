"""What a type checker knows of the public API. Checked by mypy, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import assert_type

import flexray
from flexray.config import AutoscalerSettings
from flexray.dual import DualIterator
from flexray.function import Stats

app = flexray.App("typed", env={"LEVEL": "1"})


@app.function(max_containers=4, gpu=["H100", "A100"], retries=flexray.Retries(max_retries=3))
def resize(image: bytes, width: int = 100, *, crop: bool = False) -> str:
    """Docs of the user's own."""
    return f"{len(image)} {width} {crop}"


@app.function()
def nothing() -> None: ...


@app.local_entrypoint()
def main(count: int = 3) -> None: ...


def function_keeps_the_signature() -> None:
    assert_type(resize.remote(b"", 3, crop=True), str)
    assert_type(resize.local(b"", width=3), str)
    resize.remote("")  # type: ignore[arg-type]
    resize.remote()  # type: ignore[call-arg]
    resize.remote(b"", 3, True)  # type: ignore[call-arg]
    resize.remote(b"", crop="yes")  # type: ignore[arg-type]
    resize.local("")  # type: ignore[arg-type]
    assert_type(resize.function(b"", crop=True), str)


async def asynchronous_forms_give_the_same() -> None:
    assert_type(await resize.remote.aio(b"", 3), str)
    await resize.remote.aio(b"", widht=3)  # type: ignore[call-arg]
    assert_type([output async for output in resize.map.aio([b""])], list[str])
    assert_type(resize.starmap.aio([(b"", 3)]), AsyncIterator[str])
    assert_type([output async for output in resize.map([b""])], list[str])
    assert_type(await resize.update_autoscaler.aio(min_containers=1), AutoscalerSettings)
    assert_type(await resize.get_current_stats.aio(), Stats)
    await resize.for_each.aio([b""], ignore_exceptions=True)
    async with app.run() as running:
        assert_type(running.app, flexray.App)


def maps_give_what_the_function_returns() -> None:
    assert_type(resize.map([b"", b""], [1, 2], kwargs={"crop": True}), DualIterator[str])
    assert_type(list(resize.map([b""], order_outputs=False)), list[str])
    assert_type(list(resize.starmap([(b"", 3)], return_exceptions=True)), list[str])
    for output in resize.map([b""]):
        assert_type(output, str)
    resize.for_each([b""])


def handles_keep_the_signature_too() -> None:
    larger = resize.with_options(memory=2048, scaledown_window=30)
    assert_type(larger.remote(b"", 3), str)
    larger.remote(3)  # type: ignore[arg-type]
    resize.with_options(max_container=3)  # type: ignore[call-arg]
    doubled = app.function(name="doubled")(double)
    assert_type(doubled.remote(2), int)
    doubled.remote("")  # type: ignore[arg-type]


def double(x: int) -> int:
    return 2 * x


def options_are_checked() -> None:
    app.function(max_containers="4")  # type: ignore[arg-type]
    app.function(keep_warm=1)  # type: ignore[call-arg]
    app.function(scaledown_window=2.5, limits=flexray.Limits(pending=10))


def the_pool_has_types() -> None:
    stats = resize.get_current_stats()
    assert_type(stats.backlog, int)
    assert_type(stats.settings, AutoscalerSettings)
    assert_type(resize.update_autoscaler(max_containers=3).max_containers, int | None)


def errors_have_a_hint() -> None:
    try:
        nothing.remote()
    except flexray.ResourceExhaustedError as error:
        assert_type(error.limit, int)
        assert_type(error.hint, str | None)


def the_context_has_types() -> None:
    assert_type(flexray.is_local(), bool)
    assert_type(flexray.current_input_id(), str | None)
    assert_type(flexray.current_attempt(), int | None)
