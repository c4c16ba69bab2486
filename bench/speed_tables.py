"""Write the tables of a stored measurement, in Markdown and CSV."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence
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
    """Return all rows as CSV, with the sizes of their work."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in result["rows"]:
        writer.writerow({**row["work"], **row, "fraction": stored.fraction(row, result)})
    return text.getvalue()


def markdown(lines: Sequence[dict[str, str]]) -> list[str]:
    """Return a Markdown table without the columns in which nothing was measured."""
    if not lines:
        return []
    nothing = ("-", NOT_MEASURED)
    head = [name for name in lines[0] if any(line[name] not in nothing for line in lines)]
    cells = [head, *([line[name] for name in head] for line in lines)]
    found = [f"| {' | '.join(line)} |" for line in cells]
    return [found[0], "|" + "---|" * len(head), *found[1:]]


def figures(value: float | None, figures: int = 3) -> str:
    """Format a value with so many significant digits, never in powers of ten."""
    if value is None:
        return "-"
    rounded = float(f"{value:.{figures}g}")
    digits = max(0, figures - len(str(int(abs(rounded)))))
    return f"{rounded:.{digits}f}"


def factors(values: Sequence[float]) -> str:
    """Format the range of some factors, as in 12.3-19.7x."""
    low, high = figures(min(values)), figures(max(values))
    return f"{low}x" if low == high else f"{low}-{high}x"


def _milliseconds(row: Record | None) -> str:
    return NOT_MEASURED if row is None else f"{figures(row['ms'])} ms"


def _quartiles(row: Record) -> str:
    return f"{figures(row['low_ms'])}-{figures(row['high_ms'])}"


def _percent(part: float | None, digits: int = 0) -> str:
    return "-" if part is None else f"{part:.{digits}%}"


def _mega(value: float | None) -> str:
    return figures(None if value is None else value / 1e6)


def _times(rows: Sequence[Record], name: str) -> str:
    """Return how many times faster this library is than a contender."""
    ours, other = stored.base(rows), stored.base(rows, name)
    return figures(other["ms"] / ours["ms"]) if ours and other else "-"


def _against(rows: Sequence[Record], name: str) -> str:
    """Return the time of a contender, and how many times faster this library is."""
    ratio = _times(rows, name)
    return NOT_MEASURED if ratio == "-" else f"{_milliseconds(stored.base(rows, name))} ({ratio}x)"


def pass_name(group: str) -> str:
    """Return the sizes in the name of a pass, as in 700->128r T250 B8."""
    return group.removeprefix("layer ").removesuffix(" both").removesuffix(" step")


# -- the README ------------------------------------------------------------------------------------


def passes(result: Record) -> list[str]:
    """Return the README's table: layers (forward and backward) and a network's training step."""
    lines = []
    for group, rows in stored.passes(result).items():
        ours = stored.base(rows)
        assert ours is not None
        lines.append(
            {
                "layer or network": pass_name(group),
                "this library": _milliseconds(ours),
                "in a CUDA graph": _milliseconds(stored.base(rows, registry.OURS_GRAPH)),
                "eager loop": _against(rows, registry.LOOP),
                "compiled step": _against(rows, registry.COMPILED),
                "loop in a graph": _against(rows, registry.GRAPH),
                "compiled step in a graph": _against(rows, registry.COMPILED_GRAPH),
                "fastest plain LIF": _plain(rows),
                registry.LSTM: _against(rows, registry.LSTM),
                registry.GRU: _against(rows, registry.GRU),
                "share of peak rate": _percent(stored.fraction(ours, result), 1),
                "peak memory": _memory(ours),
                "peak memory of the loop": _memory(stored.base(rows, registry.LOOP)),
            }
        )
    return markdown(lines)


def _plain(rows: Sequence[Record]) -> str:
    """Return the time of the fastest plain LIF layer; networks have none."""
    row = stored.fastest(rows, registry.PLAIN)
    if row is not None:
        return f"{_against(rows, row['contender'])}, {NAMES[row['contender']]}"
    return "-" if rows[0]["work"]["kind"] == "network" else NOT_MEASURED


def _memory(row: Record | None) -> str:
    peak = None if row is None else stored.peak(row)
    return "-" if peak is None else f"{_mega(peak)} MB"


