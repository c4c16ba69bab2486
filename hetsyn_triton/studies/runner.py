"""From a study's name to its finished folder."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hetsyn_triton.extras import require_extra
from hetsyn_triton.files import write_json
from hetsyn_triton.tasks import SPLITS
from hetsyn_triton.tasks.watching import watched
from hetsyn_triton.training import ConfigError
from hetsyn_triton.training.build import build_task
from hetsyn_triton.training.claim import claim_run_folder
from hetsyn_triton.training.folder import check_writable
from hetsyn_triton.training.restore import lasting

from . import folder as files
from .base import Cell, Finished, Place, Row, Study
from .catalogue import study_class
from .settings import StudySettings, cores, make_settings
from .words import counted
from .workers import work_through


@dataclass(frozen=True)
class StudyResult:
    """A study's folder and what stands in it; `failures` says of each failed cell why."""

    path: Path
    settings: StudySettings
    rows: list[Row]
    table: list[Row]
    failures: dict[str, str] = field(default_factory=dict)


class StudyReporter:
    """Says nothing. Override what should be shown."""

    def preparing(self, what: str, done: int, total: int) -> None:
        """Before the first cell `what` is done to the data: `done` of `total` pieces so far."""

    def started(self, study: Study, folder: Path, done: int, total: int, jobs: int) -> None:
        """`done` of `total` cells were finished before."""

    def begun(self, cell: Cell) -> None:
        """A cell begins."""

    def ended(self, cell: Cell, error: str | None) -> None:
        """A cell is finished, or failed with `error`."""

    def finished(self, study: Study, result: StudyResult) -> None:
        """Tables and picture are written."""


