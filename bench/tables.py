"""Tables of a stored measurement: Markdown for the documents, and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import registry, stored
from bench.records import Record

NOT_MEASURED = "not measured"
NAMES = {"spikingjelly": "SpikingJelly", "snntorch": "snnTorch", "norse": "Norse"}
COLUMNS = (
    "group", "label", "contender", "T", "B", "I", "J", "recurrent", "part", "R", "ms", "low_ms",
    "high_ms", "rounds", "fma", "bytes", "fraction", "peak_bytes", "saved_bytes", "fresh_ms",
    "first_ms", "check",
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
    """A table without the columns that have nothing measured in any line."""
    _, *rest = lines
    nothing = ("-", NOT_MEASURED)
    kept = [k for k in range(len(lines[0])) if any(line[k] not in nothing for line in rest)]
    return [[line[k] for k in kept] for line in lines]


def figures(value: float | None, figures: int = 3) -> str:
    """So many figures, never in powers of ten."""
    if value is None:
        return "-"
    rounded = float(f"{value:.{figures}g}")
    digits = max(0, figures - len(str(int(abs(rounded)))))
    return f"{rounded:.{digits}f}"


def factors(values: Sequence[float]) -> str:
    """The range of factors, as in 12-20x."""
    low, high = (figures(v, 2 if v < 100 else 3) for v in (min(values), max(values)))
    return f"{low}x" if low == high else f"{low}-{high}x"


def _milliseconds(row: Record | None) -> str:
    return NOT_MEASURED if row is None else f"{figures(row['ms'])} ms"


def _against(rows: Sequence[Record], who: str) -> str:
    """The time of a contender and how many times faster this library is."""
    ours, other = stored.base(rows), stored.base(rows, who)
    if ours is None or other is None:
        return NOT_MEASURED
    return f"{_milliseconds(other)} ({figures(other['ms'] / ours['ms'])}x)"


def pass_name(group: str) -> str:
    """The sizes alone: 700->128r T250 B8."""
    return group.removeprefix("layer ").removesuffix(" both").removesuffix(" step")


# -- the README ------------------------------------------------------------------------------------


def passes(result: Record) -> list[str]:
    """The README's table: forward and backward, and the training step of a network."""
    groups = stored.passes(result)

    def plain(rows: Sequence[Record]) -> str:
        if rows[0]["work"]["kind"] == "network":
            return "-"
        row = stored.fastest(rows, registry.PLAIN)
        return (
            NOT_MEASURED
            if row is None
            else f"{_against(rows, row['contender'])}, {NAMES[row['contender']]}"
        )

    def share(rows: Sequence[Record]) -> str:
        part = stored.fraction(rows[0], result)
        return "-" if part is None else f"{part:.1%}"

    def memory(rows: Sequence[Record], who: str) -> str:
        row = stored.base(rows, who)
        peak = None if row is None else stored.peak(row)
        return "-" if peak is None else f"{_mega(peak)} MB"

    def other(who: str) -> Callable[[Sequence[Record]], str]:
        return lambda rows: _against(rows, who)

    columns: dict[str, Callable[[Sequence[Record]], str]] = {
        "this library": lambda rows: _milliseconds(rows[0]),
        "in a CUDA graph": lambda rows: _milliseconds(stored.base(rows, registry.OURS_GRAPH)),
        "eager loop": other(registry.LOOP),
        "compiled step": other(registry.COMPILED),
        "loop in a graph": other(registry.GRAPH),
        "compiled step in a graph": other(registry.COMPILED_GRAPH),
        "fastest plain LIF": plain,
        registry.LSTM: other(registry.LSTM),
        registry.GRU: other(registry.GRU),
        "of the peak": share,
        "peak memory": lambda rows: memory(rows, registry.OURS),
        "of the loop": lambda rows: memory(rows, registry.LOOP),
    }
    table = [["forward and backward", *columns]]
    for group, rows in groups.items():
        ours_first = sorted(rows, key=lambda row: row["contender"] != registry.OURS)
        table.append([pass_name(group), *(cell(ours_first) for cell in columns.values())])
    return markdown(filled(table)) if len(table) > 1 else []


