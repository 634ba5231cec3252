from __future__ import annotations

import inspect

import pytest

from flexray.runtime import faces
from flexray.runtime.callqueue import CallQueue
from flexray.runtime.controller import Controller
from flexray.runtime.logs import Logs


@pytest.mark.parametrize("behind", [Controller, CallQueue, Logs])
def test_a_face_has_every_method_that_others_may_ask_and_no_other(behind: type) -> None:
    asked = {name for name, value in vars(behind).items() if inspect.iscoroutinefunction(value)}
    face = getattr(faces, behind.__name__)
    named = {name for name, value in vars(face).items() if inspect.iscoroutinefunction(value)}
    assert named == {name for name in asked if not name.startswith("_")}
