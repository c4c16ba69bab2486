"""The look that all pictures share. The only one of the helpers that loads matplotlib."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from hetsyn_triton.experiments.files import write_atomically

INK = "#22303c"
GREY = "#9aa7b2"
BLUE = "#2463c5"
ORANGE = "#e2711d"
SHADE = "#faf1dd"
LINE = "#e6eaee"
DPI = 150


def clean_axes(axes: Axes, grid: bool = True) -> None:
    """Small labels, no frame above and to the right, and a faint grid where it helps."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=8, colors=INK)
    if grid:
        axes.grid(color=LINE, lw=0.7)
        axes.set_axisbelow(True)


def log_scale(axes: Axes, which: str = "y") -> None:
    """A logarithmic axis with ticks at 1, 2 and 5 in plain numbers."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    axes.set(**{f"{which}scale": "log"})
    axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def save_figure(figure: Figure, path: Path) -> None:
    """Write `figure` as a PNG, atomically."""
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=DPI))