def speed_ups(result: Record) -> str:
    """Return the ranges of speed-ups over each kind of contender, over all passes."""
    groups = list(stored.passes(result).values())
    run = [
        NAMES[name] for name in registry.PLAIN if any(stored.base(rows, name) for rows in groups)
    ]
    which = f" ({', '.join(run)})" if len(run) < len(registry.PLAIN) else ""
    said: list[str] = []
    for names, what in (
        ((registry.LOOP,), "the eager loop"),
        ((registry.COMPILED,), "the loop with a compiled step"),
        ((registry.GRAPH,), "the loop in a CUDA graph"),
        ((registry.COMPILED_GRAPH,), "the loop with a compiled step in a CUDA graph"),
        (registry.PLAIN, f"the fastest plain LIF layer{which}"),
    ):
        found = [
            other["ms"] / ours["ms"]
            for rows in groups
            if (ours := stored.base(rows)) and (other := stored.fastest(rows, names))
        ]
        if found:
            said.append(f"{factors(found)} faster than {what}")
    return ", ".join(said)


def summary(result: Record) -> list[str]:
    """Return the ranges of speed-ups and of saved memory over all passes."""
    lines, ratios = [f"- {speed_ups(result)}."], []
    for rows in stored.passes(result).values():
        ours, loop = stored.base(rows), stored.base(rows, registry.LOOP)
        peaks = ours and stored.peak(ours), loop and stored.peak(loop)
        ratios += [peaks[1] / peaks[0]] if peaks[0] and peaks[1] else []
    if ratios:
        lines.append(f"- {factors(ratios)} less peak memory than the eager loop.")
    return lines


def device(machine: Record) -> str:
    """Return the device's name and, if known, its instructions."""
    instructions = machine.get("instructions")
    return f"{machine['device']} ({instructions})" if instructions else str(machine["device"])


def medians(file: Path, result: Record) -> str:
    """Describe the machine of the README's table in one sentence."""
    m = result["machine"]
    threads = "" if "cuda" in m else f", {m['threads']} threads"
    kernels = f"Triton {m['triton']}" if "cuda" in m else f"Numba {m['numba']}"
    peak = ""
    if m.get("fma_rate"):
        peak = f" The peak rate is {m['fma_rate'] / 1e12:.3g}e12 multiply-adds per second."
    link = f"[stored file](bench/results/{file.name})"
    return (
        f"Medians on {device(m)}{threads}, float32, torch {m['torch']}, {kernels},"
        f" {m['date'][:10]}: {link}.{peak}"
    )


# -- docs/speed.md ---------------------------------------------------------------------------------


def machine(result: Record) -> str:
    """Describe machine, versions, date and commit of a result."""
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
            f" An older benchmark program ({result['earlier']['program']}) measured the operators"
            " and the passes of the README's table, with their memory, on"
            f" {other['date'][:10]}, commit {other['commit'][:10]}; its peak is"
            f" {figures(rate / 1e9)} billion multiply-adds per second."
        )
    return (
        f"{device(m)}{cores}, float32, {', '.join(versions)}, Python {m['python']},"
        f" {m['date'][:10]}, commit {m['commit'][:10]}{changed}. Peak"
        f" {figures(result['rates']['fma'] / 1e9)} billion multiply-adds per second.{load}"
        f" {result['tests']['passed']} tests passed before the measurement."
        f" Memory {result['memory']}.{earlier}"
    )


def contenders(result: Record) -> list[str]:
    """Return a table of all contenders for each work that has several."""
    found: list[str] = []
    for group, rows in stored.groups(result).items():
        if not stored.base(rows) or (len(rows) < 4 and rows[0]["work"]["kind"] != "network"):
            continue
        lines = []
        for row in rows:
            backend = row["contender"] in (registry.OURS, registry.CLOSED)
            other = "" if row["check"].startswith("equal") else " (another model)"
            lines.append(
                {
                    "": row["label"] + other,
                    "ms": figures(row["ms"]),
                    "quartiles": _quartiles(row),
                    "x": _times(rows, row["contender"]),
                    "share of peak rate": _percent(
                        stored.fraction(row, result) if backend else None
                    ),
                    "peak MB": _mega(stored.peak(row)),
                    "kept MB": _mega(stored.kept(row)),
                    "ms, fresh memory": figures(row.get("fresh_ms")),
                    "ms, first call": figures(row.get("first_ms")),
                }
            )
        found += ["", f"**{group}**", "", *markdown(lines)]
    return found[1:]


