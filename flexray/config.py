"""The options of functions and classes: checked once, trusted after.

One rule: whatever exists here is valid. Every model checks itself when it is made and raises `InvalidError`
naming the option, the value and the bound; `check_options` adds the function's name and is the only way from
a decorator's keywords to a `FunctionConfig`.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn, Self, TypedDict

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from flexray.errors import InvalidError
from flexray.schedule import Cron, Period

MAX_TIMEOUT_S = 86_400.0
DEFAULT_TIMEOUT_S = 300.0
SHORTEST_STARTUP_S = 60.0
"""Default startup_timeout at least: a process, or a node, needs its time whatever an input needs."""


class _Settings(BaseModel):
    """A frozen model that raises `InvalidError` where pydantic would raise `ValidationError`.

    A field's description is its rule in words; the first of its examples is the hint.
    """

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        defer_build=True,
        protected_namespaces=(),
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            failure = error.errors(include_url=False)[0]
        else:
            return
        option = str(failure["loc"][0])
        if failure["type"] == "extra_forbidden":
            _refuse_unknown(option, type(self).__name__, type(self).model_fields)
        if failure["type"] == "missing":
            message = f"{option} of {type(self).__name__} is missing"
            raise InvalidError(message, f"give it as {type(self).__name__}({option}=...)")
        field = type(self).model_fields[option]
        _refuse(option, values[option], f"must be {field.description}", (field.examples or [None])[0])


def _rule(words: str, hint: str, **bounds: Any) -> Any:
    """A field with its bounds, the same bounds in words, and what to do about a value outside them."""
    return Field(description=words, examples=[hint], **bounds)


def _refuse(option: str, value: object, rule: str, hint: str | None = None) -> NoReturn:
    message = f"{option} is {reprlib.repr(value)}, but {rule}"
    raise InvalidError(message, hint)


class AutoscalerSettings(_Settings):
    """How many containers a pool may have, and how long idle ones stay."""

    min_containers: int = _rule(
        "a whole number, 0 or more", "0 lets the pool shrink to nothing", default=0, ge=0
    )
    """Kept warm even when the function is inactive."""
    max_containers: int | None = _rule(
        "a whole number, 1 or more", "leave it out for as many as the cluster can hold", default=None, ge=1
    )
    """The most there may be; None is what the cluster can hold."""
    buffer_containers: int = _rule(
        "a whole number, 0 or more", "0 keeps no idle containers in reserve", default=0, ge=0
    )
    """Kept idle while the function is active, so that further inputs find a container ready."""
    scaledown_window: float = _rule(
        "seconds from 2 to 3600",
        "to keep containers for longer use min_containers",
        default=60.0,
        ge=2,
        le=3600,
    )
    """Seconds; the most that an idle container waits before it is stopped. 60 as in Modal."""

    @model_validator(mode="after")
    def _check_min_against_max(self) -> Self:
        if self.max_containers is not None and self.min_containers > self.max_containers:
            rule = f"must not exceed max_containers, which is {self.max_containers}"
            _refuse(
                "min_containers", self.min_containers, rule, "lower min_containers or raise max_containers"
            )
        return self

    def merged(
        self,
        *,
        min_containers: int | None = None,
        max_containers: int | None = None,
        buffer_containers: int | None = None,
        scaledown_window: float | None = None,
    ) -> AutoscalerSettings:
        """These settings with the given ones in their place; None leaves a setting as it is.

        Raises:
            InvalidError: A value is out of bounds, by itself or together with the settings kept.
        """
        overrides = {
            "min_containers": min_containers,
            "max_containers": max_containers,
            "buffer_containers": buffer_containers,
            "scaledown_window": scaledown_window,
        }
        return AutoscalerSettings(**{**dict(self), **_without_none(overrides)})


class Retries(_Settings):
    """How often a failed input runs again, and after what delay.

    The n-th retry waits `min(initial_delay * backoff_coefficient ** (n - 1), max_delay)` seconds:
    `Retries(max_retries=4)` waits 1, 2, 4 and 8 s.
    """

    max_retries: int = _rule("a whole number, 0 or more", "0 never runs a failed input again", ge=0)
    """Attempts after the first."""
    backoff_coefficient: float = _rule(
        "a number, 1 or more", "1.0 keeps the delay the same", default=2.0, ge=1
    )
    """What each delay is multiplied by to give the next."""
    initial_delay: float = _rule(
        "seconds from 0 to 86400", "0 retries at once", default=1.0, ge=0, le=MAX_TIMEOUT_S
    )
    """Seconds before the first retry."""
    max_delay: float = _rule(
        "seconds from 0 to 86400", "60 is the default", default=60.0, ge=0, le=MAX_TIMEOUT_S
    )
    """Seconds; no delay grows past it."""


class Limits(_Settings):
    """How many inputs a pool may hold, over all callers. The defaults are those of the scaling guide."""

    pending: int = _rule("a whole number, 1 or more", "2000 is the default", default=2_000, ge=1)
    """Waiting inputs; one more is refused with `ResourceExhaustedError`."""
    total: int = _rule("a whole number, 1 or more", "25000 is the default", default=25_000, ge=1)
    """Waiting and running inputs together."""
    spawn_pending: int = _rule("a whole number, 1 or more", "1000000 is the default", default=1_000_000, ge=1)
    """Waiting inputs of `.spawn`, which count in no other limit."""


class Concurrency(_Settings):
    """How many inputs one container runs at once."""

    max_inputs: int = _rule("a whole number from 1 to 1000", "1 is the default", default=1, ge=1, le=1000)
    """The most at once, while more containers are starting or none can be had."""
    target_inputs: int | None = _rule(
        "a whole number, 1 or more", "leave it out for max_inputs", default=None, ge=1
    )
    """How many the pool is sized for; None is `max_inputs`."""

    @model_validator(mode="after")
    def _check_target(self) -> Self:
        if self.target_inputs is not None and self.target_inputs > self.max_inputs:
            rule = f"must not exceed max_inputs, which is {self.max_inputs}"
            _refuse("target_inputs", self.target_inputs, rule, "lower target_inputs or raise max_inputs")
        return self


class Batching(_Settings):
    """How single inputs are gathered into one call."""

    max_batch_size: int = _rule("a whole number from 1 to 1000", "as in max_batch_size=64", ge=1, le=1000)
    """A batch of so many starts at once."""
    wait_ms: int = _rule("milliseconds from 0 to 600000", "0 waits for nothing", ge=0, le=600_000)
    """How long after its first input a smaller batch starts."""


class Gpu(_Settings):
    """GPUs of one kind."""

    kind: str = _rule(
        'the name of a GPU, as "H100", or "any"', 'as in gpu="H100"', pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
    )
    """Ray's accelerator type, or "any"."""
    count: int = _rule("a whole number, 1 or more", 'as in gpu="A100:2"', default=1, ge=1)
    """Devices of that kind for one container."""


