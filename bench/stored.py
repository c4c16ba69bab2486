"""What `pytest --benchmark` measured, as it is stored: one file for a machine and its threads.

A stored file has `machine` (with versions, date and commit), `set`, `memory` (how it was taken),
`rates`, `gate`, `missing`, `wrong`, and `rows`: of each entry its group, label, contender, work,
check, milliseconds (median and quartiles), memory, and errors over time where they were taken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from bench import earlier, growth, registry
from bench.records import Record, lines
from bench.registry import CHECKPOINTED, OURS, PER_STEP

RESULTS = Path(__file__).resolve().parent / "results"


class Refused(Exception):
    """A result that cannot be stored; the message says why."""


def files(folder: Path = RESULTS, kind: str = "benchmark") -> list[Path]:
    return sorted(folder.glob(f"{kind}-*.json"))


def load(file: Path) -> Record:
    """Read a stored file, the rows of a run, or a file of an earlier program.

    Peaks that were taken in one process for all calls are left out: they depend on the order.
    """
    if file.suffix == ".jsonl":
        return assembled(lines(file))
    found: Record = json.loads(file.read_text(encoding="utf-8"))
    if "rehearsal" in found:
        return earlier.read(found)
    if "memory" not in found:
        found["rows"] = [{k: v for k, v in r.items() if k != "peak_bytes"} for r in found["rows"]]
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
    """What the documents say of each machine, by the file that it is mainly from.

    The README's tables are made from files of earlier programs. A pass has one figure in all
    documents: groups of such a file replace those of the same machine's `benchmark` file as a
    whole, so that contenders are compared within one run.
    """
    found: dict[str, tuple[Path, Record]] = {}
    for kind in ("benchmark", "cpu", "gpu"):
        for file in files(folder, kind):
            result, name = load(file), file.stem.partition("-")[2]
            check(result)
            if name not in found:
                found[name] = file, result
                continue
            main, rate = found[name][1], result["rates"]["fma"]
            groups = {row["group"] for row in result["rows"]}
            kept = [row for row in main["rows"] if row["group"] not in groups]
            place = next((k for k, r in enumerate(main["rows"]) if r["group"] in groups), 0)
            place -= sum(row["group"] in groups for row in main["rows"][:place])
            rows = [row | {"rate": rate} for row in result["rows"]]
            main["rows"] = [*kept[:place], *rows, *kept[place:]]
            about = main["missing"].items()
            main["missing"] = {k: v for k, v in about if k.rpartition(", ")[0] not in groups}
            main["missing"] |= result["missing"]
            main["replaced"] = {"file": file.name, "machine": result["machine"], "fma": rate}
    return dict(sorted(found.values(), key=lambda pair: pair[1]["machine"]["device"]))


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
    """Raise Refused if other sources were measured than those that the gate is about to test.

    Sources are compared by their digest, or by the commit of a file without one.
    """
    if machine["changed"]:
        raise Refused("measured with changes that are in no commit")
    if machine.get("sources", sources) != sources or (
        "sources" not in machine and machine["commit"] != commit
    ):
        raise Refused(
            f"measured of commit {machine['commit'][:10]}; the kernels or tests here, at"
            f" {commit[:10]}, differ: measure again, or store it from that commit"
        )


# -- what follows from the times -------------------------------------------------------------------


def groups(result: Record, kind: str = "") -> dict[str, list[Record]]:
    """Rows by group, those of one kind of work; growth left out."""
    found: dict[str, list[Record]] = {}
    for row in result["rows"]:
        if row["work"]["kind"].startswith(kind) and not _growing(row["group"]):
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


def source(file: Path, result: Record) -> Record:
    """The file that `passes` are from, and its machine."""
    given: Record = result.get("replaced") or {"file": file.name, "machine": result["machine"]}
    return given


def _growing(group: str) -> bool:
    return group.startswith("growth with ") or group == PER_STEP


def base(rows: Sequence[Record], contender: str = OURS) -> Record | None:
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
    return None if row["contender"] == CHECKPOINTED else row.get("saved_bytes")


def fraction(row: Record, result: Record) -> float | None:
    """Multiply-adds needed / the peak / time."""
    rate = row.get("rate") or result["rates"]["fma"]
    return 1e3 * row["fma"] / rate / row["ms"] if row["fma"] and rate else None


def growths(result: Record) -> list[Record]:
    """Of each axis: sizes, times, peaks, their exponents with standard errors, `wanted` of time and
    whether it is `met`."""
    by_group: dict[str, list[Record]] = {}
    for row in result["rows"]:
        if row["group"].startswith("growth with "):
            by_group.setdefault(row["group"], []).append(row)
    found = []
    for group, rows in by_group.items():
        axis, form = re.fullmatch(r"growth with (\w), (\w+)", group).groups()  # type: ignore[union-attr]
        sizes = [row["work"][axis] for row in rows]
        aim = growth.wanted(axis, form == "recurrent")
        ms, peaks = [row["ms"] for row in rows], [row.get("peak_bytes") for row in rows]
        found.append(
            {
                "axis": axis,
                "form": form,
                "sizes": sizes,
                "ms": ms,
                "peaks": peaks,
                "time": (time := growth.slope(sizes, ms)),
                "time_error": growth.standard_error(sizes, ms),
                "memory": growth.slope(sizes, peaks),
                "memory_error": growth.standard_error(sizes, peaks),
                "wanted": aim,
                "met": growth.met(time, aim),
            }
        )
    return found


def per_step(result: Record) -> Record | None:
    """Bytes one more step takes of layers N -> N, and their exponent against N."""
    peaks: dict[int, dict[int, float]] = {}
    for row in result["rows"]:
        if row["group"] == PER_STEP and row.get("peak_bytes"):
            peaks.setdefault(row["work"]["J"], {})[row["work"]["T"]] = row["peak_bytes"]
    steps = {
        N: (of[max(of)] - of[min(of)]) / (max(of) - min(of))
        for N, of in peaks.items()
        if len(of) > 1
    }
    slope = growth.slope(list(steps), list(steps.values()))
    if slope is None:
        return None
    return {"sizes": list(steps), "bytes": list(steps.values()), "exponent": slope}
