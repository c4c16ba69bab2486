"""`hetsyn study`: run or resume a study."""

import re
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from hetsyn_triton.experiments.studies import StudyReporter, StudyResult, run_study
from hetsyn_triton.experiments.studies.base import Cell, Study
from hetsyn_triton.experiments.studies.catalogue import study_class
from hetsyn_triton.experiments.studies.study_folder import PICTURE, TABLE_CSV
from hetsyn_triton.experiments.training import ConfigError

from . import interrupts
from .bar import WithBar
from .configure import named_value
from .study_table import show

BESIDE_NAMES = 24  # columns of the progress bar that do not show names


def run(
    name: str,
    task: str | None,
    seeds: int | None,
    full: bool,
    jobs: int | None,
    more: tuple[str, ...],
    out: str | None,
    data_dir: str | None,
) -> int:
    """Run study `name` and return the exit code, 1 if a cell failed."""
    options = study_class(name).options.items()
    lists = {"hidden", *(key for key, option in options if isinstance(option.small, list))}
    changes: dict[str, Any] = {} if data_dir is None else {"data_dir": data_dir}
    for text in more:
        key, value = named_value(text)
        if key in changes:
            raise ConfigError(f"set: expected {key} once, got another value in {text!r}")
        changes[key] = _listed(value) if key in lists else value
    reporter = RichStudyReporter(Console())
    try:
        result = run_study(
            name,
            task=task,
            seeds=seeds,
            full=full,
            out=out,
            jobs=jobs,
            reporter=reporter,
            **changes,
        )
    except (Exception, KeyboardInterrupt) as error:
        if not interrupts.is_interrupt(error):
            raise
        reporter.close()
        interrupts.tell(f"Stopped.{reporter.how_to_resume()}")
        return interrupts.INTERRUPTED
    finally:
        reporter.close()
    return 1 if result.failures else 0


def _listed(value: Any) -> list[Any]:
    """Read a list from JSON or from comma-separated values; commas in brackets do not count."""
    if isinstance(value, str):
        parts = re.split(r",(?![^(]*\))", value)
        return [named_value(f"item={part.strip()}")[1] for part in parts]
    return value if isinstance(value, list) else [value]


class RichStudyReporter(WithBar, StudyReporter):
    """Show a progress bar on a terminal, print a line per cell elsewhere, and the table at the end.

    The bar counts the files to prepare, then the cells.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.folder: Path | None = None
        self.running: list[str] = []
        self.done = self.total = 0

    def started(self, study: Study, folder: Path, done: int, total: int, jobs: int) -> None:
        self.folder, self.done, self.total = folder, done, total
        task = f" on {study.settings.task}" if study.settings.task else ""
        side = f", {jobs} in parallel" if jobs > 1 else ""
        before = f" ({done} already finished)" if done else ""
        self._say(f"{study.name}{task}: {total} cells{before}{side}, in {folder}")
        self._say(study.sizes_in_words())
        if not self.console.is_terminal:
            return
        self.start_bar(
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TimeElapsedColumn(),
            TextColumn("{task.fields[running]}", markup=False),
            total=total,
            completed=done,
            running="",
        )

    def begun(self, cell: Cell) -> None:
        interrupts.raise_if_asked()
        self.running.append(cell.name)
        self._show()

    def ended(self, cell: Cell, error: str | None) -> None:
        interrupts.raise_if_asked()
        self.running.remove(cell.name)
        self.done += error is None
        if error is not None:
            self._say(f"FAILED {cell.name}: {error}")
        elif self.bar is None:
            self._say(f"{self.done}/{self.total} {cell.name}")
        self._show()

    def finished(self, study: Study, result: StudyResult) -> None:
        self.close()
        if result.table:
            show(self.console, study, result.table, str(result.path / TABLE_CSV))
        self._say(study.sizes_in_words())
        for name, error in result.failures.items():
            self._say(f"FAILED {name}: {error}")
        if not result.table:
            self._say("No cell is finished, so there is no table and no picture. The same command "
                      f"retries the cells in {result.path}")  # fmt: skip
            return
        if result.failures:
            self._say("Failed cells are missing from the table. The same command retries them.")
        self._say(f"Study folder: {result.path}")
        self._say(f"Picture: {result.path / PICTURE}")

    def how_to_resume(self) -> str:
        """Return how to resume a study that stops early, to follow the reason."""
        if self.folder is None:
            return ""
        return (
            f" {self.done} of {self.total} cells are finished. The same command resumes the study."
        )

    def _show(self) -> None:
        names = ", ".join(self.running)
        if len(self.running) > 1 and len(names) > self.console.width - BESIDE_NAMES:
            names = f"{self.running[0]} +{len(self.running) - 1}"
        self.update_bar(completed=self.done, running=names)

    def _say(self, line: str) -> None:
        self.console.print(Text(line), soft_wrap=True)
