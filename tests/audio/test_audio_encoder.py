"""Mel bands and threshold crossings: by hand, on edge cases, and fast enough."""

import time
from typing import Any

import numpy as np
import pytest

from hetsyn_triton.experiments.tasks.audio.bands import (
    BANDS,
    WINDOW,
    band_edges,
    band_power,
    filter_bank,
    step_starts,
)
from hetsyn_triton.experiments.tasks.audio.crossings import (
    CHANNELS,
    THRESHOLDS,
    UNITS,
    CrossingEncoder,
    Spikes,
    spikes_of_levels,
)
from tests.support.limits import peak_bytes

ENCODER = CrossingEncoder()


def sine(hertz: float, rate: int = 8000, seconds: float = 0.5, amplitude: float = 1.0) -> Any:
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def of_band(spikes: Spikes, band: int) -> list[tuple[int, int]]:
    """(step, unit) of the spikes of one band."""
    return [
        (int(step), int(channel) % UNITS)
        for step, channel in zip(*spikes, strict=True)
        if channel // UNITS == band
    ]


@pytest.mark.parametrize("rate", [721, 4000, 8000, 12500, 20000, 44100, 192000, 1_000_000])
def test_no_band_is_empty(rate: int) -> None:
    bank = filter_bank(rate)
    assert bank.shape == (BANDS, WINDOW // 2 + 1)
    assert bank.min() >= 0
    assert (bank.sum(1) > 0).all()
    edges = band_edges(rate)
    assert edges[0] == pytest.approx(360)
    assert edges[-1] == pytest.approx(min(8000, rate / 2))
    # what the bins hold together is the whole triangle, as wide as half the band, but for the part
    # of the last bin that would lie beyond half the rate
    assert bank.sum(1) * rate / WINDOW == pytest.approx((edges[2:] - edges[:-2]) / 2)


def test_a_bin_inside_a_slope_weighs_as_the_triangle() -> None:
    bank, edges, bins = filter_bank(8000), band_edges(8000), np.arange(WINDOW // 2 + 1) * 8000 / 512
    low, top, high = edges[9:12]
    inside = [(k, (f - low) / (top - low)) for k, f in enumerate(bins) if low + 8 < f < top - 8]
    inside += [(k, (high - f) / (high - top)) for k, f in enumerate(bins) if top + 8 < f < high - 8]
    assert len(inside) > 5
    for place, weight in inside:
        assert bank[9, place] == pytest.approx(weight)


def test_a_rate_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="rate: expected more than 720 Hz"):
        ENCODER(np.ones(100), 720)


@pytest.mark.parametrize("band", [0, 7, 15])
def test_a_sine_is_loudest_in_its_band(band: int) -> None:
    power = band_power(sine(band_edges(8000)[1 + band]), 8000)
    assert (power.argmax(1) == band).all()
    middle = power[20]
    assert middle[band] == pytest.approx(1, abs=0.2)
    assert np.delete(middle, [max(0, band - 1), band, min(15, band + 1)]).max() < 0.01


def test_power_is_that_of_the_fourier_transform() -> None:
    """One window, by the definition of the transform."""
    audio = np.random.default_rng(0).normal(size=2000)
    place = 800  # the middle of step 10 at 10 ms
    piece = audio[place - 256 : place + 256] * (
        0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    )
    turns = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(512)) / 512)
    wanted = filter_bank(8000) @ np.abs(turns @ piece) ** 2 * 4 / (512 * 192)  # sum of Hann^2: 192
    assert band_power(audio, 8000)[10] == pytest.approx(wanted, rel=1e-9)


def test_long_audio_is_cut_nowhere() -> None:
    audio = np.random.default_rng(1).normal(size=8000 * 12)  # more steps than are made at once
    power = band_power(audio, 8000)
    assert len(power) == 1200
    for step in (1023, 1024):
        piece = audio[step * 80 - 800 : step * 80 + 801]
        assert band_power(piece, 8000)[10] == pytest.approx(power[step], rel=1e-9)


