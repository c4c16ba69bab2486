"""The study folder: its settings, a file for each finished cell, the tables and the picture."""

import csv
import io
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from hetsyn_triton.files import partials, write_atomically, write_json
from hetsyn_triton.training import RunFolderError
from hetsyn_triton.training.restore import MOVABLE, lasting

from .base import Cell, Finished, Row
from .settings import StudySettings

logger = logging.getLogger("hetsyn_triton")

STUDY = "study.json"
CELLS = "cells"
RUNS = "runs"
ROWS_CSV = "rows.csv"
TABLE_CSV = "table.csv"
TABLE_JSON = "table.json"
PICTURE = "picture.png"
SEEDS_BEFORE = "seeds_before"  # in STUDY, beside the settings, where seeds were added
DAMAGED = ".damaged"  # ends the name of a file that was set aside


def default_folder(settings: StudySettings) -> Path:
    """runs/study-NAME-TASK, with -full at the end of a full one."""
    parts = ["study", settings.study, settings.task, "full" if settings.full else None]
    return Path("runs") / "-".join(part for part in parts if part)


def check_folder(folder: Path, settings: StudySettings) -> StudySettings:
    """`settings` with the numbers of seeds that the study in `folder` had before.

    RunFolderError unless `folder` is new, empty, or one of a study with these settings, or with
    fewer seeds and otherwise these. Where it is computed (MOVABLE) may differ.
    """
    path = folder / STUDY
    if not path.is_file():
        if folder.is_dir() and any(not p.name.startswith(".") for p in folder.iterdir()):
            raise RunFolderError(
                f"out: expected a new folder or that of a study, got {folder}, "
                f"which has files in it but no {STUDY}"
            )
        if folder.exists() and not folder.is_dir():
            raise RunFolderError(f"out: expected a folder, got the file {folder}")
        return settings
    try:
        stored = read_json(path)
        before = _seeds_before(stored, path)
    except RunFolderError as error:
        raise RunFolderError(f"{error}. Name another folder with --out") from error
    wanted = _as_json(settings.to_json())
    if type(stored.get("seeds")) is int and stored["seeds"] < settings.seeds:
        before = [*before, stored["seeds"]]
        stored["seeds"] = settings.seeds
    there, here = _by_name(stored), _by_name(wanted)
    different = [
        f"{name} is {_shown(there, name)} there and {_shown(here, name)} here"
        for name in sorted({*there, *here})
        if (name in there, there.get(name)) != (name in here, here.get(name))
    ]
    if different:
        raise RunFolderError(
            f"out: expected a folder of a study with the same settings, got {folder}: "
            f"{'; '.join(different)}. A study can be given more seeds and train elsewhere "
            f"({', '.join(MOVABLE)}), all else stays. "
            "Name another folder with --out"
        )
    return replace(settings, seeds_before=tuple(before))


