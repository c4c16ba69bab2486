"""The three pictures of a run: learning curve, sample and time constants."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter
from torch import Tensor

from hetsyn_triton.experiments.drawing import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    SHADE,
    clean_axes,
    save_figure,
)
from hetsyn_triton.experiments.tasks import Task
from hetsyn_triton.modules import SpikingNetwork

from .measure import format_metric, run_network
from .network_time_constants import quartiles

RASTER_STEPS = 200  # longer samples are drawn as dots, shorter ones as filled cells
PARTS = (("train", GREY, 9.0), ("validation", BLUE, 6.5), ("test", ORANGE, 4.0))
"""Color and marker size of each curve; later ones are smaller, so that all points are visible."""
TAU_RANGE = (0.5, 1000.0)  # in steps; values outside count in the outermost bins


def draw_learning_curve(
    task: Task, history: list[dict[str, Any]], test: dict[str, float], path: Path
) -> None:
    """Draw loss and the task's metrics over epochs, with the test result after the last epoch."""
    names = ["loss", *task.drawn_metrics]
    figure = Figure(figsize=(4.6 * len(names), 3.6), layout="constrained")
    epochs = [record["epoch"] for record in history]
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        clean_axes(axes)
        for part, color, size in PARTS:
            lines = [record for record in history if f"{part}_{name}" in record]
            if lines:
                values = [record[f"{part}_{name}"] for record in lines]
                marker = "o" if len(lines) < 3 else None
                at = [record["epoch"] for record in lines]
                axes.plot(at, values, color=color, lw=1.8, marker=marker, ms=size, label=part)
        label = f"test, last epoch: {format_metric(name, test[name])}"
        axes.plot(
            epochs[-1:], [test[name]], "D", color=ORANGE, mfc="none", ms=11, label=label, zorder=3
        )
        if name.endswith("accuracy"):
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        margin = min(0.5, 0.05 * len(epochs)) if len(epochs) > 1 else 0.5  # epoch 0 is not shown
        axes.set(xlabel="epoch", title=name, xlim=(epochs[0] - margin, epochs[-1] + margin))
        axes.legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def draw_sample(task: Task, network: SpikingNetwork, device: torch.device, path: Path) -> None:
    """Draw input, hidden spikes and output of one test sample over time."""
    sample = task.sample()
    with torch.no_grad():
        output, hidden = run_network(network, sample.input.to(device))
    output, spikes = output.cpu(), [layer.cpu() for layer in hidden]
    figure = Figure(figsize=(8.0, 3.2 + 2.0 * (len(spikes) + 1)), layout="constrained")
    heights = [1.0, *[1.4] * len(spikes), 1.4]
    rows = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    figure.suptitle(task.caption(output, sample.target), color=INK, fontsize=12)
    draw_events(rows[0], sample.input[:, 0], task.input_label)
    for number, (axes, layer) in enumerate(zip(rows[1:-1], spikes, strict=True), 1):
        name = "hidden neuron" if len(spikes) == 1 else f"neuron, layer {number}"
        draw_events(axes, layer[:, 0], name)
    _draw_output(rows[-1], task, output, sample.target)
    shade_spans(rows, task)
    rows[-1].set(xlabel=f"time ({task.step_label or task.time_unit})", xlim=(0, len(output)))
    save_figure(figure, path)


def draw_time_constants(
    before: dict[str, Tensor], after: dict[str, Tensor], unit: str, dt: float, path: Path
) -> None:
    """Draw histograms of the time constants of each group, before and after training."""
    columns = min(3, len(after))
    rows = math.ceil(len(after) / columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * rows), layout="constrained")
    low, high = (limit * dt for limit in TAU_RANGE)
    bins = np.geomspace(low, high, 50).tolist()
    for number, name in enumerate(after, 1):
        axes = figure.add_subplot(rows, columns, number)
        clean_axes(axes)
        _draw_histogram(axes, before[name], bins, "before", "stepfilled", GREY)
        _draw_histogram(axes, after[name], bins, "after", "step", BLUE)
        axes.set(xscale="log", xlabel=f"time constant ({unit})", title=name)
        axes.set_xticks([low, dt, 10 * dt, 100 * dt, high], _tau_ticks(low, dt, high))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.legend(frameon=False, fontsize=8)
        top = axes.get_ylim()[1]
        axes.set_ylim(0, 1.3 * top)  # space for the legend
        if number % columns == 1 or columns == 1:
            axes.set_ylabel("count")
    save_figure(figure, path)