_GPU_RULE = 'a GPU name as "H100" or "any", a name and a count as "A100:2", or a list of these'
_GPU_HINT = "for a share of one GPU of any kind use num_gpus=0.5"


def _parse_gpus(value: object) -> object:
    """The GPUs that `"H100"`, `"A100:2"`, a `Gpu`, or a list of these asks for, in order of preference."""
    if value is None:
        return ()
    choices = value if isinstance(value, list | tuple) else [value]
    if not choices and isinstance(value, list):
        _refuse("gpu", value, f"must be {_GPU_RULE}", "leave gpu out for none")
    return tuple(_parse_gpu(choice, value) for choice in choices)


def _parse_gpu(choice: object, value: object) -> Gpu:
    if isinstance(choice, Gpu):
        return choice
    if isinstance(choice, Mapping):
        return Gpu(**choice)
    if not isinstance(choice, str):
        _refuse("gpu", value, f"must be {_GPU_RULE}", _GPU_HINT)
    kind, colon, count = choice.partition(":")
    if colon and not (count.isascii() and count.isdecimal()):
        _refuse("gpu", value, f"must be {_GPU_RULE}", _GPU_HINT)
    try:
        return Gpu(kind="any" if kind.lower() == "any" else kind, count=int(count) if colon else 1)
    except InvalidError:
        _refuse("gpu", value, f"must be {_GPU_RULE}", _GPU_HINT)


