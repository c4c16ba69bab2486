"""Write docs/results.md from the copies in docs/results/ and the remarks beside them."""

import posixpath
import re
import textwrap
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click

from bench.stored_results import RAW, STORED, collect, digest
from hetsyn_triton.experiments.files import write_atomically
from hetsyn_triton.experiments.studies.base import Row
from hetsyn_triton.experiments.studies.catalogue import STUDIES
from hetsyn_triton.experiments.studies.networks import form
from hetsyn_triton.experiments.studies.statistics import mean_and_deviation, wilson_interval
from hetsyn_triton.experiments.studies.study_folder import read_json
from hetsyn_triton.experiments.studies.tables import (
    DEVIATION,
    blocks,
    cell,
    columns,
    common,
    heading,
)
from hetsyn_triton.experiments.studies.words import counted, in_words, is_share
from hetsyn_triton.experiments.training import ConfigError, RunFolderError

PAGE = "results.md"
REMARKS = "remarks.md"
NOT_MEASURED = "Not measured."
NOT_RECORDED = "not recorded"
TASKS = {
    "pattern-generation": "Pattern generation",
    "delayed-match": "Delayed match-to-sample",
    "multi-timescale-xor": "Multi-timescale XOR",
    "fsdd": "Free Spoken Digit Dataset",
    "smnist": "S-MNIST",
}
"""Tasks that always have a section, in this order; other tasks with results follow."""
PARTS = ("validation", "test")  # what a run may measure after an epoch
EPOCHS = (1, 2, 3, 5, 10, 15, 20, 30, 40, 50, 75, 100, 150)
INTERVAL = "95 % interval"
FOLDS = {"fsdd": "speaker"}  # the setting that leaves out one value of its own in each run
SHARED = ("model", "form", "hidden", "parameters", "epochs", "batch_size", "seeds")
"""Columns of the table of runs that move to its heading where all rows have the same value."""
LONGEST = 40  # rows of a table on the page; the stored file has all
WIDEST = 8  # columns of a table on the page, unless a study has no more details to leave out
WIDTH = 100  # of a line of prose
HEAD = """# Results

This page has the results of the paper's tasks and of the studies of the four models. "The paper" is
HetSyn ([arXiv 2508.11644](https://arxiv.org/abs/2508.11644)). `python -m bench.results_page` writes
the page from [results/json/](results/json), which has every figure and setting; the comments are
from [results/remarks.md](results/remarks.md).

```bash
python -m bench.results_page FOLDER...    # copy run and study folders to results/, write this page
```

- **model**: hetsyn is HetSynLIF, hetneu HetNeuLIF, homneu HomNeuLIF, homneu-adaptive HomNeuALIF.
- **a ± b**: mean and standard deviation over seeds; in a row "mean of N", over the N rows above it.
- **last epoch**: the test result after the last epoch.
- **validation-selected**: the test result of the epoch that is best on held-out samples.
- **test-selected**: the best test result of all epochs. The test samples selected it, so it is not
  a held-out result.
- **-** in a result: no samples were held out, or the test came only at the end. In **tau**: the
  task's own time constants. In **chosen**: no choice, because only one time constant was tried.
- **95 % interval**: Wilson interval of the accuracy after the last epoch, for the number of test
  samples of one seed. It does not show how seeds differ. "-": the number of test samples was not
  recorded, or the row is a mean of rows.
- **run**: the number of the command below the table. **speaker**: the one that is tested and not
  trained on; "all" is the official split.
- **size of hetsyn**: hidden neurons of the HetSynLIF network that the row is compared with.
- **mse**: mean squared error. **distance**: a trial shows the same burst three times, but the
  target differs each time; `distance` is the difference of the output between two of these times,
  divided by that of the target. 1 is ideal.
- **rate**: spikes per hidden neuron and step. **rate hz**: the same in Hz.
- **SMALL**: the study ran without `--full`. **full size but**: a full study, except for the
  settings that follow. [studies.md](studies.md#options) explains the other columns of studies.
- **hours**: wall-clock time on machines with other load, so hours of equal runs differ. Those of a
  study are summed over its cells (usually one network each).
- **machine**: a row of the [last table](#machines).
"""
VERSIONS = "Checkouts before version 0.2.0 reported 0.1.0 ([changelog](../CHANGELOG.md))."
HINT = "; --full is the paper's size"  # in the size of a study, for whoever runs it


