"""Turn options, `--set NAME=VALUE` and `--config FILE` into a configuration."""

import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from hetsyn_triton.experiments.files import read_json
from hetsyn_triton.experiments.tasks import task_class
from hetsyn_triton.experiments.training import ConfigError, TrainConfig, default_config
from hetsyn_triton.experiments.training.effect import without_effect


def configured(
    task: str | None, given: dict[str, Any], more: tuple[str, ...], file: str | None = None
) -> tuple[TrainConfig, list[str]]:
    """Return the task's settings with all changes, and the names of the changes.

    Options and --set change settings of `file`, which change defaults of the task. The task is that
    of `file`, or digits, if `task` is None.

    Raises:
        ConfigError: If a name is unknown or given twice, or if a value is not allowed. The message
            starts with `file` if the value is from there.
    """
    stored = {} if file is None else _read(file)
    named, where = stored.pop("task", None), ""
    if task is None:
        task, where = ("digits", "") if named is None else (named, f"{file}: ")
    try:
        known = task_class(task).options
    except ValueError as error:
        raise ConfigError(f"{where}{error}") from None
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
    changed = [*fields, *options]
    if file is not None:
        rest, own = _from_file(file, task, stored, known, changed)
        usual = default_config(task).to_json()
        changed += [name for name, value in rest.items() if value != usual[name]]
        fields, options = {**rest, **fields}, {**own, **options}
    return default_config(task, **fields, options=options), changed


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


def _read(file: str) -> dict[str, Any]:
    """Read the settings in a JSON file."""
    try:
        values = read_json(Path(file))
    except (OSError, ValueError) as error:
        raise ConfigError(f"config: expected a JSON file, got {file!r} ({error})") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: expected an object with settings, got {type(values).__name__}")
    return values


def _from_file(
    file: str, task: str, stored: dict[str, Any], known: Collection[str], given: list[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return fields and task settings in `file` but for those `given` elsewhere, checked."""
    fields = {name: value for name, value in stored.items() if name not in known}
    own, nested = {n: v for n, v in stored.items() if n in known}, fields.pop("options", {})
    try:
        if not isinstance(nested, dict):
            default_config(task, options=nested)  # raises the error
        for name in own:
            if name in nested:
                raise ConfigError(
                    f"options: expected {name} once, got another value outside of options"
                )
        fields, own = (
            {name: value for name, value in part.items() if name not in given}
            for part in (fields, {**nested, **own})
        )
        default_config(task, **fields, options=own)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None
    return fields, own


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