def run_study(
    name: str,
    *,
    task: str | None = None,
    seeds: int | None = None,
    full: bool = False,
    out: str | Path | None = None,
    jobs: int | None = None,
    reporter: StudyReporter | None = None,
    **changes: Any,
) -> StudyResult:
    """Run study `name`, or go on with it: what is finished in its folder is not done again.

    Args:
        name: one of `STUDIES`.
        task: what to train on; None: the study's own choice.
        seeds: how many, from 0 on; None: a few, or with `full` the paper's number. More than the
            study in the folder has: those that are missing are done. Not for a study without a
            task.
        full: the paper's size instead of a small one.
        out: the study folder; None: runs/study-NAME-TASK.
        jobs: cells side by side, each in a process of its own and with as many threads as are left;
            None: one for each core that its threads leave, one alone on a GPU; 1: in this process.
        changes: the study's own options, the task's, and fields of TrainConfig.

    Cells that fail are in the result's `failures` and are done again by the next call. A file of a
    cell that cannot be used is set aside, which the log says, and the cell done anew. Settings,
    folder and data are checked before anything is created: ConfigError for a setting,
    RunFolderError for a folder of another study, of more seeds or of other settings, DataError for
    a data set that is not there.
    """
    require_extra("a study", "matplotlib")
    kind = study_class(name)
    settings = make_settings(kind, task=task, full=full, seeds=seeds, changes=changes)
    kind(settings).cells()  # errors come before any work
    jobs = _jobs(kind(settings), jobs)
    path = files.default_folder(settings) if out is None else Path(out)
    reporter = reporter or StudyReporter()
    if not files.is_complete(path, kind(files.check_folder(path, settings)).cells()):
        with watched(reporter.preparing):
            _read_data(settings)
    path.mkdir(parents=True, exist_ok=True)
    check_writable(path)
    with claim_run_folder(path):
        settings = files.check_folder(path, settings)
        files.prepare(path, settings)
        study = kind(settings)
        cells = study.cells()
        assert len({cell.name for cell in cells}) == len(cells), "cells share a file"
        missing = files.missing_cells(path, cells)
        reporter.started(study, path, len(cells) - len(missing), len(cells), jobs)
        work = _Work(settings, path, max(1, cores() // jobs))
        failures = {}
        for cell, error in work_through(missing, work, jobs, reporter.begun):
            if error is not None:
                failures[cell.name] = error
            reporter.ended(cell, error)
        result = _write(study, path, cells, failures)
    reporter.finished(study, result)
    return result


@dataclass(frozen=True)
class _Work:
    """Does one cell and keeps it; can be sent to another process."""

    settings: StudySettings
    path: Path
    threads: int

    def __call__(self, cell: Cell) -> None:
        began = time.monotonic()
        study = study_class(self.settings.study)(self.settings)
        place = Place(self.path / files.RUNS, self.threads)
        finished = study.run(cell, place)
        seconds = time.monotonic() - began + sum(place.seconds_before)
        finished = replace(finished, seconds=seconds, environments=place.environments)
        files.write_cell(self.path, finished)


def _read_data(settings: StudySettings) -> None:
    """Read the task's data and let it go: DataError where it is not there. Each cell reads its own,
    in its own process."""
    if settings.task is not None:
        task = build_task(settings.config())
        for split in SPLITS:
            next(task.batches(split), None)


def _jobs(study: Study, jobs: int | None) -> int:
    """How many processes: as many as asked for, if their threads have cores."""
    most = cores()
    if study.alone:
        if jobs not in (None, 1):
            raise ConfigError(
                f"jobs: expected 1, for {study.name} measures times and must have the machine to "
                f"itself, got {jobs!r}"
            )
        return 1
    threads = study.settings.changes.get("threads") or 1
    most = max(1, most // threads)
    if study.settings.changes.get("device", "cpu") != "cpu":
        most = most if jobs else 1  # one after the other on a device, unless asked
    jobs = most if jobs is None else jobs
    if type(jobs) is not int or not 1 <= jobs <= most:
        raise ConfigError(
            f"jobs: expected an integer from 1 to {most}, {cores()} cores for "
            f"{counted(threads, 'thread')} each, got {jobs!r}"
        )
    return jobs


def _write(
    study: Study, path: Path, cells: Sequence[Cell], failures: dict[str, str]
) -> StudyResult:
    """Tables and picture of all finished cells."""
    found = [files.read_cell(path, cell) for cell in cells]
    done = [finished for finished in found if finished is not None]
    rows = [row for finished in done for row in finished.rows]
    settings = study.settings
    table = [{**line, "size": settings.size} for line in study.table(done)] if done else []
    files.write_csv(path / files.ROWS_CSV, rows)
    files.write_csv(path / files.TABLE_CSV, table)
    write_json(
        path / files.TABLE_JSON,
        {
            "settings": settings.to_json(),
            "size": settings.sizes_in_words(),
            "command": command(settings),
            "cells": len(cells),
            "failures": failures,
            "seconds": round(sum(finished.seconds for finished in done), 1),
            "environments": _environments(done),
            "table": table,
            "rows": rows,
        },
    )
    if done:
        from .pictures import caption, save

        figure = study.draw(table, done)
        save(figure, caption(study, len(failures), len(cells)), path / files.PICTURE)
    return StudyResult(path, settings, rows, table, failures)


def _environments(done: Sequence[Finished]) -> list[dict[str, Any]]:
    """The different machines, versions and days that cells are of, by date; one that was not
    recorded is empty, and first."""
    found: list[dict[str, Any]] = []
    for finished in done:
        found += [one for one in finished.environments if one not in found]
    return sorted(found, key=lambda environment: str(environment.get("date", "")))


def command(settings: StudySettings) -> str:
    """The command that makes the study again."""
    import json
    import shlex

    kind = study_class(settings.study)
    words = ["hetsyn", "study", settings.study]
    if settings.task is not None:
        words += ["--task", settings.task]
        words += ["--seeds", str(settings.seeds)]
    words += ["--full"] if settings.full and settings.task not in kind.one_size else []
    defaults = kind.default_options(settings.task, full=settings.full)
    given = {**lasting(settings.changes), **settings.task_options}
    given |= {n: value for n, value in settings.options.items() if value != defaults[n]}
    for name, value in given.items():
        text = value if isinstance(value, str) else json.dumps(value)
        words += ["--set", f"{name}={text}"]
    return shlex.join(words)
