"""Check the header of a wav or NIST SPHERE file, where libsndfile reports no error.

For a truncated file, libsndfile returns fewer samples. It does not support compressed SPHERE files.
"""

import struct
from pathlib import Path
from typing import BinaryIO

from ..data_error import DataError

SPHERE = b"NIST_1A\n"
SPHERE_HEADER = 1024  # bytes, unless the second line has another number
UNKNOWN_SIZE = 0xFFFFFFFF  # of a wav written to a pipe
CONVERT = "convert it first, for example with sph2pipe -f wav IN OUT"


def check_header(path: Path) -> None:
    """Check the header of a wav or NIST SPHERE file; other formats are not checked.

    Raises:
        DataError: If the file is shorter than its header says, or if libsndfile cannot read its
            compressed samples.
    """
    try:
        with open(path, "rb") as file:
            size = path.stat().st_size
            start = file.read(len(SPHERE))
            if start == SPHERE:
                _check_sphere(path, file, size)
            elif start[:4] == b"RIFF":
                _check_riff(path, file, size)
            elif size == 0:
                raise DataError(f"{path} is empty")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _check_sphere(path: Path, file: BinaryIO, size: int) -> None:
    length = file.readline(SPHERE_HEADER).strip()
    header = int(length) if length.isdigit() else SPHERE_HEADER
    file.seek(0)
    text = file.read(header).decode("latin-1")
    fields = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        fields[name] = value.split(" ", 1)[-1].strip()
    if len(text) < header or "end_head" not in fields:
        raise DataError(f"{path} is truncated or damaged: its header has no end")
    coding = fields.get("sample_coding", "pcm")
    if "," in coding:  # as in "pcm,embedded-shorten-v2.00"
        raise DataError(f"{path} has compressed samples ({coding}): {CONVERT}")
    try:
        sizes = [int(fields.get(name, "1")) for name in ("channel_count", "sample_n_bytes")]
        promised = int(fields["sample_count"]) * sizes[0] * sizes[1]
    except (KeyError, ValueError):
        raise DataError(f"{path} is damaged: its header has no number of samples") from None
    _check_size(path, promised, size - header)


def _check_riff(path: Path, file: BinaryIO, size: int) -> None:
    place = 12
    while place + 8 <= size:
        file.seek(place)
        name, length = struct.unpack("<4sI", file.read(8))
        place += 8
        if name == b"data":
            if length != UNKNOWN_SIZE:
                _check_size(path, length, size - place)
            return
        place += length + length % 2
    raise DataError(f"{path} is truncated: it ends before the first sample")


def _check_size(path: Path, promised: int, found: int) -> None:
    if found < promised:
        raise DataError(
            f"{path} is truncated: expected {promised} bytes of samples as its header says, "
            f"got {found}"
        )
