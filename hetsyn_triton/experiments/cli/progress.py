"""Progress bar of a run, and the tables of its results."""

import shlex
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from hetsyn_triton.experiments.tasks import task_class
from hetsyn_triton.experiments.training import Reporter, TrainConfig, format_metric
from hetsyn_triton.experiments.training.measure import shown_measures, shown_name
from hetsyn_triton.experiments.training.run_folder import CHECKPOINT

from . import interrupts
from .bar import WithBar

SELECTIONS = {
    "last": "last epoch",
    "validation": "validation-\nselected",
    "test": "test-\nselected",
}
NARROW = 80  # columns of a terminal
NOT_HELD_OUT = "test-selected: the best of all test measurements ({of}), not a held-out result"


class RichReporter(WithBar, Reporter):
    """Show a progress bar on a terminal, and print a line per epoch elsewhere.

    The bar counts the files to prepare, then the steps, with loss, score and remaining time.
    """

    def __init__(self, console: Console, resumed: Path | None = None) -> None:
        super().__init__(console)
        self.folder = resumed
        self.begun = resumed is not None  # a checkpoint in the folder belongs to this run
        self.epochs = 0
        self.score: str | None = None
        self.held_out = ""

    def expect(self, config: TrainConfig, folder: Path) -> None:
        """Print what is about to start; only that data is read, if files may be missing."""
        if not task_class(config.task).reads_files:
            self.announce(config, folder)
            return
        self.folder = folder
        self.console.print(Text(f"{config.task}: reading the data"))

    def announce(self, config: TrainConfig, folder: Path) -> None:
        """Print what is trained and where."""
        self.folder, self.epochs = folder, config.epochs
        self.score = task_class(config.task).score
        layers = "-".join(str(size) for size in config.hidden)
        kind = "recurrent" if config.recurrent else "feedforward"
        what = f"{config.task}: {kind} {config.model} network, {layers} hidden neurons"
        self._say(f"{what}, seed {config.seed}, in {folder}")

    def started(self, config: TrainConfig, folder: Path, steps: int, done: int) -> None:
        interrupts.raise_if_asked()
        if folder != self.folder or not self.epochs:  # not announced yet
            self.announce(config, folder)
        epoch = 1 + done * config.epochs // max(1, steps)
        if 0 < done < steps:
            self.console.print(f"Resuming after step {done} of {steps}, in epoch {epoch}")
        self.begun = True
        if not self.console.is_terminal:
            return
        left = [] if self._is_narrow() else [TextColumn("left")]
        self.start_bar(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[means]}"),
            TimeRemainingColumn(compact=True),
            *left,
            total=steps,
            completed=done,
            means="",
            epoch=min(epoch, config.epochs),
            epochs=config.epochs,
        )

    def stepped(self, epoch: int, done: int, means: dict[str, float]) -> None:
        interrupts.raise_if_asked()
        if self.bar is not None:
            shown = f"{self._line(means, '')}{'' if self._is_narrow() else self.held_out}"
            self.update_bar(completed=done, epoch=epoch + 1, means=shown)

    def epoch_ended(self, record: dict[str, Any]) -> None:
        measured = [part for part in ("validation", "test") if f"{part}_loss" in record]
        shown = self.score or "loss"  # the bar shows one measure
        for part in measured[:1]:
            self.held_out = f", {part} {_short(shown, record[f'{part}_{shown}'])}"
        if self.bar is None:
            parts = [f"epoch {record['epoch']}/{self.epochs}: {self._line(record, 'train_')}"]
            parts += [f"{part} {self._line(record, f'{part}_')}" for part in measured]
            parts += [f"{record['seconds']:.1f} s"]
            self._say(", ".join(parts))

    def finishing(self) -> None:
        self.close()
        self.console.print("Testing and drawing pictures")

    def finished(self, summary: dict[str, Any], folder: Path) -> None:
        chosen = summary["selection"]
        self._say(f"{summary['task']}, {summary['model']}: test results")
        self.console.print(selection_table(chosen))
        if chosen["test"] is not None:
            self._say(NOT_HELD_OUT.format(**chosen["test"]))
        if summary["no_validation"] is not None:
            self._say(summary["no_validation"])
        unit = task_class(summary["task"]).time_unit
        self._say(f"time constants ({unit}): lower quartile, median, upper quartile")
        table = Table()
        for heading in ("synapses", "before training", "after training"):
            table.add_column(heading)
        for name, taus in summary["time_constant_quartiles"].items():
            table.add_row(name, *(_quartiles(taus[when]) for when in ("before", "after")))
        self.console.print(table)
        seconds = summary["seconds_training"]
        compiling = summary["seconds_compiling"]
        also = f"; this process compiled CPU kernels for {compiling} s" if compiling else ""
        self._say(f"{summary['parameters']} parameters, trained in {seconds} s{also}")
        self._say(f"Run folder: {folder}")

    def note(self, line: str) -> None:
        """Print a line for the user on stderr."""
        if self.console.quiet:
            return
        Console(stderr=True).print(Text(f"hetsyn: {line}"), soft_wrap=True)

    def kept(self) -> str:
        """Return where the checkpoint of a run that stops early is, to follow the reason."""
        if not self._has_checkpoint():
            return ""
        return f" The last checkpoint is in {self.folder}"

    def how_to_resume(self) -> str:
        """Return how to resume a run that stops early, to follow the reason."""
        if self.folder is None:
            return ""
        if not self._has_checkpoint():
            return " No step was trained. To start again, repeat the command."
        return f" To resume: hetsyn train --resume {shlex.quote(str(self.folder))}"

    def _has_checkpoint(self) -> bool:
        return self.folder is not None and self.begun and (self.folder / CHECKPOINT).is_file()

    def _line(self, means: dict[str, Any], prefix: str) -> str:
        names = ["loss"] if self.score is None else ["loss", self.score]
        return ", ".join(f"{name} {_short(name, means[prefix + name])}" for name in names)

    def _is_narrow(self) -> bool:
        """Return whether the terminal is too narrow for the held-out score."""
        return self.console.width < NARROW

    def _say(self, line: str) -> None:
        self.console.print(Text(line), soft_wrap=True)


def selection_table(chosen: dict[str, Any]) -> Table:
    """Return the test measures of the last, the best validation and the best test epoch.

    Selections that do not exist have no column.
    """
    found = {kind: chosen[kind] for kind in SELECTIONS if chosen[kind] is not None}
    table = Table()
    table.add_column("measure")
    for kind in found:
        table.add_column(SELECTIONS[kind], justify="right")
    table.add_row("epoch", *(str(result["epoch"]) for result in found.values()))
    for name in shown_measures(chosen["last"]["test"]):
        values = [format_metric(name, result["test"][name]) for result in found.values()]
        table.add_row(shown_name(name), *values)
    return table


def metrics_table(values: dict[str, float]) -> Table:
    """Return names and values of the measures of one split."""
    table = Table()
    table.add_column("measure")
    table.add_column("value", justify="right")
    for name in shown_measures(values):
        table.add_row(shown_name(name), format_metric(name, values[name]))
    return table


def _short(name: str, value: float) -> str:
    return f"{100 * value:.1f} %" if name.endswith("accuracy") else f"{value:.4f}"


def _quartiles(values: list[Any]) -> str:
    return ", ".join(v if isinstance(v, str) else f"{v:.3g}" for v in values)