_OWN_WORDS = {"CPU": "cpu", "GPU": "gpu or num_gpus", "memory": "memory"}
"""Names that Ray refuses in `resources`, and the option that says the same here."""


class Resources(_Settings):
    """What one container asks of its node."""

    cpu: float = _rule("a number of cores, 0 or more", "0 asks for no core of its own", default=1.0, ge=0)
    """Cores. A container is placed by it and not throttled to it."""
    memory: int | None = _rule("a whole number of MiB, 1 or more", "memory=1024 is 1 GiB", default=None, ge=1)
    """MiB; None asks for none."""
    gpu: Annotated[tuple[Gpu, ...], BeforeValidator(_parse_gpus)] = _rule(_GPU_RULE, _GPU_HINT, default=())
    """Kinds in order of preference; the first that fits is used."""
    num_gpus: float | None = _rule(
        "a number of GPUs, 0 or more",
        'num_gpus=0.5 shares one GPU between two containers; to choose the kind use gpu="H100"',
        default=None,
        ge=0,
    )
    """GPUs of any kind, in Ray's own words; a share below 1, whole above."""
    resources: dict[str, Annotated[float, Field(ge=0)]] = _rule(
        "a dict of names and numbers, 0 or more", 'as in resources={"license": 1}', default_factory=dict
    )
    """Ray's custom resources, passed on."""
    label_selector: dict[str, str] = _rule(
        "a dict of label names and values, both str",
        'as in label_selector={"market-type": "spot"}',
        default_factory=dict,
    )
    """Ray's node labels, passed on."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.num_gpus is not None and self.gpu:
            _refuse("num_gpus", self.num_gpus, "gpu is given too", "use one of the two")
        if self.num_gpus is not None and self.num_gpus > 1 and self.num_gpus % 1:
            hint = "Ray shares single GPUs only; round it up"
            _refuse("num_gpus", self.num_gpus, "must be whole above 1", hint)
        for name in self.resources.keys() & _OWN_WORDS.keys():
            _refuse("resources", self.resources, f"must not name {name}", f"use {_OWN_WORDS[name]}=")
        return self


def _parse_retries(value: object) -> object:
    """No retries for None and 0, retries 1 s apart for another whole number, else the value itself."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return Retries(max_retries=value, backoff_coefficient=1.0) if value else None
    return value


def _check_schedule(value: object) -> object:
    if value is not None and not isinstance(value, Cron | Period):
        message = "no schedule"
        raise ValueError(message)
    return value


