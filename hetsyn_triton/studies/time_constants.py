"""What becomes of the time constants, and whether the network needs it: distributions, resetting
the long ones, freezing a part."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch import Tensor

from hetsyn_triton.tasks.options import is_real
from hetsyn_triton.tasks.seeds import seeded_generator
from hetsyn_triton.training import Run
from hetsyn_triton.training.build import build_network
from hetsyn_triton.training.timeconstants import quartiles

from .base import Cell, Finished, Place, Row, Study
from .long_decays import beyond, mean_tau, pathways, without_long
from .measuring import as_it_is, tested
from .networks import trained
from .options import StudyOption, numbers
from .statistics import chosen, over_seeds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BOUNDS = {"delayed-match": 700.0}  # the paper's, in the task's unit of time
BINS = np.geomspace(0.5, 1000, 41)  # in steps; what lies outside counts in the outermost bins
QUARTILES = ("lower_quartile", "median", "upper_quartile")
USUAL, EXEMPT = "as weights", "exempt"


class TimeConstants(Study):
    """HetSyn networks trained with a part of their decays frozen, and with decays that the weight
    decay does not touch.

    `bound` is where a time constant is long: 0 is the paper's value for the task, or three times
    the initial mean. Long ones are reset to the initial mean after training; so are as many others
    drawn at random, or all others where they are fewer, for comparison. Where the task has no
    weight decay there is nothing to exempt.
    """

    name = "time-constants"
    title = "Time constants before and after training"
    default_task = "delayed-match"
    full_seeds = 10
    varies = frozenset({"model", "frozen_fraction", "decay_weight_decay", "learn_decay"})
    options: ClassVar = {
        "frozen": numbers((0, 0.8, 1), (0, 0.2, 0.4, 0.6, 0.8, 1), 0, 1),
        "bound": StudyOption(
            0, 0, lambda v: is_real(v) and v >= 0, "a time of at least 0, 0 for the usual one"
        ),
    }

    def cells(self) -> list[Cell]:
        plan = [(USUAL, frozen) for frozen in self.option["frozen"]]
        if self.settings.config().weight_decay > 0:
            plan.append((EXEMPT, 0))
        return [
            Cell(
                f"{weight_decay.replace(' ', '-')}-frozen-{frozen:g}-s{seed}",
                {"weight_decay_on_decays": weight_decay, "frozen": frozen, "seed": seed},
            )
            for seed in range(self.settings.seeds)
            for weight_decay, frozen in plan
        ]

    def run(self, cell: Cell, place: Place) -> Finished:
        control, frozen, seed = cell.values.values()
        changes: dict[str, Any] = {"frozen_fraction": float(frozen)}
        if control == EXEMPT:
            changes["decay_weight_decay"] = 0.0
        config = self.settings.config(seed, model="hetsyn", **changes)
        run = trained(config, cell.name, place)
        fresh = build_network(run.config, run.task)
        dt, name = run.config.dt, run.task.name
        mean = mean_tau(fresh, dt)
        bound = self.option["bound"] or BOUNDS.get(name, 3 * mean)
        before, after = pathways(fresh, name, dt), pathways(run.network, name, dt)
        rows = [self._network_row(cell, run, bound, mean, place)]
        histograms = {}
        for pathway in after:
            rows.append(_pathway_row(cell, pathway, before[pathway], after[pathway], bound))
            pair = (before[pathway], after[pathway])
            histograms[pathway] = [_histogram(taus / dt) for taus in pair]
        extra = {"histograms": histograms, "dt": dt, "bound": bound, "mean": mean}
        return Finished(cell, rows, extra)

    def _network_row(self, cell: Cell, run: Run, bound: float, mean: float, place: Place) -> Row:
        dt, seed = run.config.dt, run.config.seed
        test = partial(tested, change=as_it_is, threads=place.threads)
        reset, share = without_long(run.network, bound, mean, dt)
        generator = seeded_generator(seed, "study", "reset")
        other, others = without_long(run.network, bound, mean, dt, generator)
        return {
            "part": "networks",
            **cell.values,
            self.score: test(run)[self.score],
            f"{self.score}_long_reset": test(replace(run, network=reset))[self.score],
            f"{self.score}_as_many_reset": test(replace(run, network=other))[self.score],
            "reset_share": share,
            "as_many_reset_share": others,  # smaller where fewer were left to draw from
        }

    def table(self, done: Sequence[Finished]) -> list[Row]:
        rows = [row for finished in done for row in finished.rows]
        by = ("part", "weight_decay_on_decays", "frozen")
        networks = chosen(rows, part="networks")
        measures = [n for n in networks[0] if n not in (*by, "seed")]
        ways = chosen(rows, part="pathways")
        shape = [n for n in ways[0] if n not in (*by, "seed", "pathway", "synapses")]
        table = over_seeds(networks, by, measures)
        return table + over_seeds(ways, (*by, "pathway", "synapses"), shape)

    def draw(self, table: Sequence[Row], done: Sequence[Finished]) -> "Figure":
        from .pictures import grid, legend

        plain = [f for f in done if f.cell.values["frozen"] == 0] or list(done)
        ways = list(plain[0].extra["histograms"])
        columns = max(2, len(ways))
        figure, axes = grid(2, columns)
        for one, pathway in zip(axes[0], ways, strict=False):
            self._draw_histograms(one, pathway, plain)
        axes[0, 0].set_ylabel("share of synapses per bin", fontsize=9)
        legend(axes[0, 0])
        networks = chosen(table, part="networks")
        self._draw_frozen(axes[1, 0], chosen(networks, weight_decay_on_decays=USUAL))
        self._draw_reset(axes[1, 1], networks)
        for one in (*axes[0, len(ways) :], *axes[1, 2:]):
            one.set_axis_off()
        return figure

    def _draw_histograms(self, axes: "Axes", pathway: str, done: Sequence[Finished]) -> None:
        from hetsyn_triton.drawing import GREY

        from .pictures import SERIES

        dt, bound = done[0].extra["dt"], done[0].extra["bound"]
        edges = BINS * dt
        shown = {kind: [f for f in done if _control(f) == kind] for kind in (USUAL, EXEMPT)}
        first = next(found for found in shown.values() if found)
        counts = np.mean([f.extra["histograms"][pathway][0] for f in first], axis=0)
        axes.stairs(counts, edges, fill=True, color=GREY, alpha=0.7, label="before")
        for (kind, found), colour in zip(shown.items(), SERIES, strict=False):
            if found:
                counts = np.mean([f.extra["histograms"][pathway][1] for f in found], axis=0)
                label = "after" if kind == USUAL else "after, decays exempt from weight decay"
                axes.stairs(counts, edges, color=colour, lw=1.7, label=label)
        axes.axvline(bound, color="black", lw=0.8, ls=":", label=f"bound, {bound:.3g}")
        axes.set(xscale="log", xlabel=f"time constant ({self.unit})", title=pathway)
        axes.set_ylim(0, 1.4 * axes.get_ylim()[1])  # room for the legend

    def _draw_frozen(self, axes: "Axes", table: Sequence[Row]) -> None:
        from .pictures import COLOURS, band, label_score

        mine = sorted(table, key=lambda row: row["frozen"])
        means = [row[self.score] for row in mine]
        width = [row[f"{self.score}_deviation"] for row in mine]
        places = [row["frozen"] for row in mine]
        band(axes, places, means, width, colour=COLOURS["hetsyn"], marker="o", label=None)
        axes.set_xlabel("part of the decays frozen at their initial values")
        label_score(axes, self.score, self.settings.seeds)

    def _draw_reset(self, axes: "Axes", table: Sequence[Row]) -> None:
        from .pictures import SERIES, label_score, legend

        mine = [row for row in table if row["frozen"] == 0] or list(table)
        kinds = {
            "": "as trained",
            "_long_reset": "long ones reset",
            "_as_many_reset": "as many others",
        }
        width = 0.8 / len(mine)
        for number, row in enumerate(mine):
            heights = [row[f"{self.score}{kind}"] for kind in kinds]
            errors = [row[f"{self.score}{kind}_deviation"] or 0.0 for kind in kinds]
            places = np.arange(len(kinds)) + (number - (len(mine) - 1) / 2) * width
            axes.bar(
                places, heights, 0.9 * width, yerr=errors, capsize=3, color=SERIES[number],
                label=f"weight decay: {row['weight_decay_on_decays']}", alpha=0.85,
            )  # fmt: skip
        axes.set_xticks(range(len(kinds)), list(kinds.values()), fontsize=8)
        share = mine[0]["reset_share"]
        axes.set_title(f"reset to the initial mean ({100 * share:.3g} % of synapses)", fontsize=9)
        label_score(axes, self.score, self.settings.seeds)
        if len(mine) > 1:
            legend(axes, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _pathway_row(cell: Cell, pathway: str, before: Tensor, after: Tensor, bound: float) -> Row:
    row: Row = {"part": "pathways", **cell.values, "pathway": pathway, "synapses": len(after)}
    for when, taus in (("before", before), ("after", after)):
        values = quartiles(taus.clamp(max=1e9))  # a decay of 1 never ends; JSON has no infinity
        row |= {f"{name}_{when}": v for name, v in zip(QUARTILES, values, strict=True)}
        row[f"beyond_bound_{when}_share"] = beyond(taus, bound)
    return row


def _histogram(steps: Tensor) -> list[float]:
    """The share of time constants in each of `BINS`."""
    inside = steps.clamp(float(BINS[0]), float(BINS[-1]) * (1 - 1e-9)).numpy()
    counts, _ = np.histogram(inside, BINS)
    return [float(count) / len(inside) for count in counts]


def _control(finished: Finished) -> str:
    return str(finished.cell.values["weight_decay_on_decays"])
