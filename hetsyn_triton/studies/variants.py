"""The four models on one task."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from hetsyn_triton.modules import MODELS
from hetsyn_triton.tasks import task_class

from .base import Cell, Finished, Place, Row, Study
from .networks import curve, form, result, trained
from .options import names
from .statistics import mean_and_deviation, over_seeds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMS = ("recurrent", "feedforward")


class Variants(Study):
    """Every model, recurrent and feedforward, trained from each seed; a row is a run's test."""

    name = "variants"
    title = "The four models"
    default_task = "pattern-generation"
    varies = frozenset({"model", "recurrent"})
    blocks = ("form",)
    options: ClassVar = {"models": names(MODELS, MODELS), "forms": names(FORMS, FORMS)}

    def cells(self) -> list[Cell]:
        return [
            Cell(f"{model}-{kind}-s{seed}", {"model": model, "form": kind, "seed": seed})
            for seed in range(self.settings.seeds)
            for kind in self.option["forms"]
            for model in self.option["models"]
        ]

    def run(self, cell: Cell, place: Place) -> Finished:
        model, kind, seed = (cell.values[name] for name in ("model", "form", "seed"))
        config = self.settings.config(seed, model=model, recurrent=kind == form(True))
        run = trained(config, cell.name, place)
        return Finished(cell, [{**cell.values, **result(run)}], {"curve": curve(run)})

    def table(self, done: Sequence[Finished]) -> list[Row]:
        rows = [row for finished in done for row in finished.rows]
        order = [(m, k) for k in self.option["forms"] for m in self.option["models"]]
        rows.sort(key=lambda row: order.index((row["model"], row["form"])))
        measures = [n for n in rows[0] if n not in ("model", "form", "seed", "parameters")]
        return over_seeds(rows, ("form", "model", "parameters"), measures)

    def draw(self, table: Sequence[Row], done: Sequence[Finished]) -> "Figure":
        from .pictures import grid

        forms = [k for k in self.option["forms"] if any(f.cell.values["form"] == k for f in done)]
        figure, axes = grid(len(forms), 2, sharey="row", width_ratios=[1.5, 1])
        for (left, right), kind in zip(axes, forms, strict=True):
            mine = [f for f in done if f.cell.values["form"] == kind]
            self._draw_curves(left, mine)
            self._draw_ends(right, mine)
            left.set_title(kind)
        return figure

    def _draw_curves(self, axes: "Axes", done: Sequence[Finished]) -> None:
        from hetsyn_triton.drawing import log_scale

        from .pictures import COLOURS, band, label_score, legend

        part = done[0].extra["curve"]["part"]
        seeds = set()
        for model in self.option["models"]:
            curves = [f.extra["curve"] for f in done if f.cell.values["model"] == model]
            if curves:
                seeds.add(len(curves))
                values = np.array([one["values"] for one in curves])
                several = [mean_and_deviation(column) for column in values.T.tolist()]
                means, widths = zip(*several, strict=True)
                steps = curves[0]["steps"]
                band(axes, steps, means, widths, colour=COLOURS[model], label=model)
        assert self.settings.task is not None
        if task_class(self.settings.task).score_falls:
            log_scale(axes)
        label_score(axes, self.score, seeds)
        axes.set_xlabel(f"training step ({part} samples)")
        legend(axes)

    def _draw_ends(self, axes: "Axes", done: Sequence[Finished]) -> None:
        from .pictures import COLOURS, MARKERS

        models = self.option["models"]
        for place, model in enumerate(models):
            values = [f.rows[0][self.score] for f in done if f.cell.values["model"] == model]
            if values:
                spread = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else [0.0]
                axes.plot(
                    place + np.array(spread), values, MARKERS[model],
                    color=COLOURS[model], ms=5, alpha=0.6, mew=0,
                )  # fmt: skip
                axes.hlines(np.mean(values), place - 0.32, place + 0.32, color=COLOURS[model], lw=2)
        axes.set_xticks(range(len(models)), [m.replace("-", "-\n") for m in models], fontsize=8)
        axes.set_title("test, last epoch: each seed, and the mean", fontsize=9)
