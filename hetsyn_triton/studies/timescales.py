"""Time itself changed: inputs stretched at test, and the delay a network is trained for."""

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from hetsyn_triton.modules import MODELS
from hetsyn_triton.tasks import Batch, task_class

from .base import Cell, Finished, Place, Row, Study
from .corruption import warped_batches
from .measuring import as_it_is, tested
from .networks import trained
from .options import integers, names, numbers
from .statistics import chosen, over_seeds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FACTORS = (-0.5, -0.25, 0, 0.25, 0.5)  # log2 of alpha
RANGE = 0.5  # of log2 alpha where it is drawn for each sample, the paper's
DELAY = "delay"  # the option of tasks that have one
LABELS = {
    "warp": r"time scale $\alpha$ at test (square: drawn, $\log_2\alpha \sim$ U(-0.5, 0.5))",
    "delay": "delay in training and test (ms)",
}


class Timescales(Study):
    """Networks trained once and tested on stretched inputs; and, on a task with a delay, networks
    trained for each of `delays`.

    `factors` are log2 alpha of tests in which all samples have the same; in one more test alpha is
    drawn for each sample. The number of steps T becomes round(alpha T), and alpha the quotient.
    `homneu_tau` are further time constants that the plain model is trained with for each delay: at
    a fixed delay the fair rival is the homogeneous model whose time constant suits it best.
    """

    name = "timescales"
    title = "Time warp at test, and length of the delay"
    default_task = "delayed-match"
    small_seeds = 2
    full_seeds = 10
    varies = frozenset({"model"})
    options: ClassVar = {
        "models": names(MODELS, MODELS),
        "factors": numbers(FACTORS, FACTORS, -2, 2),
        "delays": integers((400, 1600), (200, 400, 800, 1600, 2500), 0, 20_000),
        "homneu_tau": numbers((400,), (100, 200, 400, 800, 1600), 1e-3, 1e9),
    }

    @classmethod
    def wants(cls, task: str) -> str | None:
        return None if task_class(task).scores_classes else "one that names classes"

    def cells(self) -> list[Cell]:
        assert self.settings.task is not None
        has_delay = DELAY in task_class(self.settings.task).options
        plan: list[tuple[str, int | None, float | None]] = []
        plan += [(model, None, None) for model in self.option["models"]]
        for delay in self.option["delays"] if has_delay else []:
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
        run = trained(self.settings.config(seed, task_options=options, **axes), cell.name, place)
        test = partial(tested, threads=place.threads)
        about = {"model": model, "seed": seed}
        if delay is not None:
            values = test(run, as_it_is)
            return Finished(
                cell, [{**about, "change": "delay", "level": delay, "tau": tau, **values}]
            )
        rows = []
        for factor in (*self.option["factors"], None):
            values = test(run, partial(_warped, factor), "warp")
            level = None if factor is None else 2.0**factor
            rows.append({**about, "change": "warp", "level": level, "tau": None, **values})
        return Finished(cell, rows)

    def table(self, done: Sequence[Finished]) -> list[Row]:
        rows = [row for finished in done for row in finished.rows]
        measures = [n for n in rows[0] if n not in ("model", "seed", "change", "level", "tau")]
        models = list(self.option["models"])
        table = over_seeds(rows, ("change", "model", "tau", "level"), measures)
        table.sort(
            key=lambda row: (
                list(LABELS).index(row["change"]),
                models.index(row["model"]),
                row["tau"] or 0,
                math.inf if row["level"] is None else row["level"],
            )
        )
        return table

    def draw(self, table: Sequence[Row], done: Sequence[Finished]) -> "Figure":
        from .pictures import COLOURS, MARKERS, band, grid, label_score, legend

        kinds = [kind for kind in LABELS if chosen(table, change=kind)]
        figure, axes = grid(1, len(kinds), sharey=True)
        for one, kind in zip(axes[0], kinds, strict=True):
            for model in self.option["models"]:
                own = chosen(table, change=kind, model=model, tau=None)
                lines = [(model, "-", own)]
                if kind == "delay" and model == "homneu":
                    lines.append(("homneu, best time constant", "--", self._best(table)))
                for label, style, mine in lines:
                    mine = [row for row in mine if row["level"] is not None]
                    band(
                        one,
                        [row["level"] for row in mine],
                        [row[self.score] for row in mine],
                        [row[f"{self.score}_deviation"] for row in mine],
                        colour=COLOURS[model],
                        marker=MARKERS[model],
                        label=label,
                        style=style,
                    )
                for row in own:
                    if row["level"] is None:  # drawn: beside the curve
                        place = 2 ** (max(self.option["factors"]) + 0.12)
                        one.errorbar(
                            place, row[self.score], row[f"{self.score}_deviation"],
                            fmt="s", ms=6, color=COLOURS[model], mfc="none",
                        )  # fmt: skip
            one.set_xscale("log", base=2)
            ticks = sorted({row["level"] for row in chosen(table, change=kind) if row["level"]})
            one.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
            one.minorticks_off()
            one.set_xlabel(LABELS[kind], fontsize=9)
            legend(one)
        label_score(axes[0, 0], self.score, self.settings.seeds)
        return figure

    def _best(self, table: Sequence[Row]) -> list[Row]:
        """The plain model at each delay with whichever time constant came out best."""
        sign = -1 if self.score == "accuracy" else 1
        rows = [r for r in chosen(table, change="delay", model="homneu") if r["tau"] is not None]
        best: dict[Any, Row] = {}
        for row in rows:
            other = best.get(row["level"])
            if other is None or sign * row[self.score] < sign * other[self.score]:
                best[row["level"]] = row
        return list(best.values())


def _cell_name(model: str, delay: int | None, tau: float | None, seed: int) -> str:
    parts = [model, f"s{seed}"]
    parts += [] if delay is None else [f"delay-{delay}"]
    parts += [] if tau is None else [f"tau-{tau:g}"]
    return "-".join(parts)


def _warped(factor: float | None, batch: Batch, generator: torch.Generator) -> Iterable[Batch]:
    """`batch` over round(alpha T) steps, with one log2 alpha or one drawn for each sample."""
    steps, samples = batch.input.shape[:2]
    if factor is None:
        exponents = RANGE * (2 * torch.rand(samples, generator=generator) - 1)
    else:
        exponents = torch.full((samples,), float(factor))
    lengths = (steps * 2**exponents).round().long().clamp_(min=1)
    return warped_batches(batch, lengths)
