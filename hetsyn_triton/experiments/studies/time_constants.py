"""The study time-constants: how training changes the time constants, and whether it matters."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from hetsyn_triton.experiments.tasks.options import is_real
from hetsyn_triton.experiments.tasks.seeds import seeded_generator
from hetsyn_triton.experiments.training import Run
from hetsyn_triton.experiments.training.build import build_network
from hetsyn_triton.experiments.training.network_time_constants import quartiles

from .base import Cell, Finished, Place, Row, Study
from .long_decays import beyond, histogram, mean_tau, pathways, without_long
from .measuring import as_it_is, tested
from .networks import trained
from .statistics import chosen, over_seeds
from .study_options import StudyOption, distributions, numbers
from .weight_decay import EXEMPT, NONE, OF_SHD, USUAL, settings_of, shrunk

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BOUNDS = {"delayed-match": 700.0}  # as in the paper, in the task's unit of time
TAUS = {"delayed-match": ("normal(100,10)", "normal(200,20)", "normal(400,40)")}
"""The paper's initial means. It gives no deviation; here it is a tenth, as in the task."""
QUARTILES = ("lower_quartile", "median", "upper_quartile")
STAGES = ("before", "after", "weight_decay_alone")


class TimeConstants(Study):
    """Train HetSyn networks from several initial time constants, with and without weight decay.

    `tau` are the initial time constants. An empty list means those of the paper for the task, or
    else the task's own. From each, one network is trained with weight decay on weights and decays
    and one with weight decay on weights only. If the task has no weight decay, one more is trained
    without. `weight_decay` defaults to the task's own, or else to 0.004, the paper's for SHD.

    Other networks train with a fraction `frozen` of their decays frozen at the initial values.
    They use the task's own `tau` and weight decay.

    Time constants above `bound` count as long. 0 means the paper's value for the task, or else
    three times the initial mean. After training, the long ones are reset to the initial mean. For
    comparison, as many others are reset, drawn at random, or all others if they are fewer.

    Measures:
        SCORE_long_reset: Score after the long time constants were reset.
        SCORE_as_many_reset: Score after as many others were reset.
        reset_share: Share of all synapses that were reset because they were long.
        as_many_reset_share: Share of all synapses that were reset for comparison.
    """

    name = "time-constants"
    title = "Time constants before and after training"
    default_task = "delayed-match"
    small_seeds = 2
    full_seeds = 10
    varies = frozenset(
        {"model", "tau", "weight_decay", "frozen_fraction", "decay_weight_decay", "learn_decay"}
    )
    keeps: ClassVar = {"optimizer": "trains with AdamW, whose weight decay has a known effect"}
    blocks = ("part", "tau")
    details = (
        "*_quartile_*", "synapses", "beyond_bound_before_share",
        "beyond_bound_weight_decay_alone_share", "as_many_reset_share", "reset_share",
    )  # fmt: skip
    options: ClassVar = {
        "frozen": numbers((0, 0.8, 1), (0, 0.2, 0.4, 0.6, 0.8, 1), 0, 1),
        "tau": distributions(),
        "weight_decay": StudyOption(
            None, None, lambda v: v is None or (is_real(v) and v > 0), "a positive number"
        ),
        "bound": StudyOption(
            0, 0, lambda v: is_real(v) and v >= 0, "a time of at least 0 (0: default)"
        ),
    }

    @property
    def own(self) -> tuple[str, str]:
        """The task's own initial time constants and kind of weight decay."""
        config = self.settings.config()
        return _text(config.tau), USUAL if config.weight_decay > 0 else NONE

    def cells(self) -> list[Cell]:
        tau, way = self.own
        taus = self.option["tau"] or TAUS.get(self.settings.task or "", (tau,))
        ways = dict.fromkeys((way, USUAL, EXEMPT))
        plan = [(tau, way, frozen) for frozen in self.option["frozen"]]
        plan += [(_text(tau), way, 0) for tau in taus for way in ways]
        return [
            Cell(
                f"{_plain(tau)}-{way}-frozen-{frozen:g}-s{seed}",
                {"tau": tau, "weight_decay": way, "frozen": frozen, "seed": seed},
            )
            for seed in range(self.settings.seeds)
            for tau, way, frozen in dict.fromkeys(plan)
        ]

    def run(self, cell: Cell, place: Place) -> Finished:
        tau, way, frozen, seed = cell.values.values()
        weight_decay = self.option["weight_decay"] or self.settings.config().weight_decay or OF_SHD
        changes = {"tau": tau, "frozen_fraction": float(frozen), **settings_of(way, weight_decay)}
        run = trained(self.settings.config(seed, model="hetsyn", **changes), cell.name, place)
        fresh = build_network(run.config, run.task)
        dt, name = run.config.dt, run.task.name
        mean = mean_tau(fresh, dt)
        bound = self.option["bound"] or BOUNDS.get(name, 3 * mean)
        alone = shrunk(fresh, run.config, run.task.steps_per_epoch)
        stages = [pathways(network, name, dt) for network in (fresh, run.network, alone)]
        rows = [self._network_row(cell, run, bound, mean, place)]
        histograms = {}
        for pathway in stages[0]:
            taus = [stage[pathway] for stage in stages]
            rows.append(_pathway_row(cell, pathway, taus, bound))
            histograms[pathway] = [histogram(values / dt) for values in taus]
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
            "as_many_reset_share": others,  # smaller if fewer were left to draw from
        }

    def table(self, done: Sequence[Finished]) -> list[Row]:
        rows = [row for finished in done for row in finished.rows]
        by = ("part", "tau", "weight_decay", "frozen")
        networks = chosen(rows, part="networks")
        measures = [n for n in networks[0] if n not in (*by, "seed")]
        ways = chosen(rows, part="pathways")
        shape = [n for n in ways[0] if n not in (*by, "seed", "pathway", "synapses")]
        table = over_seeds(networks, by, measures)
        return table + over_seeds(ways, (*by, "pathway", "synapses"), shape)

    def draw(self, table: Sequence[Row], done: Sequence[Finished]) -> "Figure":
        from .time_constants_picture import draw

        return draw(self, table, done)


def _text(tau: str | float) -> str:
    """Return a distribution without spaces."""
    return str(tau).replace(" ", "")


def _plain(tau: str) -> str:
    """Return a distribution as part of a file name."""
    return re.sub(r"[(),]+", "-", tau).strip("-")


def _pathway_row(cell: Cell, pathway: str, stages: Sequence[Tensor], bound: float) -> Row:
    row: Row = {"part": "pathways", **cell.values, "pathway": pathway, "synapses": len(stages[0])}
    for when, taus in zip(STAGES, stages, strict=True):
        values = quartiles(taus.clamp(max=1e9))  # JSON cannot store infinity
        row |= {f"{name}_{when}": v for name, v in zip(QUARTILES, values, strict=True)}
        row[f"beyond_bound_{when}_share"] = beyond(taus, bound)
    return row
