"""docs/results.md, written from the copies in docs/results/ and the remarks beside them."""

import posixpath
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hetsyn_triton.files import write_atomically
from hetsyn_triton.training import ConfigError, RunFolderError

from .base import Row
from .catalogue import STUDIES
from .folder import read_json
from .networks import form
from .results import STORED, digest
from .statistics import mean_and_deviation, wilson_interval
from .tables import blocks, cell, columns, heading
from .words import in_words, is_share

PAGE = "results.md"
REMARKS = "remarks.md"
NOT_MEASURED = "Not measured."
NOT_RECORDED = "not recorded"
TASKS = {
    "pattern-generation": "Pattern generation",
    "delayed-match": "Delayed match-to-sample",
    "fsdd": "Free Spoken Digit Dataset",
    "smnist": "S-MNIST",
}
"""Tasks with a section of their own, in this order; other tasks with results follow."""
PARTS = ("validation", "test")  # what may be measured after an epoch
EPOCHS = (1, 2, 3, 5, 10, 15, 20, 30, 40, 50, 75, 100, 150)
INTERVAL = "95 % interval"
FOLDS = {"fsdd": "speaker"}  # the setting whose values are left out of training in turn
LONGEST = 40  # lines of a table on the page; the stored file has them all
HEAD = """# Results

Written by `hetsyn results` from the files in [results/](results), which hold every figure with its
settings, versions and date; remarks are from [results/remarks.md](results/remarks.md). `hetsyn
results FOLDER...` adds run and study folders first.

Means ± standard deviation over seeds, or over what a row is the mean of. *Last epoch* is the test
result after the last epoch; *validation-selected* that of the epoch with the best held-out score;
*test-selected* that of the best test epoch, which the test samples themselves chose: it is no
held-out result. Of the three a "-" marks what a run does not have: validation-selected where no
samples were held out of training, test-selected where the test was measured at the end alone. The
*95 % interval* of the last epoch's accuracy is Wilson's for the test samples of one seed: what so
many samples leave open, not how seeds differ; it is left out where their number was not recorded.
"SMALL" marks a study of fewer seeds or shorter training than the paper's.

Hours are wall-clock times on machines that other work shared: runs of equal cost differ.
"""


def write(docs: Path) -> Path:
    """Write docs/results.md; RunFolderError where nothing is stored, or a file of it is not one
    that `collect` writes, ConfigError for remarks on what the page has not."""
    if not (docs / STORED).is_dir():
        raise RunFolderError(
            f"docs: expected a folder with {STORED}/ in it, which results are copied into first, "
            f"got {docs}"
        )
    text = page(docs / STORED)
    write_atomically(docs / PAGE, lambda file: file.write(text.encode()))
    return docs / PAGE


def page(stored: Path) -> str:
    """The page made of the files in `stored`."""
    paths = sorted(stored.glob("*.json"))
    files = {path.stem: _read_copy(path) for path in paths}
    remarks = read_remarks(stored / REMARKS)
    runs = {stem: values for stem, values in files.items() if values["kind"] == "run"}
    studies = {stem: values for stem, values in files.items() if values["kind"] == "study"}
    found = {values["config"]["task"] for values in runs.values()}
    others = {name: name for name in sorted(found - set(TASKS))}
    parts = [HEAD]
    for task, title in {**TASKS, **others}.items():
        mine = {s: v for s, v in runs.items() if v["config"]["task"] == task}
        variants = {s: v for s, v in studies.items() if _is(v, "variants", task)}
        parts.append(f"## {title}\n")
        parts += remarks.pop(task, [])
        parts += [_study(stem, values) for stem, values in variants.items()]
        parts += _runs(mine)
        if not mine and not variants:
            parts.append(f"{NOT_MEASURED}\n")
    parts.append("## Studies\n")
    parts += remarks.pop("studies", [])
    for name, kind in STUDIES.items():
        mine = {s: v for s, v in studies.items() if v["settings"]["study"] == name}
        if name == "variants":
            shown = {**TASKS, **others}
            mine = {s: v for s, v in mine.items() if v["settings"]["task"] not in shown}
            if not mine:
                continue
        parts.append(f"### {kind.title} (`{name}`)\n")
        parts += remarks.pop(name, [])
        parts += [_study(stem, values) for stem, values in mine.items()] or [f"{NOT_MEASURED}\n"]
    if remarks:
        raise ConfigError(f"{REMARKS}: expected sections {', '.join(TASKS)}, studies or a study's "
                         f"name, got {', '.join(remarks)}")  # fmt: skip
    return "\n".join(parts)


