from __future__ import annotations

import pytest

from flexray.runtime import faces
from flexray.runtime.callqueue import CallQueue
from flexray.runtime.controller import Controller
from flexray.runtime.logs import Logs


@pytest.mark.parametrize("behind", [Controller, CallQueue, Logs])
def test_a_face_has_every_method_that_others_may_ask_and_no_other(behind: type) -> None:
    assert methods(getattr(faces, behind.__name__)) == methods(behind)


def methods(its_class: type) -> set[str]:
    return {name for name, value in vars(its_class).items() if callable(value) and not name.startswith("_")}
