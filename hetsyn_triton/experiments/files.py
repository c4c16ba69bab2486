"""Writing files so that a reader never sees half of one, and reading regular files only."""

import errno
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
PARTIAL = ".hetsyn-partial"  # ends the name of a file that is being written


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a file beside `path`, then put it in place of `path` in one step.

    After a crash or a kill at any moment `path` is the old file or the new one, whole. No two
    writers share a partial file; what a killed one leaves is for `partials` to find.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}{PARTIAL}")
    try:
        with named_errors(path), open(partial, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def partials(folder: Path) -> Iterator[Path]:
    """Files in `folder` that a writer has not finished, or that a killed one left behind."""
    return (path for path in folder.iterdir() if is_partial(path))


def is_partial(path: Path) -> bool:
    """Whether `path` is named as a file being written."""
    return path.name.startswith(".") and path.name.endswith(PARTIAL)


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
    with named_errors(path), open(path, "a", encoding="utf-8") as file:
        file.write(json_line(record))


def json_line(record: dict[str, Any]) -> str:
    """`record` as one line of JSON."""
    return json.dumps(record, allow_nan=False) + "\n"


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Give an OSError of the block, such as that of a full disk, the name of the file."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def open_regular(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file and yield it with its size in bytes.

    Raises:
        OSError: If it is another kind of file, which may have no end. A FIFO is reported at once,
            not when somebody writes to it.
    """
    with open(path, "rb", opener=_open_at_once) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            found = KINDS.get(stat.S_IFMT(status.st_mode), "another kind of file")
            raise OSError(errno.EINVAL, f"expected a regular file, got {found}", str(path))
        yield file, status.st_size


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def read_regular(path: Path) -> bytes:
    """Read all of a file as `open_regular` opens it."""
    with open_regular(path) as (file, _):
        return file.read()


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(read_regular(path))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _sync_folder(folder: Path) -> None:
    """Make the new name itself survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