def speed_ups(result: Record) -> str:
    """How many times faster than each kind of contender, over all passes."""
    groups = list(stored.passes(result).values())
    run = [
        NAMES[name] for name in registry.PLAIN if any(stored.base(rows, name) for rows in groups)
    ]
    which = f" ({', '.join(run)})" if len(run) < len(registry.PLAIN) else ""
    said: list[str] = []
    for names, what in (
        ((registry.LOOP,), "the eager loop"),
        ((registry.COMPILED,), "with a compiled step"),
        ((registry.GRAPH,), "the loop in a CUDA graph"),
        ((registry.COMPILED_GRAPH,), "with a compiled step in a CUDA graph"),
        (registry.PLAIN, f"plain LIF{which}"),
    ):
        found = [
            other["ms"] / ours["ms"]
            for rows in groups
            if (ours := stored.base(rows)) and (other := stored.fastest(rows, names))
        ]
        if found:
            said.append(f"{factors(found)} {'' if said else 'faster '}than {what}")
    return ", ".join(said)


def summary(result: Record) -> list[str]:
    """The ranges over all passes."""
    groups = list(stored.passes(result).values())
    lines = [f"- {speed_ups(result)}."]
    peaks = [
        (stored.peak(loop), stored.peak(ours))
        for rows in groups
        if (ours := stored.base(rows)) and (loop := stored.base(rows, registry.LOOP))
    ]
    ratios = [loop / ours for loop, ours in peaks if loop and ours]
    lines += [f"- {factors(ratios)} less peak memory than the eager loop."] if ratios else []
    return lines


def device(machine: Record) -> str:
    """Its name, and its instructions where they are known."""
    instructions = machine.get("instructions")
    return f"{machine['device']} ({instructions})" if instructions else str(machine["device"])


def medians(file: Path, result: Record) -> str:
    """The machine of the README's table in one sentence."""
    m = result["machine"]
    threads = "" if "cuda" in m else f", {m['threads']} threads"
    kernels = f"Triton {m['triton']}" if "cuda" in m else f"Numba {m['numba']}"
    peak = ""
    if m.get("fma_rate"):
        peak = f" The peak is {m['fma_rate'] / 1e12:.3g}e12 multiply-adds/s."
    link = f"[stored file](bench/results/{file.name})"
    return (
        f"Medians on {device(m)}{threads}, float32, torch {m['torch']}, {kernels},"
        f" {m['date'][:10]}: {link}.{peak}"
    )


# -- docs/speed.md ---------------------------------------------------------------------------------


def machine(result: Record) -> str:
    """Machine, date and commit of the figures."""
    m = result["machine"]
    versions = [f"torch {m['torch']}"]
    for name in ("numba", "triton", "spikingjelly", "snntorch", "norse"):
        if m.get(name):
            versions.append(f"{name} {m[name]}")
    changed = ", with changes" if m["changed"] else ""
    cores = f", {m['threads']} threads of {m['cores']} cores" if m.get("cores") else ""
    load = ""
    if "load_average" in m:  # of a CPU
        numbers = "flushed to 0" if m.get("denormals_zero") else "not flushed by every contender"
        load = f" Load at the start {m['load_average']:.1f}; subnormal numbers {numbers}."
    earlier = ""
    if "earlier" in result:
        other, rate = result["earlier"]["machine"], result["earlier"]["rates"]["fma"]
        earlier = (
            " An earlier program measured the operators and the passes of the README's table, on"
            f" {other['date'][:10]}, commit {other['commit'][:10]}; its peak is"
            f" {figures(rate / 1e9)} billion multiply-adds per second."
        )
    return (
        f"{device(m)}{cores}, float32, {', '.join(versions)}, Python {m['python']},"
        f" {m['date'][:10]}, commit {m['commit'][:10]}{changed}. Peak"
        f" {figures(result['rates']['fma'] / 1e9)} billion multiply-adds per second.{load}"
        f" {result['gate']['passed']} tests passed before the measurement."
        f" Memory {result['memory']}.{earlier}"
    )


def contests(result: Record) -> list[str]:
    """A table of all contenders for each work that has several."""
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
                "ms, first call",
            ]
        ]
        for row in rows:
            backend = row["contender"] in (registry.OURS, registry.CLOSED)
            part = stored.fraction(row, result) if backend else None
            table.append(
                [
                    row["label"] + ("" if row["check"].startswith("equal") else " (another model)"),
                    figures(row["ms"]),
                    f"{figures(row['low_ms'])}-{figures(row['high_ms'])}",
                    figures(row["ms"] / ours["ms"]),
                    "-" if part is None else f"{part:.0%}",
                    _mega(stored.peak(row)),
                    _mega(stored.kept(row)),
                    figures(row.get("fresh_ms")),
                    figures(row.get("first_ms")),
                ]
            )
        lines += ["", f"**{group}**", "", *markdown(filled(table))]
    return lines


