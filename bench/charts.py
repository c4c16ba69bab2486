"""Draw the charts of a stored measurement."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench import registry, speed_tables, stored
from bench.records import Record
from hetsyn_triton.experiments.drawing import (
    BLUE,
    GREY,
    ORANGE,
    clean_axes,
    log_scale,
    save_figure,
)

LOOK = {
    registry.OURS: (BLUE, "o"),
    registry.CLOSED: ("#6fa1e8", "s"),
    registry.FEWER: ("#163f80", "d"),
    registry.OURS_GRAPH: ("#163f80", "<"),
    registry.REFERENCE: ("#9aa7b2", "D"),
    registry.LOOP: (ORANGE, "o"),
    registry.COMPILED: ("#b3590f", "^"),
    registry.CHECKPOINTED: ("#f0b27f", "v"),
    registry.GRAPH: ("#8c2d04", "<"),
    registry.COMPILED_GRAPH: ("#5c1d02", ">"),
    "spikingjelly": ("#2a8c6a", "P"),
    "snntorch": ("#58b894", "X"),
    "norse": ("#1b5e48", "*"),
    registry.LSTM: ("#7d3c98", "h"),
    registry.GRU: ("#b07cc6", "H"),
}
"""Blue: this library. Orange: the loop. Green: plain LIF layers. Purple: gated layers."""

BARS = {
    "this library": (registry.OURS,),
    "this library in a CUDA graph": (registry.OURS_GRAPH,),
    "compiled loop in a CUDA graph": (registry.COMPILED_GRAPH,),
    "loop in a CUDA graph": (registry.GRAPH,),
    "loop with a compiled step": (registry.COMPILED,),
    "eager loop": (registry.LOOP,),
    "fastest plain LIF": registry.PLAIN,
    registry.LSTM: (registry.LSTM,),
    registry.GRU: (registry.GRU,),
}
TEXT = "#7d8590"
"""A gray that is legible on white and on black."""


def speed(result: Record) -> Figure | None:
    """Draw the time of each pass of the README's table, for light and dark pages."""
    groups = stored.passes(result)
    if not groups:
        return None
    bars = {
        label: {g: row["ms"] for g, rows in groups.items() if (row := stored.fastest(rows, names))}
        for label, names in BARS.items()
    }
    bars = {label: found for label, found in bars.items() if found}
    height = 0.85 / len(bars)
    figure = Figure(figsize=(7.4, 1.0 + 0.24 * len(bars) * len(groups)), layout="constrained")
    axes = figure.add_subplot()
    for place, (label, found) in enumerate(bars.items()):
        y = [k + place * height for k, group in enumerate(groups) if group in found]
        color = LOOK[BARS[label][0]][0]
        drawn = axes.barh(y, list(found.values()), height, color=color, align="edge", label=label)
        said = [f"{speed_tables.figures(ms)} ms" for ms in found.values()]
        axes.bar_label(drawn, said, fontsize=7, color=TEXT, padding=2)
    names = [speed_tables.pass_name(group) for group in groups]
    axes.set_yticks([k + 0.42 for k in range(len(groups))], names)
    log_scale(axes, "x")
    times = [ms for found in bars.values() for ms in found.values()]
    axes.set_xlim(10 ** math.floor(math.log10(min(times))), 2 * max(times))
    axes.invert_yaxis()
    axes.set_xlabel("time, ms (logarithmic)", fontsize=9, color=TEXT)
    axes.tick_params(which="both", labelsize=8, colors=TEXT)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(TEXT)
    figure.legend(loc="outside upper center", ncols=4, fontsize=8, frameon=False, labelcolor=TEXT)
    return figure


