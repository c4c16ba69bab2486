"""Read audio files: wav, flac, NIST SPHERE and other formats of libsndfile."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hetsyn_triton.experiments.extras import require_extra

from ..data_error import DataError
from .headers import check_header

if TYPE_CHECKING:
    import soundfile

CHECKED = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "SVX", "CAF", "AU", "OGG", "NIST", "MP3")
"""Formats of libsndfile whose length `check_header` checks."""
COUNTED = ("FLAC", "HTK")
"""Formats of which libsndfile promises a number of samples, also if the file is truncated."""
SMALLEST_BLOCK = 2**20  # samples
EXPANSION = 32
"""Samples that are read in one piece for each byte of a file. MP3 has at most 24, and libsndfile
returns other values if it is read in pieces."""


def read_audio(path: str | Path) -> tuple[np.ndarray, int]:
    """Read samples [n] in [-1, 1], float32, and their rate per second.

    Several channels are averaged. Memory grows with the samples that can be read, whatever the
    header says.

    Raises:
        DataError: If the file cannot be read, is damaged, is shorter than its header says, has
            values that are not finite, is of a format whose length cannot be checked, or
            is a NIST SPHERE file with compressed samples.
    """
    require_extra("reading audio files", "soundfile")
    import soundfile

    path = Path(path)
    size, checked = check_header(path)
    try:
        with soundfile.SoundFile(path) as file:
            rate, promised = file.samplerate, file.frames
            if file.format not in (CHECKED if checked else COUNTED):
                raise DataError(
                    f"{path}: expected one of the formats {', '.join(CHECKED + COUNTED)} (MP3 with "
                    f"a Xing or Info header), got {file.format}: its length cannot be checked"
                )
            try:
                samples = _read_blocks(file, max(SMALLEST_BLOCK, EXPANSION * size))
            except soundfile.SoundFileError as error:
                raise DataError(
                    f"{path} is truncated or damaged: expected {promised} samples as its header "
                    f"says, got: {error}"
                ) from error
    except (OSError, soundfile.SoundFileError) as error:
        raise DataError(f"{path} cannot be read as audio: {error}") from error
    if len(samples) != promised:
        raise DataError(f"{path} is truncated: {len(samples)} of {promised} samples can be read")
    if not np.isfinite(samples).all():
        raise DataError(f"{path} is damaged: some of its samples are not finite")
    return samples.mean(axis=1), rate


def _read_blocks(file: "soundfile.SoundFile", count: int) -> np.ndarray:
    """Read all samples [n, channels], at most `count` at once, because the header may be wrong."""
    blocks = [file.read(count, dtype="float32", always_2d=True)]
    while len(blocks[-1]) == count:
        blocks.append(file.read(count, dtype="float32", always_2d=True))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
