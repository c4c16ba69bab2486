"""Read idx files, the format of MNIST.

A file has two zero bytes, a type code (8 = unsigned byte), the number of dimensions, each size as a
big-endian 32-bit integer, and the values in row-major order.
"""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .data_error import DataError

UNSIGNED_BYTE = 8


def find_idx(folder: Path, name: str) -> Path:
    """Return the file `name` or `name`.gz in `folder`; DataError if both are missing."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(f"neither {name} nor {name}.gz is in {folder}")


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Read an idx file of unsigned bytes with that many dimensions, as uint8.

    Raises:
        DataError: If the file is truncated, longer than its header says, not in gzip format despite
            the suffix .gz, of another type, or of another number of dimensions.
    """
    content = _content(path)
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise DataError(f"{path} is truncated: its header needs {header} bytes, got {len(content)}")
    zeros, code, found = struct.unpack(">HBB", content[:4])
    if zeros != 0 or code != UNSIGNED_BYTE or found != dimensions:
        magic = bytes([0, 0, UNSIGNED_BYTE, dimensions]).hex()
        raise DataError(f"{path}: expected an idx file with magic {magic}, got {content[:4].hex()}")
    sizes = struct.unpack(f">{dimensions}I", content[4:header])
    wanted_bytes = header + int(np.prod(sizes, dtype=np.int64))
    if len(content) != wanted_bytes:
        what = "truncated" if len(content) < wanted_bytes else "too long"
        raise DataError(
            f"{path} is {what}: its header {list(sizes)} needs {wanted_bytes} bytes, "
            f"got {len(content)}"
        )
    values = np.frombuffer(content, np.uint8, offset=header).reshape(sizes)
    return torch.from_numpy(values.copy())


def _content(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path} is truncated or damaged: {error}") from error
    except gzip.BadGzipFile as error:
        raise DataError(f"{path} is not a gzip file: {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
