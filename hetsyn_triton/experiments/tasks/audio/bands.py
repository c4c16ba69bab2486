"""The power of audio in each mel band and step, with NumPy only.

Times are in ms, frequencies and rates in Hz. A band is a triangle on the frequency axis, and the
corners of all bands are evenly spaced in mel: mel(f) = 2595 log10(1 + f / 700).
"""

import math
from functools import lru_cache

import numpy as np

WINDOW = 512  # samples of a window, and of its Fourier transform
BANDS = 16
LOWEST_HZ = 360.0
HIGHEST_HZ = 8000.0
FRAMES_AT_ONCE = 1024  # limits the memory for long audio


def band_edges(rate: int) -> np.ndarray:
    """Return the corners [BANDS + 2] in Hz: band b rises from b to b + 1 and falls to b + 2.

    They range from 360 Hz to 8000 Hz or to half of `rate`, whichever is smaller.

    Raises:
        ValueError: If `rate` is too low.
    """
    highest = min(HIGHEST_HZ, rate / 2)
    if highest <= LOWEST_HZ:
        raise ValueError(
            f"rate: expected more than {2 * LOWEST_HZ:g} Hz because the bands start at "
            f"{LOWEST_HZ:g} Hz, got {rate}"
        )
    low, high = (2595 * math.log10(1 + hertz / 700) for hertz in (LOWEST_HZ, highest))
    mel = np.linspace(low, high, BANDS + 2)
    return np.asarray(700 * (10 ** (mel / 2595) - 1))


@lru_cache(maxsize=16)
def filter_bank(rate: int) -> np.ndarray:
    """Return the weight [BANDS, WINDOW // 2 + 1] of each Fourier bin in each band.

    A weight is the mean over the bin of the band's triangle, whose maximum is 1. The value in the
    middle of the bin would not work: at a high rate, a band between two bins would be empty.
    """
    edges = band_edges(rate)[:, None]
    width = rate / WINDOW
    limits = (np.arange(WINDOW // 2 + 2) - 0.5) * width  # of the bins
    low, top, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = top - low, high - top
    area = np.clip(limits - low, 0, rising) ** 2 / (2 * rising)  # of the triangle up to a limit
    area = area + falling / 2 - np.clip(high - limits, 0, falling) ** 2 / (2 * falling)
    bank: np.ndarray = np.diff(area, axis=1) / width
    bank.setflags(write=False)  # every caller gets the same array
    return bank


def step_starts(samples: int, rate: int, hop_ms: float) -> np.ndarray:
    """Return the sample in the middle of each step's window: t * hop, rounded, for step t.

    There are as many steps as start within the audio, and none for audio without samples.
    """
    hop = hop_ms * rate / 1000
    starts: np.ndarray = np.rint(np.arange(int(samples / hop) + 2) * hop).astype(np.int64)
    return np.asarray(starts[starts < samples])


def band_power(audio: np.ndarray, rate: int, hop_ms: float = 10.0) -> np.ndarray:
    """Return the power [steps, BANDS] of `audio` [samples] in each band, float64.

    Windows are Hann windows of 512 samples around the middle of each step. The audio is padded with
    silence, so audio shorter than a window has steps, too. A sine of amplitude 1 in the middle of a
    band has a power of about 1, if the band is much wider than a bin.
    """
    starts = step_starts(len(audio), rate, hop_ms)
    padded = np.pad(audio, WINDOW // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)
    window = np.hanning(WINDOW + 1)[:-1]  # periodic
    scale = 4 / (WINDOW * np.square(window).sum())  # Parseval: the sum over a sine's bins is 1
    bank = filter_bank(rate).T * scale
    power = np.empty((len(starts), BANDS))
    for first in range(0, len(starts), FRAMES_AT_ONCE):
        chosen = starts[first : first + FRAMES_AT_ONCE]
        spectrum = np.fft.rfft(windows[chosen].astype(np.float64) * window, axis=1)
        power[first : first + FRAMES_AT_ONCE] = (spectrum.real**2 + spectrum.imag**2) @ bank
    return power