def _read_copy(path: Path) -> dict[str, Any]:
    """A file that `collect` wrote; RunFolderError for another, which the page could not show."""
    values = read_json(path)
    kind = values.get("kind")
    if kind not in ("run", "study"):
        raise RunFolderError(f"{path} is damaged: expected run or study as kind, got {kind!r}")
    try:
        _study(path.stem, values) if kind == "study" else _runs({path.stem: values})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunFolderError(
            f"{path} is damaged: expected a copy of a {kind}: {type(error).__name__}: {error}"
        ) from error
    return values


def read_remarks(path: Path) -> dict[str, list[str]]:
    """Remarks by the section they belong to, `## SECTION` in the file; each as one block. Their
    links are as seen from the file, a folder below the page."""
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
    """Relative links of remarks as the page has them."""

    def moved(link: re.Match[str]) -> str:
        return f"]({posixpath.normpath(posixpath.join(STORED, link[1]))})"

    return re.sub(r"\]\((?![a-z]+:|#)([^)]+)\)", moved, text)


def _is(values: dict[str, Any], study: str, task: str) -> bool:
    return bool(values["settings"]["study"] == study and values["settings"]["task"] == task)


def _study(stem: str, values: dict[str, Any]) -> str:
    """Table, picture and provenance of one study."""
    failed = len(values["failures"])
    missing = f" {failed} of {values['cells']} cells failed." if failed else ""
    task = values["settings"]["task"]
    lines = [f"{task + ': ' if task else ''}{values['size']}.{missing}\n"]
    for about, rows in blocks(values["table"], STUDIES[values["settings"]["study"]].blocks):
        lines.append(f"{heading(about)}\n")
        lines.append(f"{_table(rows[:LONGEST], about)}\n")
        if len(rows) > LONGEST:
            lines.append(f"{len(rows) - LONGEST} more lines: [{stem}.csv]({STORED}/{stem}.csv).\n")
    lines.append(f"![{values['settings']['study']}]({STORED}/{stem}.png)\n")
    hours = f"{values['seconds'] / 3600:.2g} hours of cells"
    where = dict.fromkeys(map(_where, values["environments"]))
    lines.append(f"`{values['command']}`: {hours}; {'; '.join(where)}.\n")
    return "\n".join(lines)


def _runs(runs: dict[str, dict[str, Any]]) -> list[str]:
    """One line for all seeds of the same settings; then accuracy by epoch and hour."""
    if not runs:
        return []
    groups: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for stem, values in runs.items():
        same = {name: v for name, v in values["config"].items() if name != "seed"}
        key = digest({**same, "device": values["environment"]["device"]})
        groups.setdefault(key, []).append((stem, values))
    ordered = sorted(groups.values(), key=lambda members: _order(members[0][1]))
    for members in ordered:
        members.sort(key=lambda member: member[1]["config"]["seed"])
    rows = [_run_row([values for _, values in members]) for members in ordered]
    rows += _fold_rows([values for members in ordered for _, values in members])
    parts = [f"{_table(rows)}\n"]
    for members in ordered:
        stem, values = members[0]
        measured = {name for point in values["curve"] for name in point}
        if len(values["curve"]) > 1 and measured & set(PARTS):
            parts.append(f"{_named(values)}, seed {values['config']['seed']}, by epoch and hour:\n")
            parts.append(f"{_table(_by_epoch(values))}\n")
            parts.append(f"![learning curve]({STORED}/{stem}.png)\n")
        several = f" and {len(members) - 1} more seeds" if len(members) > 1 else ""
        where = dict.fromkeys(_trained(values) for _, values in members)
        parts.append(f"`{values['command']}`{several}: {'; '.join(where)}.\n")
    return parts


def _run_row(members: Sequence[dict[str, Any]]) -> Row:
    first = members[0]
    config, score = first["config"], first["score"]
    row: Row = {
        "model": config["model"],
        "form": form(config["recurrent"]),
        "hidden": "-".join(map(str, config["hidden"])),
        "settings": _changed(first) or "the task's",
        "parameters": first["parameters"],
        "seeds": len(members),
    }
    for kind, title in (
        ("last", "last epoch"),
        ("validation", "validation-selected"),
        ("test", "test-selected"),
    ):
        values = [m["selection"][kind]["test"][score] for m in members if m["selection"][kind]]
        name = f"{title} {score}"
        row[name] = None  # a column that is empty says that there is no such result
        if len(values) == len(members):
            row[name], row[f"{name}_deviation"] = mean_and_deviation(values)
        if kind == "last" and (interval := _interval(members)):
            row[INTERVAL] = interval
    row["hours"] = mean_and_deviation([m["curve"][-1]["hours"] for m in members])[0]
    return row


