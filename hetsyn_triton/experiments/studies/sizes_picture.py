"""The picture of the study variants at several sizes: the task, time constants, then the score."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hetsyn_triton.experiments.drawing import INK
from hetsyn_triton.experiments.tasks import Task
from hetsyn_triton.experiments.training.build import build_task
from hetsyn_triton.experiments.training.run_pictures import draw_events, shade_spans

from .base import Finished, Row, Study
from .long_decays import BINS
from .statistics import chosen
from .study_pictures import SERIES, by_size, grid, label_score, legend


def draw(study: Study, table: Sequence[Row], done: Sequence[Finished]) -> Figure:
    """Draw the score over the size for each form and each thing that is equal.

    Where the task names groups of input channels (`PATHWAYS`), a first row shows the input of a
    test sample and the learned time constants of HetSyn's synapses by group.
    """
    panels = [(e, f) for e in study.option["equal"] for f in study.option["forms"]]
    panels = [(e, f) for e, f in panels if chosen(table, equal=e, form=f)]
    shown = [f for f in done if "histograms" in f.extra]
    first = 1 if shown else 0
    columns = 2 if len(panels) % 2 == 0 or first else 1
    rows = first + -(-len(panels) // columns)
    figure, axes = grid(rows, columns)
    if shown:
        task = build_task(study.settings.config())
        _draw_input(axes[0, 0], task)
        _draw_time_constants(axes[0, 1], study, shown)
    places = list(axes[first:].flat)
    for (equal, form), one in zip(panels, places, strict=False):
        mine = chosen(table, equal=equal, form=form)
        by_size(one, mine, study.score, study.option["models"])
        label_score(one, study.score, {row["seeds"] for row in mine})
        one.set_title(f"{form}, equal {equal}", fontsize=10)
        one.set_xlabel("hidden neurons of hetsyn", fontsize=9)
    for one in places[len(panels) :]:
        one.set_axis_off()
    legend(axes[first, 0])
    return figure


def _draw_input(axes: Axes, task: Task) -> None:
    """Draw the spikes of a test sample, and the label of each span that has one."""
    sample = task.sample()
    draw_events(axes, sample.input[:, 0], task.input_label)
    shade_spans([axes], task)
    labels = task.wanted(sample.target)
    for start, stop, _ in task.spans():
        if labels is not None and labels[start:stop].unique().numel() == 1:
            axes.text(
                (start + stop) / 2, 0.25, f"label {labels[start].item():g}", color=INK, fontsize=8,
                ha="center", transform=axes.get_xaxis_transform(),
            )  # fmt: skip
    axes.set_xlabel(f"time ({task.step_label or task.time_unit})", fontsize=9)


def _draw_time_constants(axes: Axes, study: Study, done: Sequence[Finished]) -> None:
    """Draw the time constants of HetSyn at its smallest size, averaged over seeds."""
    form = study.option["forms"][0]
    neurons = min(f.cell.values["neurons"] for f in done)
    mine = [f for f in done if (f.cell.values["form"], f.cell.values["neurons"]) == (form, neurons)]
    dt = study.settings.config().dt
    for name, color in zip(mine[0].extra["histograms"], SERIES, strict=False):
        values = np.mean([f.extra["histograms"][name] for f in mine], axis=0)
        axes.stairs(values, BINS * dt, label=name, color=color, lw=1.7)
    axes.set(xscale="log")
    ticks = {1: "1", 10: "10", 100: "100", BINS[-1]: f"≥ {BINS[-1] * dt:g}"}
    axes.set_xticks([step * dt for step in ticks], [*ticks.values()])
    axes.set_xlabel(f"learned time constant ({study.unit})", fontsize=9)
    axes.set_ylabel("share of synapses per bin", fontsize=9)
    axes.set_title(f"hetsyn, {neurons} neurons, {form}", fontsize=10)
    legend(axes, title="synapses of", title_fontsize=8)