@pytest.mark.parametrize(
    ("samples", "rate", "hop", "steps"),
    [
        (0, 8000, 10, 0),
        (1, 8000, 10, 1),
        (80, 8000, 10, 1),
        (81, 8000, 10, 2),
        (22050, 22050, 10, 100),
    ],
)
def test_steps_begin_within_the_audio(samples: int, rate: int, hop: float, steps: int) -> None:
    starts = step_starts(samples, rate, hop)
    assert len(starts) == steps
    assert np.abs(starts - np.arange(steps) * hop * rate / 1000).max(initial=0) <= 0.5


def test_crossings_by_hand() -> None:
    levels = np.zeros((6, BANDS))
    levels[:, 3] = [2 / 16, 5 / 16, 5 / 16, 4.99 / 16, 0.9 / 16, 1.0]
    spikes = spikes_of_levels(levels, 200)
    onset, offset, peak = 0, THRESHOLDS, UNITS - 1
    assert of_band(spikes, 3) == [
        (0, onset + 0),  # an equal level is above: thresholds 1/16 and 2/16
        (0, onset + 1),
        (1, onset + 2),
        (1, onset + 3),
        (1, onset + 4),
        (3, offset + 4),  # 5/16 stayed, then was left
        (4, offset + 0),
        (4, offset + 1),
        (4, offset + 2),
        (4, offset + 3),
        *[(5, onset + k) for k in range(THRESHOLDS)],  # a jump over all
        (5, peak),
        *[(6, offset + k) for k in range(THRESHOLDS)],  # silence follows
    ]
    assert len(spikes.step) == len(of_band(spikes, 3))  # a band at 0 is silent, its peak too
    cut = spikes_of_levels(levels, 5)
    assert cut.step.max() == 4
    assert of_band(cut, 3) == [spike for spike in of_band(spikes, 3) if spike[0] < 5]


def test_every_onset_has_its_offset() -> None:
    levels = np.random.default_rng(2).random((80, BANDS))
    spikes = spikes_of_levels(levels, 200)
    count = np.bincount(spikes.channel, minlength=CHANNELS)
    units = count[: BANDS * UNITS].reshape(BANDS, UNITS)
    assert (units[:, :THRESHOLDS] == units[:, THRESHOLDS:-1]).all()
    assert (units[:, -1] == 1).all()
    assert (count[BANDS * UNITS :] == 0).all()
    assert len(count) == CHANNELS
    order = spikes.step * CHANNELS + spikes.channel
    assert (np.diff(order) > 0).all()


def test_the_first_of_equal_peaks() -> None:
    levels = np.full((4, BANDS), 0.03)  # below the lowest threshold
    levels[1:3] = 0.05
    spikes = spikes_of_levels(levels, 200)
    assert spikes.step.tolist() == [1] * BANDS
    assert (spikes.channel % UNITS == UNITS - 1).all()


@pytest.mark.parametrize("scale", ["log", "linear"])
@pytest.mark.parametrize("normalization", ["utterance", "band", "none"])
def test_silence_and_short_audio(scale: str, normalization: str) -> None:
    encoder = CrossingEncoder(scale=scale, normalization=normalization)
    for samples in (0, 1, 5000):
        assert len(encoder(np.zeros(samples), 8000).step) == 0
    one = encoder(np.array([0.7]), 8000)
    assert set(one.step.tolist()) <= {0, 1}
    assert encoder.levels(sine(700, seconds=0.02), 8000).shape == (2, BANDS)
    assert len(encoder(sine(700, seconds=0.02), 8000).step) > 0  # shorter than a window
    assert len(encoder(sine(700, seconds=3), 8000).step) > 0


def test_a_constant_tone_spikes_at_its_ends() -> None:
    """Its period divides the hop, so that all windows within are the same."""
    spikes = ENCODER(sine(800, seconds=1.0), 8000)
    moving = spikes.step[spikes.channel % UNITS < UNITS - 1]  # without the peaks
    assert ((moving < 5) | (moving > 95)).all()
    assert len(moving) > 100


def test_loudness_is_taken_out_by_normalising() -> None:
    audio = sine(900) * np.hanning(4000)
    for normalization in ("utterance", "band"):
        encoder = CrossingEncoder(normalization=normalization)
        for a, b in zip(encoder(audio, 8000), encoder(audio / 4, 8000), strict=True):
            assert np.array_equal(a, b)
    absolute = CrossingEncoder(normalization="none")
    assert len(absolute(audio, 8000).step) > len(absolute(audio / 4, 8000).step)
    by_band = CrossingEncoder(normalization="band").levels(audio, 8000)
    assert by_band.max(axis=0) == pytest.approx(1)
    assert ENCODER.levels(audio, 8000).max() == pytest.approx(1)


