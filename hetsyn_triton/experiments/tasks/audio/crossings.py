"""The threshold-crossing encoder: audio to spikes (Guetig, Science 2016; arXiv 2508.11644).

In each step, the level of each of 16 mel bands is compared with 15 evenly spaced thresholds.

- A band is above a threshold if its level is at least the threshold. Before the first and after the
  last step, the level is 0, below every threshold.
- The onset unit of a threshold spikes if the band is above it and was not in the step before. The
  offset unit spikes if the band is not above it and was in the step before. If a level crosses
  several thresholds, all their units spike in that step. A level that stays at a threshold causes
  no more spikes. Each onset has its offset, at the latest in the step after the last one. Spikes
  after the first `steps` steps are cut off.
- The peak unit of a band spikes once, in the first step of its maximum level, unless that is 0.

Band b has the 31 channels from 31 b on: onsets from the lowest to the highest threshold, offsets in
the same order, and the peak. These are 496 channels; four more never spike.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hetsyn_triton.validation import check_choice, check_positive_number, check_size

from .bands import BANDS, band_power

THRESHOLDS = 15  # of each band
UNITS = 2 * THRESHOLDS + 1
CHANNELS = 500  # 16 * 31 = 496, padded
NORMALIZATIONS = ("utterance", "band", "none")
SCALES = ("log", "linear")


class Spikes(NamedTuple):
    """`step` [n] and `channel` [n] of n spikes, int32, ordered by step, then channel."""

    step: np.ndarray
    channel: np.ndarray


@dataclass(frozen=True, kw_only=True)
class CrossingEncoder:
    """Turn audio into spikes; the docstring of the module has the exact rules.

    Args:
        hop_ms: Length of a step in ms.
        steps: Number of steps to keep; later spikes are left out.
        normalization: What level 1 is. "utterance": the maximum power of all bands and steps.
            "band": the maximum power of each band. "none": the power of a sine of amplitude 1.
            Thresholds are at 1/16 to 15/16.
        scale: "log": level 0 is `range_db` dB below level 1, or less. "linear": the level is the
            amplitude, the square root of the power.
        range_db: Range of the log scale in dB.

    Raises:
        ValueError: If a value is not allowed.
    """

    hop_ms: float = 10.0
    steps: int = 200
    normalization: str = "utterance"
    scale: str = "log"
    range_db: float = 50.0

    def __post_init__(self) -> None:
        check_positive_number("hop_ms", self.hop_ms)
        check_size("steps", self.steps)
        check_choice("normalization", self.normalization, NORMALIZATIONS)
        check_choice("scale", self.scale, SCALES)
        check_positive_number("range_db", self.range_db)

    def __call__(self, audio: np.ndarray, rate: int) -> Spikes:
        """Return the spikes of `audio` [samples] at `rate` samples per second.

        Silence and empty audio have no spikes.

        Raises:
            ValueError: If `audio` has another shape or values that are not finite, if `rate` is not
                an integer or too low for the bands, or if a step is shorter than a sample.
        """
        return spikes_of_levels(self.levels(audio, rate), self.steps)

    def levels(self, audio: np.ndarray, rate: int) -> np.ndarray:
        """Return the levels [steps, BANDS] of the whole audio; the minimum is 0."""
        audio = np.asarray(audio)
        if audio.ndim != 1:
            raise ValueError(f"audio: expected shape [samples], got {audio.shape}")
        if audio.dtype.kind not in "fiu" or not np.isfinite(audio).all():
            raise ValueError(f"audio: expected finite real values, got dtype {audio.dtype}")
        rate = check_size("rate", rate)
        if self.hop_ms * rate < 1000:
            raise ValueError(
                f"hop_ms: expected at least one sample ({1000 / rate:g} ms), got {self.hop_ms:g}"
            )
        power = band_power(audio, rate, self.hop_ms)
        if not power.any():  # silence has no maximum to divide by
            return power
        axis = 0 if self.normalization == "band" else None
        top = 1.0 if self.normalization == "none" else power.max(axis=axis)
        # In place, because long audio at a low rate has more steps than samples.
        level = np.divide(power, top, out=power, where=np.asarray(top) > 0)
        if self.scale == "linear":
            return np.asarray(np.sqrt(level, out=level))
        np.maximum(level, 10 ** (-self.range_db / 10), out=level)
        np.log10(level, out=level)
        level *= 10  # decibel
        level /= self.range_db
        level += 1
        return np.asarray(np.maximum(0, level, out=level))


def spikes_of_levels(levels: np.ndarray, steps: int) -> Spikes:
    """Return the spikes of `levels` [n, BANDS] in the first `steps` steps."""
    rows = min(len(levels) + 1, steps)  # what comes after the cut needs no memory
    kept = levels[:rows]
    counted = np.floor(kept * (THRESHOLDS + 1)).astype(np.int32)  # thresholds below the level
    counted = np.minimum(counted, THRESHOLDS)
    framed = np.zeros((rows + 1, BANDS), np.int32)
    framed[1 : len(kept) + 1] = counted
    number = np.arange(1, THRESHOLDS + 1)
    above = framed[:, :, None] >= number  # [rows + 1, BANDS, THRESHOLDS]
    spikes = np.zeros((rows, CHANNELS), bool)
    by_unit = spikes[:, : BANDS * UNITS].reshape(rows, BANDS, UNITS)
    by_unit[:, :, :THRESHOLDS] = above[1:] & ~above[:-1]
    by_unit[:, :, THRESHOLDS:-1] = above[:-1] & ~above[1:]
    if len(levels):
        peaks = np.array([level.argmax() for level in levels.T])  # argmax(axis=0) copies all levels
        bands = np.flatnonzero(peaks < rows)
        peak = peaks[bands]
        by_unit[peak, bands, -1] = levels[peak, bands] > 0
    spikes[:, : BANDS * UNITS] = by_unit.reshape(rows, BANDS * UNITS)
    step, channel = np.nonzero(spikes)
    return Spikes(step.astype(np.int32), channel.astype(np.int32))
