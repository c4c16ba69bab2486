"""Read and check stored measurements of `pytest --benchmark`: one file per machine and threads.

A stored file has `machine` (with versions, date and commit), `set`, `memory` (how it was measured),
`rates`, `tests`, `missing`, `wrong` and `rows`. A row is an entry: group, label, contender, work,
check, milliseconds (median and quartiles), memory, and, if measured, errors over time.

Rows with a `rate` were measured by an older program on the same machine. `earlier` has its name,
versions, date, commit and tests; `rate` is the peak that it measured.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import linregress

from bench import registry
from bench.records import Record, Refused, lines
from bench.registry import GROWTH

RESULTS = Path(__file__).resolve().parent / "results"
WITHIN = 0.1
"""Tolerance of the exponent of time around its target."""


def files(folder: Path = RESULTS) -> list[Path]:
    return sorted(folder.glob("benchmark-*.json"))


def load(file: Path) -> Record:
    """Read a stored file, or the rows of a run."""
    if not file.is_file():
        raise Refused(f"{file}: no such file")
    if file.suffix == ".jsonl":
        return assembled(lines(file))
    found: Record = json.loads(file.read_text(encoding="utf-8"))
    return found


def assembled(given: Sequence[Record]) -> Record:
    """Assemble the lines of `--benchmark-rows`: the run's data, a row per entry, how it ended."""
    found: Record = {"missing": {}, "wrong": {}, "rows": []}
    for one in given:
        if "group" not in one:
            found |= one
            continue
        reason = next((name for name in ("missing", "wrong") if name in one), None)
        if reason is None:
            found["rows"].append(one)
        else:
            found[reason][f"{one['group']}, {one['label']}"] = one[reason]
    if "machine" not in found:
        raise Refused("not a file of `pytest --benchmark --benchmark-rows=FILE`")
    return found


def machines(folder: Path = RESULTS) -> dict[Path, Record]:
    """Return all stored files, ordered by device."""
    found = {file: load(file) for file in files(folder)}
    return dict(sorted(found.items(), key=lambda pair: pair[1]["machine"]["device"]))


def check(result: Record) -> None:
    """Raise Refused unless all results are right, all entries are timed and the tests passed."""
    if result["set"] == "rehearse":
        raise Refused("a rehearsal: its times are not stored")
    if result["wrong"]:
        raise Refused("; ".join(f"{name}: {what}" for name, what in result["wrong"].items()))
    if not result["rows"] or any(not row["ms"] for row in result["rows"]):
        raise Refused("nothing timed: --benchmark-disable?")
    tests = result.get("tests") or {"state": "not run"}
    if tests["state"] != "passed":
        raise Refused(f"tests {tests['state']}: the tests of the kernels must pass before storing")
    if "sources" in tests and tests["sources"] != result["machine"]["sources"]:
        raise Refused("the tests ran on other sources than the measurement")


def check_same(machine: Record, commit: str, sources: str) -> None:
    """Raise Refused unless the measured sources are those of this checkout, committed."""
    if machine["changed"]:
        raise Refused("measured with uncommitted changes")
    if machine["sources"] != sources:
        raise Refused(
            f"measured at commit {machine['commit'][:10]}; the kernels or tests of this checkout,"
            f" at {commit[:10]}, differ: measure again, or store the result at that commit"
        )


# -- figures derived from the times ----------------------------------------------------------------


def groups(result: Record, kind: str = "") -> dict[str, list[Record]]:
    """Return the rows of one kind of work by group, without growth."""
    found: dict[str, list[Record]] = {}
    for row in result["rows"]:
        growing = row["group"].startswith(GROWTH) or row["group"] == registry.PER_STEP
        if row["work"]["kind"].startswith(kind) and not growing:
            found.setdefault(row["group"], []).append(row)
    return found


def alone(result: Record) -> dict[str, list[Record]]:
    """Return the groups of single operators and kernels, and of recurrent synapses."""
    kinds = ("operator", "kernel", "synapses")
    return {group: rows for kind in kinds for group, rows in groups(result, kind).items()}


