from __future__ import annotations

import pytest
from ray import cloudpickle
from ray.exceptions import RaySystemError

from flexray.config import Gpu
from flexray.runtime import roster
from flexray.runtime.roster import Listed

Kept = dict[tuple[bytes, str], bytes]


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    """What is in the key-value store of Ray's head."""
    values: Kept = {}

    def put(key: bytes, value: bytes, *, namespace: str) -> None:
        values[key, namespace] = value

    def get(key: bytes, *, namespace: str) -> bytes | None:
        return values.get((key, namespace))

    def delete(key: bytes, *, namespace: str) -> None:
        values.pop((key, namespace), None)

    def list_keys(prefix: str, *, namespace: str) -> list[bytes]:
        return [key for key, space in values if space == namespace and key.startswith(prefix.encode())]

    for name, fake in (("put", put), ("get", get), ("del", delete), ("list", list_keys)):
        monkeypatch.setattr(roster, f"_internal_kv_{name}", fake)
    return values


def test_what_was_added_is_found_until_it_is_dropped() -> None:
    roster.add("a/f#2", Listed("its handle", Gpu(kind="A100")))
    roster.add("a/f#1", Listed("another"))
    assert roster.container_ids() == ["a/f#1", "a/f#2"]
    assert roster.find("a/f#2") == Listed("its handle", Gpu(kind="A100"))
    roster.drop("a/f#2")
    roster.drop("a/f#2")
    assert roster.find("a/f#2") is None
    assert roster.container_ids() == ["a/f#1"]


class Unloadable:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def __reduce__(self) -> tuple[object, ...]:
        return fail, (self.error,)


def fail(error: Exception) -> None:
    raise error


def test_a_handle_whose_class_ray_has_forgotten_is_of_a_dead_container(kept: Kept) -> None:
    forgotten = Unloadable(AssertionError("Expected str or bytes, got NoneType"))
    kept[b"container:a/f#1", "flexray"] = cloudpickle.dumps((forgotten, None))  # type: ignore[no-untyped-call]
    assert roster.find("a/f#1") is None
    assert roster.container_ids() == ["a/f#1"]


def test_that_ray_cannot_be_asked_says_nothing_of_a_container(kept: Kept) -> None:
    away = Unloadable(RaySystemError("Ray has not been started yet"))
    kept[b"container:a/f#1", "flexray"] = cloudpickle.dumps((away, None))  # type: ignore[no-untyped-call]
    with pytest.raises(RaySystemError):
        roster.find("a/f#1")
