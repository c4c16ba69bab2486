"""The picture of an encoded recording: waveform, mel bands and spikes."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hetsyn_triton.experiments.drawing import BLUE, GREY, INK, LINE, ORANGE, clean_axes, save_figure

from .bands import BANDS, band_edges
from .crossings import THRESHOLDS, UNITS, CrossingEncoder, Spikes

KINDS = (("onset", BLUE, "s", 2.4), ("offset", ORANGE, "s", 2.4), ("peak", INK, "D", 4.0))
ENVELOPE_POINTS = 2000  # more than the picture has columns of pixels


def draw_encoding(
    audio: np.ndarray, rate: int, encoder: CrossingEncoder, title: str, path: Path
) -> Spikes:
    """Draw `audio` [samples] at `rate`, its levels and its spikes as a PNG.

    Returns:
        The spikes.

    Raises:
        ValueError: If the encoder cannot encode the audio.
    """
    levels, spikes = encoder.levels(audio, rate), encoder(audio, rate)
    figure = Figure(figsize=(9.0, 8.2), layout="constrained")
    rows = figure.subplots(3, 1, sharex=True, height_ratios=[1.0, 1.5, 3.2])
    figure.suptitle(title, color=INK, fontsize=12)
    _draw_waveform(rows[0], audio, rate)
    _draw_levels(rows[1], levels, rate, encoder)
    _draw_spikes(rows[2], spikes, rate, encoder)
    step = encoder.hop_ms / 1000
    shown = max(len(audio) / rate, (len(levels) + 1) * step)  # offsets may follow the last step
    rows[2].set(xlabel="time (s)", xlim=(-step / 2, shown))
    end = encoder.steps * step
    if end < shown:
        for axes in rows:
            axes.axvline(end, color=GREY, lw=1.0, ls="--")
        rows[0].text(
            end, 1.02, f"spikes until here: {encoder.steps} steps", color=INK, fontsize=8,
            ha="right", transform=rows[0].get_xaxis_transform(),
        )  # fmt: skip
    save_figure(figure, path)
    return spikes


def _draw_waveform(axes: Axes, audio: np.ndarray, rate: int) -> None:
    """Draw minimum and maximum of many short ranges of samples."""
    clean_axes(axes)
    if len(audio):
        starts = np.unique(np.linspace(0, len(audio) - 1, ENVELOPE_POINTS).astype(np.int64))
        low, high = np.minimum.reduceat(audio, starts), np.maximum.reduceat(audio, starts)
        axes.fill_between(starts / rate, low, high, color=INK, lw=0.6)
    most = float(np.abs(audio).max()) if len(audio) else 0.0
    axes.set(ylabel="waveform", ylim=(-1.1 * most, 1.1 * most) if most else (-1, 1))


def _draw_levels(axes: Axes, levels: np.ndarray, rate: int, encoder: CrossingEncoder) -> None:
    clean_axes(axes, grid=False)
    levels = levels if len(levels) else np.zeros((1, BANDS))
    step = encoder.hop_ms / 1000
    shown = axes.imshow(
        levels.T, cmap="magma", vmin=0, vmax=1, aspect="auto", origin="lower",
        interpolation="nearest", extent=(-step / 2, (len(levels) - 0.5) * step, 0, BANDS),
    )  # fmt: skip
    _label_bands(axes, rate, 1)
    axes.set(ylabel="mel band (Hz)")
    bar = axes.figure.colorbar(shown, ax=axes, pad=0.01, fraction=0.03)
    bar.set_label("level", fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=7, colors=INK)


def _draw_spikes(axes: Axes, spikes: Spikes, rate: int, encoder: CrossingEncoder) -> None:
    """Draw a dot per spike, colored by kind, with one stripe per band."""
    clean_axes(axes, grid=False)
    kind = np.minimum(spikes.channel % UNITS // THRESHOLDS, 2)
    time = spikes.step * (encoder.hop_ms / 1000)
    for number, (name, color, marker, size) in enumerate(KINDS):
        x, y = time[kind == number], spikes.channel[kind == number] + 0.5
        label = f"{name}: {len(x)} spikes"
        axes.plot(x, y, marker, ls="", ms=size, mew=0, color=color, label=label)
    for band in range(1, BANDS):
        axes.axhline(band * UNITS, color=LINE, lw=0.7, zorder=0)
    _label_bands(axes, rate, UNITS)
    axes.set(ylabel="units of each mel band (Hz)", ylim=(0, BANDS * UNITS))
    axes.legend(
        frameon=False, fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0.0, 1.0),
        borderaxespad=0.1, handletextpad=0.1, markerscale=1.6,
    )  # fmt: skip


def _label_bands(axes: Axes, rate: int, height: int) -> None:
    """Label the middle frequency of every third band; each band is `height` high."""
    bands, tops = range(0, BANDS, 3), band_edges(rate)[1:-1]
    axes.set_yticks(
        [(band + 0.5) * height for band in bands], [f"{tops[band]:.0f}" for band in bands]
    )
