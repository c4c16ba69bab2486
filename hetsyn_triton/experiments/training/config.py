"""All settings of a run, in one frozen and checked pydantic model."""

import os
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, get_args

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hetsyn_triton.experiments.files import read_json
from hetsyn_triton.experiments.tasks import TASKS, task_class
from hetsyn_triton.experiments.tasks.readouts import READOUTS
from hetsyn_triton.modules import MODELS
from hetsyn_triton.modules.decay import PARAMETRIZATIONS
from hetsyn_triton.ops.dispatch import BACKENDS
from hetsyn_triton.surrogates import SURROGATES
from hetsyn_triton.validation import did_you_mean

from . import field_types as fields
from .errors import ConfigError
from .field_types import one_of

OPTIMIZERS: dict[str, type[torch.optim.Adam] | type[torch.optim.AdamW]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
SCHEDULES = ("constant", "cosine", "step")
SCHEDULE_UNITS = ("batch", "epoch")


class TrainConfig(BaseModel):
    """Settings of one run; `default_config` returns those of a task.

    All fields have to be given, so that no setting of a task is forgotten. Their defaults hold
    unless a task's `defaults` differ. Times such as `tau` and `dt` are in the task's unit, usually
    time steps.

    Raises:
        ConfigError: If a value is not allowed; the message names the field and what is allowed.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    task: Annotated[str, one_of(TASKS)] = Field(description="task to train on")
    model: Annotated[str, one_of(MODELS)] = Field("hetsyn", description="neuron model")
    seed: fields.Seed = Field(0, description="random seed")
    hidden: fields.Sizes = Field((64,), description="neurons in each hidden layer")
    recurrent: fields.Flag = Field(True, description="whether hidden layers are recurrent")
    tau: fields.TimeConstants = Field(
        "uniform(5,20)",
        description="time constants: a number, uniform(LOW,HIGH), log-uniform(LOW,HIGH) or "
        "normal(MEAN,DEVIATION); homogeneous models use the mean",
    )
    tau_readout: fields.TimeConstants | None = Field(
        None, description="time constants of the readout, in the form of tau; null: tau"
    )
    tau_reset: fields.Positive = Field(20.0, description="time constant of the reset current")
    tau_adaptation: fields.Positive = Field(
        100.0, description="time constant of the adaptation in homneu-adaptive"
    )
    adaptation: fields.NotNegative = Field(
        0.05, description="strength of the adaptation in homneu-adaptive"
    )
    threshold: fields.Positive = Field(1.0, description="spike threshold")
    dt: fields.StepLength = Field(
        1.0, description="length of a step, in the unit of the time constants"
    )
    surrogate: Annotated[str, one_of(SURROGATES)] = Field(
        "multi-gaussian", description="surrogate gradient of a spike"
    )
    readout: Annotated[str, one_of(READOUTS)] = Field(
        "mean",
        description="class scores: mean over steps, last step, summed-softmax, or spike-count of "
        "a spiking output",
    )
    learn_decay: fields.Flag = Field(True, description="whether decays learn")
    frozen_fraction: fields.Fraction = Field(
        0.0, description="fraction of the decays that does not learn"
    )
    decay_parametrization: Annotated[str, one_of(PARAMETRIZATIONS)] = Field(
        "clamp", description="how decays stay in [0, 1]: clamp after each step, or sigmoid"
    )
    dropout: fields.Part = Field(0.0, description="probability of dropping a spike between layers")
    epochs: fields.Count = Field(10, description="passes through the training data")
    batch_size: fields.Count = Field(32, description="samples per optimizer step")
    optimizer: Annotated[str, one_of(OPTIMIZERS)] = Field("adamw", description="adam or adamw")
    lr: fields.Positive = Field(1e-3, description="learning rate of the weights")
    decay_lr: fields.Positive | None = Field(
        None, description="learning rate of the decays; null: twice lr"
    )
    weight_decay: fields.NotNegative = Field(0.0, description="weight decay of the weights")
    decay_weight_decay: fields.NotNegative | None = Field(
        None, description="weight decay of the decays; null: weight_decay"
    )
    schedule: Annotated[str, one_of(SCHEDULES)] = Field(
        "cosine",
        description="learning rate over time: constant, cosine, or step, which multiplies it by "
        "step_factor every step_every",
    )
    warmup: fields.Part = Field(
        0.05, description="fraction of the schedule in which the learning rate rises linearly"
    )
    schedule_unit: Annotated[str, one_of(SCHEDULE_UNITS)] = Field(
        "batch", description="unit in which the schedule counts: batch or epoch"
    )
    horizon: fields.Count | None = Field(
        None, description="epoch after which the learning rate is constant; null: the last"
    )
    step_every: fields.Count = Field(100, description="interval of the schedule step")
    step_factor: fields.Factor = Field(0.8, description="factor of the schedule step")
    clip: fields.Positive | None = Field(
        None, description="maximum norm of all gradients together; null: no clipping"
    )
    test_every: fields.CountOrZero = Field(
        1, description="epochs between tests; 0: test only at the end"
    )
    backend: Annotated[str, one_of(BACKENDS)] = Field(
        "auto", description="backend of the operators, see hetsyn info"
    )
    device: fields.Device = Field("cpu", description="cpu, cuda or cuda:N")
    threads: fields.Threads | None = Field(
        None, description="number of CPU threads; null: chosen by PyTorch"
    )
    data_dir: fields.Folder | None = Field(
        None, description="folder of the task's files, if it reads any"
    )
    options: fields.Options = Field(description="the task's own settings")

    def __init__(self, **values: Any) -> None:
        _check_fields(values, "configuration")
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(_message(error)) from None
        _check_task(self.task, self.options, self.data_dir)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**deepcopy(dict(self)), "hidden": list(self.hidden)}

    def changed(self, **changes: Any) -> "TrainConfig":
        """Return a checked copy with other values of some fields."""
        return TrainConfig(**{**dict(self), **changes})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TrainConfig":
        """Return the configuration that `to_json` wrote; ConfigError if its fields differ."""
        return cls(**values)

    @classmethod
    def load(cls, path: str | Path, **changes: Any) -> "TrainConfig":
        """Read a config.json and change some fields."""
        try:
            values = read_json(Path(path))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} is not a readable configuration: {error}") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{path} is not a configuration: expected an object")
        _check_fields(values, str(path))
        try:
            return cls(**{**values, **changes})
        except ConfigError as error:
            if str(error).partition(":")[0] in changes:
                raise
            raise ConfigError(f"{path}: {error}") from None


FIELDS = tuple(TrainConfig.model_fields)
COMMON = {
    name: field.default
    for name, field in TrainConfig.model_fields.items()
    if not field.is_required()
}
"""Default settings, unless a task's `defaults` differ."""


def default_config(task: str = "digits", **changes: Any) -> TrainConfig:
    """Return the default settings of `task`, with `changes`.

    Args:
        task: Name of the task.
        changes: Fields of TrainConfig. `options` changes only the task's own settings that it
            names. `threads` is at most the number of CPUs, but a run from a larger machine can
            still be loaded.

    Raises:
        ConfigError: If a name is unknown or a value is not allowed; the message lists what is.
    """
    try:
        chosen = task_class(task)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    unknown = sorted(set(changes) - set(FIELDS))
    if unknown:
        names = [*chosen.options, *FIELDS]
        found = ", ".join(f"{name}{did_you_mean(name, names)}" for name in unknown)
        raise ConfigError(
            f"settings: expected one of {', '.join(FIELDS)}, or for {task} "
            f"{', '.join(chosen.options) or 'none'}, got {found}"
        )
    settings = {**COMMON, **chosen.defaults, "options": {}, **changes}
    options = settings["options"]
    if isinstance(options, Mapping):
        settings["options"] = {**chosen.default_options(), **options}
    threads, cpus = settings["threads"], os.cpu_count() or 1
    if isinstance(threads, int) and threads > cpus:
        raise ConfigError(f"threads: expected at most {cpus}, the number of CPUs, got {threads}")
    return TrainConfig(task=task, **settings)


def _check_fields(values: Mapping[str, Any], where: str) -> None:
    """Raise ConfigError unless `values` has all fields and no others."""
    for what, odd in (
        ("unknown fields", [name for name in values if name not in FIELDS]),
        ("no", [name for name in FIELDS if name not in values]),
    ):
        if odd:
            expected = ", ".join(FIELDS)
            raise ConfigError(f"{where}: expected {expected}, got {what} {', '.join(odd)}")


def _message(error: ValidationError) -> str:
    """Return the message about the first wrong field; names come before other values."""
    first = min(error.errors(), key=lambda found: not found["ctx"]["names"])
    name, value, context = str(first["loc"][0]), first["input"], first["ctx"]
    null = type(None) in get_args(TrainConfig.model_fields[name].annotation)
    expected = f"{context['phrase']}{', or null' if null else ''}"
    return f"{name}: expected {expected}, got {value!r}{did_you_mean(value, context['names'])}"


def _check_task(task: str, options: Mapping[str, Any], data_dir: str | None) -> None:
    """Raise ConfigError unless `options` are all settings of the task, with allowed values."""
    chosen = task_class(task)
    try:
        chosen.check(options, data_dir)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    missing = [name for name in chosen.options if name not in options]
    if missing:
        raise ConfigError(f"options: expected all settings of {task}, got no {', '.join(missing)}")
