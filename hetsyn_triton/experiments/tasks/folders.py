"""The folder of a task's files."""

import os
from pathlib import Path

from .data_error import DataError


def data_folder(given: Path | None, home: str | None, expected: str, help: str) -> Path:
    """Return the folder `given`, or else the folder `home` in HETSYN_DATA.

    Args:
        given: The folder in the setting `data_dir`.
        home: Name of the folder in HETSYN_DATA. None if the task has none.
        expected: Text for the error if there is no folder.
        help: Text for the error that says where to get the data.

    Raises:
        DataError: If there is no folder.
    """
    folder, root = given, os.environ.get("HETSYN_DATA")
    if folder is None and home is not None and root:
        folder = Path(root) / home
    if folder is None:
        raise DataError(f"data_dir: expected {expected}. {help}")
    if not folder.is_dir():
        raise DataError(f"data_dir: expected a folder, got {folder}. {help}")
    return folder
