"""The bar while a task makes its data ready."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def preparing_bar(console: Console, what: str, total: int) -> Progress:
    """A running bar of `total` pieces, for the terminal `console`."""
    bar = Progress(
        TextColumn(what),
        MofNCompleteColumn(),
        BarColumn(bar_width=None),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
        console=console,
        expand=True,
    )
    bar.add_task("", total=total)
    bar.start()
    return bar
