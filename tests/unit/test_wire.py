from __future__ import annotations

from flexray.config import Concurrency
from flexray.runtime.wire import VariantSpec


def test_a_variant_is_told_by_its_parameters_and_options() -> None:
    options = {"cpu": 2.0, "@concurrent": Concurrency(max_inputs=3)}
    variant = VariantSpec("a/M~1", "a/M", options, parameters={"size": "large"})
    assert variant.words == "size='large', cpu=2.0, concurrent=Concurrency(max_inputs=3, target_inputs="


def test_the_values_of_variables_are_kept_to_itself() -> None:
    variant = VariantSpec("a/f~1", "a/f", {"env": {"TOKEN": "s3cret", "HOME": "/"}})
    assert variant.words == "env=['HOME', 'TOKEN']"
