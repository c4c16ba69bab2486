"""Checkpoints: written whole or not at all, read without executing code, checked before use."""

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hetsyn_triton.files import write_atomically
from hetsyn_triton.sealed import seal, unseal

from .errors import CheckpointError

FORMAT = 3


@dataclass
class Checkpoint:
    """All that a run needs to go on as if it had never stopped.

    `epoch` whole epochs are done, and `batch` batches of the next; `sums` are that epoch's running
    totals, `seconds` what it has taken (0 where that was not yet recorded), `history` the metrics
    lines of the whole epochs. `best` has the "epoch" and the "model" of the best validation epoch,
    None where nothing is held out or no epoch is whole. `sessions` has a line for each process that
    trained: the "step" it went on from, machine, versions and date; none of what was trained before
    they were recorded. The learning rate is a function of the number of steps and random numbers of
    the seed, so neither has a state of its own.
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
    """Write `checkpoint`, and a digest of it, to `path` atomically."""
    save_values(path, FORMAT, vars(checkpoint))


def read_checkpoint(path: Path, device: torch.device) -> Checkpoint:
    """The checkpoint in `path` with its tensors on `device`.

    CheckpointError where the file is missing, truncated, damaged in any bit, not one of this
    format, or holds what no run saves.
    """
    values = read_values(path, FORMAT, device)
    try:
        checkpoint = Checkpoint(**values)
    except TypeError as error:
        raise CheckpointError(f"{path} is no checkpoint: {error}") from error
    _check_content(path, checkpoint)
    return checkpoint


def save_values(path: Path, form: int | str, values: Mapping[str, Any]) -> None:
    """Write tensors and JSON values by name, of the format `form`, with a digest and atomically."""
    buffer = io.BytesIO()
    torch.save({"format": form, **values}, buffer)
    write_atomically(path, lambda file: file.write(seal(buffer.getvalue())))


def read_values(path: Path, form: int | str, device: torch.device) -> dict[str, Any]:
    """What `save_values` wrote to `path`, with its tensors on `device`.

    CheckpointError where the file is missing, truncated, damaged in any bit or not of this format.
    """
    try:
        content = unseal(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {path}") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is truncated, damaged or no checkpoint: {error}") from error
    try:
        values = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except Exception as error:  # the reader of pickles raises whatever its input leads it to
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is no checkpoint: {reason}") from error
    found = values.get("format") if isinstance(values, dict) else None
    if type(found) is not type(form) or found != form:
        raise CheckpointError(f"{path}: expected a checkpoint of format {form}, got {found!r}")
    del values["format"]
    return dict(values)


def _check_content(path: Path, checkpoint: Checkpoint) -> None:
    """CheckpointError, naming the part, unless each is of the kind that a run saves."""
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
            "a line of finite numbers for each of its epochs",
        ),
        ("best", _best(checkpoint.best), "nothing, or the epoch and the model of the best one"),
        (
            "sessions",
            isinstance(checkpoint.sessions, list) and all(map(_session, checkpoint.sessions)),
            "the step and the machine of each",
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
                    f"{path}: {part}: expected finite values, got others in {name}"
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
    """Whether `value` is the metrics line of `epoch` (from 1)."""
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