class Machines:
    """Number the machines that results name, in the order met."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], int] = {}

    def where(self, environment: dict[str, Any]) -> str:
        """Return the machine's number and the date of a result."""
        if not environment:
            return f"machine and date {NOT_RECORDED}"
        machine = (_hardware(environment), _versions(environment))
        number = self.found.setdefault(machine, len(self.found) + 1)
        return f"machine {number}, {environment['date'] or f'date {NOT_RECORDED}'}"

    def section(self) -> list[str]:
        """Return the section that lists the machines; nothing if there are none."""
        rows = [
            {"machine": number, "hardware": hardware, "versions": versions}
            for (hardware, versions), number in self.found.items()
        ]
        return ["## Machines\n", f"{VERSIONS}\n", f"{_table(rows)}\n"] if rows else []


def write(docs: Path) -> Path:
    """Write docs/results.md.

    Raises:
        RunFolderError: If nothing is stored, or a stored file was not written by `collect`.
        ConfigError: If there are remarks on a section that the page does not have.
    """
    if not (docs / STORED).is_dir():
        raise RunFolderError(
            f"docs: expected a folder with {STORED}/ in it, which results are copied into first, "
            f"got {docs}"
        )
    text = page(docs / STORED)
    write_atomically(docs / PAGE, lambda file: file.write(text.encode()))
    return docs / PAGE


def page(stored: Path) -> str:
    """Return the page made of the files in `stored`."""
    paths = sorted((stored / RAW).glob("*.json"))
    files = {path.stem: _read_copy(path) for path in paths}
    remarks = read_remarks(stored / REMARKS)
    machines = Machines()
    runs = {stem: values for stem, values in files.items() if values["kind"] == "run"}
    studies = {stem: values for stem, values in files.items() if values["kind"] == "study"}
    variants = {s: v for s, v in studies.items() if v["settings"]["study"] == "variants"}
    found = {values["config"]["task"] for values in runs.values()}
    found |= {values["settings"]["task"] for values in variants.values()}
    parts = [HEAD]
    for task, title in {**TASKS, **{name: name for name in sorted(found - set(TASKS))}}.items():
        parts.append(f"## {title}\n")
        parts += remarks.pop(task, [])
        for stem, values in variants.items():
            if values["settings"]["task"] == task:
                parts.append(_study(stem, values, machines))
        parts += _runs({s: v for s, v in runs.items() if v["config"]["task"] == task}, machines)
        if task not in found:
            parts.append(f"{NOT_MEASURED}\n")
    parts.append("## Studies\n")
    parts += remarks.pop("studies", [])
    for name, kind in STUDIES.items():
        if name == "variants":  # stands with its task
            continue
        parts.append(f"### {kind.title} (`{name}`)\n")
        parts += remarks.pop(name, [])
        mine = {s: v for s, v in studies.items() if v["settings"]["study"] == name}
        parts += [_study(stem, values, machines) for stem, values in mine.items()]
        if not mine:
            parts.append(f"{NOT_MEASURED}\n")
    if remarks:
        raise ConfigError(
            f"{REMARKS}: expected sections named as a task with results, a study other than "
            f"variants, or studies, got {', '.join(remarks)}"
        )
    return "\n".join(parts + machines.section())


def _read_copy(path: Path) -> dict[str, Any]:
    """Read a file that `collect` wrote; RunFolderError for another."""
    values = read_json(path)
    kind = values.get("kind")
    if kind not in ("run", "study"):
        raise RunFolderError(f"{path} is damaged: expected run or study as kind, got {kind!r}")
    try:
        if kind == "study":
            _study(path.stem, values, Machines())
        else:
            _runs({path.stem: values}, Machines())
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunFolderError(
            f"{path} is damaged: expected a copy of a {kind}: {type(error).__name__}: {error}"
        ) from error
    return values


def read_remarks(path: Path) -> dict[str, list[str]]:
    """Return the remarks by section, `## SECTION` in the file, with links as seen from the page."""
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} is damaged: {error}") from error
    parts = re.split(r"^## (\S+)\n", text, flags=re.MULTILINE)
    twice = sorted({name for name in parts[1::2] if parts[1::2].count(name) > 1})
    if twice:
        raise ConfigError(f"{path.name}: expected each section once, got twice {', '.join(twice)}")
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    return {name: [f"{_seen_from_page(text.strip())}\n"] for name, text in pairs if text.strip()}


