"""Data files: regular files only, opened with their real size."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .data_error import DataError

KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


@contextmanager
def open_data(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file and yield it with its size in bytes.

    Raises:
        DataError: If the file cannot be opened, or read inside the `with` block, or if it is not a
            regular file. A FIFO is reported at once, not when somebody writes to it.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                found = KINDS.get(stat.S_IFMT(status.st_mode), "another kind of file")
                raise DataError(f"{path}: expected a regular file, got {found}")
            yield file, status.st_size
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def is_data_file(path: Path) -> bool:
    """Return whether `path` exists and is neither a folder nor a leftover.

    A FIFO or a device counts: `open_data` refuses it by name.
    """
    return path.exists() and not path.is_dir() and not is_leftover(path.name)


def is_leftover(name: str) -> bool:
    """Return whether a file is metadata of macOS (._NAME) or an unfinished download (NAME.part)."""
    return name.startswith("._") or name.endswith(".part")


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
