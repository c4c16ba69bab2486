"""Run a study by name and write its folder."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hetsyn_triton.experiments.extras import require_extra
from hetsyn_triton.experiments.files import write_json
from hetsyn_triton.experiments.tasks import SPLITS
from hetsyn_triton.experiments.tasks.watching import watched
from hetsyn_triton.experiments.training import ConfigError
from hetsyn_triton.experiments.training.build import build_task
from hetsyn_triton.experiments.training.claim import claim_folder
from hetsyn_triton.experiments.training.restore import lasting
from hetsyn_triton.experiments.training.run_folder import check_writable

from . import study_folder as files
from .base import Cell, Finished, Place, Row, Study, StudySettings
from .catalogue import study_class
from .study_settings import cores, make_settings
from .words import counted
from .workers import work_through


@dataclass(frozen=True)
class StudyResult:
    """The folder of a study and its contents; `failures` has the error of each failed cell."""

    path: Path
    settings: StudySettings
    rows: list[Row]
    table: list[Row]
    failures: dict[str, str] = field(default_factory=dict)


class StudyReporter:
    """Report nothing. Override the methods whose events should be shown."""

    def preparing(self, what: str, done: int, total: int) -> None:
        """Report that data is prepared: `what` is done to `done` of `total` pieces."""

    def started(self, study: Study, folder: Path, done: int, total: int, jobs: int) -> None:
        """Report the start; `done` of `total` cells are already finished."""

    def begun(self, cell: Cell) -> None:
        """Report that a cell starts."""

    def ended(self, cell: Cell, error: str | None) -> None:
        """Report that a cell is finished, or has failed with `error`."""

    def finished(self, study: Study, result: StudyResult) -> None:
        """Report that tables and picture are written."""


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
    """Run study `name`, or resume it: cells that are finished in its folder do not run again.

    Settings, folder and data are checked before anything is created. If a cell fails, its error is
    in the result's `failures`, and the next call retries it. A damaged file of a cell is renamed
    and logged, and the cell runs again.

    Args:
        name: One of `STUDIES`.
        task: Task to train on. Defaults to the study's own choice.
        seeds: Number of seeds, counted from 0. Defaults to a few, or with `full` to the paper's
            number. A larger number than in the folder adds the missing seeds. Not allowed for a
            study without a task.
        full: Use the paper's size instead of a small one.
        out: Study folder. Defaults to runs/study-NAME-TASK.
        jobs: Number of cells to run in parallel, each in its own process with an equal part of
            the cores. Defaults to one per core, divided by `threads`, or to 1 on a GPU. With 1,
            cells run in this process.
        reporter: Receives the progress.
        changes: Options of the study, options of the task, and fields of TrainConfig.

    Returns:
        Folder, settings, rows, table and failures of the study.

    Raises:
        ConfigError: If a setting is unknown or not allowed.
        RunFolderError: If the folder contains another study, more seeds or other settings, or if
            another process uses it.
        DataError: If the data is missing.
    """
    require_extra("a study", "matplotlib")
    kind = study_class(name)
    settings = make_settings(kind, task=task, full=full, seeds=seeds, changes=changes)
    kind(settings).cells()  # raises errors before any work
    jobs = _jobs(kind(settings), jobs)
    path = files.default_folder(settings) if out is None else Path(out)
    reporter = reporter or StudyReporter()
    if not files.is_complete(path, files.check_folder(path, kind(settings)).cells()):
        with watched(reporter.preparing):
            _read_data(settings)
    path.mkdir(parents=True, exist_ok=True)
    check_writable(path)
    with claim_folder(path, "study"):
        study = files.check_folder(path, kind(settings))
        settings = study.settings
        files.prepare(path, settings)
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
    """Run one cell and store it; can be pickled."""

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
    """Read the task's data once, so that missing data is an error; each cell reads it again."""
    if settings.task is not None:
        task = build_task(settings.config())
        for split in SPLITS:
            next(task.batches(split), None)


def _jobs(study: Study, jobs: int | None) -> int:
    """Return the number of processes: `jobs`, or as many as have cores for their threads."""
    most = cores()
    if study.alone:
        if jobs not in (None, 1):
            raise ConfigError(
                f"jobs: expected 1 because {study.name} measures times and must run alone, "
                f"got {jobs!r}"
            )
        return 1
    threads = study.settings.changes.get("threads") or 1
    most = max(1, most // threads)
    if study.settings.changes.get("device", "cpu") != "cpu":
        most = most if jobs else 1  # one after the other on a GPU, unless `jobs` is given
    jobs = most if jobs is None else jobs
    if type(jobs) is not int or not 1 <= jobs <= most:
        raise ConfigError(
            f"jobs: expected an integer from 1 to {most} ({counted(cores(), 'core')}, "
            f"{counted(threads, 'thread')} per job), got {jobs!r}"
        )
    return jobs


def _write(
    study: Study, path: Path, cells: Sequence[Cell], failures: dict[str, str]
) -> StudyResult:
    """Write tables and picture of all finished cells."""
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
            "size": study.sizes_in_words(),
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
        from .study_pictures import caption, save

        figure = study.draw(table, done)
        save(figure, caption(study, len(failures), len(cells)), path / files.PICTURE)
    return StudyResult(path, settings, rows, table, failures)


def _environments(done: Sequence[Finished]) -> list[dict[str, Any]]:
    """Return the different machines, versions and dates of the cells, by date.

    One that was not recorded is empty and first.
    """
    found: list[dict[str, Any]] = []
    for finished in done:
        found += [one for one in finished.environments if one not in found]
    return sorted(found, key=lambda environment: str(environment.get("date", "")))


def command(settings: StudySettings) -> str:
    """Return the command that repeats the study."""
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