def _seen_from_page(text: str) -> str:
    """Return remarks with their relative links as seen from the page."""

    def moved(link: re.Match[str]) -> str:
        return f"]({posixpath.normpath(posixpath.join(STORED, link[1]))})"

    return re.sub(r"\]\((?![a-z]+:|#)([^)]+)\)", moved, text)


def _study(stem: str, values: dict[str, Any], machines: Machines) -> str:
    """Return tables, picture and provenance of one study."""
    kind = STUDIES[values["settings"]["study"]]
    task = values["settings"]["task"]
    failed = len(values["failures"])
    missing = f" {failed} of {values['cells']} cells failed." if failed else ""
    size = values["size"].removesuffix(HINT)
    lines = [f"{_wrapped(f'{task}: ' if task else '', size, '.', missing)}\n"]
    file = f"[CSV]({STORED}/{stem}.csv)"
    narrower = False
    for about, rows in blocks(values["table"], kind.blocks):
        shared = {**about, **common(rows)}
        shown, details = _by_model(rows, shared, kind.details)
        left_out = _left_out([n for n in columns(shown) if n not in shared], kind.details)
        narrower |= bool(details or left_out)
        lines.append(f"{_wrapped(heading(shared))}\n")
        lines.append(f"{_table(shown[:LONGEST], {*shared, *left_out})}\n")
        if len(shown) > LONGEST:
            lines.append(f"{len(shown) - LONGEST} more rows: {file}.\n")
    lines.append(f"![{kind.name}]({STORED}/{stem}.png)\n")
    where = dict.fromkeys(map(machines.where, values["environments"]))
    hours = f"{values['seconds'] / 3600:.2g} hours summed over cells"
    more = f" All columns: {file}." if narrower else ""
    lines.append(f"`{values['command']}`:\n{_wrapped(hours, '; ', '; '.join(where), '.', more)}\n")
    return "\n".join(lines)


def _by_model(
    rows: list[Row], shared: Iterable[str], details: Sequence[str]
) -> tuple[list[Row], bool]:
    """Return a row per level with a column per model, and True, where that shows all but details.

    That is: rows that differ in the model and one other column, with one measure besides the
    columns that match the patterns `details`. Other rows are returned as they are.
    """
    names = [name for name in columns(rows) if name not in shared]
    averaged = [name for name in names if f"{name}{DEVIATION}" in rows[0]]
    level = [name for name in names if name not in (*averaged, "model")]
    measures = [n for n in averaged if not any(fnmatchcase(n, p) for p in details)]
    if "model" not in names or len(level) != 1 or len(measures) != 1:
        return rows, False
    wide: dict[Any, Row] = {}
    for row in rows:
        line = wide.setdefault(row[level[0]], {level[0]: row[level[0]]})
        for end in ("", DEVIATION):
            line[f"{row['model']} {measures[0]}{end}"] = row[f"{measures[0]}{end}"]
    return list(wide.values()), True


def _left_out(names: Sequence[str], details: Sequence[str]) -> set[str]:
    """Return the columns that make a table too wide, by the first of the patterns `details`."""
    left: set[str] = set()
    for pattern in details:
        if len(names) - len(left) <= WIDEST:
            break
        left |= {name for name in names if fnmatchcase(name, pattern)}
    return left


Member = tuple[str, dict[str, Any]]
"""A run: the stem of its files and what is stored."""


def _runs(runs: dict[str, dict[str, Any]], machines: Machines) -> list[str]:
    """Return the table of runs, then the command, scores by epoch and picture of each family."""
    families = _families(runs)
    if not families:
        return []
    rows: list[Row] = []
    for number, family in enumerate(families, 1):
        mine = [_run_row([v for _, v in members], families) for members in family.values()]
        mine += _fold_rows([v for members in family.values() for _, v in members], families)
        rows += [{"run": number, **row} for row in mine] if len(families) > 1 else mine
    shared = {n: rows[0][n] for n in SHARED if all(row[n] == rows[0][n] for row in rows)}
    unknown = () if any(row[INTERVAL] for row in rows) else (INTERVAL,)
    parts = [f"{_wrapped(heading(shared))}\n", f"{_table(rows, (*shared, *unknown))}\n"]
    whole = [family for family in families if None in family] or families[:1]
    for number, family in enumerate(families, 1):
        parts.append(f"{_provenance(number if len(families) > 1 else None, family, machines)}\n")
        stem, values = next(iter(family.values()))[0]
        measured = {name for point in values["curve"] for name in point}
        if family in whole and len(values["curve"]) > 1 and measured & set(PARTS):
            parts.append(f"{_by_epoch(values)}\n")
            parts.append(f"![learning curve]({STORED}/{stem}.png)\n")
    return parts


