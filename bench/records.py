"""Ratios, fractions, result files, and the table of `gpu.py`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Record = dict[str, Any]

NOT_MEASURED = "not measured"


def derive(record: Record, fma_rate: float | None) -> Record:
    """Adds what follows from the times: ratio to each rival (how many times faster), the floor, the
    fraction of it that is reached, and the ratio of measured to predicted fraction."""
    ms, fma = record.get("ms"), record.get("fma", 0)
    floor = 1e3 * fma / fma_rate if fma and fma_rate else None
    fraction = floor / ms if floor and ms else None
    predicted = (record.get("predicted") or {}).get("in_waves")
    rivals = {
        name: rival | {"ratio": rival["ms"] / ms if ms and rival.get("ms") else None}
        for name, rival in record.get("rivals", {}).items()
    }
    return record | {
        "floor_ms": floor,
        "fraction": fraction,
        "of_predicted": fraction / predicted if fraction and predicted else None,
        "rivals": rivals,
    }


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns as wide as their contents, the first to the left, the others to the
    right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for first, *rest in rows:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return lines


def table(result: Record) -> str:
    """The result as text."""
    machine, gate = result["machine"], result["gate"]
    lines = [
        f"{machine['device']}, torch {machine['torch']}, Triton {machine['triton']}, "
        f"Python {machine['python']}, {machine['date']}, commit {machine['commit']}",
        f"gate: {gate['state']} ({gate['passed']} passed, {gate['failed']} failed, "
        f"{gate['skipped']} skipped)",
        *([result["note"]] if "note" in result else []),
        "",
    ]
    if result["rehearsal"]:
        lines.insert(0, "REHEARSAL on a CPU, tiny sizes: no figure here means anything")
    rows = [_header(), *(_cells(r) for r in result["rows"])]
    lines += aligned(rows)
    notes = [f"{r['name']} {r['part']}: {r['reason']}" for r in result["rows"] if r.get("reason")]
    notes += [
        f"{r['name']} {r['part']}, {name}: {rival['reason']}"
        for r in result["rows"]
        for name, rival in r.get("rivals", {}).items()
        if rival.get("reason")
    ]
    if notes:
        lines += ["", "Not measured:", *(f"- {note.splitlines()[0]}" for note in notes)]
    lines += [
        "",
        "fraction: multiply-adds needed / (multiprocessors x 128 x highest clock) / time.",
        "x loop ...: how many times faster than the loop, run in these ways, in the same process.",
    ]
    return "\n".join(lines)


RIVAL_COLUMNS = ("loop", "compiled", "graph", "compiled graph")


def _header() -> list[str]:
    return [
        "row", "part", "ms", "quartiles", "ms in a graph", "of the floor", "predicted", "HBM MB",
        "peak MB", *(f"x {name}" for name in RIVAL_COLUMNS),
    ]  # fmt: skip


def _cells(r: Record) -> list[str]:
    measured = r["status"] == "measured"

    def number(value: Any, form: str = ".4g", scale: float = 1.0) -> str:
        return "-" if value is None else format(value * scale, form)

    predicted = (r.get("predicted") or {}).get("in_waves")
    return [
        r["name"],
        r["part"] if r["part"] not in r["name"] else "",
        number(r["ms"]) if measured else NOT_MEASURED,
        f"{number(r['low_ms'])}-{number(r['high_ms'])}" if measured else "-",
        number((r.get("in_a_graph") or {}).get("ms")),
        number(r.get("fraction"), ".1%"),
        number(predicted, ".1%"),
        number(r.get("hbm_bytes"), ".1f", 1e-6),
        number(r.get("peak_bytes"), ".1f", 1e-6),
        *(number(r.get("rivals", {}).get(n, {}).get("ratio"), ".3g") for n in RIVAL_COLUMNS),
    ]


def write(file: Path, content: str) -> None:
    """In one piece: a reader sees the old file or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_suffix(f".{os.getpid()}.tmp")
    scratch.write_text(content, encoding="utf-8")
    os.replace(scratch, file)


def append(file: Path, record: Mapping[str, Any]) -> None:
    """One line of a JSON lines file, on the disk before this returns."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def lines(file: Path) -> list[Record]:
    """What `append` wrote."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def rounded(value: Any) -> Any:
    """Five figures: more is noise."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, Mapping):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [rounded(v) for v in value]
    return value
