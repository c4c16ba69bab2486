"""Turn options and `--set NAME=VALUE` into a configuration."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from hetsyn_triton.experiments.tasks import TASKS, task_class
from hetsyn_triton.experiments.training import ConfigError, TrainConfig, default_config
from hetsyn_triton.experiments.training.effect import without_effect


def configured(
    task: str, given: dict[str, Any], more: tuple[str, ...]
) -> tuple[TrainConfig, list[str]]:
    """Return the task's settings, changed by options and --set, and the names of the changes.

    Raises:
        ConfigError: If a name is unknown or given twice, or if a value is not allowed.
    """
    known = task_class(task).options if task in TASKS else {}
    fields, options = dict(given), dict[str, Any]()
    for text in more:
        name, value = _parts(text)
        if name == "task":
            raise ConfigError(
                f"set: expected the task as an argument, as in `hetsyn train smnist`, got {text!r}"
            )
        if name == "options":
            names = ", ".join(f"{name}=VALUE" for name in known) or "none"
            raise ConfigError(f"set: expected settings of {task} by name ({names}), got {text!r}")
        target = options if name in known else fields
        if name in target:
            raise ConfigError(f"set: expected {name} once, got another value in {text!r}")
        target[name] = value if name == "hidden" else _value(value)
    if "hidden" in fields:
        fields["hidden"] = _sizes(fields["hidden"])
    return default_config(task, **fields, options=options), [*fields, *options]


def named_value(text: str) -> tuple[str, Any]:
    """Split NAME=VALUE into name and value; ConfigError if it has another form."""
    name, value = _parts(text)
    return name, _value(value)


def notes(config: TrainConfig, names: Iterable[str]) -> Iterator[str]:
    """Yield a line for each setting in `names` without effect in `config`, with the reason."""
    reasons = without_effect(config)
    for name in names:
        if name in reasons:
            yield f"{name} has no effect: {reasons[name]}"


def _parts(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"set: expected NAME=VALUE, got {text!r}")
    return name, value


def _value(text: str) -> Any:
    """Read `text` as JSON, or return it as it is."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _sizes(text: str) -> tuple[Any, ...]:
    """Read sizes written as 64,64 or as JSON, [64, 64]."""
    value = _value(text if text.lstrip().startswith("[") else f"[{text}]")
    if not isinstance(value, list):
        raise ConfigError(f"hidden: expected positive integers such as 64,64, got {text!r}")
    return tuple(value)
