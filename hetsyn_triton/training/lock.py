"""A folder held by one process at a time; the system lets go of it when that process ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = ".hetsyn-lock"


class LockedError(RuntimeError):
    """Another process, or another run of this one, holds the folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` while the block runs; LockedError, at once, where somebody else does.

    The lock is flock(2) on a file in the folder, removed at the end. A killed process leaves the
    file but not the lock. OSError where the file system makes no such file or lock.
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
        os.close(handle)  # the holder before us removed the file in between: take a new one
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # still locked, so nobody else's
        os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file is the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