class FunctionConfig(_Settings):
    """Everything that the options of one function or class say."""

    name: str
    """Unique in its app."""
    autoscaler: AutoscalerSettings = Field(default_factory=AutoscalerSettings)
    resources: Resources = Field(default_factory=Resources)
    runtime_env: dict[str, Any] | None = _rule(
        "a dict as ray.init takes it", 'as in runtime_env={"pip": ["emoji"]}', default=None
    )
    """Ray's runtime environment, passed on; None is the caller's."""
    env: dict[str, str] = _rule(
        "a dict of environment variables, names and values both str",
        'as in env={"LEVEL": "3"}',
        default_factory=dict,
    )
    """Environment variables of the containers."""
    timeout: float = _rule(
        "seconds from 1 to 86400",
        "split longer work into several inputs",
        default=DEFAULT_TIMEOUT_S,
        ge=1,
        le=MAX_TIMEOUT_S,
    )
    """Seconds for one attempt, queueing excluded."""
    startup_timeout: float = _rule(
        "seconds from 1 to 86400",
        "leave it out to use the timeout",
        default_factory=lambda fields: max(SHORTEST_STARTUP_S, fields.get("timeout", DEFAULT_TIMEOUT_S)),
        ge=1,
        le=MAX_TIMEOUT_S,
    )
    """Seconds for finding a place, imports and enter hooks; by default the timeout, 60 at least."""
    retries: Annotated[Retries | None, BeforeValidator(_parse_retries)] = _rule(
        "a whole number, 0 or more, or Retries(...)",
        "for growing delays use flexray.Retries(max_retries=3)",
        default=None,
    )
    """When an input that raised runs again; None is never."""
    at_most_once: bool = _rule("True or False", "False is the default", default=False)
    """Never run again an input that may have started."""
    limits: Limits = _rule("Limits(...)", "as in limits=flexray.Limits(pending=100)", default_factory=Limits)
    """How many inputs the pool may hold."""
    single_use_containers: bool = _rule("True or False", "False is the default", default=False)
    """A container serves one input and ends."""
    is_generator: bool = _rule("True or False", "leave it out: it is seen at the function", default=False)
    """It gives its results one by one; such an input that may have started never runs again."""
    schedule: Annotated[Any, BeforeValidator(_check_schedule)] = _rule(
        "flexray.Cron(...) or flexray.Period(...)", 'as in schedule=flexray.Cron("0 6 * * *")', default=None
    )
    """When it runs by itself, without arguments."""
    concurrency: Concurrency = Field(default_factory=Concurrency)
    """What `@flexray.concurrent` says."""
    batching: Batching | None = None
    """What `@flexray.batched` says."""

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.is_generator and self.retries is not None:
            hint = "what was read cannot be taken back; catch the error in the generator, or return a list"
            _refuse("retries", self.retries, "a generator runs once", hint)
        if self.at_most_once and self.retries is not None:
            hint = "leave out retries and catch the error in the function, or leave out at_most_once"
            _refuse("retries", self.retries, "at_most_once forbids to run an input again", hint)
        if self.schedule is not None and self.is_generator:
            hint = "let the function iterate it, and return or store what it gives"
            _refuse("schedule", self.schedule, "nobody would read what a generator gives", hint)
        if self.schedule is not None and self.batching is not None:
            _refuse(
                "schedule", self.schedule, "a batched function takes inputs", "schedule another that calls it"
            )
        if self.single_use_containers and self.slots > 1:
            hint = "leave out @flexray.concurrent and @flexray.batched, or single_use_containers"
            _refuse("single_use_containers", True, f"its containers run {self.slots} inputs at once", hint)
        return self

    @property
    def slots(self) -> int:
        """Inputs that one container may have at once."""
        return self.concurrency.max_inputs * self._batch_size

    @property
    def target_slots(self) -> int:
        """Inputs per container that the pool is sized for."""
        return (self.concurrency.target_inputs or self.concurrency.max_inputs) * self._batch_size

    @property
    def _batch_size(self) -> int:
        return 1 if self.batching is None else self.batching.max_batch_size


@dataclass(frozen=True, slots=True)
class Interface:
    """What a handle to a class must know that has not its code."""

    parameters: dict[str, tuple[str, bool, Any]]
    """Name to (type, whether it has a default, the default)."""
    methods: dict[str, bool]
    """Name to whether it is a generator."""


@dataclass(frozen=True, slots=True)
class FunctionSource:
    """A function as an app hands it to the cluster."""

    pool_id: str
    """`APP_ID/FUNCTION`."""
    config: FunctionConfig
    code: bytes
    """The function or the class, packed."""
    parameters: dict[str, Any] | None = None
    """Of an instance of a class; None for a function."""
    is_template: bool = False
    """A class with parameters: pools are made of it, and it has none itself."""
    has_exit: bool = False
    """A class with exit hooks, which its containers run before they end."""
    interface: Interface | None = None
    """Of a class; None for a function."""


class FunctionOptions(TypedDict, total=False):
    """The keywords of `@app.function` and `@app.cls`. None stands for the default everywhere."""

    name: str | None
    min_containers: int | None
    max_containers: int | None
    buffer_containers: int | None
    scaledown_window: float | None
    cpu: float | None
    memory: int | None
    gpu: str | list[str] | None
    num_gpus: float | None
    resources: dict[str, float] | None
    label_selector: dict[str, str] | None
    runtime_env: dict[str, Any] | None
    env: dict[str, str] | None
    timeout: float | None
    startup_timeout: float | None
    retries: int | Retries | None
    at_most_once: bool | None
    limits: Limits | None
    single_use_containers: bool | None
    is_generator: bool | None
    schedule: Cron | Period | None


_RENAMED = {
    "concurrency_limit": "max_containers",
    "keep_warm": "min_containers",
    "container_idle_timeout": "scaledown_window",
    "allow_concurrent_inputs": "@flexray.concurrent(max_inputs=...)",
}
"""Earlier names in Modal's programs, and what they are called now."""


