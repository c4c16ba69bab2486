"""The run folder: the names of its files, and how a new one is chosen and checked."""

import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from hetsyn_triton.files import is_partial

from .config import TrainConfig
from .errors import RunFolderError
from .lock import LOCK

CONFIG = "config.json"
METRICS = "metrics.jsonl"
SUMMARY = "summary.json"
CHECKPOINT = "checkpoint.pt"
LEARNING_CURVE = "learning_curve.png"
SAMPLE = "sample.png"
TIME_CONSTANTS = "time_constants.png"


def folder_names(config: TrainConfig, parent: Path = Path("runs")) -> Iterator[Path]:
    """runs/<task>-<model>-s<seed>, then the same with -2, -3 ..., without end."""
    name = f"{config.task}-{config.model}-s{config.seed}"
    yield parent / name
    for number in count(2):
        yield parent / f"{name}-{number}"


def free_folder(config: TrainConfig, parent: Path = Path("runs")) -> Path:
    """The first of the `folder_names` that is not there yet."""
    return next(folder for folder in folder_names(config, parent) if not folder.exists())


def check_new_folder(folder: Path) -> None:
    """RunFolderError unless a run can begin in `folder`: it is not there yet or empty, and it can
    be written. Nothing is created."""
    try:
        nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if nearest == folder:
            check_empty(folder)
    except OSError as error:
        raise not_writable(folder, error) from error
    check_writable(folder, nearest)


def check_empty(folder: Path) -> None:
    """RunFolderError where the existing `folder` has files in it."""
    # a run killed in its first moment leaves at most its lock and a partial file
    if any(path.name != LOCK and not is_partial(path) for path in folder.iterdir()):
        raise RunFolderError(
            f"out: expected an empty or new folder, got {folder}, which has files in it. "
            f"To continue the run in it: hetsyn train --resume {folder}"
        )


def check_writable(folder: Path, nearest: Path | None = None) -> None:
    """RunFolderError unless a file can be made in `folder`, or in the `nearest` one there is."""
    try:
        with tempfile.TemporaryFile(dir=nearest or folder):
            pass
    except OSError as error:
        raise not_writable(folder, error) from error


def not_writable(folder: Path, error: OSError) -> RunFolderError:
    """What to raise where the system refuses to write in `folder`."""
    return RunFolderError(
        f"out: expected a folder that can be written, got {folder}: {error.strerror}"
    )


def check_run_folder(folder: Path) -> None:
    """RunFolderError unless `folder` holds a run."""
    if not (folder / CONFIG).is_file():
        raise RunFolderError(f"run: expected a run folder, with {CONFIG} in it, got {folder}")
