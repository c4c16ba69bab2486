"""What becomes of the time constants, and whether the network needs it: distributions, resetting
the long ones, freezing a part, and what of it is weight decay."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from hetsyn_triton.tasks.options import is_real
from hetsyn_triton.tasks.seeds import seeded_generator
from hetsyn_triton.training import Run
from hetsyn_triton.training.build import build_network
from hetsyn_triton.training.timeconstants import quartiles

from .base import Cell, Finished, Place, Row, Study
from .long_decays import beyond, histogram, mean_tau, pathways, without_long
from .measuring import as_it_is, tested
from .networks import trained
from .options import StudyOption, distributions, numbers
from .statistics import chosen, over_seeds
from .weight_decay import EXEMPT, NONE, OF_SHD, USUAL, settings_of, shrunk

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BOUNDS = {"delayed-match": 700.0}  # the paper's, in the task's unit of time
TAUS = {"delayed-match": ("normal(100,10)", "normal(200,20)", "normal(400,40)")}
"""The paper's initial means. It gives no deviation: a tenth, as the task's own has."""
QUARTILES = ("lower_quartile", "median", "upper_quartile")
STAGES = ("before", "after", "weight_decay_alone")


class TimeConstants(Study):
    """HetSyn networks trained from several initial time constants, each with and without weight
    decay on its decays, and networks trained with a part of their decays frozen.

    `tau` are the initial time constants; where the list is empty, the paper's for the task, or the
    task's own. From each, one network is trained with weight decay on weights and decays, one with
    it on weights alone, and, where the task has none by itself, one without. `weight_decay` None is
    the task's own, or 0.004, the paper's for SHD. `frozen` parts keep their initial values in
    networks with the task's own `tau` and weight decay.

    `bound` is where a time constant is long: 0 is the paper's value for the task, or three times
    the initial mean. Long ones are reset to the initial mean after training; so are as many others
    drawn at random, or all others where they are fewer, for comparison.
    """

    name = "time-constants"
    title = "Time constants before and after training"
    default_task = "delayed-match"
    small_seeds = 2
    full_seeds = 10
    varies = frozenset(
        {"model", "tau", "weight_decay", "frozen_fraction", "decay_weight_decay", "learn_decay"}
    )
    keeps: ClassVar = {"optimizer": "trains with AdamW, for what its weight decay does is known"}
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
            0, 0, lambda v: is_real(v) and v >= 0, "a time of at least 0, 0 for the usual one"
        ),
    }

    @property
    def own(self) -> tuple[str, str]:
        """Initial time constants and weight decay of the task itself."""
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
            "as_many_reset_share": others,  # smaller where fewer were left to draw from
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
    """A distribution as it is written everywhere."""
    return str(tau).replace(" ", "")


def _plain(tau: str) -> str:
    """A distribution as part of a file's name."""
    return re.sub(r"[(),]+", "-", tau).strip("-")


def _pathway_row(cell: Cell, pathway: str, stages: Sequence[Tensor], bound: float) -> Row:
    row: Row = {"part": "pathways", **cell.values, "pathway": pathway, "synapses": len(stages[0])}
    for when, taus in zip(STAGES, stages, strict=True):
        values = quartiles(taus.clamp(max=1e9))  # a decay of 1 never ends; JSON has no infinity
        row |= {f"{name}_{when}": v for name, v in zip(QUARTILES, values, strict=True)}
        row[f"beyond_bound_{when}_share"] = beyond(taus, bound)
    return row
