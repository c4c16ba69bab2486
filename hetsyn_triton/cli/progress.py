"""Progress bar while a run trains, and the table that closes it."""

import shlex
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from hetsyn_triton.tasks import task_class
from hetsyn_triton.training import Reporter, TrainConfig, format_metric
from hetsyn_triton.training.folder import CHECKPOINT

from . import interrupts
from .bar import WithBar

SELECTIONS = {
    "last": "last",
    "validation": "validation-selected",
    "test": "test-selected: the best of {of} test measurements, not a held-out result",
}


class RichReporter(WithBar, Reporter):
    """A bar on a terminal, of files to prepare and then of steps, with loss, score and time left; a
    line per epoch elsewhere."""

    def __init__(self, console: Console, resumed: Path | None = None) -> None:
        super().__init__(console)
        self.folder = resumed
        self.begun = resumed is not None  # a checkpoint in the folder is this run's own
        self.epochs = 0
        self.score: str | None = None
        self.held_out = ""

    def expect(self, config: TrainConfig, folder: Path) -> None:
        """Say what comes, before the seconds it takes to begin: where files are read, which may
        be missing, only that."""
        if not task_class(config.task).reads_files:
            self.announce(config, folder)
            return
        self.folder = folder
        self.console.print(Text(f"{config.task}: reading the data"))

    def announce(self, config: TrainConfig, folder: Path) -> None:
        """Say what is trained and where."""
        self.folder, self.epochs = folder, config.epochs
        self.score = task_class(config.task).score
        layers = "-".join(str(size) for size in config.hidden)
        kind = "recurrent" if config.recurrent else "feedforward"
        what = f"{config.task}: {kind} {config.model} network, {layers} hidden neurons"
        self.console.print(Text(f"{what}, seed {config.seed}, into {folder}"), soft_wrap=True)

    def started(self, config: TrainConfig, folder: Path, steps: int, done: int) -> None:
        interrupts.raise_if_asked()
        if folder != self.folder or not self.epochs:  # the announced one was taken, or none was
            self.announce(config, folder)
        epoch = 1 + done * config.epochs // max(1, steps)
        if 0 < done < steps:
            self.console.print(f"Going on after step {done} of {steps}, in epoch {epoch}")
        self.begun = True
        if not self.console.is_terminal:
            return
        self.start_bar(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[means]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            total=steps,
            completed=done,
            means="",
            epoch=min(epoch, config.epochs),
            epochs=config.epochs,
        )

    def stepped(self, epoch: int, done: int, means: dict[str, float]) -> None:
        interrupts.raise_if_asked()
        if self.bar is not None:
            shown = f"{self._line(means, '')}{self.held_out}"
            self.update_bar(completed=done, epoch=epoch + 1, means=shown)

    def epoch_ended(self, record: dict[str, Any]) -> None:
        measured = [part for part in ("validation", "test") if f"{part}_loss" in record]
        shown = self.score or "loss"  # a bar has room for one number
        for part in measured[:1]:
            self.held_out = f", {part} {_short(shown, record[f'{part}_{shown}'])}"
        if self.bar is None:
            parts = [f"epoch {record['epoch']}/{self.epochs}: {self._line(record, 'train_')}"]
            parts += [f"{part} {self._line(record, f'{part}_')}" for part in measured]
            parts += [f"{record['seconds']:.1f} s"]
            self.console.print(Text(", ".join(parts)), soft_wrap=True)

    def finishing(self) -> None:
        self.close()
        self.console.print("Testing, and drawing the pictures")

    def finished(self, summary: dict[str, Any], folder: Path) -> None:
        title = f"{summary['task']}, {summary['model']}: test, by how the epoch was chosen"
        self.console.print(selection_table(title, summary["selection"]))
        if summary["no_validation"] is not None:
            self.console.print(Text(summary["no_validation"]), soft_wrap=True)
        unit = task_class(summary["task"]).time_unit
        table = Table(title=f"time constants ({unit}): the three quartiles")
        for heading in ("synapses", "before training", "after training"):
            table.add_column(heading)
        for name, taus in summary["time_constant_quartiles"].items():
            table.add_row(name, *(_quartiles(taus[when]) for when in ("before", "after")))
        self.console.print(table)
        seconds = summary["seconds_training"]
        compiling = summary["seconds_compiling"]
        also = f"; compiling CPU kernels took {compiling} s of this process" if compiling else ""
        trained = f"{summary['parameters']} parameters, trained in {seconds} s{also}"
        self.console.print(Text(trained), soft_wrap=True)
        self.console.print(Text(f"Everything is in {folder}"), soft_wrap=True)

    def note(self, line: str) -> None:
        """A line for the user, beside the results."""
        if self.console.quiet:
            return
        Console(stderr=True).print(Text(f"hetsyn: {line}"), soft_wrap=True)

    def kept(self) -> str:
        """Where a run that ends early is kept, to follow the reason."""
        if not self._has_checkpoint():
            return ""
        return f" The last complete checkpoint is in {self.folder}"

    def way_on(self) -> str:
        """How to go on with a run that ends early, to follow the reason."""
        if self.folder is None:
            return ""
        if not self._has_checkpoint():
            return f" Nothing was trained yet, and {self.folder} can be used again."
        return f" To go on: hetsyn train --resume {shlex.quote(str(self.folder))}"

    def _has_checkpoint(self) -> bool:
        return self.folder is not None and self.begun and (self.folder / CHECKPOINT).is_file()

    def _line(self, means: dict[str, Any], prefix: str) -> str:
        names = ["loss"] if self.score is None else ["loss", self.score]
        return ", ".join(f"{name} {_short(name, means[prefix + name])}" for name in names)


def selection_table(title: str, chosen: dict[str, Any]) -> Table:
    """The test measures of the last, the best validation and the best test epoch, as there are."""
    table = Table(title=title)
    table.add_column("selection")
    names = list(chosen["last"]["test"])
    for name in ("epoch", *names):
        table.add_column(name, justify="right")
    for kind, label in SELECTIONS.items():
        result = chosen[kind]
        if result is not None:
            values = [format_metric(name, result["test"][name]) for name in names]
            table.add_row(label.format(**result), str(result["epoch"]), *values)
    return table


def metrics_table(title: str, values: dict[str, float]) -> Table:
    """Names and values of one split."""
    table = Table(title=title)
    table.add_column("measure")
    table.add_column("value", justify="right")
    for name, value in values.items():
        table.add_row(name, format_metric(name, value))
    return table


def _short(name: str, value: float) -> str:
    return f"{100 * value:.1f} %" if name.endswith("accuracy") else f"{value:.4f}"


def _quartiles(values: list[Any]) -> str:
    return ", ".join(v if isinstance(v, str) else f"{v:.3g}" for v in values)