def _by_name(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with those in groups (changes, options) among the others, without those that say
    where networks are trained."""
    groups = [
        lasting(value) if name == "changes" else value
        for name, value in values.items()
        if isinstance(value, dict)
    ]
    single = {name: value for name, value in values.items() if not isinstance(value, dict)}
    return {name: value for group in (single, *groups) for name, value in group.items()}


def _shown(values: Mapping[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "not set"


def _seeds_before(stored: dict[str, Any], path: Path) -> list[int]:
    """Takes the numbers of seeds that a study had before out of what `path` holds."""
    before = stored.pop(SEEDS_BEFORE, [])
    numbers = before if isinstance(before, list) else [None]
    rising = [0, *numbers, stored.get("seeds")]
    if before and (any(type(n) is not int for n in rising) or rising != sorted(set(rising))):
        raise RunFolderError(f"{path} is damaged: {SEEDS_BEFORE}: expected rising numbers below "
                             f"{stored.get('seeds')!r}, got {before!r}")  # fmt: skip
    return list(numbers)


def prepare(folder: Path, settings: StudySettings) -> None:
    """Make what a study writes into; remove what a killed one left half written."""
    for part in (folder / CELLS, folder / RUNS):
        part.mkdir(parents=True, exist_ok=True)
    for part in (folder, folder / CELLS, folder / RUNS):
        for path in partials(part):
            path.unlink(missing_ok=True)
    history = {SEEDS_BEFORE: settings.seeds_before} if settings.seeds_before else {}
    write_json(folder / STUDY, {**settings.to_json(), **history})


def write_cell(folder: Path, finished: Finished) -> None:
    """Keep a finished cell."""
    values = {
        "cell": finished.cell.values,
        "rows": finished.rows,
        "extra": finished.extra,
        "seconds": round(finished.seconds, 1),
        "environments": finished.environments,
    }
    write_json(_path(folder, finished.cell), values)


def is_complete(folder: Path, cells: Sequence[Cell]) -> bool:
    """Whether each of `cells` has its file, whatever it holds."""
    return all(_path(folder, cell).is_file() for cell in cells)


def missing_cells(folder: Path, cells: Sequence[Cell]) -> list[Cell]:
    """Those of `cells` that are not finished; files that are not what was written are set aside."""
    missing = []
    for cell in cells:
        try:
            finished = read_cell(folder, cell)
        except RunFolderError as error:
            set_aside(_path(folder, cell), error)
            finished = None
        if finished is None:
            missing.append(cell)
    return missing


def set_aside(path: Path, error: Exception) -> None:
    """Rename `path`, whose `error` names it, to NAME.damaged or -2 ... after it; log so."""
    names = (f"{path.name}{DAMAGED}{'' if n == 1 else f'-{n}'}" for n in count(1))
    kept = next(place for place in map(path.with_name, names) if not place.exists())
    path.rename(kept)
    logger.warning("%s. It is now %s, and its work is done anew.", error, kept.name)


def read_cell(folder: Path, cell: Cell) -> Finished | None:
    """The finished `cell`, or None; RunFolderError where its file is not what was written."""
    path = _path(folder, cell)
    if not path.is_file():
        return None
    values = read_json(path)
    if values.get("cell") != _as_json(cell.values):
        raise RunFolderError(f"{path} is of another cell: expected {cell.values}")
    rows, extra = values.get("rows"), values.get("extra")
    seconds = values.get("seconds")
    environments = values.get("environments", [values.get("environment", {})])  # of before
    if not (
        isinstance(rows, list)
        and all(isinstance(row, dict) for row in rows)
        and isinstance(extra, dict)
        and isinstance(seconds, (int, float))
        and isinstance(environments, list)
        and all(isinstance(environment, dict) for environment in environments)
    ):
        raise RunFolderError(f"{path} is damaged: expected rows, extra, seconds and environments")
    return Finished(cell, rows, extra, seconds, environments)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Rows with a heading: every column that any of them has, empty where one lacks it."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))


def read_study(folder: Path) -> dict[str, Any]:
    """What table.json of a study folder holds; RunFolderError where there is none."""
    path = folder / TABLE_JSON
    if not path.is_file():
        raise RunFolderError(f"study: expected a study folder with {TABLE_JSON}, got {folder}")
    return read_json(path)


def _as_json(values: Mapping[str, Any]) -> Any:
    """`values` as they come back from a file."""
    return json.loads(json.dumps(values))


def _path(folder: Path, cell: Cell) -> Path:
    return folder / CELLS / f"{cell.name}.json"


def read_json(path: Path) -> dict[str, Any]:
    """The object in `path`; RunFolderError where there is none."""
    return _objects(path, lambda text: [text])[0]


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The object in each line of `path`; RunFolderError where a line has none."""
    return _objects(path, str.splitlines)


def _objects(path: Path, parts: Callable[[str], list[str]]) -> list[dict[str, Any]]:
    try:
        values = [json.loads(part) for part in parts(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} is damaged: {error}") from error
    if not all(isinstance(value, dict) for value in values):
        raise RunFolderError(f"{path} is damaged: expected an object")
    return values
