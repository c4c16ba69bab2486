"""Checks of a checkpoint before a run resumes from it: settings, tensors and position."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hetsyn_triton import Decay
from hetsyn_triton.experiments.tasks import Task

from .checkpoint import Checkpoint
from .config import TrainConfig
from .errors import CheckpointError
from .selection import best_epoch

MOVABLE = ("data_dir", "device", "threads")  # settings that may change when a run is resumed


def lasting(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return `settings` without those in MOVABLE."""
    return {name: value for name, value in settings.items() if name not in MOVABLE}


def check_same_run(path: Path, checkpoint: Checkpoint, config: TrainConfig) -> None:
    """Raise CheckpointError unless `checkpoint` belongs to a run with `config`."""
    check_same_settings(path, checkpoint.config, config)
    if checkpoint.epoch > config.epochs:
        raise CheckpointError(
            f"{path}: epoch: expected at most {config.epochs}, got {checkpoint.epoch}"
        )


def check_same_settings(path: Path, stored: dict[str, Any], config: TrainConfig) -> None:
    """Raise CheckpointError if the settings `stored` in `path` differ from `config`.

    The settings in MOVABLE may differ.
    """
    wanted = config.to_json()
    different = [
        f"{name} is {stored.get(name)!r} in the checkpoint and {value!r} in the configuration"
        for name, value in wanted.items()
        if name not in MOVABLE and stored.get(name) != value
    ]
    if different:
        raise CheckpointError(f"{path} belongs to another run: {'; '.join(different)}")


def check_place(path: Path, checkpoint: Checkpoint, epochs: int, steps_per_epoch: int) -> None:
    """Raise CheckpointError unless the position of the checkpoint is one at which a run saves."""
    allowed = steps_per_epoch if checkpoint.epoch < epochs else 1
    if checkpoint.batch >= allowed:
        raise CheckpointError(
            f"{path}: batch: expected less than {allowed} after epoch {checkpoint.epoch}, "
            f"got {checkpoint.batch}"
        )
    if bool(checkpoint.sums) != bool(checkpoint.batch):
        raise CheckpointError(
            f"{path}: sums: expected {'values' if checkpoint.batch else 'none'} after "
            f"{checkpoint.batch} batches, got {sorted(checkpoint.sums)}"
        )


def check_best(path: Path, checkpoint: Checkpoint, task: Task, network: nn.Module) -> None:
    """Raise CheckpointError unless the best validation epoch fits the history and `network`."""
    best, expected = checkpoint.best, best_epoch(task, checkpoint.history, "validation")
    found = None if best is None else best["epoch"]
    if found != expected:
        raise CheckpointError(f"{path}: best: expected epoch {expected}, got {found}")
    if best is not None:
        _check_architecture(path, best["model"], network)


def load_weights(path: Path, weights: dict[str, Tensor], network: nn.Module) -> None:
    """Load `weights` of the checkpoint in `path` into `network`.

    Raises:
        CheckpointError: If they belong to another architecture or have invalid values; the message
            names the tensors.
    """
    _check_architecture(path, weights, network)
    try:
        network.load_state_dict(weights)
        for module in network.modules():
            if isinstance(module, Decay):
                module()  # refuses decays that were loaded unclamped: a checkpoint has none
    except (ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path} contains invalid weights: {error}") from error


def _check_architecture(path: Path, weights: dict[str, Tensor], network: nn.Module) -> None:
    # Masks of frozen decays, now numbers, were bool before.
    dtype = next(network.parameters()).dtype
    have = {
        name: _kind(value.to(dtype) if value.dtype == torch.bool else value)
        for name, value in weights.items()
    }
    want = {name: _kind(value) for name, value in network.state_dict().items()}
    different = [
        f"{name} is {have.get(name, 'missing')} in the checkpoint "
        f"and {want.get(name, 'missing')} in the network"
        for name in sorted(have.keys() | want.keys())
        if have.get(name) != want.get(name)
    ]
    if different:
        if len(different) > 3:
            different[3:] = [f"and {len(different) - 3} more"]
        raise CheckpointError(f"{path} belongs to another architecture: {'; '.join(different)}")


def portable_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the state of `optimizer` as it is on a CPU, so that a run may go on on any device."""
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        group["lr"] = float(group["lr"])
        group["capturable"] = False
    moments = {
        number: {name: value.cpu() if name == "step" else value for name, value in own.items()}
        for number, own in state["state"].items()
    }
    return {**state, "state": moments}


def load_optimizer(
    path: Path, state: dict[str, Any], step: int, optimizer: torch.optim.Optimizer
) -> None:
    """Load the optimizer `state` of the checkpoint in `path`, written after `step` steps.

    A parameter that never had a gradient has no moments.

    Raises:
        CheckpointError: If the groups differ, or if moments are missing, have another shape or
            type, or are not finite.
    """
    before = [_settings(group) for group in optimizer.param_groups]
    try:
        optimizer.load_state_dict(state)
        after = [_settings(group) for group in optimizer.param_groups]
        stored = state["state"]
    except Exception as error:  # unchecked content can cause any error in PyTorch
        raise CheckpointError(f"{path}: the optimizer state does not fit: {error!r}") from error
    if before != after:
        raise CheckpointError(f"{path}: optimizer: expected groups {before}, got {after}")
    if not stored and step > 0:
        raise CheckpointError(f"{path}: optimizer: expected moments after the first step, got none")
    parameters = dict(enumerate(p for group in optimizer.param_groups for p in group["params"]))
    for number, moments in stored.items():
        if number not in parameters or not _moments_fit(moments, parameters[number]):
            raise CheckpointError(
                f"{path}: optimizer: expected finite moments with the shapes and types of "
                f"{len(parameters)} parameters, got other ones for parameter {number}"
            )


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a group that do not change during training."""
    return {name: value for name, value in group.items() if name not in ("params", "lr")}


def _moments_fit(state: Any, parameter: Tensor) -> bool:
    """Return whether `state` is the state of `parameter` in Adam."""
    count = torch.zeros((), device="cpu")
    return set(state) == {"step", "exp_avg", "exp_avg_sq"} and all(
        isinstance(value, Tensor)
        and _kind(value) == _kind(count if name == "step" else parameter)
        and bool(value.isfinite().all())
        for name, value in state.items()
    )


def _kind(value: Tensor) -> str:
    return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
