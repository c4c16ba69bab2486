"""The study folder: settings, a file per finished cell, tables and picture."""

import csv
import io
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from hetsyn_triton.experiments.files import partials, read_regular, write_atomically, write_json
from hetsyn_triton.experiments.training import RunFolderError
from hetsyn_triton.experiments.training.restore import MOVABLE, lasting

from .base import Cell, Finished, Row, Study, StudySettings

logger = logging.getLogger("hetsyn_triton")

STUDY = "study.json"
CELLS = "cells"
RUNS = "runs"
ROWS_CSV = "rows.csv"
TABLE_CSV = "table.csv"
TABLE_JSON = "table.json"
PICTURE = "picture.png"
SEEDS_BEFORE = "seeds_before"  # in STUDY beside the settings, if seeds were added
DAMAGED = ".damaged"  # suffix of a damaged file that was renamed


def default_folder(settings: StudySettings) -> Path:
    """Return runs/study-NAME-TASK, with -full at the end for a full study."""
    parts = ["study", settings.study, settings.task, "full" if settings.full else None]
    return Path("runs") / "-".join(part for part in parts if part)


def check_folder(folder: Path, study: Study) -> Study:
    """Return `study` with the numbers of seeds that the one in `folder` had before.

    Raises:
        RunFolderError: If `folder` is not new, not empty and has no study with these settings. The
            study may have fewer seeds, and the settings in MOVABLE may differ.
    """
    path, settings = folder / STUDY, study.settings
    if not path.is_file():
        if folder.is_dir() and any(not p.name.startswith(".") for p in folder.iterdir()):
            raise RunFolderError(
                f"out: expected a new folder or a study folder, got {folder}, "
                f"which contains files but no {STUDY}"
            )
        if folder.exists() and not folder.is_dir():
            raise RunFolderError(f"out: expected a folder, got the file {folder}")
        return study
    try:
        stored = read_json(path)
        before = _seeds_before(stored, path)
    except RunFolderError as error:
        raise RunFolderError(f"{error}. Name another folder with --out") from error
    wanted = _as_json(settings.to_json())
    if stored.get("study") == settings.study and isinstance(stored.get("options"), dict):
        # An option that is newer than the folder had its default there.
        defaults = study.default_options(settings.task, full=settings.full)
        stored["options"] = {**defaults, **stored["options"]}
    if type(stored.get("seeds")) is int and stored["seeds"] < settings.seeds:
        before = [*before, stored["seeds"]]
        stored["seeds"] = settings.seeds
    there, here = _by_name(stored), _by_name(wanted)
    different = [
        f"{name} is {_shown(there, name)} in the folder and {_shown(here, name)} in this call"
        for name in sorted({*there, *here})
        if (name in there, there.get(name)) != (name in here, here.get(name))
    ]
    if different:
        raise RunFolderError(
            f"out: expected the folder of a study with the same settings, got {folder}: "
            f"{'; '.join(different)}. A study can get more seeds or another value of "
            f"{', '.join(MOVABLE)}, but no other change. Name another folder with --out"
        )
    return type(study)(replace(settings, seeds_before=tuple(before)))


def _by_name(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without groups (changes, options) and without the settings in MOVABLE."""
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
    """Remove the earlier numbers of seeds from `stored`, and return them."""
    before = stored.pop(SEEDS_BEFORE, [])
    numbers = before if isinstance(before, list) else [None]
    rising = [0, *numbers, stored.get("seeds")]
    if before and (any(type(n) is not int for n in rising) or rising != sorted(set(rising))):
        raise RunFolderError(f"{path} is damaged: {SEEDS_BEFORE}: expected rising numbers below "
                             f"{stored.get('seeds')!r}, got {before!r}")  # fmt: skip
    return list(numbers)


def prepare(folder: Path, settings: StudySettings) -> None:
    """Create the folders of a study, and remove partial files of a killed process."""
    for part in (folder / CELLS, folder / RUNS):
        part.mkdir(parents=True, exist_ok=True)
    for part in (folder, folder / CELLS, folder / RUNS):
        for path in partials(part):
            path.unlink(missing_ok=True)
    history = {SEEDS_BEFORE: settings.seeds_before} if settings.seeds_before else {}
    write_json(folder / STUDY, {**settings.to_json(), **history})


def write_cell(folder: Path, finished: Finished) -> None:
    """Write the file of a finished cell."""
    values = {
        "cell": finished.cell.values,
        "rows": finished.rows,
        "extra": finished.extra,
        "seconds": round(finished.seconds, 1),
        "environments": finished.environments,
    }
    write_json(_path(folder, finished.cell), values)


def is_complete(folder: Path, cells: Sequence[Cell]) -> bool:
    """Return whether each of `cells` has a file, valid or not."""
    return all(_path(folder, cell).is_file() for cell in cells)


def missing_cells(folder: Path, cells: Sequence[Cell]) -> list[Cell]:
    """Return those of `cells` that are not finished, and rename damaged files."""
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
    """Rename the damaged file `path` to NAME.damaged, -2 and so on, and log `error`."""
    names = (f"{path.name}{DAMAGED}{'' if n == 1 else f'-{n}'}" for n in count(1))
    kept = next(place for place in map(path.with_name, names) if not place.exists())
    path.rename(kept)
    logger.warning("%s. It was renamed to %s, and its work is repeated.", error, kept.name)


def read_cell(folder: Path, cell: Cell) -> Finished | None:
    """Return the finished `cell` or None; RunFolderError if its file is damaged."""
    path = _path(folder, cell)
    if not path.is_file():
        return None
    values = read_json(path)
    if values.get("cell") != _as_json(cell.values):
        raise RunFolderError(f"{path} belongs to another cell: expected {cell.values}")
    rows, extra = values.get("rows"), values.get("extra")
    seconds = values.get("seconds")
    environments = values.get("environments", [values.get("environment", {})])  # older version
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
    """Write rows with a header; a row without a value has an empty field."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))


def read_study(folder: Path) -> dict[str, Any]:
    """Read table.json of a study folder; RunFolderError if there is none."""
    path = folder / TABLE_JSON
    if not path.is_file():
        raise RunFolderError(
            f"study: expected a study folder that contains {TABLE_JSON}, got {folder}"
        )
    return read_json(path)


def _as_json(values: Mapping[str, Any]) -> Any:
    """Return `values` as they would be read from a file."""
    return json.loads(json.dumps(values))


def _path(folder: Path, cell: Cell) -> Path:
    return folder / CELLS / f"{cell.name}.json"


def read_json(path: Path) -> dict[str, Any]:
    """Read the object in `path`; RunFolderError if there is none."""
    return _objects(path, lambda text: [text])[0]


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read the object in each line of `path`; RunFolderError if a line has none."""
    return _objects(path, str.splitlines)


def _objects(path: Path, parts: Callable[[str], list[str]]) -> list[dict[str, Any]]:
    try:
        values = [json.loads(part) for part in parts(read_regular(path).decode())]
    except (OSError, ValueError, RecursionError) as error:
        raise RunFolderError(f"{path} is damaged: {error}") from error
    if not all(isinstance(value, dict) for value in values):
        raise RunFolderError(f"{path} is damaged: expected an object")
    return values
