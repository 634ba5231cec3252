from __future__ import annotations

import math
import pickle
from typing import Any

import pytest

from flexray.config import (
    AutoscalerSettings,
    FunctionConfig,
    FunctionOptions,
    Gpu,
    Limits,
    Resources,
    Retries,
    check_environment,
    check_name,
    check_options,
)
from flexray.errors import InvalidError


def refusal(options: dict[str, Any]) -> str:
    with pytest.raises(InvalidError) as caught:
        check_options("resize", options)
    return str(caught.value)


def test_no_options_are_the_defaults() -> None:
    config = check_options("resize", {})
    assert config.name == "resize"
    assert config.autoscaler == AutoscalerSettings(
        min_containers=0, max_containers=None, buffer_containers=0, scaledown_window=60
    )
    assert config.resources == Resources(cpu=1.0)
    assert (config.timeout, config.startup_timeout, config.retries) == (300, 300, None)
    assert config.limits == Limits(pending=2000, total=25000, spawn_pending=1_000_000)


def test_none_stands_for_the_default_everywhere() -> None:
    nothing = dict.fromkeys(FunctionOptions.__annotations__)
    assert check_options("resize", nothing) == check_options("resize", {})


def test_the_options_and_the_fields_of_the_models_are_the_same() -> None:
    fields = {*AutoscalerSettings.model_fields, *Resources.model_fields, *FunctionConfig.model_fields}
    decorators = {"concurrency", "batching"}
    assert fields - {"autoscaler"} - decorators == set(FunctionOptions.__annotations__)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"min_containers": -1}, "min_containers is -1, but must be a whole number, 0 or more"),
        ({"min_containers": 1.0}, "min_containers is 1.0, but must be a whole number"),
        ({"min_containers": True}, "min_containers is True, but must be a whole number"),
        ({"max_containers": 0}, "max_containers is 0, but must be a whole number, 1 or more"),
        ({"max_containers": "4"}, "max_containers is '4', but must be a whole number"),
        ({"buffer_containers": -1}, "buffer_containers is -1, but must be"),
        ({"scaledown_window": 1.9}, "scaledown_window is 1.9, but must be seconds from 2 to 3600"),
        ({"scaledown_window": 3601}, "scaledown_window is 3601, but must be seconds from 2 to 3600"),
        ({"scaledown_window": math.nan}, "scaledown_window is nan, but must be seconds"),
        ({"scaledown_window": True}, "scaledown_window is True, but must be seconds"),
        ({"cpu": -0.5}, "cpu is -0.5, but must be a number of cores, 0 or more"),
        ({"cpu": math.inf}, "cpu is inf, but must be a number of cores"),
        ({"cpu": True}, "cpu is True, but must be a number of cores"),
        ({"memory": 0}, "memory is 0, but must be a whole number of MiB, 1 or more"),
        ({"memory": 0.5}, "memory is 0.5, but must be a whole number of MiB"),
        ({"num_gpus": 1.5}, "num_gpus is 1.5, but must be whole above 1"),
        ({"num_gpus": -1}, "num_gpus is -1, but must be a number of GPUs"),
        ({"num_gpus": 0.5, "gpu": "H100"}, "num_gpus is 0.5, but gpu is given too"),
        ({"gpu": ""}, "gpu is '', but must be a GPU name"),
        ({"gpu": "A100:0"}, "gpu is 'A100:0', but must be a GPU name"),
        ({"gpu": "A100:"}, "gpu is 'A100:', but must be a GPU name"),
        ({"gpu": "A100:-1"}, "gpu is 'A100:-1', but must be a GPU name"),
        ({"gpu": ["H100", 3]}, "gpu is ['H100', 3], but must be a GPU name"),
        ({"gpu": []}, "gpu is [], but must be a GPU name"),
        ({"resources": {"CPU": 1}}, "resources is {'CPU': 1.0}, but must not name CPU"),
        ({"resources": {"license": -1}}, "resources is {'license': -1}, but must be a dict"),
        ({"label_selector": {"zone": 1}}, "label_selector is {'zone': 1}, but must be a dict"),
        ({"runtime_env": "pip"}, "runtime_env is 'pip', but must be a dict"),
        ({"env": {"LEVEL": 3}}, "env is {'LEVEL': 3}, but must be a dict of environment variables"),
        ({"timeout": 0}, "timeout is 0, but must be seconds from 1 to 86400"),
        ({"timeout": 86_401}, "timeout is 86401, but must be seconds from 1 to 86400"),
        ({"startup_timeout": 0.5}, "startup_timeout is 0.5, but must be seconds from 1 to 86400"),
        ({"retries": -1}, "retries is -1, but must be a whole number, 0 or more, or Retries(...)"),
        ({"retries": True}, "retries is True, but must be a whole number"),
        ({"retries": 2.0}, "retries is 2.0, but must be a whole number"),
        ({"at_most_once": 1}, "at_most_once is 1, but must be True or False"),
        ({"limits": 100}, "limits is 100, but must be Limits(...)"),
        ({"name": ""}, "the name of the function is '', but must be 1 to 64"),
    ],
)
def test_a_value_out_of_bounds_is_refused_with_function_option_value_bound_and_hint(
    options: dict[str, Any], sentence: str
) -> None:
    said = refusal(options)
    assert said.split(": ", 1)[1].startswith(sentence)
    assert "\n\nhint: " in said


def test_the_refusal_starts_with_the_function() -> None:
    assert refusal({"min_containers": -1}).startswith("resize: min_containers is -1")


