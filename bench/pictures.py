"""Pictures of a stored measurement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench import stored
from bench.records import Record
from bench.registry import (
    CHECKPOINTED,
    CLOSED,
    COMPILED,
    COMPILED_GRAPH,
    GRAPH,
    LOOP,
    ONE_BY_ONE,
    OURS,
    PLAIN,
    REFERENCE,
    TOGETHER,
)
from hetsyn_triton.experiments.drawing import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    clean_axes,
    log_scale,
    save_figure,
)

LOOK = {
    OURS: (BLUE, "o"),
    CLOSED: ("#6fa1e8", "s"),
    REFERENCE: ("#9aa7b2", "D"),
    LOOP: (ORANGE, "o"),
    COMPILED: ("#b3590f", "^"),
    CHECKPOINTED: ("#f0b27f", "v"),
    GRAPH: ("#8c2d04", "<"),
    COMPILED_GRAPH: ("#5c1d02", ">"),
    "spikingjelly": ("#2a8c6a", "P"),
    "snntorch": ("#58b894", "X"),
    "norse": ("#1b5e48", "*"),
}
"""Blue: this library. Orange: the loop. Green: plain LIF layers, which compute less."""


def _rows_figure(count: int) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.4, 1.5 + 0.42 * count), layout="constrained")
    return figure, figure.add_subplot()


def _dots(
    result: Record, value: Callable[[Record, Record], float | None], label: str, log: bool = True
) -> Figure | None:
    """A line for each contest, a mark for each contender; forward and backward alone only where
    plain LIF layers take part."""
    contests = {
        group: (ours, rows)
        for group, rows in stored.groups(result).items()
        if (ours := stored.base(rows)) is not None and _shown(rows)
    }
    drawn = [
        (group, [(row, v) for row in rows if (v := value(row, ours)) is not None])
        for group, (ours, rows) in contests.items()
    ]
    drawn = [(group, points) for group, points in drawn if points]
    if not drawn:
        return None
    figure, axes = _rows_figure(len(drawn))
    seen = set()
    for y, (_, points) in enumerate(reversed(drawn)):
        axes.axhline(y, color="#eef1f4", lw=6, zorder=0)
        for row, x in points:
            who = row["contender"]
            colour, marker = LOOK[who]
            name = who if who not in seen else None
            seen.add(who)
            look: dict[str, Any] = {"ms": 7, "mec": "white", "mew": 0.6}
            if who == OURS:  # a ring around whoever is at the same place
                look = {"ms": 9, "mec": colour, "mew": 1.8, "mfc": "none", "zorder": 3}
            axes.plot(x, y, marker, color=colour, label=name, **look)
    axes.set_yticks(range(len(drawn)), [group for group, _ in reversed(drawn)])
    axes.set_ylim(-0.7, len(drawn) - 0.3)  # no margin that grows with the number of lines
    if log:
        axes.set_xscale("log")
        _plain_ticks(axes, [x for _, points in drawn for _, x in points])
    else:
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    clean_axes(axes)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(label, fontsize=9, color=INK)
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside upper center", ncols=5, fontsize=8,
        frameon=False,
    )  # fmt: skip
    return figure


def _shown(rows: Sequence[Record]) -> bool:
    whole = rows[0]["work"]["part"] not in ("forward", "backward")
    return whole or any(row["contender"] in PLAIN for row in rows)


def _plain_ticks(axes: Axes, values: Sequence[float]) -> None:
    """1, 2, 5, 10 ... as numbers where three decades or less are shown."""
    low, high = min(values), max(values)
    ticks = [m * 10.0**e for e in range(-4, 7) for m in (1, 2, 5)]
    shown = [t for t in ticks if low / 1.6 <= t <= high * 1.6]
    if high / low > 1000:
        shown = [t for t in shown if f"{t:e}".startswith("1")]
    axes.set_xticks(shown, [f"{t:g}" for t in shown])
    axes.set_xticks([], minor=True)


def speed_up(result: Record) -> Figure | None:
    figure = _dots(
        result,
        lambda row, ours: row["ms"] / ours["ms"],
        f"time / time of {OURS}: right of 1 is slower\n(in turn, medians, warm memory)",
    )
    if figure is not None:
        figure.axes[0].axvline(1, color=BLUE, lw=0.8, zorder=1)
    return figure


def floor(result: Record) -> Figure | None:
    def reached(row: Record, _: Record) -> float | None:
        return stored.fraction(row, result) if row["contender"] in (OURS, CLOSED, LOOP) else None

    label = (
        "fraction of the floor, `of the peak` in the tables\n"
        "(multiply-adds needed / measured peak of the machine / time)"
    )
    return _dots(result, reached, label, log=False)


def memory(result: Record) -> Figure | None:
    def mega(row: Record, _: Record) -> float | None:
        peak = stored.peak(row)
        return peak / 1e6 if peak else None

    label = "memory at the peak of a call, MB\n(beyond input and parameters)"
    return _dots(result, mega, label)


def growth(result: Record) -> Figure | None:
    """Time above, memory below; a line for each fit."""
    found = stored.growths(result)
    if not found:
        return None
    names = sorted({one["axis"] for one in found}, key="TBIJ".index)
    lines, height = (2, 5.2) if any(all(one["peaks"]) for one in found) else (1, 3.0)
    figure = Figure(figsize=(2.5 * len(names) + 0.6, height), layout="constrained")
    grid = figure.subplots(lines, len(names), squeeze=False)
    for one in found:
        column = grid[:, names.index(one["axis"])]
        colour = ORANGE if one["form"] == "recurrent" else BLUE
        verdict = {True: ", as wanted", False: f", wanted {one['wanted']}", None: ""}[one["met"]]
        _fit(column[0], one, "ms", one["time"], colour, one["time_error"], verdict)
        if all(one["peaks"]):
            mega = one | {"mega": [peak / 1e6 for peak in one["peaks"]]}
            _fit(column[1], mega, "mega", one["memory"], colour, one["memory_error"])
    for line, label in zip(grid, ("time, ms", "memory at the peak, MB"), strict=False):
        line[0].set_ylabel(label, fontsize=9)
        for axes, name in zip(line, names, strict=True):
            axes.set_xscale("log", base=2)
            log_scale(axes, "y")
            sizes = sorted({n for one in found if one["axis"] == name for n in one["sizes"]})
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


def _fit(
    axes: Axes,
    one: Record,
    name: str,
    slope: float | None,
    colour: str,
    error: float | None,
    verdict: str = "",
) -> None:
    sizes, values = one["sizes"], one[name]
    if slope is None:
        return
    label = f"{one['form']}\nslope {slope:.2f}{'' if error is None else f' ± {error:.2f}'}{verdict}"
    axes.plot(sizes, values, "o", color=colour, ms=4)
    middle = _mean_log(sizes), _mean_log(values)
    line = [middle[1] * (n / middle[0]) ** slope for n in sizes]
    axes.plot(sizes, line, color=colour, lw=1, label=label)


def _mean_log(values: Sequence[float]) -> float:
    product = 1.0
    for value in values:
        product *= value ** (1 / len(values))
    return product


def errors(result: Record) -> Figure | None:
    rows = [row for row in result["rows"] if "error" in row]
    if not rows:
        return None
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for row in rows:
        colour, marker = LOOK[row["contender"]]
        steps, values = row["error"]["steps"], row["error"]["errors"]
        shown = [(n, e) for n, e in zip(steps, values, strict=True) if e > 0]
        axes.plot(*zip(*shown, strict=True), marker=marker, color=colour, ms=4, lw=1.2,
                  label=row["label"])  # fmt: skip
    axes.axhline(2.0**-24, color=GREY, lw=0.8, ls=":")
    axes.annotate(
        "half a unit of float32", (1, 2.0**-24), xycoords=("axes fraction", "data"), fontsize=7,
        color=GREY, va="bottom", ha="right",
    )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    clean_axes(axes)
    axes.tick_params(which="both", labelsize=8)
    axes.set_xlabel("time step", fontsize=9)
    axes.set_ylabel("error of the synaptic current\nagainst float64, relative (rms)", fontsize=9)
    axes.legend(fontsize=8, frameon=False)
    return figure


def replicas(result: Record) -> Figure | None:
    """Milliseconds for each network: one after another, and together."""
    found: dict[tuple[str, int], list[tuple[int, float]]] = {}
    for rows in stored.groups(result, "replicas").values():
        for row in rows:
            work = row["work"]
            key = row["contender"], work["R"]
            found.setdefault(key, []).append((work["J"], row["ms"] / work["R"]))
    if not found:
        return None
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    styles = ("-", "--", ":")
    dashes: Any = {R: styles[k % 3] for k, R in enumerate(sorted({R for _, R in found}))}
    for (who, R), points in sorted(found.items()):
        colour = {TOGETHER: BLUE, ONE_BY_ONE: ORANGE}[who]
        axes.plot(*zip(*sorted(points), strict=True), "o", ls=dashes[R], color=colour, ms=4, lw=1.2,
                  label=f"{R} networks {who}")  # fmt: skip
    sizes = sorted({n for points in found.values() for n, _ in points})
    axes.set_xscale("log")
    axes.set_xticks(sizes, [str(n) for n in sizes])
    axes.set_xticks([], minor=True)
    axes.set_ylim(bottom=0)
    clean_axes(axes)
    axes.set_xlabel("recurrent neurons of a network", fontsize=9)
    axes.set_ylabel("training step, ms for each network", fontsize=9)
    axes.legend(fontsize=8, frameon=False)
    return figure


PICTURES: dict[str, tuple[str, Callable[[Record], Figure | None]]] = {
    "speed-up": ("Time of everybody over ours, each work a line", speed_up),
    "floor": ("Fraction of the arithmetic floor", floor),
    "memory": ("Memory at the peak", memory),
    "growth": ("Growth of time and memory, with the fitted exponents", growth),
    "error": ("Error against float64 over time steps", errors),
    "replicas": ("Small networks one after another and together", replicas),
}


def draw(result: Record, folder: Path) -> list[str]:
    """Writes what there are figures for; the names of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (_, make) in PICTURES.items():
        figure = make(result)
        if figure is not None:
            save_figure(figure, folder / f"{name}.png")
            written.append(f"{name}.png")
    return written