def passes(result: Record) -> dict[str, list[Record]]:
    """Return the groups of the README's table."""
    names = registry.published("cuda" if "cuda" in result["machine"] else "cpu")
    return {group: rows for group, rows in groups(result).items() if group in names}


def base(rows: Sequence[Record], contender: str = registry.OURS) -> Record | None:
    """Return the row of a contender, by default that of this library; None without one."""
    return next((row for row in rows if row["contender"] == contender), None)


def fastest(rows: Sequence[Record], contenders: Sequence[str]) -> Record | None:
    """Return the row of the fastest of some contenders; None without one."""
    found = [row for row in rows if row["contender"] in contenders]
    return min(found, key=lambda row: float(row["ms"]), default=None)


def peak(row: Record) -> float | None:
    """Return the peak memory in bytes; None for `backward`, whose graph exists before the call."""
    return None if row["work"]["part"] == "backward" else row.get("peak_bytes")


def kept(row: Record) -> float | None:
    """Return the bytes that autograd saves; None with checkpoints, which hide their inputs."""
    return None if row["contender"] == registry.CHECKPOINTED else row.get("saved_bytes")


def fraction(row: Record, result: Record) -> float | None:
    """Return the fraction of the peak rate: multiply-adds needed / peak / time."""
    rate = row.get("rate") or result["rates"]["fma"]
    return 1e3 * row["fma"] / rate / row["ms"] if row["fma"] and rate else None


# -- growth with the sizes -------------------------------------------------------------------------


def fit(
    sizes: Sequence[float], values: Sequence[float | None]
) -> tuple[float | None, float | None]:
    """Fit the exponent of a growth: the slope of log value over log size.

    Returns:
        The slope, None if a value is missing or there are fewer than 2 sizes; its standard error,
        None with fewer than 3.
    """
    known = [value for value in values if value and value > 0]
    if len(sizes) < 2 or len(known) < len(values):
        return None, None
    found = linregress(np.log(sizes), np.log(known))
    return float(found.slope), float(found.stderr) if len(sizes) > 2 else None


class Growth(NamedTuple):
    """Time and memory of a layer over the sizes of one axis; other sizes are fixed."""

    axis: str
    form: str
    """feedforward or recurrent"""
    sizes: list[int]
    ms: list[float | None]
    peaks: list[float | None]

    @property
    def target(self) -> int:
        """Exponent of the work: 2 for J recurrent neurons, which have J^2 synapses, else 1."""
        return 2 if self.form == "recurrent" and self.axis == "J" else 1

    @property
    def reached(self) -> bool | None:
        """Whether the exponent of time is within `WITHIN` of the target; None without a fit."""
        slope, _ = fit(self.sizes, self.ms)
        return None if slope is None else abs(slope - self.target) <= WITHIN


def growths(result: Record) -> list[Growth]:
    """Return the growth along every measured axis."""
    found: dict[str, Growth] = {}
    for row in result["rows"]:
        group = row["group"]
        if group.startswith(GROWTH):
            axis, form = group.removeprefix(GROWTH).split(", ")
            one = found.setdefault(group, Growth(axis, form, [], [], []))
            one.sizes.append(row["work"][axis])
            one.ms.append(row["ms"])
            one.peaks.append(row.get("peak_bytes"))
    return list(found.values())


def per_step(result: Record) -> dict[int, float]:
    """Return, for layers N -> N, the bytes of one more step by N."""
    peaks: dict[int, dict[int, float]] = {}
    for row in result["rows"]:
        if row["group"] == registry.PER_STEP and row.get("peak_bytes"):
            peaks.setdefault(row["work"]["J"], {})[row["work"]["T"]] = row["peak_bytes"]
    return {
        N: (of[max(of)] - of[min(of)]) / (max(of) - min(of))
        for N, of in peaks.items()
        if len(of) > 1
    }
