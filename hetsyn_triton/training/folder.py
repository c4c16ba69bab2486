"""The run folder: the names of its files, and how a new one is chosen and checked."""

import tempfile
from itertools import count
from pathlib import Path

from .config import TrainConfig
from .errors import RunFolderError
from .files import PARTIAL

CONFIG = "config.json"
METRICS = "metrics.jsonl"
SUMMARY = "summary.json"
CHECKPOINT = "checkpoint.pt"
LEARNING_CURVE = "learning_curve.png"
SAMPLE = "sample.png"
TIME_CONSTANTS = "time_constants.png"


def free_folder(config: TrainConfig, parent: Path = Path("runs")) -> Path:
    """The first of runs/<task>-<model>-s<seed>, the same with -2, -3 ... that is not there yet."""
    name = f"{config.task}-{config.model}-s{config.seed}"
    for number in count(1):
        folder = parent / (name if number == 1 else f"{name}-{number}")
        if not folder.exists():
            return folder
    raise AssertionError("unreachable")


def claim_folder(folder: Path) -> None:
    """Create `folder` for a new run.

    RunFolderError where it is no folder, holds anything, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # a run killed in its first moment leaves at most a partial file
        filled = any(not path.name.endswith(PARTIAL) for path in folder.iterdir())
    except OSError as error:
        raise RunFolderError(
            f"out: expected a folder that can be written, got {folder}: {error.strerror}"
        ) from error
    if filled:
        raise RunFolderError(
            f"out: expected an empty or new folder, got {folder}, which has files in it. "
            f"To continue the run in it: hetsyn train --resume {folder}"
        )
    check_writable(folder)


def check_writable(folder: Path) -> None:
    """RunFolderError unless a file can be made in `folder`."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RunFolderError(
            f"out: expected a folder that can be written, got {folder}: {error.strerror}"
        ) from error


def check_run_folder(folder: Path) -> None:
    """RunFolderError unless `folder` holds a run."""
    if not (folder / CONFIG).is_file():
        raise RunFolderError(f"run: expected a run folder, with {CONFIG} in it, got {folder}")
