"""Check how long an audio file says it is, where libsndfile reports no error.

For a truncated file, libsndfile returns fewer samples. It does not support compressed SPHERE files.
"""

import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..data_error import DataError
from ..data_files import open_data

SPHERE = b"NIST_1A\n"
SPHERE_UNIT = 1024  # the length of a header is a multiple of these bytes
SPHERE_LONGEST = 64 * SPHERE_UNIT
CONVERT = "convert it first, for example with sph2pipe -f wav IN OUT"
MOST_CHUNKS = 10_000  # before the first sample
UNKNOWN_SIZE = 0xFFFFFFFF  # of a wav or au written to a pipe


class Container(NamedTuple):
    """How a format stores its chunks, each of which has a name, a length and content.

    Attributes:
        first: Place of the first chunk.
        layout: Of name and length, for struct.
        samples: First letters of the name of the chunk with the samples.
        unit: A chunk starts at a multiple of these bytes after the one before.
        unknown: The length of samples written to a pipe; None if the format has none.
        counted: Bytes of name and length that the length includes.
    """

    first: int
    layout: str
    samples: tuple[bytes, ...]
    unit: int = 2
    unknown: int | None = None
    counted: int = 0


CONTAINERS = {
    b"RIFF": Container(12, "<4sI", (b"data",), unknown=UNKNOWN_SIZE),  # wav
    b"RIFX": Container(12, ">4sI", (b"data",), unknown=UNKNOWN_SIZE),
    b"RF64": Container(12, "<4sI", (b"data",)),
    b"riff": Container(40, "<16sQ", (b"data",), unit=8, counted=24),  # W64
    b"FORM": Container(12, ">4sI", (b"SSND", b"BODY")),  # AIFF and 8SVX
    b"caff": Container(8, ">4sq", (b"data",), unit=1, unknown=-1),
}


def check_header(path: Path) -> tuple[int, bool]:
    """Check that a file is as long as its header says.

    The formats checked are wav, RF64, W64, AIFF, 8SVX, CAF, AU, Ogg and NIST SPHERE. libsndfile
    checks mp3 files that have a Xing or Info header; in others, it guesses the number of samples.

    Returns:
        The size of the file in bytes, and whether its length is checked.

    Raises:
        DataError: If the file is shorter than its header says, or if libsndfile cannot read its
            compressed samples.
    """
    with open_data(path) as (file, size):
        start = file.read(len(SPHERE))
        if size == 0:
            raise DataError(f"{path} is empty")
        if start == SPHERE:
            _check_sphere(path, file, size)
        elif start[:4] in CONTAINERS:
            _check_chunks(path, file, size, CONTAINERS[start[:4]])
        elif start[:4] in (b".snd", b"dns."):
            _check_au(path, file, size)
        elif start[:4] == b"OggS":
            _check_ogg(path, file, size)
        else:
            return size, _is_counted_mp3(file)
        return size, True


def _check_sphere(path: Path, file: BinaryIO, size: int) -> None:
    length = file.readline(SPHERE_UNIT).strip()
    header = int(length) if length.isdigit() else 0
    if not 0 < header <= SPHERE_LONGEST or header % SPHERE_UNIT:
        raise DataError(
            f"{path}: expected a header of {SPHERE_UNIT} to {SPHERE_LONGEST} bytes, in steps of "
            f"{SPHERE_UNIT}, got {length[:30]!r}"
        )
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


def _check_chunks(path: Path, file: BinaryIO, size: int, container: Container) -> None:
    """Check the length of the chunk with the samples."""
    place, head = container.first, struct.calcsize(container.layout)
    samples = None  # their length in an RF64 file, which may need more than 4 bytes
    for _ in range(MOST_CHUNKS):
        if place + head > size:
            raise DataError(f"{path} is truncated: it ends before the first sample")
        file.seek(place)
        name, length = struct.unpack(container.layout, file.read(head))
        place += head
        if name == b"ds64":
            samples = int.from_bytes(file.read(16)[8:], "little")
        if name.startswith(container.samples):
            if length != container.unknown:
                if length == UNKNOWN_SIZE and samples is not None:
                    length = samples
                _check_size(path, length - container.counted, size - place)
            return
        length -= container.counted
        if length < 0:
            raise DataError(f"{path} is damaged: the length of its chunk {name!r} is too small")
        place += length + -length % container.unit
    raise DataError(f"{path}: expected samples in the first {MOST_CHUNKS} chunks, got none")


def _check_au(path: Path, file: BinaryIO, size: int) -> None:
    file.seek(0)
    start = file.read(12)
    order = ">" if start[:4] == b".snd" else "<"
    if len(start) < 12:
        raise DataError(f"{path} is truncated: it ends before the first sample")
    header, length = struct.unpack(f"{order}4x2I", start)
    if length != UNKNOWN_SIZE:
        _check_size(path, length, size - header)


def _check_ogg(path: Path, file: BinaryIO, size: int) -> None:
    """Check that pages follow each other, and that the one at the end says it is the last."""
    place = last = 0
    while place < size:
        file.seek(place)
        page = file.read(27 + 255)  # as much as its header can have
        if len(page) < 27 or page[:4] != b"OggS":
            break
        last = page[5] & 4
        place += 27 + page[26] + sum(page[27 : 27 + page[26]])
    if place != size or not last:
        raise DataError(
            f"{path} is truncated or damaged: expected pages up to a last one at its end, "
            f"got {place} bytes of pages in {size}"
        )


def _is_counted_mp3(file: BinaryIO) -> bool:
    """Return whether an mp3 frame, maybe after an ID3 tag, has the number of samples."""
    file.seek(0)
    tag, place = file.read(10), 0
    if tag.startswith(b"ID3"):
        for byte in tag[6:]:
            place = place << 7 | byte
        place += len(tag)
    file.seek(place)
    frame = file.read(64)
    return frame.startswith(b"\xff") and (b"Xing" in frame or b"Info" in frame)


def _check_size(path: Path, promised: int, found: int) -> None:
    if found < promised:
        raise DataError(
            f"{path} is truncated: expected {promised} bytes of samples as its header says, "
            f"got {found}"
        )
