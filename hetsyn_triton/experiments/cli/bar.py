"""The progress bar of a reporter, and how it shows that a task prepares its data."""

from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from . import interrupts


class WithBar:
    """Show one progress bar at a time, if `console` is a terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar: Progress | None = None

    def preparing(self, what: str, done: int, total: int) -> None:
        interrupts.raise_if_asked()
        if not self.console.is_terminal:  # the log already says once that this takes a while
            return
        if self.bar is None:
            self.start_bar(
                TextColumn(what),
                MofNCompleteColumn(),
                BarColumn(bar_width=None),
                TimeRemainingColumn(compact=True),
                TextColumn("left"),
                total=total,
            )
        self.update_bar(completed=done)
        if done == total:
            self.close()

    def start_bar(self, *columns: ProgressColumn, **fields: Any) -> None:
        """Show a bar with these columns; `fields` belong to its only task."""
        self.bar = Progress(*columns, console=self.console, expand=True)
        self.bar.add_task("", **fields)
        self.bar.start()

    def update_bar(self, **fields: Any) -> None:
        """Update the values of the bar, if there is one."""
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], **fields)

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
