"""The run folder: names of its files, and choice and checks of a new one."""

import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from hetsyn_triton.experiments.files import is_partial

from .config import TrainConfig
from .errors import RunFolderError

CONFIG = "config.json"
METRICS = "metrics.jsonl"
SUMMARY = "summary.json"
CHECKPOINT = "checkpoint.pt"
LEARNING_CURVE = "learning_curve.png"
SAMPLE = "sample.png"
TIME_CONSTANTS = "time_constants.png"
LOCK = ".hetsyn-lock"


def folder_names(config: TrainConfig, parent: Path = Path("runs")) -> Iterator[Path]:
    """Yield runs/<task>-<model>-s<seed>, then the same with -2, -3 and so on."""
    name = f"{config.task}-{config.model}-s{config.seed}"
    yield parent / name
    for number in count(2):
        yield parent / f"{name}-{number}"


def free_folder(config: TrainConfig, parent: Path = Path("runs")) -> Path:
    """Return the first of the `folder_names` that does not exist."""
    return next(folder for folder in folder_names(config, parent) if not folder.exists())


def check_new_folder(folder: Path) -> None:
    """Raise RunFolderError unless `folder` is new or empty, and writable; create nothing."""
    try:
        nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if nearest == folder:
            check_empty(folder)
    except OSError as error:
        raise not_writable(folder, error) from error
    check_writable(folder, nearest)


def check_empty(folder: Path) -> None:
    """Raise RunFolderError if the existing `folder` contains files."""
    # a run that is killed at its start leaves at most its lock and a partial file
    if any(path.name != LOCK and not is_partial(path) for path in folder.iterdir()):
        raise RunFolderError(
            f"out: expected an empty or new folder, got {folder}, which contains files. "
            f"To resume the run in it: hetsyn train --resume {folder}"
        )


def check_writable(folder: Path, nearest: Path | None = None) -> None:
    """Raise RunFolderError unless `folder`, or its `nearest` existing parent, is writable."""
    try:
        with tempfile.TemporaryFile(dir=nearest or folder):
            pass
    except OSError as error:
        raise not_writable(folder, error) from error


def not_writable(folder: Path, error: OSError) -> RunFolderError:
    """Return the error for a `folder` that is not writable."""
    return RunFolderError(f"out: expected a writable folder, got {folder}: {error.strerror}")


def check_run_folder(folder: Path) -> None:
    """Raise RunFolderError unless `folder` contains a run."""
    if not (folder / CONFIG).is_file():
        raise RunFolderError(f"run: expected a run folder that contains {CONFIG}, got {folder}")
