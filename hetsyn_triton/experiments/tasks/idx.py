"""Read idx files, the format of MNIST.

A file has two zero bytes, a type code (8 = unsigned byte), the number of dimensions, each size as a
big-endian 32-bit integer, and the values in row-major order.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from .data_error import DataError
from .data_files import is_data_file, open_data

TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4"}
"""The dtype of each type code; 13 and 14, floating point, are not read."""
GZIP_MOST = 1032  # bytes that one byte of a gzip file can hold
READ_AT_ONCE = 2**20  # bytes


def find_idx(folder: Path, name: str) -> Path:
    """Return the file `name` or `name`.gz in `folder`; DataError if both are missing."""
    for path in (folder / name, folder / f"{name}.gz"):
        if is_data_file(path):
            return path
    raise DataError(f"neither {name} nor {name}.gz is in {folder}")


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Read an idx file of integers with that many dimensions, as uint8.

    Memory grows with the content of the file, whatever its header says. All integer types are read,
    if uint8 holds their values exactly.

    Raises:
        DataError: If the file is truncated, longer than its header says, not in gzip format despite
            the suffix .gz, of another type, of another number of dimensions, or has values outside
            0 to 255.
    """
    with open_data(path) as (file, size):
        if path.suffix != ".gz":
            return _read(path, file, size, dimensions)
        try:
            with gzip.GzipFile(fileobj=file) as unpacked:
                return _read(path, unpacked, GZIP_MOST * size, dimensions)
        except (EOFError, zlib.error) as error:
            raise DataError(f"{path} is truncated or damaged: {error}") from error
        except gzip.BadGzipFile as error:
            raise DataError(f"{path} is not a gzip file: {error}") from error


def _read(path: Path, file: BinaryIO | gzip.GzipFile, most: int, dimensions: int) -> Tensor:
    """Read the open `file`, which holds at most `most` bytes."""
    header = 4 + 4 * dimensions
    start = _read_bytes(file, header)
    if len(start) < header:
        raise DataError(f"{path} is truncated: its header needs {header} bytes, got {len(start)}")
    zeros, code, found = struct.unpack(">HBB", start[:4])
    if zeros != 0 or code not in TYPES or found != dimensions:
        magic = ", ".join(bytes([0, 0, known, dimensions]).hex() for known in TYPES)
        raise DataError(f"{path}: expected an idx file with magic {magic}, got {start[:4].hex()}")
    sizes = struct.unpack(f">{dimensions}I", start[4:])
    dtype = np.dtype(TYPES[code])
    wanted = math.prod(sizes) * dtype.itemsize
    needed = f"its header {list(sizes)} needs {header + wanted} bytes"
    if header + wanted > most:
        raise DataError(f"{path} is truncated: {needed}, got {most} at most")
    content = _read_bytes(file, wanted + 1)  # the byte after the last shows a file that is too long
    if len(content) < wanted:
        raise DataError(f"{path} is truncated: {needed}, got {header + len(content)}")
    if len(content) > wanted:
        raise DataError(f"{path} is too long: {needed}, got more")
    values = np.frombuffer(content, dtype).reshape(sizes)
    if values.size and not 0 <= values.min() <= values.max() <= 255:
        odd = values.min() if values.min() < 0 else values.max()
        raise DataError(f"{path}: expected values from 0 to 255, got {odd}")
    return torch.from_numpy(values.astype(np.uint8, copy=False))


def _read_bytes(file: BinaryIO | gzip.GzipFile, most: int) -> bytearray:
    """Read up to `most` bytes, of which nothing is allocated before it is read."""
    content = bytearray()
    while part := file.read(min(most - len(content), READ_AT_ONCE)):
        content += part
    return content