class Marks(TypedDict, total=False):
    """What `@flexray.concurrent` and `@flexray.batched` said, and what was seen at the function."""

    concurrency: Concurrency
    batching: Batching
    is_generator: bool


def check_options(
    function_name: str, options: Mapping[str, Any], marks: Marks | None = None
) -> FunctionConfig:
    """The configuration that a decorator's keywords ask for.

    Args:
        function_name: The function's or class's own name, used where `name` is not given.
        options: The keywords of `FunctionOptions`; None stands for the default.
        marks: What other decorators said.

    Raises:
        InvalidError: An option is unknown, or its value is out of bounds.
    """
    name = "lambda" if function_name == "<lambda>" else function_name
    try:
        for option in options:
            if option not in FunctionOptions.__annotations__:
                _refuse_unknown(option, "@app.function or @app.cls", FunctionOptions.__annotations__)
        given = {"name": name, **(marks or {}), **_without_none(options)}
        check_name("function", given["name"])
        autoscaler = AutoscalerSettings(**_take(given, AutoscalerSettings))
        resources = Resources(**_take(given, Resources))
        return FunctionConfig(autoscaler=autoscaler, resources=resources, **given)
    except InvalidError as error:
        message = f"{name}: {error.sentence()}"
        raise InvalidError(message, error.hint) from None


def overlaid(config: FunctionConfig, options: Mapping[str, Any]) -> FunctionConfig:
    """The configuration with these options in the place of its own; marks of a variant among them.

    Raises:
        InvalidError: An option is unknown, or its value is out of bounds.
    """
    if not options:
        return config
    given = dict(options)
    marks: Marks = {}
    for mark, field in (("@concurrent", "concurrency"), ("@batched", "batching")):
        if mark in given:
            marks[field] = given.pop(mark)  # type: ignore[literal-required]
    own = check_options(config.name, given, marks)
    changed = {
        name: getattr(own, name) for name in own.model_fields_set - {"name", "autoscaler", "resources"}
    }
    autoscaler = {name: getattr(own.autoscaler, name) for name in own.autoscaler.model_fields_set}
    resources = {name: getattr(own.resources, name) for name in own.resources.model_fields_set}
    return config.model_copy(
        update={
            **changed,
            "autoscaler": config.autoscaler.merged(**autoscaler),
            "resources": config.resources.model_copy(update=resources),
        }
    )


def check_environment(
    owner: str, runtime_env: dict[str, Any] | None, env: dict[str, str] | None
) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """The runtime environment and the variables of an app, checked as a function's are.

    Raises:
        InvalidError: One of them is not of its form; the message starts with `owner`.
    """
    config = check_options(owner, {"runtime_env": runtime_env, "env": env})
    return config.runtime_env, config.env


def check_name(kind: str, value: object) -> str:
    """The name itself, when it is one: 1 to 64 of letters, digits, `-`, `_` and `.`.

    Args:
        kind: What is named, as the message should say it: "app", "function".
        value: The name.

    Raises:
        InvalidError: It is not a str, or not of that form.
    """
    if isinstance(value, str) and re.fullmatch(r"[a-zA-Z0-9_.-]{1,64}", value):
        return value
    hint = f"as in name={_similar_name(value)!r}"
    _refuse(f"the name of the {kind}", value, "must be 1 to 64 of a-z, A-Z, 0-9, '-', '_' and '.'", hint)


def _similar_name(value: object) -> str:
    return re.sub(r"[^a-zA-Z0-9_.-]+", "-", str(value)).strip("-")[:64] or "resize"


def _refuse_unknown(option: str, owner: str, known: Mapping[str, Any]) -> NoReturn:
    message = f"{option} is not an option of {owner}"
    if option in _RENAMED:
        raise InvalidError(message, f"it is now called {_RENAMED[option]}")
    similar = difflib.get_close_matches(option, known, n=1)
    raise InvalidError(
        message, f"did you mean {similar[0]}?" if similar else f"the options are {', '.join(known)}"
    )


def _take(options: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """The options that are fields of the model, removed from the rest."""
    return {field: options.pop(field) for field in model.model_fields if field in options}


def _without_none(options: Mapping[str, Any]) -> dict[str, Any]:
    return {option: value for option, value in options.items() if value is not None}
