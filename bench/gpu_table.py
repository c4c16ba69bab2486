"""What `gpu.py` stored, as the README's table."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.cpu_table import against, factors, figures, milliseconds, replace_between, rival
from bench.records import NOT_MEASURED, Record

BEGIN, END = "<!-- gpu-speed -->", "<!-- /gpu-speed -->"
PASSES = ("both", "step")
NOTHING_STORED = "Not measured yet: `python -m bench.gpu` measures and stores."


def _in_a_graph(row: Record) -> float | None:
    return (row.get("in_a_graph") or {}).get("ms")


RIVALS = {
    "loop": "eager loop",
    "compiled": "compiled step",
    "graph": "loop in a graph",
    "compiled graph": "compiled step in a graph",
}


def _columns(rows: list[Record]) -> list[tuple[str, Callable[[Record], str]]]:
    """Heads and cells; no column of what was measured of nobody."""

    def graphed(row: Record) -> str:
        return NOT_MEASURED if _in_a_graph(row) is None else milliseconds(_in_a_graph(row))

    columns: list[tuple[str, Callable[[Record], str]]] = [
        ("forward and backward", lambda row: row["name"].removeprefix("layer ")),
        ("this library", lambda row: milliseconds(row["ms"])),
    ]
    if any(_in_a_graph(row) for row in rows):
        columns.append(("in a CUDA graph", graphed))
    for name, head in RIVALS.items():
        if any(rival(row, name, "ms") for row in rows):
            columns.append((head, partial(against, name=name)))
    columns += [
        ("of the peak", lambda row: "-" if not row["fraction"] else f"{row['fraction']:.1%}"),
        ("peak memory", lambda row: f"{figures(row['peak_bytes'] / 1e6)} MB"),
    ]
    return columns


def readme_table(result: Record, file: str) -> str:
    """The ranges, the passes with all gradients, and the machine."""
    rows = [
        row
        for row in result["rows"]
        if row["name"].startswith(("layer ", "network ")) and row["part"] in PASSES and row["ms"]
    ]
    columns = _columns(rows)
    m = result["machine"]
    lines = [
        *(f"- {line}." for line in _ranges(rows)),
        *_recurrent(result),
        "",
        "| " + " | ".join(head for head, _ in columns) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(cell(row) for _, cell in columns) + " |" for row in rows),
        "",
        f"Medians on {m['device']}, torch {m['torch']}, Triton {m['triton']}, {m['date'][:10]}:",
        f"[stored file]({file}). The peak is {m['fma_rate'] / 1e12:.3g}e12 multiply-adds/s.",
    ]
    return "\n".join(lines)


def _ranges(rows: list[Record]) -> list[str]:
    """The speed-up over each rival and the fraction of the floor, over all rows."""
    said = []
    for name, head in RIVALS.items():
        if found := [ratio for row in rows if (ratio := rival(row, name, "ratio"))]:
            said.append(f"{factors(found)} {'' if said else 'faster '}than the {head}")
    found = [row["fraction"] for row in rows if row["fraction"]]
    ends = dict.fromkeys(f"{end(found):.1%}" for end in (min, max) if found)
    floor = [f"{' to '.join(ends)} of the peak multiply-add rate"] if ends else []
    return [", ".join(said), *floor]


def _recurrent(result: Record) -> list[str]:
    """The rows of recurrent synapses in one line."""
    rows = [row for row in result["rows"] if row["name"].startswith("recurrent synapses")]
    ratios = [ratio for row in rows if (ratio := rival(row, "loop", "ratio"))]
    if not ratios:
        return []
    sizes = sorted({row["J"] for row in rows})
    return [
        f"- Recurrent synapses alone, {sizes[0]} to {sizes[-1]} neurons:"
        f" {factors(ratios)} faster than the {RIVALS['loop']}."
    ]


def readme_section(root: Path) -> str:
    """The README's text between its markers: the newest result, and where others are."""
    files = sorted((root / "bench" / "results").glob("gpu-*.json"))
    found = [(json.loads(file.read_text(encoding="utf-8")), file) for file in files]
    if not found:
        return NOTHING_STORED
    found.sort(key=lambda pair: pair[0]["machine"]["date"], reverse=True)
    newest, *others = [(result, file.relative_to(root).as_posix()) for result, file in found]
    return "\n".join([readme_table(*newest), *(f"Also: [{name}]({name})." for _, name in others)])


def write_readme(root: Path) -> None:
    replace_between(root / "README.md", BEGIN, END, readme_section(root))
