"""Claim a run or study folder, so that no other process writes to it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from hetsyn_triton.experiments.files import partials

from .config import TrainConfig
from .errors import RunFolderError
from .run_folder import LOCK, check_empty, folder_names, not_writable

USERS = {"run": "`hetsyn train`", "study": "`hetsyn study`"}  # what locks a folder


@contextmanager
def claim_new_folder(wanted: Path | None, config: TrainConfig) -> Iterator[Path]:
    """Claim the folder of a new run: `wanted`, or if None the first free name in runs/.

    The folder is created if necessary, and removed again if the block leaves it empty.

    Raises:
        RunFolderError: If `wanted` contains files, is used by another process, or is not writable.
    """
    try:
        folder, made = _new_folder(config) if wanted is None else (wanted, _make(wanted))
    except OSError as error:
        raise not_writable(wanted or next(folder_names(config)), error) from error
    try:
        with claim_folder(folder, "run"):
            check_empty(folder)  # again, because another run may have been faster
            yield folder
    finally:
        if made:
            with suppress(OSError):  # usually it is not empty
                folder.rmdir()


@contextmanager
def claim_folder(folder: Path, kind: str) -> Iterator[None]:
    """Lock `folder` while the block runs, and remove partial files of killed processes.

    The system releases the lock when a process ends. A killed one leaves the file but not the lock.

    Args:
        folder: The folder.
        kind: "run" or "study", for the message.

    Raises:
        RunFolderError: If another process uses the folder, or if it is not writable.
    """
    lock = FileLock(folder / LOCK, blocking=False, fallback_to_soft=False)
    with ExitStack() as held:
        try:
            held.enter_context(lock)
        except Timeout as error:
            raise RunFolderError(
                f"{kind} folder: expected one that no other process uses, got {folder}, "
                f"which another {USERS[kind]} uses"
            ) from error
        except OSError as error:
            raise not_writable(folder, error) from error
        held.callback((folder / LOCK).unlink, missing_ok=True)  # while it is still locked
        for path in partials(folder):
            path.unlink(missing_ok=True)
        yield


def _new_folder(config: TrainConfig) -> tuple[Path, bool]:
    """Create a new folder; `mkdir` decides which process gets it."""
    for folder in folder_names(config):
        if _make(folder):
            return folder, True
    raise AssertionError("unreachable: the names are endless")


def _make(folder: Path) -> bool:
    """Create `folder`, and return whether it is new."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True
