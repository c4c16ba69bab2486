"""Read audio files: wav, flac, NIST SPHERE and other formats of libsndfile."""

from pathlib import Path

import numpy as np

from hetsyn_triton.experiments.extras import require_extra

from ..data_error import DataError
from .headers import check_header


def read_audio(path: str | Path) -> tuple[np.ndarray, int]:
    """Read samples [n] in [-1, 1], float32, and their rate per second.

    Several channels are averaged.

    Raises:
        DataError: If the file cannot be read, is damaged, is shorter than its header says, has
            values that are not finite, or is a NIST SPHERE file with compressed samples.
    """
    require_extra("reading audio files", "soundfile")
    import soundfile

    path = Path(path)
    check_header(path)
    try:
        with soundfile.SoundFile(path) as file:
            samples = file.read(dtype="float32", always_2d=True)
            rate, promised = file.samplerate, file.frames
    except (OSError, soundfile.SoundFileError) as error:
        raise DataError(f"{path} cannot be read as audio: {error}") from error
    if len(samples) != promised:
        raise DataError(f"{path} is truncated: {len(samples)} of {promised} samples can be read")
    if not np.isfinite(samples).all():
        raise DataError(f"{path} is damaged: some of its samples are not finite")
    return samples.mean(axis=1), rate
