"""The threshold-crossing encoder: audio to spikes (Guetig, Science 2016; arXiv 2508.11644).

The level of each of 16 mel bands is compared with 15 evenly spaced thresholds in each step.

- A band is above a threshold where its level is at least the threshold: an equal level is above.
  Before the first step and after the last one the level is 0, below every threshold.
- The onset unit of a threshold spikes in a step in which the band is above it and in the step
  before was not; its offset unit where the band is not above it and in the step before was. A
  level that jumps over several thresholds makes all their units spike in that step. A level that
  stays at a threshold makes no further spikes. Each onset has its offset, in the step after the
  last one at the latest; only what lies beyond the first `steps` steps is cut off.
- The peak unit of a band spikes once, in the step of its highest level, the first of equal ones;
  never where that level is 0.

Channels: band b has the 31 channels from 31 b: onsets from the lowest threshold to the highest,
offsets likewise, the peak. 496 channels, and four that never spike: 500.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hetsyn_triton.validation import check_choice, check_positive_number, check_size

from .bands import BANDS, band_power

THRESHOLDS = 15  # of each band
UNITS = 2 * THRESHOLDS + 1
CHANNELS = 500  # 16 * 31 = 496, padded
NORMALISATIONS = ("utterance", "band", "none")
SCALES = ("log", "linear")


class Spikes(NamedTuple):
    """`step` [n] and `channel` [n] of n spikes, int32, ordered by step, then channel."""

    step: np.ndarray
    channel: np.ndarray


@dataclass(frozen=True, kw_only=True)
class CrossingEncoder:
    """Turns audio into spikes; the module's docstring says what a spike is.

    - `hop_ms`: length of a step in ms.
    - `steps`: spikes of later steps are left out.
    - `normalisation`: the power of level 1: "utterance", the highest of all bands and steps;
      "band", each band's own highest; "none", that of a sine of amplitude 1. Thresholds lie at
      1/16 to 15/16.
    - `scale`: "log", where level 0 is `range_db` dB below level 1 or less; "linear", where the
      level is the amplitude, the root of the power, and `range_db` says nothing.

    ValueError for a value that is not allowed.
    """

    hop_ms: float = 10.0
    steps: int = 200
    normalisation: str = "utterance"
    scale: str = "log"
    range_db: float = 50.0

    def __post_init__(self) -> None:
        check_positive_number("hop_ms", self.hop_ms)
        check_size("steps", self.steps)
        check_choice("normalisation", self.normalisation, NORMALISATIONS)
        check_choice("scale", self.scale, SCALES)
        check_positive_number("range_db", self.range_db)

    def __call__(self, audio: np.ndarray, rate: int) -> Spikes:
        """The spikes of `audio` [samples] at `rate` samples a second.

        Silence has none, and so has audio without a sample. ValueError for audio of another shape
        or with values that are not finite, a rate that is no whole number or too low for the bands,
        or a hop shorter than a sample.
        """
        return spikes_of_levels(self.levels(audio, rate), self.steps)

    def levels(self, audio: np.ndarray, rate: int) -> np.ndarray:
        """Levels [steps, BANDS] of the whole audio, from 0."""
        audio = np.asarray(audio)
        if audio.ndim != 1:
            raise ValueError(f"audio: expected shape [samples], got {audio.shape}")
        if audio.dtype.kind not in "fiu" or not np.isfinite(audio).all():
            raise ValueError(f"audio: expected finite real values, got dtype {audio.dtype}")
        rate = check_size("rate", rate)
        if self.hop_ms * rate < 1000:
            raise ValueError(
                f"hop_ms: expected at least one sample, {1000 / rate:g} ms, got {self.hop_ms:g}"
            )
        power = band_power(audio, rate, self.hop_ms)
        if not power.any():  # silence has no highest level to compare with
            return power
        axis = 0 if self.normalisation == "band" else None
        top = 1.0 if self.normalisation == "none" else power.max(axis=axis)
        part = np.divide(power, top, out=np.zeros_like(power), where=np.asarray(top) > 0)
        if self.scale == "linear":
            return np.asarray(np.sqrt(part))
        floor = 10 ** (-self.range_db / 10)
        decibel = 10 * np.log10(np.maximum(part, floor))
        return np.asarray(np.maximum(0, 1 + decibel / self.range_db))


def spikes_of_levels(levels: np.ndarray, steps: int) -> Spikes:
    """The spikes of `levels` [n, BANDS] in the first `steps` steps."""
    count = len(levels)
    counted = np.floor(levels * (THRESHOLDS + 1)).astype(np.int32)  # thresholds not above the level
    counted = np.minimum(counted, THRESHOLDS)
    framed = np.zeros((count + 2, BANDS), np.int32)
    framed[1:-1] = counted
    number = np.arange(1, THRESHOLDS + 1)
    above = framed[:, :, None] >= number  # [count + 2, BANDS, THRESHOLDS]
    spikes = np.zeros((count + 1, CHANNELS), bool)
    by_unit = spikes[:, : BANDS * UNITS].reshape(count + 1, BANDS, UNITS)
    by_unit[:, :, :THRESHOLDS] = above[1:] & ~above[:-1]
    by_unit[:, :, THRESHOLDS:-1] = above[:-1] & ~above[1:]
    if count:
        peak, bands = levels.argmax(axis=0), np.arange(BANDS)
        by_unit[peak, bands, -1] = levels[peak, bands] > 0
    spikes[:, : BANDS * UNITS] = by_unit.reshape(count + 1, BANDS * UNITS)
    step, channel = np.nonzero(spikes[:steps])
    return Spikes(step.astype(np.int32), channel.astype(np.int32))