def sweep(result: Record) -> list[str]:
    """Return a table of this library, the closed forms and the loop at all sizes."""
    lines = []
    for group, rows in stored.groups(result, "layer").items():
        ours, loop = stored.base(rows), stored.base(rows, registry.LOOP)
        if ours is None or len(rows) >= 4 or ours["work"]["T"] == 1:
            continue
        lines.append(
            {
                "": group,
                "ms": figures(ours["ms"]),
                "share of peak rate": _percent(stored.fraction(ours, result)),
                "peak MB": _mega(stored.peak(ours)),
                "closed forms (x)": _times(rows, registry.CLOSED),
                "loop (x)": _times(rows, registry.LOOP),
                "peak MB of the loop": _mega(stored.peak(loop)) if loop else "-",
            }
        )
    return markdown(lines)


def fixed(result: Record) -> list[str]:
    """Return a table of one step of one sample, which is almost all fixed cost."""
    return markdown(
        [
            {
                "one step, one sample": group,
                "this library": _milliseconds(stored.base(rows)),
                registry.GRU: _against(rows, registry.GRU),
            }
            for group, rows in stored.groups(result, "layer").items()
            if rows[0]["work"]["T"] == 1 and stored.base(rows)
        ]
    )


def alone(result: Record) -> list[str]:
    """Return a table of single operators, kernels and recurrent synapses."""
    lines = []
    for group, rows in stored.alone(result).items():
        ours = stored.base(rows)
        if ours is None:
            continue
        moved = ours.get("bytes") if not ours["fma"] else None
        lines.append(
            {
                "": group.removesuffix(" both"),
                "ms": figures(ours["ms"]),
                "quartiles": _quartiles(ours),
                "share of peak rate": _percent(stored.fraction(ours, result)),
                # By a model without latency, which has been removed; only old files have it.
                "predicted": _percent(ours.get("predicted", {}).get("in_waves")),
                "GB/s": figures(moved / ours["ms"] / 1e6 if moved else None),
                "loop (x)": _times(rows, registry.LOOP),
                "loop in a CUDA graph (x)": _times(rows, registry.GRAPH),
            }
        )
    return markdown(lines)


def growth(result: Record) -> list[str]:
    """Return a table of fitted exponents, with target and verdict for those of time."""
    lines = markdown(
        [
            {
                "layer": one.form,
                "axis": one.axis,
                "sizes": f"{one.sizes[0]}-{one.sizes[-1]}",
                "points": str(len(one.sizes)),
                "time": _exponent(*stored.fit(one.sizes, one.ms)),
                "target": f"{one.target} ± {stored.WITHIN}",
                "reached": {True: "yes", False: "no", None: "-"}[one.reached],
                "memory": _exponent(*stored.fit(one.sizes, one.peaks)),
            }
            for one in stored.growths(result)
        ]
    )
    if lines:
        lines += [
            "",
            "The exponent of time, ± the standard error of the fit. An exponent below the target"
            " means that a part of the call does not grow. Above the target, time grows faster than"
            " the work.",
        ]
    steps = stored.per_step(result)
    slope, _ = stored.fit(list(steps), list(steps.values()))
    if slope is not None:
        lines += [
            "",
            f"Layers of N inputs and N neurons, N from {min(steps)} to {max(steps)}: the memory"
            f" of a time step grows as N^{slope:.2f}. Memory per synapse and step would be N^2.",
        ]
    return lines


def replicas(result: Record) -> list[str]:
    lines = []
    for group, rows in stored.groups(result, "replicas").items():
        together = stored.base(rows, registry.TOGETHER)
        sequential = stored.base(rows, registry.ONE_BY_ONE)
        if together and sequential:
            lines.append(
                {
                    "training step": group,
                    "sequential": _milliseconds(sequential),
                    "together": _milliseconds(together),
                    "speed-up": figures(sequential["ms"] / together["ms"]),
                }
            )
    return markdown(lines)


def missing(result: Record) -> list[str]:
    lines = [f"- {name}: {reason}" for name, reason in result["missing"].items()]
    for row in result["rows"]:
        if "memory" in row and row["work"]["part"] != "backward":
            reason = row["memory"].removeprefix("not measured: ")
            lines.append(f"- memory of {row['group']}, {row['label']}: {reason}")
    wrapped = [textwrap.fill(line, 100, subsequent_indent="  ") for line in lines]
    return ["Not measured:", "", *wrapped] if lines else []


def _exponent(value: float | None, error: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" + ("" if error is None else f" ± {error:.2f}")
