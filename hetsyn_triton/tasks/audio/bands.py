"""From audio to the level of each mel band in each step: NumPy only.

Times in ms, frequencies and rates in Hz. A band is a triangle on the frequency axis, with corners
evenly spaced in mel, mel(f) = 2595 log10(1 + f / 700).
"""

import math
from functools import lru_cache

import numpy as np

WINDOW = 512  # samples of a window, and of its Fourier transform
BANDS = 16
LOWEST_HZ = 360.0
HIGHEST_HZ = 8000.0
FRAMES_AT_ONCE = 1024  # so that the memory for windows does not grow with the length of the audio


def band_edges(rate: int) -> np.ndarray:
    """Corners [BANDS + 2] in Hz: band b rises from b to b + 1 and falls to b + 2.

    They reach from 360 Hz to 8000 Hz or half of `rate`, whichever is less. ValueError where that
    is no room.
    """
    highest = min(HIGHEST_HZ, rate / 2)
    if highest <= LOWEST_HZ:
        raise ValueError(
            f"rate: expected more than {2 * LOWEST_HZ:g} Hz, for the bands begin at "
            f"{LOWEST_HZ:g} Hz, got {rate}"
        )
    low, high = (2595 * math.log10(1 + hertz / 700) for hertz in (LOWEST_HZ, highest))
    mel = np.linspace(low, high, BANDS + 2)
    return np.asarray(700 * (10 ** (mel / 2595) - 1))


@lru_cache(maxsize=16)
def filter_bank(rate: int) -> np.ndarray:
    """Weight [BANDS, WINDOW // 2 + 1] of each bin of the Fourier transform in each band.

    A weight is the mean of the band's triangle, 1 at its top, over the width of the bin, and not
    its value in the middle of the bin: a band narrower than the distance of bins, at a high rate,
    would otherwise fall between two of them and be empty.
    """
    edges = band_edges(rate)[:, None]
    width = rate / WINDOW
    limits = (np.arange(WINDOW // 2 + 2) - 0.5) * width  # of the bins
    low, top, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = top - low, high - top
    area = np.clip(limits - low, 0, rising) ** 2 / (2 * rising)  # under the triangle up to there
    area = area + falling / 2 - np.clip(high - limits, 0, falling) ** 2 / (2 * falling)
    bank: np.ndarray = np.diff(area, axis=1) / width
    bank.setflags(write=False)  # the same array for every caller
    return bank


def step_starts(samples: int, rate: int, hop_ms: float) -> np.ndarray:
    """The sample in the middle of each step's window: step t is at t * hop, rounded.

    As many steps as begin within the audio: one for a single sample, none for no sample.
    """
    hop = hop_ms * rate / 1000
    starts: np.ndarray = np.rint(np.arange(int(samples / hop) + 2) * hop).astype(np.int64)
    return np.asarray(starts[starts < samples])


def band_power(audio: np.ndarray, rate: int, hop_ms: float = 10.0) -> np.ndarray:
    """Power [steps, BANDS] of `audio` [samples] in each band, float64.

    Windows are Hann windows of 512 samples around the middle of each step; before and after the
    audio there is silence, so audio shorter than a window has its steps too. A sine of amplitude 1
    in the middle of a band that is wide beside a bin has a power of about 1.
    """
    starts = step_starts(len(audio), rate, hop_ms)
    padded = np.pad(np.asarray(audio, np.float64), WINDOW // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)
    window = np.hanning(WINDOW + 1)[:-1]  # periodic
    scale = 4 / (WINDOW * np.square(window).sum())  # Parseval: the sum over a sine's bins is 1
    bank = filter_bank(rate).T * scale
    power = np.empty((len(starts), BANDS))
    for first in range(0, len(starts), FRAMES_AT_ONCE):
        chosen = starts[first : first + FRAMES_AT_ONCE]
        spectrum = np.fft.rfft(windows[chosen] * window, axis=1)
        power[first : first + FRAMES_AT_ONCE] = (spectrum.real**2 + spectrum.imag**2) @ bank
    return power
