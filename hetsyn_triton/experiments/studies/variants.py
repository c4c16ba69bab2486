"""The four models on one task, at one size or at several."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hetsyn_triton.experiments.training import ConfigError
from hetsyn_triton.experiments.training.build import build_task
from hetsyn_triton.modules import MODELS

from .base import Cell, Finished, Place, Row, Study
from .long_decays import PATHWAYS, histogram, pathways
from .networks import curve, form, result, trained
from .parameters import EQUALS, matched_neurons
from .statistics import chosen, mark_best, mean_and_deviation, over_seeds
from .study_options import integers, names, numbers, or_empty

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMS = ("recurrent", "feedforward")


class Variants(Study):
    """Every model, recurrent and feedforward, trained from each seed; a row is a run's test.

    `sizes` are hidden neurons of HetSyn in one layer; empty for the task's own layers. `equal` says
    what the models have in common at a size: neurons, or as nearly as possible parameters.
    `homneu_tau` are time constants that the two homogeneous models are trained with in place of the
    task's own. For each model and size, the table has the one with the best mean score on held-out
    samples.
    """

    name = "variants"
    title = "The four models"
    default_task = "pattern-generation"
    varies = frozenset({"model", "recurrent"})
    blocks = ("equal", "form")
    options: ClassVar = {
        "models": names(MODELS, MODELS),
        "forms": names(FORMS, FORMS),
        "sizes": or_empty(integers((8, 32), (), 1, 10_000)),
        "equal": names(("neurons",), EQUALS),
        "homneu_tau": or_empty(numbers((5, 20), (), 1e-3, 1e9)),
    }
    one_size: ClassVar = {
        "multi-timescale-xor": {
            "forms": ["feedforward"],
            "sizes": [8, 16, 32, 64],
            "equal": list(EQUALS),
            "homneu_tau": [5, 10, 20, 50, 100],
        }
    }

    def cells(self) -> list[Cell]:
        self._check()
        cells: dict[str, Cell] = {}
        for seed in range(self.settings.seeds):
            for kind in self.option["forms"]:
                for model in self.option["models"]:
                    for neurons in sorted(set(self._neurons(model, kind).values())):
                        for tau in self._taus(model):
                            cell = self._cell(model, kind, neurons, tau, seed)
                            cells[cell.name] = cell
        return list(cells.values())

    def _check(self) -> None:
        """Raise ConfigError for settings that do not go together."""
        config, sizes, equal = self.settings.config(), self.option["sizes"], self.option["equal"]
        if sizes and "hidden" in self.settings.changes:
            raise ConfigError(
                f"hidden: expected no value beside sizes {sizes}, got {list(config.hidden)}"
            )
        if not sizes and equal != ["neurons"]:
            raise ConfigError(f"equal: expected neurons where sizes is empty, got {equal}")
        if "parameters" in equal and not (config.learn_decay and config.frozen_fraction == 0):
            raise ConfigError(
                "equal: expected neurons where decays are frozen because parameters are counted "
                f"for networks that learn all decays, got {equal}"
            )
        if self.option["homneu_tau"]:
            self.check_held_out(config)

    def _neurons(self, model: str, kind: str) -> dict[tuple[str, int], int]:
        """Hidden neurons of a model by what is equal and the size of HetSyn; 0: the task's own."""
        if not self.option["sizes"]:
            return {("neurons", 0): 0}
        task = build_task(self.settings.config())
        recurrent = kind == form(True)
        return {
            (equal, size): matched_neurons(model, equal, size, task, recurrent=recurrent)
            for equal in self.option["equal"]
            for size in self.option["sizes"]
        }

    def _taus(self, model: str) -> list[float | None]:
        """Time constants that a model is trained with; None is the task's own."""
        swept = self.option["homneu_tau"] if model.startswith("homneu") else []
        return swept or [None]

    def _cell(self, model: str, kind: str, neurons: int, tau: float | None, seed: int) -> Cell:
        values: dict[str, Any] = {"model": model, "form": kind}
        parts = [model, kind]
        if self.option["sizes"]:
            values["neurons"] = neurons
            parts.append(f"{neurons}")
        if self.option["homneu_tau"]:
            values["tau"] = tau
            parts += [] if tau is None else [f"tau-{tau:g}"]
        return Cell("-".join([*parts, f"s{seed}"]), {**values, "seed": seed})

    def run(self, cell: Cell, place: Place) -> Finished:
        values = cell.values
        changes: dict[str, Any] = {"recurrent": values["form"] == form(True)}
        changes |= {"hidden": (values["neurons"],)} if "neurons" in values else {}
        changes |= {} if values.get("tau") is None else {"tau": values["tau"]}
        config = self.settings.config(values["seed"], model=values["model"], **changes)
        run = trained(config, cell.name, place)
        row = {**values, **result(run)}
        if self.option["homneu_tau"]:
            row[self.held_out_score] = run.history[-1][self.held_out_score]
        extra: dict[str, Any] = {"curve": curve(run)}
        if config.task in PATHWAYS and config.model == "hetsyn":
            found = pathways(run.network, config.task, config.dt)
            extra["histograms"] = {
                name: histogram(found[name] / config.dt) for name in PATHWAYS[config.task]
            }
        return Finished(cell, [row], extra)

    def table(self, done: Sequence[Finished]) -> list[Row]:
        rows = [row for finished in done for row in finished.rows]
        table = []
        for equal in self.option["equal"]:
            for kind in self.option["forms"]:
                for size in self.option["sizes"] or [0]:
                    about = {"equal": equal, "size_of_hetsyn": size} if size else {}
                    for model in self.option["models"]:
                        neurons = self._neurons(model, kind)[equal, size]
                        wanted = {"neurons": neurons} if size else {}
                        mine = chosen(rows, model=model, form=kind, **wanted)
                        table += [{**about, **line} for line in self._lines(mine)]
        return table

    def _lines(self, rows: Sequence[Row]) -> list[Row]:
        """Means over seeds; of several time constants, the one with the best held-out score."""
        names = ("form", "model", "neurons", "parameters", "tau")
        by = [name for name in names if rows and name in rows[0]]
        measures = [name for row in rows[:1] for name in row if name not in (*by, "seed")]
        lines = over_seeds(rows, by, measures)
        if not self.option["homneu_tau"]:
            return lines
        most = max((line["seeds"] for line in lines), default=0)  # fewer where cells failed
        lines = [line for line in lines if line["seeds"] == most]
        mark_best(lines, self.held_out_score, falls=self.score_falls)
        left_out = ("chosen", self.held_out_score, f"{self.held_out_score}_deviation")
        return [
            {name: value for name, value in line.items() if name not in left_out}
            for line in lines
            if line["chosen"]
        ]

    def draw(self, table: Sequence[Row], done: Sequence[Finished]) -> "Figure":
        if self.option["sizes"]:
            from .sizes_picture import draw

            return draw(self, table, done)
        return self._draw_training(table, done)

    def _draw_training(self, table: Sequence[Row], done: Sequence[Finished]) -> "Figure":
        """The score over training, and at the end of it, for each form."""
        from .study_pictures import grid

        lines = {(row["model"], row["form"], row.get("tau")) for row in table}
        names = ("model", "form", "tau")
        done = [f for f in done if tuple(map(f.cell.values.get, names)) in lines]
        forms = [k for k in self.option["forms"] if any(f.cell.values["form"] == k for f in done)]
        figure, axes = grid(len(forms), 2, sharey="row", width_ratios=[1.5, 1])
        for (left, right), kind in zip(axes, forms, strict=True):
            mine = [f for f in done if f.cell.values["form"] == kind]
            self._draw_curves(left, mine)
            self._draw_ends(right, mine)
            left.set_title(kind)
        return figure

    def _draw_curves(self, axes: "Axes", done: Sequence[Finished]) -> None:
        from hetsyn_triton.experiments.drawing import log_scale

        from .study_pictures import COLORS, band, label_score, legend

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
                band(axes, steps, means, widths, color=COLORS[model], label=model)
        if self.score_falls:
            log_scale(axes)
        label_score(axes, self.score, seeds)
        axes.set_xlabel(f"training step ({part} samples)")
        legend(axes)

    def _draw_ends(self, axes: "Axes", done: Sequence[Finished]) -> None:
        from .study_pictures import COLORS, MARKERS

        models = self.option["models"]
        for place, model in enumerate(models):
            values = [f.rows[0][self.score] for f in done if f.cell.values["model"] == model]
            if values:
                spread = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else [0.0]
                axes.plot(
                    place + np.array(spread), values, MARKERS[model],
                    color=COLORS[model], ms=5, alpha=0.6, mew=0,
                )  # fmt: skip
                axes.hlines(np.mean(values), place - 0.32, place + 0.32, color=COLORS[model], lw=2)
        axes.set_xticks(range(len(models)), [m.replace("-", "-\n") for m in models], fontsize=8)
        axes.set_title("test, last epoch: each seed, and the mean", fontsize=9)