def _draw_histogram(
    axes: Axes,
    taus: Tensor,
    bins: list[float],
    when: str,
    style: Literal["stepfilled", "step"],
    color: str,
) -> None:
    low, high = bins[0], bins[-1]
    median = quartiles(taus)[1]
    label = f"{when}, median {median:.3g}"
    shown = taus.clamp(low, high).numpy()
    axes.hist(shown, bins, histtype=style, color=color, lw=1.6, label=label)
    axes.axvline(min(max(median, low), high), color=color, lw=1.0, ls="--")


def _tau_ticks(low: float, dt: float, high: float) -> list[str]:
    return [f"≤ {low:g}", f"{dt:g}", f"{10 * dt:g}", f"{100 * dt:g}", f"≥ {high:g}"]


def shade_spans(rows: Sequence[Axes], task: Task) -> None:
    """Shade the task's spans of time in all `rows`, with their labels above the first."""
    for span in task.spans():
        for axes in rows:
            axes.axvspan(span.start, span.stop, color=SHADE, lw=0, zorder=0)
        rows[0].text(
            (span.start + span.stop) / 2, 1.02, span.label, color=INK, fontsize=8, ha="center",
            transform=rows[0].get_xaxis_transform(),
        )  # fmt: skip


def draw_events(axes: Axes, values: Tensor, name: str) -> None:
    """Draw values [T, N] over time: dots or cells for spikes, gray levels for analog values."""
    clean_axes(axes, grid=False)
    steps, count = values.shape
    binary = bool(((values == 0) | (values == 1)).all())
    if count == 1 and not binary:
        axes.fill_between(np.arange(steps) + 0.5, values[:, 0].numpy(), color=INK, lw=0)
        axes.set(ylabel=name, ylim=(0, None))
        return
    if binary and steps > RASTER_STEPS:
        time, neuron = values.nonzero(as_tuple=True)
        axes.plot(time + 0.5, neuron + 0.5, ".", ms=1.6, color=INK, rasterized=True)
    else:
        shown = np.ma.masked_equal(values.T.numpy(), 0)  # shows spans behind it
        axes.imshow(
            shown, cmap="Greys", vmin=0, aspect="auto", origin="lower", interpolation="nearest",
            extent=(0, steps, 0, count), zorder=1,
        )  # fmt: skip
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set(ylabel=name, ylim=(0, count))


def _draw_output(axes: Axes, task: Task, output: Tensor, target: Tensor) -> None:
    clean_axes(axes)
    curves, wanted, winner = task.trace(output), task.wanted(target), task.highlight(target)
    time = np.arange(len(curves)) + 0.5
    if wanted is not None:
        for number, curve in enumerate(wanted.T):
            label = "target" if number == 0 else None
            axes.plot(time, curve, color=ORANGE, lw=2.4, alpha=0.8, label=label)
    for number, curve in enumerate(curves.T):
        if winner is None:
            label, style = ("output" if number == 0 else None), {"color": BLUE, "lw": 1.3}
        elif number == winner:
            label, style = (
                f"{task.class_name(number)} (true)",
                {"color": INK, "lw": 2.6, "zorder": 3},
            )
        else:
            label, style = (
                task.class_name(number),
                {"color": f"C{number}", "lw": 1.1, "alpha": 0.55},
            )
        axes.plot(time, curve, label=label, **style)  # type: ignore[arg-type]
    axes.set(ylabel=task.trace_label)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
