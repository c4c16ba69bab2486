"""The picture of the study time-constants: distributions by pathway, then scores and shares."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hetsyn_triton.experiments.drawing import GREY, INK

from .base import Finished, Row, Study
from .long_decays import BINS
from .statistics import chosen
from .study_pictures import COLORS, SERIES, band, grid, label_score, legend
from .weight_decay import LABELS, USUAL

WAYS = dict(zip(LABELS, SERIES, strict=False))  # colors
RESET = {"": "o", "_long_reset": "v", "_as_many_reset": "x"}  # markers
RESET_TITLE = (
    "circle: as trained, triangle: long ones reset\nto the initial mean, cross: as many reset"
)
DODGE = 0.22  # distance of the kinds of weight decay at one time constant
LAST = 3  # panels below the distributions


def draw(study: Study, table: Sequence[Row], done: Sequence[Finished]) -> Figure:
    """Draw a row of panels per initial distribution, with a column per pathway.

    The last row shows the score with frozen decays, the score after resetting, and `reset_share`.
    """
    plain = [f for f in done if f.cell.values["frozen"] == 0] or list(done)
    taus = list(dict.fromkeys(f.cell.values["tau"] for f in plain))
    ways = list(plain[0].extra["histograms"])
    figure, axes = grid(len(taus) + 1, max(LAST, len(ways)))
    for line, tau in zip(axes, taus, strict=False):
        mine = [f for f in plain if f.cell.values["tau"] == tau]
        for one, pathway in zip(line, ways, strict=False):
            _distributions(one, pathway, mine)
            one.set_xlabel(f"time constant ({study.unit})", fontsize=9)
        line[0].set_ylabel(f"from {tau}\nshare of synapses per bin", fontsize=9)
        legend(line[0], loc="upper left", fontsize=7)
    for one, pathway in zip(axes[0], ways, strict=False):
        one.set_title(pathway)
    networks = chosen(table, part="networks")
    frozen, reset, long = axes[-1, :LAST]
    _frozen(frozen, study, networks)
    plain_rows = chosen(networks, frozen=0) or networks
    _points(reset, plain_rows, {study.score + kind: RESET[kind] for kind in RESET})
    label_score(reset, study.score, _seeds(plain_rows))
    reset.set_title(RESET_TITLE, fontsize=9)
    _points(long, plain_rows, {"reset_share": "o"})
    label_score(long, "reset_share", _seeds(plain_rows))
    for one in (*axes[:-1, len(ways) :].flat, *axes[-1, LAST:]):
        one.set_axis_off()
    return figure


def _distributions(axes: Axes, pathway: str, done: Sequence[Finished]) -> None:
    """Draw one pathway before training, after it, and after weight decay alone."""
    dt, bound = done[0].extra["dt"], done[0].extra["bound"]

    def stairs(found: Sequence[Finished], stage: int, label: str, **look: Any) -> None:
        values = [f.extra["histograms"][pathway][stage] for f in found]
        axes.stairs(np.mean(values, axis=0), BINS * dt, label=label, **look)

    shown = {way: [f for f in done if f.cell.values["weight_decay"] == way] for way in WAYS}
    first = next(found for found in shown.values() if found)
    stairs(first, 0, "before", fill=True, color=GREY, alpha=0.7)
    for way, found in shown.items():
        if found:
            stairs(found, 1, LABELS[way], color=WAYS[way], lw=1.7)
    if shown[USUAL]:
        stairs(shown[USUAL], 2, "weight decay alone, computed", color=INK, lw=1.2, ls="--")
    axes.axvline(bound, color="black", lw=0.8, ls=":", label=f"bound, {bound:.3g}")
    axes.set(xscale="log")
    axes.set_ylim(0, 1.4 * axes.get_ylim()[1])  # space for the legend


def _frozen(axes: Axes, study: Study, networks: Sequence[Row]) -> None:
    """Draw the score over the frozen fraction."""
    first = next((row for row in networks if row["frozen"] > 0), networks[0])
    mine = chosen(networks, tau=first["tau"], weight_decay=first["weight_decay"])
    mine.sort(key=lambda row: row["frozen"])
    means = [row[study.score] for row in mine]
    width = [row[f"{study.score}_deviation"] for row in mine]
    places = [row["frozen"] for row in mine]
    band(axes, places, means, width, color=COLORS["hetsyn"], marker="o", label=None)
    axes.set_xlabel("fraction of the decays frozen at their initial values", fontsize=9)
    axes.set_title(f"from {first['tau']}, {LABELS[first['weight_decay']]}", fontsize=9)
    label_score(axes, study.score, _seeds(mine))


def _seeds(rows: Sequence[Row]) -> set[int]:
    return {row["seeds"] for row in rows}


def _points(axes: Axes, rows: Sequence[Row], markers: Mapping[str, str]) -> None:
    """Draw measures by initial distribution, side by side for each kind of weight decay."""
    taus = list(dict.fromkeys(row["tau"] for row in rows))
    ways = [way for way in WAYS if chosen(rows, weight_decay=way)]
    for number, way in enumerate(ways):
        for measure, marker in markers.items():
            mine = chosen(rows, weight_decay=way)
            axes.errorbar(
                [taus.index(row["tau"]) + (number - (len(ways) - 1) / 2) * DODGE for row in mine],
                [row[measure] for row in mine],
                [row[f"{measure}_deviation"] or 0.0 for row in mine],
                fmt=marker, ms=6, capsize=3, color=WAYS[way],
            )  # fmt: skip
    axes.set_xticks(range(len(taus)), taus, fontsize=8)
    axes.set_xlim(-0.6, len(taus) - 0.4)