def _families(runs: dict[str, dict[str, Any]]) -> list[dict[Any, list[Member]]]:
    """Return runs that differ only in the seed and the value of the setting of `FOLDS`.

    A family is a list of members, one per seed, for each value of that setting; the value is None
    where it is not set, and a family has either None alone or no None.
    """
    families: dict[str, dict[Any, list[Member]]] = {}
    for stem, values in sorted(runs.items(), key=lambda run: _order(run[1])):
        value = _fold(values)
        same = _but_for_fold(values, None if value is None else True)
        del same["seed"]
        families.setdefault(digest(same), {}).setdefault(value, []).append((stem, values))
    return list(families.values())


def _fold(values: dict[str, Any]) -> Any:
    """Return a run's value of the setting of `FOLDS`; None where it has none."""
    return values["config"]["options"].get(FOLDS.get(values["config"]["task"]))


def _but_for_fold(values: dict[str, Any], value: Any) -> dict[str, Any]:
    """Return the settings and device of a run, with `value` for the setting of `FOLDS`."""
    config = values["config"]
    options = {**config["options"], FOLDS.get(config["task"], ""): value}
    return {**config, "options": options, "device": values["environment"]["device"]}


def _run_row(members: Sequence[dict[str, Any]], families: Sequence[dict[Any, list[Member]]]) -> Row:
    """Return the row of runs that differ only in the seed."""
    first = members[0]
    config, score = first["config"], first["score"]
    row: Row = {
        "model": config["model"],
        "form": form(config["recurrent"]),
        "hidden": "-".join(map(str, config["hidden"])),
        "parameters": first["parameters"],
        "epochs": config["epochs"],
        "batch_size": config["batch_size"],
    }
    if any(value is not None for family in families for value in family):
        value = _fold(first)
        row[FOLDS[config["task"]]] = "all" if value is None else value
    row["seeds"] = len(members)
    for kind, title in (
        ("last", "last epoch"),
        ("validation", "validation-selected"),
        ("test", "test-selected"),
    ):
        values = [m["selection"][kind]["test"][score] for m in members if m["selection"][kind]]
        name = f"{title} {score}"
        row[name] = None  # an empty column says that there is no such result
        if len(values) == len(members):
            row[name], row[f"{name}{DEVIATION}"] = mean_and_deviation(values)
        if kind == "last":
            row[INTERVAL] = _interval(members)
    row["hours"] = mean_and_deviation([m["curve"][-1]["hours"] for m in members])[0]
    return row


def _fold_rows(
    runs: Sequence[dict[str, Any]], families: Sequence[dict[Any, list[Member]]]
) -> list[Row]:
    """Return, for each seed, the mean over all values of the setting of `FOLDS`."""
    by_seed: dict[int, list[dict[str, Any]]] = {}
    for values in runs:
        if _fold(values) is not None:
            by_seed.setdefault(values["config"]["seed"], []).append(values)
    rows = []
    for members in by_seed.values():
        if len(members) > 1:
            row = _run_row(members, families)
            row[INTERVAL] = None
            row[FOLDS[members[0]["config"]["task"]]] = f"mean of {len(members)}"
            row["seeds"] = 1
            rows.append(row)
    return rows


def _interval(members: Sequence[dict[str, Any]]) -> str | None:
    """Return the 95 % interval of the last epoch's mean accuracy, for the samples of one seed.

    Seeds share their test samples, so more seeds do not make it smaller. None where the score is
    not a share, or where the number of samples is unknown or differs.
    """
    score, samples = members[0]["score"], {m.get("test_samples") for m in members}
    (count, *others) = samples
    if not is_share(score) or not count or others:
        return None
    shares = [m["selection"]["last"]["test"][score] for m in members]
    low, high = wilson_interval(mean_and_deviation(shares)[0], count)
    return f"{100 * low:.2f} to {100 * high:.2f} %"


_SHOWN = ("model", "recurrent", "hidden")


def _order(values: dict[str, Any]) -> tuple[str, str, int]:
    """Return the place of a run among those of its task: the task's own settings come first."""
    changed = (f"{k} {v}" for k, v in values["changed"].items() if k not in _SHOWN)
    return ", ".join(changed), values["config"]["model"], values["config"]["seed"]


