"""A stored measurement as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from bench import stored
from bench.cpu_table import figures
from bench.growth import WITHIN
from bench.records import Record
from bench.registry import CLOSED, LOOP, ONE_BY_ONE, OURS, TOGETHER

COLUMNS = (
    "group", "label", "contender", "T", "B", "I", "J", "recurrent", "part", "R", "ms", "low_ms",
    "high_ms", "rounds", "fma", "fraction", "peak_bytes", "saved_bytes", "fresh_ms", "check",
)  # fmt: skip


def as_csv(result: Record) -> str:
    """Every row, with the sizes of its work."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in result["rows"]:
        writer.writerow({**row["work"], **row, "fraction": stored.fraction(row, result)})
    return text.getvalue()


def markdown(lines: Sequence[Sequence[str]]) -> list[str]:
    """A table; the first line is its head."""
    head, *rest = lines
    marks = "|" + "---|" * len(head)
    return [f"| {' | '.join(head)} |", marks, *(f"| {' | '.join(line)} |" for line in rest)]


def filled(lines: Sequence[Sequence[str]]) -> list[list[str]]:
    """A table without the columns that have "-" in every line but the head."""
    _, *rest = lines
    kept = [k for k in range(len(lines[0])) if any(line[k] != "-" for line in rest)]
    return [[line[k] for k in kept] for line in lines]


def machine(result: Record) -> str:
    """Where, when and of what the figures are."""
    m = result["machine"]
    versions = [f"torch {m['torch']}"]
    for name in ("numba", "triton", "spikingjelly", "snntorch", "norse"):
        if m.get(name):
            versions.append(f"{name} {m[name]}")
    changed = ", with changes" if m["changed"] else ""
    where = f"{m['device']} ({m['instructions']})" if m.get("instructions") else m["device"]
    cores = f", {m['threads']} threads of {m['cores']} cores" if m.get("cores") else ""
    load = ""
    if "load_average" in m:  # of a CPU
        numbers = "flushed to 0" if m.get("denormals_zero") else "not flushed by every contender"
        load = f" Load at the start {m['load_average']:.1f}; subnormal numbers {numbers}."
    return (
        f"{where}{cores}, float32, {', '.join(versions)}, Python {m['python']}, {m['date'][:10]},"
        f" commit {m['commit'][:10]}{changed}. Peak {figures(result['rates']['fma'] / 1e9)} billion"
        f" multiply-adds per second.{load} {result['gate']['passed']} tests passed before the"
        " measurement. Memory"
        f" {result.get('memory') or 'not shown: it was measured in one process for all calls'}."
    )


def contests(result: Record) -> list[str]:
    """A table for each work and everybody who does it."""
    lines: list[str] = []
    for group, rows in stored.groups(result).items():
        ours = stored.base(rows)
        if ours is None or (len(rows) < 4 and rows[0]["work"]["kind"] != "network"):
            continue
        table = [
            [
                "",
                "ms",
                "quartiles",
                "x",
                "of the peak",
                "peak MB",
                "kept MB",
                "ms, fresh memory",
            ]
        ]
        for row in rows:
            backend = row["contender"] in (OURS, CLOSED)
            part = stored.fraction(row, result) if backend else None
            table.append(
                [
                    row["label"] + ("" if row["check"].startswith("equal") else " (plain LIF)"),
                    figures(row["ms"]),
                    f"{figures(row['low_ms'])}-{figures(row['high_ms'])}",
                    figures(row["ms"] / ours["ms"]),
                    "-" if part is None else f"{part:.0%}",
                    _mega(stored.peak(row)),
                    _mega(stored.kept(row)),
                    figures(row.get("fresh_ms")),
                ]
            )
        lines += ["", f"**{group}**", "", *markdown(filled(table))]
    return lines


def sweep(result: Record) -> list[str]:
    """The sizes of the full set: ours, against the closed forms and the loop."""
    table = [["", "ms", "of the peak", "peak MB", "x closed forms", "x loop", "MB of the loop"]]
    for group, rows in stored.groups(result, "layer").items():
        ours = stored.base(rows)
        if ours is None or len(rows) >= 4:
            continue
        part = stored.fraction(ours, result)
        others = [stored.base(rows, name) for name in (CLOSED, LOOP)]
        ratios = [figures(o["ms"] / ours["ms"]) if o else "-" for o in others]
        loop = _mega(stored.peak(others[1])) if others[1] else "-"
        cells = [group, figures(ours["ms"]), f"{part:.0%}" if part else "-"]
        table.append([*cells, _mega(stored.peak(ours)), *ratios, loop])
    return ["", *markdown(filled(table))] if len(table) > 1 else []


def growth(result: Record) -> list[str]:
    """Exponents; of time also what is wanted and whether it is met."""
    table = [["layer", "axis", "sizes", "points", "time", "target", "reached", "memory"]]
    for one in stored.growths(result):
        cells = [
            one["form"],
            one["axis"],
            f"{one['sizes'][0]}-{one['sizes'][-1]}",
            str(len(one["sizes"])),
            _exponent(one["time"], one["time_error"]),
            f"{one['wanted']} ± {WITHIN}",
            {True: "yes", False: "no", None: "-"}[one["met"]],
            _exponent(one["memory"], one["memory_error"]),
        ]
        table.append(cells)
    lines = []
    if len(table) > 1:
        lines = ["", *markdown(filled(table)), ""]
        lines.append(
            "The exponent of time, ± the standard error of the fit. An exponent below the target"
            " means that a part of the call does not grow; above it, growth is faster than linear."
        )
    steps = stored.per_step(result)
    if steps:
        lines += [
            "",
            f"Bytes per additional step of layers N -> N, N {steps['sizes'][0]}-"
            f"{steps['sizes'][-1]}: exponent {_exponent(steps['exponent'])}. A term T I J would"
            " give 2.",
        ]
    return lines


def replicas(result: Record) -> list[str]:
    table = [["training step", "sequential", "together", "speed-up"]]
    for group, rows in stored.groups(result, "replicas").items():
        together, turns = stored.base(rows, TOGETHER), stored.base(rows, ONE_BY_ONE)
        if together and turns:
            ratio = figures(turns["ms"] / together["ms"])
            cells = [f"{figures(row['ms'])} ms" for row in (turns, together)]
            table.append([group, *cells, ratio])
    return ["", *markdown(table)] if len(table) > 1 else []


def missing(result: Record) -> list[str]:
    lines = [f"- {name}: {reason}" for name, reason in result["missing"].items()]
    for row in result["rows"]:
        if "memory" in row and row["work"]["part"] != "backward":
            reason = row["memory"].removeprefix("not measured: ")
            lines.append(f"- memory of {row['group']}, {row['label']}: {reason}")
    return ["", "Not measured:", "", *lines] if lines else []


def _exponent(value: float | None, error: float | None = None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" + ("" if error is None else f" ± {error:.2f}")


def _mega(value: float | None) -> str:
    return figures(None if value is None else value / 1e6)
