"""Writing files so that a reader never sees half of one."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

PARTIAL = ".partial"  # ends the name of a file that is being written


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a file beside `path`, then put it in place of `path` in one step.

    After a crash or a kill at any moment `path` is the old file or the new one, whole. A file left
    behind by a killed writer has one fixed name and is overwritten by the next.
    """
    partial = path.with_name(f".{path.name}{PARTIAL}")
    try:
        with open(partial, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_json(path: Path, values: Any) -> None:
    """Write `values` as indented JSON, atomically."""
    text = json.dumps(values, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json_lines(path: Path, records: list[dict[str, Any]]) -> None:
    """Write one line of JSON per record, atomically."""
    text = "".join(json_line(record) for record in records)
    write_atomically(path, lambda file: file.write(text.encode()))


def append_json_line(path: Path, record: dict[str, Any]) -> None:
    """Add one record to a file of JSON lines."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json_line(record))


def json_line(record: dict[str, Any]) -> str:
    """`record` as one line of JSON."""
    return json.dumps(record, allow_nan=False) + "\n"


def _sync_folder(folder: Path) -> None:
    """Make the new name itself survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
