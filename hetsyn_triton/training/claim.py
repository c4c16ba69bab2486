"""A run folder as one process's own, from the first file to the last."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from hetsyn_triton.files import partials

from .config import TrainConfig
from .errors import RunFolderError
from .folder import check_empty, folder_names, not_writable
from .lock import LockedError, locked


@contextmanager
def claim_new_folder(wanted: Path | None, config: TrainConfig) -> Iterator[Path]:
    """A folder for a new run: `wanted`, or for None the first new one in runs/.

    It is made here if need be, and goes again if the block leaves it empty. RunFolderError where
    `wanted` has files in it, another process holds it, or it cannot be written.
    """
    try:
        folder, made = _new_folder(config) if wanted is None else (wanted, _make(wanted))
    except OSError as error:
        raise not_writable(wanted or next(folder_names(config)), error) from error
    try:
        with claim_run_folder(folder):
            check_empty(folder)  # again: another run may have come first
            yield folder
    finally:
        if made:
            with suppress(OSError):  # it is not empty, as a rule
                folder.rmdir()


@contextmanager
def claim_run_folder(folder: Path) -> Iterator[None]:
    """Hold `folder`, without what killed writers left in it; RunFolderError where another does."""
    with ExitStack() as held:
        try:
            held.enter_context(locked(folder))
        except LockedError as error:
            raise RunFolderError(
                f"run folder: expected one that no other process works in, got {folder}, "
                "where another hetsyn train or resume is at work"
            ) from error
        except OSError as error:
            raise not_writable(folder, error) from error
        for path in partials(folder):
            path.unlink(missing_ok=True)
        yield


def _new_folder(config: TrainConfig) -> tuple[Path, bool]:
    """A folder that nobody had before: `mkdir` decides between processes."""
    for folder in folder_names(config):
        if _make(folder):
            return folder, True
    raise AssertionError("unreachable: the names have no end")


def _make(folder: Path) -> bool:
    """Make `folder`; whether it was not there before."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True
