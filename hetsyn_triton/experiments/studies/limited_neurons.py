"""The study limited-neurons: accuracy and success over the hidden size."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from hetsyn_triton.experiments.tasks import Task, task_class
from hetsyn_triton.experiments.training import ConfigError
from hetsyn_triton.experiments.training.build import build_task
from hetsyn_triton.modules import MODELS

from .base import Cell, Finished, Place, Row, Study
from .networks import form
from .parameters import EQUALS, matched_neurons, parameter_count
from .replicas import Replicas
from .statistics import chosen, over_seeds
from .study_options import integer, integers, names
from .variants import FORMS
from .words import seeds_in_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUCCESS = 0.9  # accuracy at and above which a network has learned the task
COUNTS = "counts parameters of networks that learn all decays"


class LimitedNeurons(Study):
    """Train networks with one hidden layer of several sizes; several seeds train together.

    A network that diverges has no accuracy and counts as unsuccessful; its row names the step.
    `equal` chooses what the models share at a size. With neurons, all have as many neurons as
    hetsyn, as in the paper. With parameters, each has about as many parameters as hetsyn, counted
    as in the paper (`parameter_count`).

    Measures:
        success: Fraction of the networks with an accuracy of at least 0.9.
        diverged: Number of networks that diverged.
    """

    name = "limited-neurons"
    title = "Accuracy with few neurons"
    default_task = "delayed-match"
    small_seeds = 4
    full_seeds = 50
    varies = frozenset({"model", "recurrent", "hidden"})
    keeps: ClassVar = dict.fromkeys(("learn_decay", "frozen_fraction"), COUNTS)
    blocks = ("equal", "form")
    details = ("parameters",)
    options: ClassVar = {
        "sizes": integers((5, 20), (5, 10, 20, 50, 100), 1, 10_000),
        "models": names(MODELS, MODELS),
        "forms": names(FORMS, FORMS),
        "equal": names(EQUALS, EQUALS),
        "together": integer(10, 10, 1, 1000),
    }

    @classmethod
    def wants(cls, task: str) -> str | None:
        return None if task_class(task).score == "accuracy" else "a task with an accuracy"

    def cells(self) -> list[Cell]:
        config = self.settings.config()
        if config.clip is not None:
            raise ConfigError(
                f"clip: expected null because {self.name} trains networks together, which share "
                f"one gradient norm, got {config.clip!r}; add --set clip=null"
            )
        task = build_task(config)
        cells: dict[str, Cell] = {}
        for group in self._groups():
            for kind in self.option["forms"]:
                for size in self.option["sizes"]:
                    for model in self.option["models"]:
                        for neurons in sorted({*self._sizes(task, model, kind, size).values()}):
                            name = f"{model}-{kind}-{neurons}-s{group[0]}-{group[-1]}"
                            values = {"model": model, "form": kind, "neurons": neurons}
                            cells[name] = Cell(name, {**values, "seeds": group})
        return list(cells.values())

    def _groups(self) -> Iterator[list[int]]:
        """Yield the seeds that train together; seeds added later form their own groups."""
        together = self.option["together"]
        for begin, end in pairwise([0, *self.settings.seeds_before, self.settings.seeds]):
            for first in range(begin, end, together):
                yield list(range(first, min(first + together, end)))

    def _sizes(self, task: Task, model: str, kind: str, size: int) -> dict[str, int]:
        """Return by what is equal how many neurons match hetsyn with `size`."""
        recurrent = kind == form(True)
        return {
            equal: matched_neurons(model, equal, size, task, recurrent=recurrent)
            for equal in self.option["equal"]
        }

    def run(self, cell: Cell, place: Place) -> Finished:
        model, kind, neurons = (cell.values[name] for name in ("model", "form", "neurons"))
        configs = [
            self.settings.config(seed, model=model, recurrent=kind == form(True), hidden=(neurons,))
            for seed in cell.values["seeds"]
        ]
        replicas = Replicas(configs, configs[0].threads or place.threads)
        replicas.fit(place.runs / f"{cell.name}.pt")
        place.seconds_before.append(replicas.seconds_before)
        place.environments.extend(replicas.environments)
        tests = replicas.measure_split("test")
        task = replicas.tasks[0]
        count = parameter_count(
            model, task.in_features, neurons, task.out_features, recurrent=kind == form(True)
        )
        about = {"model": model, "form": kind, "neurons": neurons, "parameters": count}
        rows = []
        for replica, (seed, test) in enumerate(zip(cell.values["seeds"], tests, strict=True)):
            diverged = replicas.diverged.get(replica)
            success = diverged is None and test["accuracy"] >= SUCCESS
            measured = {"accuracy": None, **test, "success": float(success), "diverged": diverged}
            rows.append({**about, "seed": seed, **measured})
        return Finished(cell, rows)

    def table(self, done: Sequence[Finished]) -> list[Row]:
        task = build_task(self.settings.config())
        rows = [row for finished in done for row in finished.rows]
        table = []
        for equal in self.option["equal"]:
            for kind in self.option["forms"]:
                for size in self.option["sizes"]:
                    for model in self.option["models"]:
                        neurons = self._sizes(task, model, kind, size)[equal]
                        mine = chosen(rows, model=model, form=kind, neurons=neurons)
                        about = {"equal": equal, "form": kind, "size_of_hetsyn": size}
                        by = ("model", "neurons", "parameters")
                        for line in over_seeds(mine, by, ("accuracy", "success")):
                            del line["success_deviation"]
                            line["diverged"] = len(_diverged(mine))
                            table.append({**about, **line})
        return table

    def draw(self, table: Sequence[Row], done: Sequence[Finished]) -> "Figure":
        from hetsyn_triton.experiments.drawing import GREY

        from .study_pictures import by_size, grid, label_score, legend

        panels = [(kind, equal) for equal in self.option["equal"] for kind in self.option["forms"]]
        figure, axes = grid(2, len(panels), sharey="row", sharex=True)
        for column, (kind, equal) in enumerate(panels):
            mine = chosen(table, equal=equal, form=kind)
            by_size(axes[0, column], mine, "accuracy", self.option["models"])
            axes[0, column].axhline(SUCCESS, color=GREY, lw=0.8, ls=":")
            by_size(axes[1, column], mine, "success", self.option["models"])
            axes[0, column].set_title(f"{kind}, equal {equal}", fontsize=10)
            axes[1, column].set_xlabel("hidden neurons of hetsyn")
        seeds = {line["seeds"] for line in table}
        label_score(axes[0, 0], "accuracy", {line["seeds"] - line["diverged"] for line in table})
        label_score(axes[1, 0], "success", seeds)
        lost = len(_diverged(row for finished in done for row in finished.rows))
        means = f"≥ {SUCCESS:.0%} correct" + (f"; {lost} diverged: failures" if lost else "")
        axes[1, 0].set_ylabel(f"success ({seeds_in_words(seeds)})\n({means})", fontsize=9)
        legend(axes[0, 0])
        return figure


def _diverged(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row.get("diverged") is not None]
