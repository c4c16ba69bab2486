"""Lock a folder for one process; the system releases the lock when the process ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = ".hetsyn-lock"


class LockedError(RuntimeError):
    """Another process, or another run in this process, has locked the folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock `folder` while the block runs.

    The lock is flock(2) on a file in the folder, which is removed at the end. A killed process
    leaves the file but not the lock.

    Raises:
        LockedError: If the folder is already locked.
        OSError: If the file system does not support the file or the lock.
    """
    path = folder / LOCK
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(handle, path):
                break
        except BlockingIOError as error:
            os.close(handle)
            raise LockedError from error
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # the previous process removed the file in between: create a new one
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # still locked, so no other process uses it
        os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    """Return whether the open file is the file at `path`."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
