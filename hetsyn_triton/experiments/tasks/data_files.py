"""Data files: regular files only, opened with their real size."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from hetsyn_triton.experiments.files import open_regular

from .data_error import DataError


@contextmanager
def open_data(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file and yield it with its size in bytes.

    Raises:
        DataError: If the file cannot be opened, or read inside the `with` block, or if it is not a
            regular file. A FIFO is reported at once, not when somebody writes to it.
    """
    try:
        with open_regular(path) as opened:
            yield opened
    except OSError as error:
        if error.errno == errno.EINVAL:  # of `open_regular`
            raise DataError(f"{path}: {error.strerror}") from error
        raise DataError(f"{path} cannot be read: {error}") from error


def is_data_file(path: Path) -> bool:
    """Return whether `path` exists and is neither a folder nor a leftover.

    A FIFO or a device counts: `open_data` refuses it by name.
    """
    return path.exists() and not path.is_dir() and not is_leftover(path.name)


def is_leftover(name: str) -> bool:
    """Return whether a file is metadata of macOS (._NAME) or an unfinished download (NAME.part)."""
    return name.startswith("._") or name.endswith(".part")