def test_a_minimum_above_the_maximum_is_refused() -> None:
    assert "min_containers is 3, but must not exceed max_containers, which is 2" in refusal(
        {"min_containers": 3, "max_containers": 2}
    )


def test_a_misspelt_option_is_answered_with_the_nearest_one() -> None:
    assert "hint: did you mean min_containers?" in refusal({"min_container": 1})


def test_an_option_like_no_other_is_answered_with_all_of_them() -> None:
    assert "hint: the options are name, min_containers, " in refusal({"zzz": 1})


@pytest.mark.parametrize(
    ("earlier", "now"),
    [
        ("concurrency_limit", "max_containers"),
        ("keep_warm", "min_containers"),
        ("container_idle_timeout", "scaledown_window"),
        ("allow_concurrent_inputs", "@flexray.concurrent(max_inputs=...)"),
    ],
)
def test_a_renamed_option_names_its_successor(earlier: str, now: str) -> None:
    assert f"hint: it is now called {now}" in refusal({earlier: 3})


@pytest.mark.parametrize(
    ("asked", "gpus"),
    [
        ("H100", (Gpu(kind="H100"),)),
        ("A100:2", (Gpu(kind="A100", count=2),)),
        ("any", (Gpu(kind="any"),)),
        ("ANY:2", (Gpu(kind="any", count=2),)),
        (["H100", "A100:2"], (Gpu(kind="H100"), Gpu(kind="A100", count=2))),
    ],
)
def test_gpus_are_named_counted_and_ordered_by_preference(asked: Any, gpus: tuple[Gpu, ...]) -> None:
    assert check_options("train", {"gpu": asked}).resources.gpu == gpus


@pytest.mark.parametrize("share", [0, 0.5, 1, 2, 4.0])
def test_a_share_of_one_gpu_or_whole_ones_are_accepted(share: float) -> None:
    assert check_options("train", {"num_gpus": share}).resources.num_gpus == share


def test_no_cores_at_all_are_accepted() -> None:
    assert check_options("resize", {"cpu": 0}).resources.cpu == 0


def test_a_number_of_retries_is_that_many_one_second_apart() -> None:
    assert check_options("resize", {"retries": 3}).retries == Retries(
        max_retries=3, backoff_coefficient=1.0, initial_delay=1.0
    )
    assert check_options("resize", {"retries": 0}).retries is None


def test_retries_are_kept_as_given() -> None:
    retries = Retries(max_retries=4, backoff_coefficient=3.0)
    assert check_options("resize", {"retries": retries}).retries == retries


def test_the_startup_timeout_follows_the_timeout_unless_given_and_is_a_minute_at_least() -> None:
    assert check_options("resize", {"timeout": 200}).startup_timeout == 200
    assert check_options("resize", {"timeout": 20}).startup_timeout == 60
    assert check_options("resize", {"timeout": 20, "startup_timeout": 5}).startup_timeout == 5


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (Retries, "max_retries of Retries is missing"),
        (lambda: Retries(max_retries=1, delay=3), "delay is not an option of Retries"),  # type: ignore[call-arg]
        (lambda: Retries(max_retries=1, backoff_coefficient=0.5), "backoff_coefficient is 0.5, but must be"),
        (lambda: Retries(max_retries=1, initial_delay=-1), "initial_delay is -1, but must be"),
        (lambda: Limits(pending=0), "pending is 0, but must be a whole number, 1 or more"),
        (lambda: Gpu(kind="two words"), "kind is 'two words', but must be the name of a GPU"),
    ],
)
def test_a_model_made_by_hand_is_checked_too(make: Any, sentence: str) -> None:
    with pytest.raises(InvalidError, match=sentence):
        make()


def test_overrides_replace_only_what_they_name() -> None:
    settings = AutoscalerSettings(min_containers=1, max_containers=10).merged(min_containers=4)
    assert settings == AutoscalerSettings(min_containers=4, max_containers=10)


def test_overrides_are_checked_against_the_settings_kept() -> None:
    with pytest.raises(InvalidError, match="min_containers is 11, but must not exceed max_containers"):
        AutoscalerSettings(max_containers=10).merged(min_containers=11)


def test_a_configuration_survives_pickling_and_json() -> None:
    config = check_options("train", {"gpu": ["H100", "A100:2"], "retries": 2, "env": {"LEVEL": "3"}})
    assert pickle.loads(pickle.dumps(config)) == config
    assert FunctionConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("name", ["a", "my-app_2.0", "x" * 64])
def test_a_name_of_letters_digits_and_marks_is_returned(name: str) -> None:
    assert check_name("app", name) == name


@pytest.mark.parametrize("name", ["", "x" * 65, "my app", "größe", "a/b", "a\n", 7, None])
def test_any_other_name_is_refused(name: object) -> None:
    with pytest.raises(InvalidError, match="the name of the app is"):
        check_name("app", name)


def test_a_lambda_is_called_lambda_unless_named() -> None:
    assert check_options("<lambda>", {}).name == "lambda"
    assert check_options("<lambda>", {"name": "double"}).name == "double"


def test_the_environment_of_an_app_is_checked_as_that_of_a_function() -> None:
    assert check_environment("shop", None, None) == (None, {})
    assert check_environment("shop", {"pip": []}, {"A": "b"}) == ({"pip": []}, {"A": "b"})
    with pytest.raises(InvalidError, match="shop: env is"):
        check_environment("shop", None, {"A": 1})  # type: ignore[dict-item]
