"""Where a task's files are: the folder given, or its own in that of all data."""

import os
from pathlib import Path

from .errors import DataError


def data_folder(given: Path | None, home: str | None, expected: str, help: str) -> Path:
    """`given`, else the folder `home` (None: there is no such) of the one HETSYN_DATA names.

    DataError, with what is `expected` and with `help`, where that is none, or not there.
    """
    folder, root = given, os.environ.get("HETSYN_DATA")
    if folder is None and home is not None and root:
        folder = Path(root) / home
    if folder is None:
        raise DataError(f"data_dir: expected {expected}. {help}")
    if not folder.is_dir():
        raise DataError(f"data_dir: expected a folder, got {folder}. {help}")
    return folder