def _fold_rows(runs: Sequence[dict[str, Any]]) -> list[Row]:
    """The mean over all values of the setting of `FOLDS`, of runs that differ in nothing else."""
    name = FOLDS.get(runs[0]["config"]["task"], "")
    groups: dict[str, list[dict[str, Any]]] = {}
    for values in runs:
        config = values["config"]
        if config["options"].get(name) is not None:
            options = {**config["options"], name: None}
            same = {**config, "options": options, "device": values["environment"]["device"]}
            groups.setdefault(digest(same), []).append(values)
    rows = []
    for members in groups.values():
        if len(members) > 1:
            row = _run_row(members)
            row.pop(INTERVAL, None)
            others = _changed(members[0], name)
            row["settings"] = f"mean of {len(members)} {name}s" + (f", {others}" if others else "")
            row["seeds"] = 1
            rows.append(row)
    return rows


def _interval(members: Sequence[dict[str, Any]]) -> str | None:
    """The 95 % interval of the last epoch's mean accuracy, with the samples of one seed: seeds that
    share them tell nothing more of them. None where the score is no share, or their number is not
    known or not that of all."""
    score, samples = members[0]["score"], {m.get("test_samples") for m in members}
    (count, *others) = samples
    if not is_share(score) or not count or others:
        return None
    shares = [m["selection"]["last"]["test"][score] for m in members]
    low, high = wilson_interval(mean_and_deviation(shares)[0], count)
    return f"{100 * low:.2f} to {100 * high:.2f} %"


_SHOWN = ("model", "recurrent", "hidden")


def _changed(values: dict[str, Any], *left_out: str) -> str:
    """The settings of a run that are not its task's, but for those with columns of their own."""
    unseen = (*_SHOWN, *left_out)
    return ", ".join(f"{k} {v}" for k, v in values["changed"].items() if k not in unseen)


def _order(values: dict[str, Any]) -> tuple[str, str, int]:
    """Where a run stands among those of its task: the task's own settings are first."""
    return _changed(values), values["config"]["model"], values["config"]["seed"]


def _by_epoch(values: dict[str, Any]) -> list[Row]:
    curve, score = values["curve"], values["score"]
    last = curve[-1]["epoch"]
    rows = []
    for point in curve:
        if point["epoch"] in EPOCHS or point["epoch"] == last:
            row: Row = {"epoch": point["epoch"], "hours": point["hours"]}
            row |= {f"{part} {score}": point[part] for part in PARTS if part in point}
            rows.append(row)
    return rows


def _named(values: dict[str, Any]) -> str:
    config, changed = values["config"], _changed(values)
    layers = "-".join(map(str, config["hidden"]))
    name = f"{config['model']}, {form(config['recurrent'])}, {layers} hidden neurons"
    return f"{name}, {changed}" if changed else name


def _trained(values: dict[str, Any]) -> str:
    """Where and when a run was trained: its last part, then those before."""
    where, sessions = _where(values["environment"]), values.get("sessions")
    if sessions is None:
        return f"{where} (machine noted when the run was collected)"
    if not sessions:
        return where
    earlier = [f"{s.get('gpu', s['cpu'])}, {s['date']}" for s in sessions[:-1]]
    if sessions[0]["step"] > 0:
        earlier.insert(0, f"{NOT_RECORDED} up to step {sessions[0]['step']}")
    return f"{where} (before: {'; '.join(dict.fromkeys(earlier))})" if earlier else where


def _where(environment: dict[str, Any]) -> str:
    """The machine, the versions and the date of a figure. A GPU is named where it was used."""
    if not environment:
        return f"machine and date {NOT_RECORDED}"
    gpu = f" and {environment['gpu']}" if "gpu" in environment else ""
    compiler = ("triton",) if gpu else ()
    versions = ", ".join(
        f"{name} {environment[name]}"
        for name in ("hetsyn-triton", "torch", *compiler, "numba", "python")
        if name in environment
    )
    device = environment.get("device", "cuda" if gpu else "cpu")
    on = "" if device == "cpu" else f", on {device}"
    cpu = environment["cpu"] or f"CPU {NOT_RECORDED}"
    date = environment["date"] or f"date {NOT_RECORDED}"
    return f"{cpu}, {environment['cores']} cores{gpu}{on}; {versions}; {date}"


def _table(rows: Iterable[Row], about: Row | None = None) -> str:
    """A Markdown table; a mean and its deviation share a column. What `about` says of all rows is
    left out, and `rate`, per step, beside `rate_hz`, the same figure."""
    rows = list(rows)
    names = [name for name in columns(rows) if name not in (about or {})]
    if "rate_hz" in names:
        names = [name for name in names if name != "rate"]
    lines = ["| " + " | ".join(map(in_words, names)) + " |", "|" + "---|" * len(names)]
    for row in rows:
        lines.append("| " + " | ".join(cell(row, name) for name in names) + " |")
    return "\n".join(lines)
