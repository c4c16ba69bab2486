"""All settings of a run, in one frozen and checked dataclass."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from hetsyn_triton.experiments.tasks import TASKS, task_class
from hetsyn_triton.experiments.tasks.options import choice, is_real
from hetsyn_triton.experiments.tasks.readouts import READOUTS
from hetsyn_triton.modules import MODELS
from hetsyn_triton.modules.decay import PARAMETRIZATIONS
from hetsyn_triton.ops.dispatch import BACKENDS
from hetsyn_triton.surrogates import SURROGATES
from hetsyn_triton.validation import did_you_mean

from .distributions import EXPECTED as DISTRIBUTION, is_distribution
from .errors import ConfigError

OPTIMIZERS: dict[str, type[torch.optim.Adam] | type[torch.optim.AdamW]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
SCHEDULES = ("constant", "cosine", "step")
SCHEDULE_UNITS = ("batch", "epoch")
MOST_THREADS = 1024  # of a run from any machine; PyTorch aborts with far more

COMMON: dict[str, Any] = {
    "model": "hetsyn",
    "seed": 0,
    "hidden": (64,),
    "recurrent": True,
    "tau": "uniform(5,20)",
    "tau_readout": None,
    "tau_reset": 20.0,
    "tau_adaptation": 100.0,
    "adaptation": 0.05,
    "threshold": 1.0,
    "dt": 1.0,
    "surrogate": "multi-gaussian",
    "readout": "mean",
    "learn_decay": True,
    "frozen_fraction": 0.0,
    "decay_parametrization": "clamp",
    "dropout": 0.0,
    "epochs": 10,
    "batch_size": 32,
    "optimizer": "adamw",
    "lr": 1e-3,
    "decay_lr": None,
    "weight_decay": 0.0,
    "decay_weight_decay": None,
    "schedule": "cosine",
    "warmup": 0.05,
    "schedule_unit": "batch",
    "horizon": None,
    "step_every": 100,
    "step_factor": 0.8,
    "clip": None,
    "test_every": 1,
    "backend": "auto",
    "device": "cpu",
    "threads": None,
    "data_dir": None,
}
"""Default settings, unless a task's `defaults` differ."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of one run; `default_config` returns those of a task.

    Fields have no defaults here, so that no setting of a task is forgotten. Times such as `tau` and
    `dt` are in the task's unit, usually time steps.

    None means twice `lr` for `decay_lr`, and `weight_decay` for `decay_weight_decay`. It means the
    end of the run for `horizon`, no clipping for `clip`, and PyTorch's choice for `threads`.

    Raises:
        ConfigError: If a value is not allowed; the message names the field and what is allowed.
    """

    task: str
    model: str
    seed: int
    hidden: tuple[int, ...]
    recurrent: bool
    tau: str | float
    tau_readout: str | float | None
    tau_reset: float
    tau_adaptation: float
    adaptation: float
    threshold: float
    dt: float
    surrogate: str
    readout: str
    learn_decay: bool
    frozen_fraction: float
    decay_parametrization: str
    dropout: float
    epochs: int
    batch_size: int
    optimizer: str
    lr: float
    decay_lr: float | None
    weight_decay: float
    decay_weight_decay: float | None
    schedule: str
    warmup: float
    schedule_unit: str
    horizon: int | None
    step_every: int
    step_factor: float
    clip: float | None
    test_every: int
    backend: str
    device: str
    threads: int | None
    data_dir: str | None
    options: dict[str, Any]

    def __post_init__(self) -> None:
        if isinstance(self.hidden, list):
            object.__setattr__(self, "hidden", tuple(self.hidden))
        for name, (allowed, expected) in _rules().items():
            value = getattr(self, name)
            if not allowed(value):
                near = did_you_mean(value, _NAMES.get(name, ()))
                raise ConfigError(f"{name}: expected {expected}, got {value!r}{near}")
        _check_task(self.task, self.options, self.data_dir)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**asdict(self), "hidden": list(self.hidden)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TrainConfig":
        """Return the configuration that `to_json` wrote; ConfigError if its fields differ."""
        cls._check_fields(values, "configuration")
        return cls(**values)

    @classmethod
    def _check_fields(cls, values: Mapping[str, Any], where: str) -> None:
        names = [item.name for item in fields(cls)]
        for what, odd in (
            ("unknown fields", [name for name in values if name not in names]),
            ("no", [name for name in names if name not in values]),
        ):
            if odd:
                expected = ", ".join(names)
                raise ConfigError(f"{where}: expected {expected}, got {what} {', '.join(odd)}")

    @classmethod
    def load(cls, path: str | Path, **changes: Any) -> "TrainConfig":
        """Read a config.json and change some fields."""
        try:
            values = json.loads(Path(path).read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} is not a readable configuration: {error}") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{path} is not a configuration: expected an object")
        cls._check_fields(values, str(path))
        return cls.from_json({**values, **changes})


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
    if _integer(threads) and threads > cpus:
        raise ConfigError(f"threads: expected at most {cpus}, the number of CPUs, got {threads}")
    return TrainConfig(task=task, **settings)


FIELDS = tuple(item.name for item in fields(TrainConfig))

_NAMES: dict[str, Iterable[str]] = {
    "task": TASKS,
    "model": MODELS,
    "surrogate": SURROGATES,
    "readout": READOUTS,
    "decay_parametrization": PARAMETRIZATIONS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "schedule_unit": SCHEDULE_UNITS,
    "backend": BACKENDS,
}
"""Allowed values of the fields that are names."""

_Rule = tuple[Callable[[Any], bool], str]


def _rules() -> dict[str, _Rule]:
    """Return the allowed values of each field, built on use because tasks can be registered."""
    positive: _Rule = (lambda v: is_real(v) and v > 0, "a positive number")
    not_negative: _Rule = (lambda v: is_real(v) and v >= 0, "a number of at least 0")
    count: _Rule = (lambda v: _integer(v) and 0 < v < 2**31, "a positive integer below 2^31")
    flag: _Rule = (lambda v: isinstance(v, bool), "true or false")
    distribution: _Rule = (is_distribution, f"positive time constants: {DISTRIBUTION}")
    return {
        **{name: _one_of(names) for name, names in _NAMES.items()},
        "seed": (lambda v: _integer(v) and 0 <= v < 2**63, "an integer from 0 to 2^63 - 1"),
        "hidden": (_sizes, "one or more positive integers below 2^31"),
        "recurrent": flag,
        "tau": distribution,
        "tau_readout": _or_none(distribution),
        "tau_reset": positive,
        "tau_adaptation": positive,
        "adaptation": not_negative,
        "threshold": positive,
        "dt": positive,
        "learn_decay": flag,
        "frozen_fraction": (lambda v: is_real(v) and 0 <= v <= 1, "a number from 0 to 1"),
        "dropout": (lambda v: is_real(v) and 0 <= v < 1, "a number from 0 to below 1"),
        "epochs": count,
        "batch_size": count,
        "lr": positive,
        "decay_lr": _or_none(positive),
        "weight_decay": not_negative,
        "decay_weight_decay": _or_none(not_negative),
        "warmup": (lambda v: is_real(v) and 0 <= v < 1, "a number from 0 to below 1"),
        "horizon": _or_none(count),
        "step_every": count,
        "step_factor": (lambda v: is_real(v) and 0 < v <= 1, "a number above 0, at most 1"),
        "clip": _or_none(positive),
        "test_every": (lambda v: _integer(v) and 0 <= v < 2**31, "an integer from 0 to below 2^31"),
        "device": (_device_is_here, _devices()),
        "threads": _or_none(
            (
                lambda v: _integer(v) and 1 <= v <= MOST_THREADS,
                f"an integer from 1 to {MOST_THREADS}",
            )
        ),
        "data_dir": _or_none((lambda v: isinstance(v, str) and v != "", "a folder's name")),
        "options": (lambda v: isinstance(v, dict), "an object with settings of the task"),
    }


def _one_of(names: Iterable[str]) -> _Rule:
    rule = choice("", list(names))
    return rule.allows, rule.expected


def _or_none(rule: _Rule) -> _Rule:
    return (lambda v: v is None or rule[0](v), f"{rule[1]}, or null")


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _sizes(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and bool(value)
        and all(_integer(v) and 0 < v < 2**31 for v in value)
    )


def _devices() -> str:
    """Return the devices of this machine, for a message."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        return "cpu because PyTorch finds no GPU"
    return ", ".join(["cpu", "cuda", *(f"cuda:{number}" for number in range(count))])


def _device_is_here(value: Any) -> bool:
    try:
        device = torch.device(value)
    except (RuntimeError, TypeError):
        return False
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    return device.type == "cpu"


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