def test_levels_by_hand() -> None:
    power = band_power(sine(900), 8000)
    part = power / power.max()
    wanted = np.maximum(0, 1 + 10 * np.log10(np.maximum(part, 1e-30)) / 50)
    assert ENCODER.levels(sine(900), 8000) == pytest.approx(wanted)
    linear = CrossingEncoder(scale="linear").levels(sine(900), 8000)
    assert linear == pytest.approx(np.sqrt(part))


@pytest.mark.parametrize("rate", [8000, 12500, 20000, 44100])
def test_the_rate_changes_little(rate: int) -> None:
    """A tone has the same steps at every rate, and its peak in the band of its frequency."""
    time = np.arange(rate // 2) / rate
    audio = np.sin(2 * np.pi * 1000 * time) * np.exp(-(((time - 0.25) / 0.08) ** 2))
    levels = ENCODER.levels(audio, rate)
    assert len(levels) == 50
    step, band = np.unravel_index(levels.argmax(), levels.shape)
    edges = band_edges(rate)
    assert abs(step - 25) <= 1
    assert edges[band] < 1000 < edges[band + 2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hop_ms": 0}, "hop_ms: expected a positive, finite number, got 0"),
        ({"steps": 0}, "steps: expected a whole number >= 1, got 0"),
        ({"normalization": "file"}, "normalization: expected one of utterance, band, none"),
        ({"scale": "mel"}, "scale: expected one of log, linear, got 'mel'"),
        ({"range_db": -1}, "range_db: expected a positive"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CrossingEncoder(**settings)


@pytest.mark.parametrize(
    ("audio", "rate", "message"),
    [
        (np.zeros((10, 2)), 8000, r"audio: expected shape \[samples\], got \(10, 2\)"),
        (np.array([0.0, np.nan]), 8000, "audio: expected finite real values"),
        (np.array([1j]), 8000, "audio: expected finite real values, got dtype complex128"),
        (np.zeros(10), 8000.5, "rate: expected a whole number"),
        (np.zeros(10), 0, "rate: expected a whole number"),
    ],
)
def test_wrong_audio(audio: np.ndarray, rate: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ENCODER(audio, rate)
    with pytest.raises(
        ValueError, match=r"hop_ms: expected at least one sample \(0.125 ms\), got 0.1"
    ):
        CrossingEncoder(hop_ms=0.1)(np.zeros(10), 8000)


def test_faster_than_real_time() -> None:
    """At least 100 times, in CPU time, as docs/tasks.md says."""
    audio = np.random.default_rng(3).normal(size=8000).astype(np.float32)
    ENCODER(audio, 8000)
    took = []
    for _ in range(3):
        began = time.process_time()
        for _ in range(20):
            ENCODER(audio, 8000)
        took.append(time.process_time() - began)
    assert 20 / min(took) > 100


def test_what_is_cut_off_changes_nothing_before() -> None:
    """A cut before, at and after the last step, and before and after the peaks."""
    generator = np.random.default_rng(3)
    for count in (0, 1, 2, 12):
        levels = generator.integers(0, 17, (count, BANDS)) / 16
        whole = spikes_of_levels(levels, 100)
        for steps in range(1, count + 4):
            cut = spikes_of_levels(levels, steps)
            kept = whole.step < steps
            assert np.array_equal(cut.step, whole.step[kept])
            assert np.array_equal(cut.channel, whole.channel[kept])


@pytest.mark.parametrize("scale", ["log", "linear"])
def test_memory_of_long_audio_at_a_low_rate(scale: str) -> None:
    """The levels of all steps once, and the audio; no spikes of steps that are cut off."""
    audio = sine(200, rate=721, seconds=500).astype(np.float32)
    encoder = CrossingEncoder(scale=scale)
    levels = encoder.levels(audio, 721).nbytes
    peak = peak_bytes(lambda: encoder(audio, 721))
    assert peak < 1.5 * levels + 3 * audio.nbytes + 12e6  # 12 MB: one block of windows