def sweep(result: Record) -> list[str]:
    """This library against the closed forms and the loop, at all sizes."""
    table = [["", "ms", "of the peak", "peak MB", "x closed forms", "x loop", "MB of the loop"]]
    for group, rows in stored.groups(result, "layer").items():
        ours = stored.base(rows)
        if ours is None or len(rows) >= 4 or rows[0]["work"]["T"] == 1:
            continue
        part = stored.fraction(ours, result)
        others = [stored.base(rows, name) for name in (registry.CLOSED, registry.LOOP)]
        ratios = [figures(o["ms"] / ours["ms"]) if o else "-" for o in others]
        loop = _mega(stored.peak(others[1])) if others[1] else "-"
        cells = [group, figures(ours["ms"]), f"{part:.0%}" if part else "-"]
        table.append([*cells, _mega(stored.peak(ours)), *ratios, loop])
    return ["", *markdown(filled(table))] if len(table) > 1 else []


def fixed(result: Record) -> list[str]:
    """One step of one sample, where the fixed cost of a call is nearly all of it."""
    table = [["one step, one sample", "this library", registry.GRU]]
    for group, rows in stored.groups(result, "layer").items():
        if rows[0]["work"]["T"] == 1 and stored.base(rows):
            table.append([group, _milliseconds(stored.base(rows)), _against(rows, registry.GRU)])
    return ["", *markdown(table)] if len(table) > 1 else []


def alone(result: Record) -> list[str]:
    """Operators, kernels and recurrent synapses by themselves."""
    table = [["", "ms", "quartiles", "of the peak", "predicted", "GB/s", "x loop", "x graph"]]
    for group, rows in stored.alone(result).items():
        ours = stored.base(rows)
        if ours is None:
            continue
        part, predicted = stored.fraction(ours, result), (ours.get("predicted") or {})
        moved = ours.get("bytes") if not ours["fma"] else None
        others = [stored.base(rows, who) for who in (registry.LOOP, registry.GRAPH)]
        table.append(
            [
                group.removesuffix(" both"),
                figures(ours["ms"]),
                f"{figures(ours['low_ms'])}-{figures(ours['high_ms'])}",
                "-" if part is None else f"{part:.0%}",
                f"{predicted['in_waves']:.0%}" if predicted.get("in_waves") else "-",
                figures(moved / ours["ms"] / 1e6 if moved else None),
                *(figures(other["ms"] / ours["ms"] if other else None) for other in others),
            ]
        )
    return ["", *markdown(filled(table))] if len(table) > 1 else []


def growth(result: Record) -> list[str]:
    """Exponents; of time also the target and whether it is reached."""
    table = [["layer", "axis", "sizes", "points", "time", "target", "reached", "memory"]]
    for one in stored.growths(result):
        sizes = [f"{one.sizes[0]}-{one.sizes[-1]}", str(len(one.sizes))]
        reached = {True: "yes", False: "no", None: "-"}[one.reached]
        target = [f"{one.target} ± {stored.WITHIN}", reached]
        times, memory = (_exponent(*stored.fit(one.sizes, v)) for v in (one.ms, one.peaks))
        table.append([one.form, one.axis, *sizes, times, *target, memory])
    lines = []
    if len(table) > 1:
        lines = ["", *markdown(filled(table)), ""]
        lines.append(
            "The exponent of time, ± the standard error of the fit. An exponent below the target"
            " means that a part of the call does not grow; above it, growth is faster than linear."
        )
    steps = stored.per_step(result)
    slope, _ = stored.fit(list(steps), list(steps.values()))
    if slope is not None:
        lines += [
            "",
            f"Bytes per additional step of layers N -> N, N {min(steps)}-{max(steps)}: exponent"
            f" {slope:.2f}. A term T I J would give 2.",
        ]
    return lines


def replicas(result: Record) -> list[str]:
    table = [["training step", "sequential", "together", "speed-up"]]
    for group, rows in stored.groups(result, "replicas").items():
        together, turns = (
            stored.base(rows, registry.TOGETHER),
            stored.base(rows, registry.ONE_BY_ONE),
        )
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
