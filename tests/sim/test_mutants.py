"""Every planted fault is noticed: a mutant that lives is a missing check, or a rule that nothing needs."""

from __future__ import annotations

import pytest

from tests.sim.mutants import Mutant, all_mutants

SEEDS = 200


@pytest.mark.parametrize("mutant", all_mutants(), ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_this_planted_fault_is_noticed(mutant: Mutant) -> None:
    if mutant.spare:
        with mutant.planted():
            return  # It can still be planted, and nothing needs to notice it.
    assert mutant.noticed_by(SEEDS), f"nothing noticed that {mutant.name} (rule {mutant.rule})"