def growth(result: Record) -> Figure | None:
    """Draw time above and memory below, with a line for each fit."""
    found = stored.growths(result)
    if not found:
        return None
    names = sorted({one.axis for one in found}, key="TBIJ".index)
    lines, height = (2, 5.2) if any(all(one.peaks) for one in found) else (1, 3.0)
    figure = Figure(figsize=(2.5 * len(names) + 0.6, height), layout="constrained")
    grid = figure.subplots(lines, len(names), squeeze=False)
    for one in found:
        column = grid[:, names.index(one.axis)]
        verdict = {True: ", target reached", False: f", target {one.target}", None: ""}[one.reached]
        _fit(column[0], one, one.ms, verdict)
        if all(one.peaks):
            _fit(column[1], one, [peak and peak / 1e6 for peak in one.peaks])
    for line, label in zip(grid, ("time, ms", "peak memory, MB"), strict=False):
        line[0].set_ylabel(label, fontsize=9)
        for axes, name in zip(line, names, strict=True):
            axes.set_xscale("log", base=2)
            log_scale(axes, "y")
            sizes = sorted({n for one in found if one.axis == name for n in one.sizes})
            axes.set_xticks(sizes, [str(n) for n in sizes], rotation=45)
            axes.set_xticks([], minor=True)
            clean_axes(axes)
            axes.tick_params(which="both", labelsize=7)
            if axes.lines:
                axes.legend(fontsize=7, frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
    for axes, name in zip(grid[-1], names, strict=True):
        words = {"T": "steps T", "B": "samples B", "I": "inputs I", "J": "neurons J"}
        axes.set_xlabel(words[name], fontsize=9)
    return figure


def _fit(axes: Axes, one: stored.Growth, values: Sequence[float | None], verdict: str = "") -> None:
    """Draw the points and the fitted line."""
    slope, error = stored.fit(one.sizes, values)
    if slope is None:
        return
    color = ORANGE if one.form == "recurrent" else BLUE
    label = f"{one.form}\nslope {slope:.2f}{'' if error is None else f' ± {error:.2f}'}{verdict}"
    known = [value for value in values if value]
    axes.plot(one.sizes, known, "o", color=color, ms=4)
    size, value = (math.prod(v ** (1 / len(of)) for v in of) for of in (one.sizes, known))
    line = [value * (n / size) ** slope for n in one.sizes]
    axes.plot(one.sizes, line, color=color, lw=1, label=label)


def _lines(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    clean_axes(axes)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    return figure, axes


def errors(result: Record) -> Figure | None:
    rows = [row for row in result["rows"] if "error" in row]
    if not rows:
        return None
    label = "error of the synaptic current\nagainst float64, relative (rms)"
    figure, axes = _lines("time step", label)
    for row in rows:
        color, marker = LOOK[row["contender"]]
        steps, values = row["error"]["steps"], row["error"]["errors"]
        shown = [(n, e) for n, e in zip(steps, values, strict=True) if e > 0]
        axes.plot(*zip(*shown, strict=True), marker=marker, color=color, ms=4, lw=1.2,
                  label=row["label"])  # fmt: skip
    axes.axhline(2.0**-24, color=GREY, lw=0.8, ls=":")
    axes.annotate(
        "half a unit of float32", (1, 2.0**-24), xycoords=("axes fraction", "data"), fontsize=7,
        color=GREY, va="bottom", ha="right",
    )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.tick_params(which="both", labelsize=8)
    axes.legend(fontsize=8, frameon=False)
    return figure


def replicas(result: Record) -> Figure | None:
    """Draw the milliseconds per network, sequential and together."""
    found: dict[tuple[str, int], list[tuple[int, float]]] = {}
    for rows in stored.groups(result, "replicas").values():
        for row in rows:
            work = row["work"]
            key = row["contender"], work["R"]
            found.setdefault(key, []).append((work["J"], row["ms"] / work["R"]))
    if not found:
        return None
    figure, axes = _lines("recurrent neurons of a network", "training step, ms for each network")
    networks = sorted({R for _, R in found})
    for (name, R), points in sorted(found.items()):
        color = {registry.TOGETHER: BLUE, registry.ONE_BY_ONE: ORANGE}[name]
        style = ("-", "--", ":")[networks.index(R) % 3]
        axes.plot(*zip(*sorted(points), strict=True), marker="o", ls=style, color=color, ms=4,
                  lw=1.2, label=f"{R} networks {name}")  # fmt: skip
    sizes = sorted({n for points in found.values() for n, _ in points})
    axes.set_xscale("log")
    axes.set_xticks(sizes, [str(n) for n in sizes])
    axes.set_xticks([], minor=True)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, frameon=False)
    return figure


CHARTS: dict[str, tuple[str, Callable[[Record], Figure | None]]] = {
    "speed": ("Time of a pass by contender", speed),
    "growth": ("Growth of a call with its sizes, with the fitted exponents", growth),
    "error": ("Error against float64 over time steps", errors),
    "replicas": ("Small networks one after another and together", replicas),
}


def draw(result: Record, folder: Path) -> list[str]:
    """Draw the charts that a result has data for; return the names of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (_, make) in CHARTS.items():
        figure = make(result)
        file = f"{name}.svg" if make is speed else f"{name}.png"
        if figure is None:
            continue
        written.append(file)
        if make is not speed:
            save_figure(figure, folder / file)
            continue
        # Equal data give equal bytes; text stays text.
        with rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
            figure.savefig(folder / file, transparent=True, metadata={"Date": None})
    return written
