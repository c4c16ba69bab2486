"""What the header of a wav or NIST SPHERE file says, where libsndfile takes less without a word.

Of a file that ends too early libsndfile gives the samples that are there; compressed SPHERE it
does not know.
"""

import struct
from pathlib import Path
from typing import BinaryIO

from ..errors import DataError

SPHERE = b"NIST_1A\n"
SPHERE_HEADER = 1024  # bytes, unless the second line says another number
UNKNOWN_SIZE = 0xFFFFFFFF  # of a wav written to a pipe
CONVERT = "convert it first, as with sph2pipe -f wav IN OUT"


def check_header(path: Path) -> None:
    """DataError, naming the file, where its header promises more bytes than it has, or the samples
    are compressed as libsndfile cannot read them. Files of other formats pass."""
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
        raise DataError(f"{path} is truncated or damaged: its header does not end")
    coding = fields.get("sample_coding", "pcm")
    if "," in coding:  # as in "pcm,embedded-shorten-v2.00"
        raise DataError(f"{path}: its samples are compressed ({coding}), {CONVERT}")
    try:
        sizes = [int(fields.get(name, "1")) for name in ("channel_count", "sample_n_bytes")]
        promised = int(fields["sample_count"]) * sizes[0] * sizes[1]
    except (KeyError, ValueError):
        raise DataError(f"{path} is damaged: its header does not say how many samples") from None
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
    raise DataError(f"{path} is truncated: it ends before its samples begin")


def _check_size(path: Path, promised: int, found: int) -> None:
    if found < promised:
        raise DataError(
            f"{path} is truncated: its header promises {promised} bytes of samples, {found} follow"
        )
