"""The study timescales: inputs stretched at test, and networks trained for several delays."""

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from hetsyn_triton.experiments.tasks import Batch, task_class
from hetsyn_triton.modules import MODELS

from .base import Cell, Finished, Place, Row, Study
from .corruption import warped_batches
from .measuring import as_it_is, tested
from .networks import trained
from .statistics import chosen, mark_best, over_seeds
from .study_options import integers, names, numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FACTORS = (-0.5, -0.25, 0, 0.25, 0.5)  # log2 of alpha
RANGE = 0.5  # of log2 alpha drawn for each sample, as in the paper
DELAY = "delay"  # the option of tasks with a delay
LABELS = {
    "warp": r"time scale $\alpha$ at test (square: drawn, $\log_2\alpha \sim$ U(-0.5, 0.5))",
    "delay": "delay in training and test (ms)",
}


class Timescales(Study):
    """Train networks once and test them on stretched inputs; train others for each of `delays`.

    Only a task with a delay has `delays`. `factors` are values of log2 alpha: in each test, all
    samples are stretched from T to round(alpha T) steps. In one more test, alpha is drawn for each
    sample.

    `homneu_tau` are time constants that homneu is trained with at each delay, besides the task's
    own. At a fixed delay, the fair baseline is the homogeneous model with the best time constant.
    Held-out samples choose it; the task's own and then the first wins a tie.
    """

    name = "timescales"
    title = "Time warp at test, and length of the delay"
    default_task = "delayed-match"
    small_seeds = 2
    full_seeds = 10
    varies = frozenset({"model"})
    blocks = ("change",)
    options: ClassVar = {
        "models": names(MODELS, MODELS),
        "factors": numbers(FACTORS, FACTORS, -2, 2),
        "delays": integers((400, 1600), (200, 400, 800, 1600, 2500), 0, 20_000),
        "homneu_tau": numbers((400,), (100, 200, 400, 800, 1600), 1e-3, 1e9),
    }

    @classmethod
    def wants(cls, task: str) -> str | None:
        return None if task_class(task).scores_classes else "a task that classifies"

    def cells(self) -> list[Cell]:
        assert self.settings.task is not None
        delays = self.option["delays"]
        has_delay = self.task_has(DELAY, delays, ("delays", "homneu_tau"), "delay")
        plan: list[tuple[str, int | None, float | None]] = []
        plan += [(model, None, None) for model in self.option["models"]]
        for delay in delays if has_delay else []:
            plan += [(model, delay, None) for model in self.option["models"]]
            if "homneu" in self.option["models"]:
                plan += [("homneu", delay, tau) for tau in self.option["homneu_tau"]]
        return [
            Cell(
                _cell_name(model, delay, tau, seed),
                {"model": model, "delay": delay, "tau": tau, "seed": seed},
            )
            for seed in range(self.settings.seeds)
            for model, delay, tau in plan
        ]

    def run(self, cell: Cell, place: Place) -> Finished:
        model, delay, tau, seed = (cell.values[n] for n in ("model", "delay", "tau", "seed"))
        axes: dict[str, Any] = {"model": model, **({} if tau is None else {"tau": tau})}
        options = {} if delay is None else {DELAY: delay}
        config = self.settings.config(seed, task_options=options, **axes)
        if delay is not None and model == "homneu":
            self.check_held_out(config)
        run = trained(config, cell.name, place)
        test = partial(tested, threads=place.threads)
        about = {"model": model, "seed": seed}
        if delay is not None:
            row = {**about, "change": "delay", "level": delay, "tau": tau, **test(run, as_it_is)}
            if self.held_out_score in run.history[-1]:
                row[self.held_out_score] = run.history[-1][self.held_out_score]
            return Finished(cell, [row])
        rows = []
        for factor in (*self.option["factors"], None):
            values = test(run, partial(_warped, factor), "warp")
            level = None if factor is None else 2.0**factor
            rows.append({**about, "change": "warp", "level": level, "tau": None, **values})
        return Finished(cell, rows)

    def table(self, done: Sequence[Finished]) -> list[Row]:
        rows = [row for finished in done for row in finished.rows]
        models, by = list(self.option["models"]), ("change", "model", "tau", "level")
        table = []
        for change in LABELS:
            mine = chosen(rows, change=change)
            measures = [name for row in mine[:1] for name in row if name not in (*by, "seed")]
            table += over_seeds(mine, by, measures)
        table.sort(
            key=lambda row: (
                list(LABELS).index(row["change"]),
                models.index(row["model"]),
                row["tau"] or 0,
                math.inf if row["level"] is None else row["level"],
            )
        )
        plain = chosen(table, change="delay", model="homneu")
        for delay in {row["level"] for row in plain}:
            mark_best(chosen(plain, level=delay), self.held_out_score, falls=self.score_falls)
        return table

    def draw(self, table: Sequence[Row], done: Sequence[Finished]) -> "Figure":
        from .study_pictures import COLORS, MARKERS, band, grid, label_score, legend

        kinds = [kind for kind in LABELS if chosen(table, change=kind)]
        figure, axes = grid(1, len(kinds), sharey=True)
        for one, kind in zip(axes[0], kinds, strict=True):
            for model in self.option["models"]:
                own = chosen(table, change=kind, model=model, tau=None)
                lines = [(model, "-", own)]
                if kind == "delay" and model == "homneu":
                    best = chosen(table, change=kind, model=model, chosen=True)
                    best.sort(key=lambda row: float(row["level"]))
                    lines.append(("homneu, time constant chosen", "--", best))
                for label, style, mine in lines:
                    mine = [row for row in mine if row["level"] is not None]
                    band(
                        one,
                        [row["level"] for row in mine],
                        [row[self.score] for row in mine],
                        [row[f"{self.score}_deviation"] for row in mine],
                        color=COLORS[model],
                        marker=MARKERS[model],
                        label=label,
                        style=style,
                    )
                for row in own:
                    if row["level"] is None:  # drawn for each sample: beside the curve
                        place = 2 ** (max(self.option["factors"]) + 0.12)
                        one.errorbar(
                            place, row[self.score], row[f"{self.score}_deviation"],
                            fmt="s", ms=6, color=COLORS[model], mfc="none",
                        )  # fmt: skip
            one.set_xscale("log", base=2)
            ticks = sorted({row["level"] for row in chosen(table, change=kind) if row["level"]})
            one.set_xticks(ticks, [f"{tick:.4g}" for tick in ticks])
            one.minorticks_off()
            one.set_xlabel(LABELS[kind], fontsize=9)
            legend(one, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)  # no corner is free
        label_score(axes[0, 0], self.score, {row["seeds"] for row in table})
        return figure


def _cell_name(model: str, delay: int | None, tau: float | None, seed: int) -> str:
    parts = [model, f"s{seed}"]
    parts += [] if delay is None else [f"delay-{delay}"]
    parts += [] if tau is None else [f"tau-{tau:g}"]
    return "-".join(parts)


def _warped(factor: float | None, batch: Batch, generator: torch.Generator) -> Iterable[Batch]:
    """Stretch `batch` to round(alpha T) steps, with one log2 alpha or one drawn for each sample."""
    steps, samples = batch.input.shape[:2]
    if factor is None:
        exponents = RANGE * (2 * torch.rand(samples, generator=generator) - 1)
    else:
        exponents = torch.full((samples,), float(factor))
    lengths = (steps * 2**exponents).round().long().clamp_(min=1)
    return warped_batches(batch, lengths)