def _by_epoch(values: dict[str, Any]) -> str:
    """Return hours and scores of one run, one column per epoch."""
    score, last = values["score"], values["curve"][-1]["epoch"]
    points: list[Row] = [
        {
            "epoch": point["epoch"],
            "hours": point["hours"],
            **{f"{part} {score}": point[part] for part in PARTS if part in point},
        }
        for point in values["curve"]
        if point["epoch"] in EPOCHS or point["epoch"] == last
    ]
    rows = [[in_words(name), *(cell(point, name) for point in points)] for name in columns(points)]
    rows[0][0] = f"epoch, seed {values['config']['seed']}"
    head, *lines = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *lines])


def _provenance(number: int | None, family: dict[Any, list[Member]], machines: Machines) -> str:
    """Return the command of a family's first run, and where and when all were trained."""
    members = [values for group in family.values() for _, values in group]
    first, more = members[0], len(members) - 1
    several = f" and {more} more seed{'' if more == 1 else 's'}" if more else ""
    if more and len(family) > 1:
        setting = FOLDS[first["config"]["task"]]
        several = f" and {counted(more, 'more run')} ({counted(len(family), setting)})"
    label = "" if number is None else f"Run {number}: "
    where = "; ".join(dict.fromkeys(_trained(values, machines) for values in members))
    return f"{label}`{first['command']}`{several}:\n{_wrapped(where, '.')}"


def _trained(values: dict[str, Any], machines: Machines) -> str:
    """Return where and when a run was trained: its last session, then earlier ones."""
    where, sessions = machines.where(values["environment"]), values.get("sessions")
    if sessions is None:
        return f"{where} (where and when the result was copied, not where it was trained)"
    earlier = list(dict.fromkeys(map(machines.where, sessions[:-1])))
    if sessions and sessions[0]["step"] > 0:
        earlier.insert(0, f"{NOT_RECORDED} up to step {sessions[0]['step']}")
    if earlier == [where]:
        return f"{where} ({len(sessions)} sessions)"
    return f"{where} (earlier sessions: {'; '.join(earlier)})" if earlier else where


def _hardware(environment: dict[str, Any]) -> str:
    """Return CPU and cores; and the GPU where it was used."""
    gpu = f" and {environment['gpu']}" if "gpu" in environment else ""
    device = environment.get("device", "cuda" if gpu else "cpu")
    on = "" if device == "cpu" else f", on {device}"
    cpu = environment["cpu"] or f"CPU {NOT_RECORDED}"
    return f"{cpu}, {environment['cores']} cores{gpu}{on}"


def _versions(environment: dict[str, Any]) -> str:
    """Return the versions that a result depends on."""
    compiler = ("triton",) if "gpu" in environment else ()
    names = ("hetsyn-triton", "torch", *compiler, "numba", "python")
    return ", ".join(f"{name} {environment[name]}" for name in names if name in environment)


def _wrapped(*parts: str) -> str:
    """Return prose in lines of `WIDTH`."""
    return textwrap.fill("".join(parts), WIDTH, break_long_words=False, break_on_hyphens=False)


def _table(rows: Iterable[Row], left_out: Iterable[str] = ()) -> str:
    """Return a Markdown table; a mean and its deviation share a column.

    The columns `left_out` are not shown, nor is `rate`, per step, beside `rate_hz`, the same.
    """
    rows, hidden = list(rows), set(left_out)
    names = [name for name in columns(rows) if name not in hidden]
    if "rate_hz" in names:
        names = [name for name in names if name != "rate"]
    lines = ["| " + " | ".join(map(in_words, names)) + " |", "|" + "---|" * len(names)]
    for row in rows:
        lines.append("| " + " | ".join(cell(row, name) for name in names) + " |")
    return "\n".join(lines)


@click.command()
@click.argument("folders", metavar="[RUN_OR_STUDY]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--docs", metavar="DIR", default="docs", type=click.Path(path_type=Path))
def main(folders: tuple[Path, ...], docs: Path) -> None:
    """Write results.md in DIR (docs) from the results stored in DIR/results/.

    The results of each given run or study folder are first copied to DIR/results/.
    """
    try:
        for folder in folders:
            click.echo(f"Copied {folder} to {collect(folder, docs)}")
        click.echo(f"Wrote {write(docs)}")
    except (ConfigError, RunFolderError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
