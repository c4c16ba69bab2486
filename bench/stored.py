"""What `pytest --benchmark` measured, as it is stored: one file for a machine and its threads.

A stored file has `machine` (with versions, date and commit), `set`, `memory` (how it was taken),
`rates`, `gate`, `missing`, `wrong`, and `rows`: of each entry its group, label, contender, work,
check, milliseconds (median and quartiles), memory, and errors over time where they were taken.

Rows with a `rate` are of an earlier program, on the same machine: `earlier` has its name, versions,
date, commit and gate, and the rate is the peak that it measured. A new full run replaces the file.
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
"""How far the exponent of time may be from that of a cost in proportion."""


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
    """The lines of `--benchmark-rows`: about the run, a row for each entry, how it ended."""
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
        raise Refused("no file of `pytest --benchmark --benchmark-rows=FILE`")
    return found


def machines(folder: Path = RESULTS) -> dict[Path, Record]:
    """All stored files, by device."""
    found = {file: load(file) for file in files(folder)}
    return dict(sorted(found.items(), key=lambda pair: pair[1]["machine"]["device"]))


def check(result: Record) -> None:
    """Raise Refused unless right results were measured and the tests passed."""
    if result["set"] == "rehearse":
        raise Refused("a rehearsal: none of its figures counts")
    if result["wrong"]:
        raise Refused("; ".join(f"{name}: {what}" for name, what in result["wrong"].items()))
    if not result["rows"] or any(not row["ms"] for row in result["rows"]):
        raise Refused("nothing timed: --benchmark-disable?")
    gate = result.get("gate") or {"state": "not run"}
    if gate["state"] != "green":
        raise Refused(
            f"the gate is {gate['state']}: kernels must be tested before their speed counts"
        )
    if "sources" in gate and gate["sources"] != result["machine"]["sources"]:
        raise Refused("the gate tested other sources than were measured")


def check_same(machine: Record, commit: str, sources: str) -> None:
    """Raise Refused if other sources were measured than those that the gate is about to test."""
    if machine["changed"]:
        raise Refused("measured with changes that are in no commit")
    if machine["sources"] != sources:
        raise Refused(
            f"measured of commit {machine['commit'][:10]}; the kernels or tests here, at"
            f" {commit[:10]}, differ: measure again, or store it from that commit"
        )


# -- what follows from the times -------------------------------------------------------------------


def groups(result: Record, kind: str = "") -> dict[str, list[Record]]:
    """Rows by group, those of one kind of work; growth left out."""
    found: dict[str, list[Record]] = {}
    for row in result["rows"]:
        growing = row["group"].startswith(GROWTH) or row["group"] == registry.PER_STEP
        if row["work"]["kind"].startswith(kind) and not growing:
            found.setdefault(row["group"], []).append(row)
    return found


def alone(result: Record) -> dict[str, list[Record]]:
    """Groups of operators and kernels by themselves, and of recurrent synapses."""
    kinds = ("operator", "kernel", "synapses")
    return {group: rows for kind in kinds for group, rows in groups(result, kind).items()}


def passes(result: Record) -> dict[str, list[Record]]:
    """Groups of the README's table."""
    names = registry.published("cuda" if "cuda" in result["machine"] else "cpu")
    return {group: rows for group, rows in groups(result).items() if group in names}


def base(rows: Sequence[Record], contender: str = registry.OURS) -> Record | None:
    """The contender that the others of a group are compared with."""
    return next((row for row in rows if row["contender"] == contender), None)


def fastest(rows: Sequence[Record], contenders: Sequence[str]) -> Record | None:
    """The fastest of these contenders."""
    found = [row for row in rows if row["contender"] in contenders]
    return min(found, key=lambda row: float(row["ms"]), default=None)


def peak(row: Record) -> float | None:
    """Bytes at the peak; None of a backward alone, whose tape was there before: see `both`."""
    return None if row["work"]["part"] == "backward" else row.get("peak_bytes")


def kept(row: Record) -> float | None:
    """Bytes that autograd keeps; None of checkpoints, which hold their inputs unseen by it."""
    return None if row["contender"] == registry.CHECKPOINTED else row.get("saved_bytes")


def fraction(row: Record, result: Record) -> float | None:
    """Multiply-adds needed / the peak / time."""
    rate = row.get("rate") or result["rates"]["fma"]
    return 1e3 * row["fma"] / rate / row["ms"] if row["fma"] and rate else None


# -- growth with the sizes -------------------------------------------------------------------------


def fit(
    sizes: Sequence[float], values: Sequence[float | None]
) -> tuple[float | None, float | None]:
    """Fit the exponent of a growth: the slope of log value over log size.

    Returns:
        The slope, None where a value is missing or there are no two; its standard error, None where
        there are no three.
    """
    known = [value for value in values if value and value > 0]
    if len(sizes) < 2 or len(known) < len(values):
        return None, None
    found = linregress(np.log(sizes), np.log(known))
    return float(found.slope), float(found.stderr) if len(sizes) > 2 else None


class Growth(NamedTuple):
    """Time and memory of a layer over the sizes of one axis, all else fixed."""

    axis: str
    form: str
    """feedforward or recurrent"""
    sizes: list[int]
    ms: list[float | None]
    peaks: list[float | None]

    @property
    def target(self) -> int:
        """Exponent of a cost in proportion: J recurrent neurons have J^2 synapses."""
        return 2 if self.form == "recurrent" and self.axis == "J" else 1

    @property
    def reached(self) -> bool | None:
        """Whether time is in proportion to within `WITHIN`; None without a slope."""
        slope, _ = fit(self.sizes, self.ms)
        return None if slope is None else abs(slope - self.target) <= WITHIN


def growths(result: Record) -> list[Growth]:
    """Return every axis that was measured."""
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
    """Return N -> the bytes that one more step takes, of layers N -> N."""
    peaks: dict[int, dict[int, float]] = {}
    for row in result["rows"]:
        if row["group"] == registry.PER_STEP and row.get("peak_bytes"):
            peaks.setdefault(row["work"]["J"], {})[row["work"]["T"]] = row["peak_bytes"]
    return {
        N: (of[max(of)] - of[min(of)]) / (max(of) - min(of))
        for N, of in peaks.items()
        if len(of) > 1
    }
