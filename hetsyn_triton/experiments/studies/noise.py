"""The study noise: the robustness of trained networks to noise at test."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from hetsyn_triton.experiments.tasks import Batch
from hetsyn_triton.modules import MODELS

from .base import Cell, Finished, Place, Row, Study
from .corruption import added, deleted
from .measuring import as_it_is, tested, with_options
from .networks import trained
from .statistics import chosen, over_seeds
from .study_options import flag, names, numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DELETION = (0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)  # the paper's
ADDITION = (0, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08)
BACKGROUND = {
    "pattern-generation": (1.0, 2.0, 3.0, 4.0),  # the paper's
    "delayed-match": (0.0, 5.0, 10.0, 15.0, 20.0, 30.0),
}
RATE = "noise_hz"  # the option of tasks with background noise
LABELS = {
    "deletion": "probability that a spike is deleted",
    "addition": "probability of a spike added, per channel and step",
    "background": "background rate (Hz), trained at the task's own",
    "background, trained at": "background rate (Hz), in training too",
}


class Noise(Study):
    """Train networks once and test them with noise; `retrain` also trains at each background rate.

    Deletion drops each input spike with a probability. Addition adds a spike per channel and step
    with a probability. Background is the rate of the task's own noise, if it has one.
    """

    name = "noise"
    title = "Noise at test"
    default_task = "delayed-match"
    full_seeds = 10
    varies = frozenset({"model"})
    blocks = ("noise",)
    options: ClassVar = {
        "models": names(MODELS, MODELS),
        "deletion": numbers(DELETION, DELETION, 0, 1),
        "addition": numbers(ADDITION, ADDITION, 0, 1),
        "background": numbers((), (), 0, 1000)._replace(
            allows=lambda v: v == [] or numbers((), (), 0, 1000).allows(v),
            expected="different numbers from 0 to 1000, or [] for the default rates",
        ),
        "retrain": flag(False, True),
    }

    @property
    def rates(self) -> list[float]:
        """The background rates of the tests; none if the task has no background noise.

        Raises:
            ConfigError: If the task does not allow one of the rates.
        """
        given = self.option["background"]
        if not self.task_has(RATE, given, ("background",), "noise of its own"):
            return []
        task = self.settings.task
        assert task is not None
        return list(given or BACKGROUND.get(task, (0.0, 5.0, 10.0, 20.0)))

    def cells(self) -> list[Cell]:
        rates = self.rates  # checks them, even if no network is trained at them
        retrained = rates if self.option["retrain"] else []
        return [
            Cell(
                f"{model}-s{seed}" + ("" if rate is None else f"-at-{rate:g}"),
                {"model": model, "seed": seed, "rate": rate},
            )
            for seed in range(self.settings.seeds)
            for rate in (None, *retrained)
            for model in self.option["models"]
        ]

    def run(self, cell: Cell, place: Place) -> Finished:
        model, seed, rate = (cell.values[name] for name in ("model", "seed", "rate"))
        options = {} if rate is None else {RATE: rate}
        run = trained(
            self.settings.config(seed, model=model, task_options=options), cell.name, place
        )
        test = partial(tested, threads=place.threads)
        found: list[tuple[str, float, dict[str, float]]] = []
        if rate is not None:
            found.append(("background, trained at", rate, test(run, as_it_is)))
        else:
            for kind, change in (("deletion", deleted), ("addition", added)):
                for p in self.option[kind]:
                    found.append((kind, p, test(run, partial(_changed, change, p), kind)))
            for hz in self.rates:
                found.append(("background", hz, test(with_options(run, **{RATE: hz}), as_it_is)))
        rows = [
            {"model": model, "noise": kind, "level": level, "seed": seed, **values}
            for kind, level, values in found
        ]
        return Finished(cell, rows)

    def table(self, done: Sequence[Finished]) -> list[Row]:
        rows = [row for finished in done for row in finished.rows]
        kinds, models = list(LABELS), list(self.option["models"])
        rows.sort(key=lambda r: (kinds.index(r["noise"]), models.index(r["model"]), r["level"]))
        return over_seeds(rows, ("noise", "model", "level"), _measures(rows))

    def draw(self, table: Sequence[Row], done: Sequence[Finished]) -> "Figure":
        from .study_pictures import COLORS, MARKERS, band, grid, label_score, legend

        kinds = [kind for kind in LABELS if chosen(table, noise=kind)]
        figure, axes = grid(1, len(kinds), sharey=True)
        for one, kind in zip(axes[0], kinds, strict=True):
            for model in self.option["models"]:
                mine = chosen(table, noise=kind, model=model)
                levels = [row["level"] for row in mine]
                means = [row[self.score] for row in mine]
                width = [row[f"{self.score}_deviation"] for row in mine]
                look: dict[str, Any] = {"color": COLORS[model], "marker": MARKERS[model]}
                band(one, levels, means, width, label=model, **look)
            if kind in ("deletion", "addition"):
                least = min((level for level in self.option[kind] if level > 0), default=1)
                one.set_xscale("symlog", linthresh=least, linscale=0.5)
                ticks = self.option[kind]
                one.set_xticks(ticks, [f"{p:g}" for p in ticks], fontsize=7, rotation=45)
                one.minorticks_off()
            one.set_xlabel(LABELS[kind], fontsize=9)
        label_score(axes[0, 0], self.score, {row["seeds"] for row in table})
        legend(axes[0, 0])
        return figure


def _changed(
    change: Any, probability: float, batch: Batch, generator: torch.Generator
) -> Iterable[Batch]:
    return [Batch(change(batch.input, probability, generator), batch.target)]


def _measures(rows: Sequence[Row]) -> list[str]:
    return [name for name in rows[0] if name not in ("model", "noise", "level", "seed")]
