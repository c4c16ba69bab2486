"""Checkpoints: written atomically, read without executing code, checked before use."""

import io
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hetsyn_triton.experiments.files import read_regular, write_atomically
from hetsyn_triton.experiments.sealed import seal, unseal

from .errors import CheckpointError

FORMAT = 3
MOST_EXPANSION = 8
"""Bytes in memory for each byte of a checkpoint. (A history shares the names of its measures.)"""


@dataclass
class Checkpoint:
    """The state from which a run resumes as if it had not stopped.

    Learning rate and random numbers are functions of step and seed, so they have no state.

    Attributes:
        config: Settings of the run as JSON values.
        model: Weights.
        optimizer: State of the optimizer.
        epoch: Number of complete epochs.
        batch: Number of batches of the next epoch that are done.
        sums: Running totals of the next epoch.
        history: Metrics of the complete epochs.
        best: "epoch" and "model" of the best validation epoch. None if no samples are held out or
            no epoch is complete.
        sessions: First "step", machine, versions and date of each process that trained. Processes
            of versions that did not record them are missing.
        seconds: Time of the next epoch so far; 0 if it was not recorded.
    """

    config: dict[str, Any]
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    epoch: int
    batch: int
    sums: dict[str, float]
    history: list[dict[str, Any]]
    best: dict[str, Any] | None
    sessions: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` with a checksum to `path` atomically."""
    save_values(path, FORMAT, vars(checkpoint))


def read_checkpoint(path: Path, device: torch.device) -> Checkpoint:
    """Read the checkpoint in `path`, with its tensors on `device`.

    Raises:
        CheckpointError: If the file is missing, truncated, damaged, in another format, or has
            contents that no run saves.
    """
    values = read_values(path, FORMAT, device)
    try:
        checkpoint = Checkpoint(**values)
    except TypeError as error:
        raise CheckpointError(f"{path} is not a checkpoint: {error}") from error
    _check_content(path, checkpoint)
    return checkpoint


def save_values(path: Path, form: int | str, values: Mapping[str, Any]) -> None:
    """Write named tensors and JSON values in format `form` atomically, with a checksum."""
    buffer = io.BytesIO()
    torch.save({"format": form, **values}, buffer)
    write_atomically(path, lambda file: file.write(seal(buffer.getvalue())))


def read_values(path: Path, form: int | str, device: torch.device) -> dict[str, Any]:
    """Read what `save_values` wrote to `path`, with tensors on `device`.

    Raises:
        CheckpointError: If the file is missing, truncated, damaged or in another format.
    """
    try:
        content = unseal(read_regular(path))
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {path}") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is truncated, damaged or not a checkpoint: {error}"
        ) from error
    try:
        _check_stored(content)
        values = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        _check_size(values, len(content))
    except Exception as error:  # an unpickler can raise any error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is not a checkpoint: {reason}") from error
    found = values.get("format") if isinstance(values, dict) else None
    if type(found) is not type(form) or found != form:
        raise CheckpointError(f"{path}: expected a checkpoint of format {form}, got {found!r}")
    del values["format"]
    return dict(values)


def _check_stored(content: bytes) -> None:
    """Raise ValueError if parts are compressed, which `torch.save` never does."""
    with zipfile.ZipFile(io.BytesIO(content)) as parts:
        for part in parts.infolist():
            if part.file_size != part.compress_size:
                raise ValueError(f"{part.filename} is compressed")


def _check_size(values: Any, size: int) -> None:
    """Raise ValueError if values take far more memory than the `size` bytes that they were read
    from: a tensor may show one number often, a list may contain another one often."""
    left, waiting = MOST_EXPANSION * size, [values]
    while waiting:
        value = waiting.pop()
        left -= 1
        if isinstance(value, Tensor):
            left -= value.numel() * value.element_size()
        elif isinstance(value, str):
            left -= len(value)
        elif isinstance(value, Mapping):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set):
            waiting += value
        if left < 0 or len(waiting) > MOST_EXPANSION * size:
            raise ValueError(f"its values take more than {MOST_EXPANSION} times its size")


def _check_content(path: Path, checkpoint: Checkpoint) -> None:
    """Raise CheckpointError unless each part has the form that a run saves."""
    model, optimizer = checkpoint.model, checkpoint.optimizer
    for name, right, expected in (
        ("config", _named(checkpoint.config) and _json(checkpoint.config), "JSON values by name"),
        ("model", _named(model) and _tensors(model), "tensors with names"),
        (
            "optimizer",
            _named(optimizer)
            and isinstance(optimizer.get("state"), dict)
            and isinstance(optimizer.get("param_groups"), list),
            "a state and parameter groups",
        ),
        ("epoch", _count(checkpoint.epoch), "an integer of at least 0"),
        ("batch", _count(checkpoint.batch), "an integer of at least 0"),
        ("sums", _named(checkpoint.sums) and _numbers(checkpoint.sums), "finite numbers by name"),
        ("seconds", _seconds(checkpoint.seconds), "a finite number of at least 0"),
        (
            "history",
            isinstance(checkpoint.history, list)
            and all(_record(line, epoch) for epoch, line in enumerate(checkpoint.history, 1))
            and len(checkpoint.history) == checkpoint.epoch,
            "a record of finite numbers for each epoch",
        ),
        ("best", _best(checkpoint.best), "no value, or epoch and model of the best epoch"),
        (
            "sessions",
            isinstance(checkpoint.sessions, list) and all(map(_session, checkpoint.sessions)),
            "step and machine of each session",
        ),
    ):
        if not right:
            got = repr(getattr(checkpoint, name))
            got = got if len(got) < 60 else f"{got[:60]}..."
            raise CheckpointError(f"{path}: {name}: expected {expected}, got {got}")
    best_model = {} if checkpoint.best is None else checkpoint.best["model"]
    for part, tensors in (("model", model), ("best", best_model)):
        for name, value in tensors.items():
            if value.is_floating_point() and not bool(value.isfinite().all()):
                raise CheckpointError(
                    f"{path}: {part}: expected finite values, got NaN or infinity in {name}"
                )


def _named(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) for name in value)


def _json(values: dict[str, Any]) -> bool:
    try:
        json.dumps(values)
    except (TypeError, ValueError):
        return False
    return True


def _tensors(values: dict[str, Any]) -> bool:
    return all(isinstance(value, Tensor) for value in values.values())


def _numbers(values: dict[str, Any]) -> bool:
    return all(type(v) in (int, float) and math.isfinite(v) for v in values.values())


def _best(value: Any) -> bool:
    return value is None or (
        _named(value)
        and value.keys() == {"epoch", "model"}
        and _count(value["epoch"])
        and _named(value["model"])
        and _tensors(value["model"])
    )


def _record(value: Any, epoch: int) -> bool:
    """Return whether `value` is the record of `epoch` (from 1)."""
    required = {"epoch", "step", "lr", "seconds", "train_loss"}
    return (
        _named(value) and required <= value.keys() and _numbers(value) and value["epoch"] == epoch
    )


def _session(value: Any) -> bool:
    return (
        _named(value)
        and _json(value)
        and _count(value.get("step"))
        and all(isinstance(value.get(name), str) for name in ("date", "cpu"))
    )


def _seconds(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value >= 0


def _count(value: object) -> bool:
    return type(value) is int and value >= 0
