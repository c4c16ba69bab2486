"""What `gpu.py` stored, as the README's table."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.cpu_table import against, figures, milliseconds, replace_between, rival
from bench.records import NOT_MEASURED, Record

BEGIN, END = "<!-- gpu-speed -->", "<!-- /gpu-speed -->"
PASSES = ("both", "step")
NOTHING_STORED = "Not measured yet: `python bench/gpu.py` measures and stores."


def _in_a_graph(row: Record) -> float | None:
    return (row.get("in_a_graph") or {}).get("ms")


RIVALS = {
    "loop": "loop under autograd",
    "compiled": "loop, compiled step",
    "graph": "loop, in a graph",
    "compiled graph": "loop, compiled step, in a graph",
}


def _columns(rows: list[Record]) -> list[tuple[str, Callable[[Record], str]]]:
    """Heads and cells; no column of what was measured of nobody."""

    def graphed(row: Record) -> str:
        return NOT_MEASURED if _in_a_graph(row) is None else milliseconds(_in_a_graph(row))

    columns: list[tuple[str, Callable[[Record], str]]] = [
        ("one training pass", lambda row: row["name"].removeprefix("layer ")),
        ("this library", lambda row: milliseconds(row["ms"])),
    ]
    if any(_in_a_graph(row) for row in rows):
        columns.append(("in a CUDA graph", graphed))
    for name, head in RIVALS.items():
        if any(rival(row, name, "ms") for row in rows):
            columns.append((head, partial(against, name=name)))
    columns += [
        ("of the floor", lambda row: "-" if not row["fraction"] else f"{row['fraction']:.1%}"),
        ("peak memory", lambda row: f"{figures(row['peak_bytes'] / 1e6)} MB"),
    ]
    return columns


def readme_table(result: Record, file: str) -> str:
    """Layers and the network's step with all gradients, and of what machine they are."""
    rows = [
        row
        for row in result["rows"]
        if row["name"].startswith(("layer ", "network ")) and row["part"] in PASSES and row["ms"]
    ]
    columns = _columns(rows)
    m, gate = result["machine"], result["gate"]
    changed = " (changed)" if m["changed"] else ""
    lines = [
        "| " + " | ".join(head for head, _ in columns) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(cell(row) for _, cell in columns) + " |" for row in rows),
        "",
        f"{m['device']}, driver {m['driver']}, torch {m['torch']}, Triton {m['triton']},"
        f" {m['date'][:10]}, commit {m['commit'][:10]}{changed}: [{file}]({file}); proofs before"
        f" it: {gate['passed']} passed, {gate['failed']} failed. {_recurrent(result)}Medians of"
        " times between CUDA events; the floor is the multiply-adds needed at"
        f" {m['fma_rate'] / 1e12:.3g}e12 a second.",
    ]
    if "note" in result:
        lines.append(result["note"])
    return "\n".join(lines)


def _recurrent(result: Record) -> str:
    """The rows of recurrent synapses in one sentence."""
    rows = [row for row in result["rows"] if row["name"].startswith("recurrent synapses")]
    ratios = [ratio for row in rows if (ratio := rival(row, "loop", "ratio"))]
    if not ratios:
        return ""
    sizes = sorted({row["J"] for row in rows})
    return (
        f"Recurrent synapses by themselves, {sizes[0]} to {sizes[-1]} neurons: the loop takes"
        f" {figures(min(ratios))} to {figures(max(ratios))} times as long. "
    )


def readme_section(root: Path) -> str:
    """What the README has to say between its markers: the newest result, and where others are."""
    files = sorted((root / "bench" / "results").glob("gpu-*.json"))
    found = [(json.loads(file.read_text(encoding="utf-8")), file) for file in files]
    if not found:
        return NOTHING_STORED
    found.sort(key=lambda pair: pair[0]["machine"]["date"], reverse=True)
    newest, *others = [(result, file.relative_to(root).as_posix()) for result, file in found]
    return "\n".join([readme_table(*newest), *(f"Also: [{name}]({name})." for _, name in others)])


def write_readme(root: Path) -> None:
    replace_between(root / "README.md", BEGIN, END, readme_section(root))
