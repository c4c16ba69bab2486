"""What the studies' pictures share: colors, bands of deviation, caption, saving."""

import textwrap
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from hetsyn_triton.experiments.drawing import INK, clean_axes, save_figure

from .statistics import chosen
from .words import in_words, is_share, seeds_in_words

if TYPE_CHECKING:
    from .base import Row, Study

COLORS = {
    "hetsyn": "#d55e00",
    "hetneu": "#0072b2",
    "homneu-adaptive": "#cc79a7",
    "homneu": "#4d4d4d",
}
"""Of the four models: told apart by all common kinds of color vision (Okabe and Ito), and by gray
level and marker."""
SERIES = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#4d4d4d")
"""Of anything else, in this order."""
MARKERS = {"hetsyn": "o", "hetneu": "s", "homneu-adaptive": "^", "homneu": "D"}
ROW_INCHES = 3.4
COLUMN_INCHES = 4.6


def grid(rows: int, columns: int, **options: Any) -> tuple[Figure, "np.ndarray[Any, Any]"]:
    """A figure with clean axes [rows, columns]."""
    size = (max(2, columns) * COLUMN_INCHES, rows * ROW_INCHES + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for one in axes.flat:
        clean_axes(one)
    return figure, axes


def band(
    axes: Axes,
    x: Sequence[float],
    mean: Sequence[float | None],
    deviation: Sequence[float | None],
    *,
    color: str,
    label: str | None,
    marker: str | None = None,
    style: str = "-",
) -> None:
    """A line of means over a band of one deviation to each side; a gap where a mean is None."""
    middle = np.array(mean, dtype=float)
    width = np.array([0.0 if value is None else value for value in deviation])
    axes.plot(x, middle, style, color=color, lw=1.7, marker=marker, ms=4.5, label=label)
    axes.fill_between(x, middle - width, middle + width, color=color, alpha=0.16, lw=0)


def by_size(axes: Axes, table: Sequence["Row"], measure: str, models: Sequence[str]) -> None:
    """Draw a measure of each model over `size_of_hetsyn`, with its deviation where there is one."""
    for model in models:
        mine = sorted(chosen(table, model=model), key=lambda row: row["size_of_hetsyn"])
        sizes = [row["size_of_hetsyn"] for row in mine]
        means = [row[measure] for row in mine]
        widths = [row.get(f"{measure}_deviation") for row in mine]
        look: dict[str, Any] = {"color": COLORS[model], "marker": MARKERS[model], "label": model}
        if len(mine) > 1:
            band(axes, sizes, means, widths, **look)
        else:  # a band has no width here
            middle, width = (np.array(values, dtype=float) for values in (means, widths))
            axes.errorbar(sizes, middle, width, ls="", capsize=4, **look)
    ticks = sorted({row["size_of_hetsyn"] for row in table})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(size) for size in ticks])
    axes.minorticks_off()


def label_score(axes: Axes, name: str, seeds: Collection[int]) -> None:
    """The y axis of a measure, of as many `seeds` as a point has, where a cell failed fewer than
    elsewhere; a fraction called accuracy is shown in per cent, up to 100."""
    over = f"mean ± deviation of {seeds_in_words(seeds)}" if max(seeds) > 1 else "one seed"
    axes.set_ylabel(f"{in_words(name)}\n({over})", fontsize=9)
    if is_share(name):
        axes.set_ylim(top=min(1.04, max(axes.get_ylim()[1], 1.02)))
        low, high = axes.get_ylim()
        axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick < 1.001])
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if high - low > 0.1 else 1))


def legend(axes: Axes, **options: Any) -> None:
    """A legend without a frame."""
    axes.legend(**{"frameon": False, "fontsize": 8, "handlelength": 3, **options})


def caption(study: "Study", failed: int, cells: int) -> str:
    """What stands below the picture: what was measured, and how large the study is."""
    where = f" on {study.settings.task}" if study.settings.task else ""
    text = f"{study.title}{where}: {study.sizes_in_words()}."
    if failed:
        text += f" {failed} of {cells} cells failed and are missing here."
    return text


def save(figure: Figure, text: str, path: Path) -> None:
    """Put `text` under the figure and write it."""
    width = int(figure.get_figwidth() * 13)
    figure.supxlabel("\n".join(textwrap.wrap(text, width)), fontsize=8, color=INK)
    save_figure(figure, path)
