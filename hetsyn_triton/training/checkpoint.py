"""Checkpoints: written whole or not at all, read without executing code, checked before use."""

import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .config import TrainConfig
from .errors import CheckpointError
from .files import write_atomically

FORMAT = 1
_MOVABLE = ("data_dir", "device", "threads")  # where a run is computed, not what is computed


@dataclass
class Checkpoint:
    """All that a run needs to go on as if it had never stopped.

    `epoch` whole epochs are done, and `batch` batches of the next; `sums` are that epoch's running
    totals, `history` the metrics lines of the whole epochs. The learning rate is a function of the
    number of steps and random numbers of the seed, so neither has a state of its own.
    """

    config: dict[str, Any]
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    epoch: int
    batch: int
    sums: dict[str, float]
    history: list[dict[str, Any]]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` to `path` atomically."""
    content = {"format": FORMAT, **vars(checkpoint)}
    write_atomically(path, lambda file: torch.save(content, file))


def read_checkpoint(path: Path, device: torch.device) -> Checkpoint:
    """The checkpoint in `path` with its tensors on `device`.

    CheckpointError where the file is missing, truncated, or not one of this format.
    """
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {path}") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise _broken(path, error) from error
    except (pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise _broken(path, error) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise CheckpointError(f"{path}: expected a checkpoint of format {FORMAT}, got {found!r}")
    del content["format"]
    try:
        return Checkpoint(**content)
    except TypeError as error:
        raise _broken(path, error) from error


def check_same_run(path: Path, checkpoint: Checkpoint, config: TrainConfig) -> None:
    """CheckpointError, naming the settings, unless `checkpoint` belongs to `config`."""
    stored, wanted = checkpoint.config, config.to_json()
    different = [
        f"{name} is {stored.get(name)!r} in the checkpoint and {value!r} in the configuration"
        for name, value in wanted.items()
        if name not in _MOVABLE and stored.get(name) != value
    ]
    if different:
        raise CheckpointError(f"{path} is of another run: {'; '.join(different)}")


def load_weights(path: Path, checkpoint: Checkpoint, network: nn.Module) -> None:
    """Put the checkpoint's weights into `network`.

    CheckpointError, naming tensors, shapes and values, where it is of another architecture or holds
    values that no network can have.
    """
    have = {name: tuple(value.shape) for name, value in checkpoint.model.items()}
    want = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    different = [
        f"{name} is {have.get(name, 'missing')} in the checkpoint "
        f"and {want.get(name, 'missing')} in the network"
        for name in sorted(have.keys() | want.keys())
        if have.get(name) != want.get(name)
    ]
    if different:
        if len(different) > 3:
            different[3:] = [f"and {len(different) - 3} more"]
        raise CheckpointError(f"{path} is of another architecture: {'; '.join(different)}")
    try:
        network.load_state_dict(checkpoint.model)
    except ValueError as error:
        raise CheckpointError(f"{path} holds weights that cannot be: {error}") from error


def _broken(path: Path, error: Exception) -> CheckpointError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CheckpointError(f"{path} is truncated or no checkpoint: {reason}")
