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


def check_new_folder(folder: Path) -> None:
    """RunFolderError unless a run can begin in `folder`: it is not there yet or empty, and it can
    be written. Nothing is created."""
    try:
        nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        # a run killed in its first moment leaves at most a partial file
        files = nearest.iterdir() if nearest == folder else iter(())
        filled = any(not path.name.endswith(PARTIAL) for path in files)
    except OSError as error:
        raise _not_writable(folder, error) from error
    if filled:
        raise RunFolderError(
            f"out: expected an empty or new folder, got {folder}, which has files in it. "
            f"To continue the run in it: hetsyn train --resume {folder}"
        )
    check_writable(folder, nearest)


def check_writable(folder: Path, nearest: Path | None = None) -> None:
    """RunFolderError unless a file can be made in `folder`, or in the `nearest` one there is."""
    try:
        with tempfile.TemporaryFile(dir=nearest or folder):
            pass
    except OSError as error:
        raise _not_writable(folder, error) from error


def _not_writable(folder: Path, error: OSError) -> RunFolderError:
    return RunFolderError(
        f"out: expected a folder that can be written, got {folder}: {error.strerror}"
    )


def check_run_folder(folder: Path) -> None:
    """RunFolderError unless `folder` holds a run."""
    if not (folder / CONFIG).is_file():
        raise RunFolderError(f"run: expected a run folder, with {CONFIG} in it, got {folder}")
