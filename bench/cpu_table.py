"""What `cpu.py` stored, as text and as the README's table."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import records
from bench.cpu_rows import COMPILED, LOOP, OURS_LESS, PLAIN
from bench.records import NOT_MEASURED, Record

BEGIN, END = "<!-- cpu-speed -->", "<!-- /cpu-speed -->"
NAMES = {"spikingjelly": "SpikingJelly", "snntorch": "snnTorch", "norse": "Norse"}
NOTHING_STORED = "Not measured yet: `python -m bench.cpu` measures and stores."


def _number(value: Any, form: str = ".3g", scale: float = 1.0, unit: str = "") -> str:
    return "-" if value is None else format(value * scale, form) + unit


def figures(value: float | None, figures: int = 3) -> str:
    """As many figures, never in powers of ten."""
    if value is None:
        return "-"
    rounded = float(f"{value:.{figures}g}")
    digits = max(0, figures - len(str(int(abs(rounded)))))
    return f"{rounded:.{digits}f}"


def rival(row: Record, name: str, field: str) -> Any:
    return row["rivals"].get(name, {}).get(field)


def milliseconds(ms: float | None) -> str:
    return "-" if ms is None else f"{figures(ms)} ms"


def against(row: Record, name: str) -> str:
    """A rival's time and how many times faster ours is."""
    ms, ratio = rival(row, name, "ms"), rival(row, name, "ratio")
    return NOT_MEASURED if ms is None else f"{milliseconds(ms)} ({figures(ratio)}x)"


def _plain_run(rows: Sequence[Record]) -> list[str]:
    """Names of the plain LIF layers that were measured."""
    return [NAMES[name] for name in PLAIN if any(rival(row, name, "ms") for row in rows)]


def _fastest(row: Record, names: Sequence[str] = PLAIN) -> str | None:
    """Of those that were measured; by default of the plain LIF layers."""
    return min(
        (n for n in names if rival(row, n, "ms")),
        default=None,
        key=lambda n: row["rivals"][n]["ms"],
    )


# -- the README ------------------------------------------------------------------------------------


def stored(root: Path) -> list[Path]:
    """Files of results, none of them a rehearsal's."""
    return sorted((root / "bench" / "results").glob("cpu-*.json"))


def readme_table(result: Record, file: str) -> str:
    """The ranges in two lines, the passes, and the machine."""
    m = result["machine"]
    memory = {row["name"]: row for row in result["memory"]}
    lines = [
        f"- {_speed_ups(result)}.",
        *_memory_ratio(result),
        "",
        "| forward and backward, 250 steps | this library | eager loop | compiled step"
        " | fastest plain LIF | peak memory | of the loop |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in _passes(result):
        used = memory.get(row["name"], {})
        plain = "-"
        if row["part"] == "gradients":
            name = _fastest(row)
            plain = NOT_MEASURED if name is None else f"{against(row, name)}, {NAMES[name]}"
        cells = [
            f"{row['name']}{', with optimizer' if row['part'] == 'step' else ''}",
            milliseconds(row["ms"]),
            against(row, LOOP),
            against(row, COMPILED),
            plain,
            *(f"{figures(v and v / 1e6)} MB" for v in (_peak(used, "ours"), _peak(used, "loop"))),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        f"Medians on {m['device']} ({m['instructions']}), {m['threads']} threads, float32,"
        f" torch {m['torch']},",
        f"Numba {m['numba']}, {m['date'][:10]}: [stored file]({file}).",
        *_not_run(result),
    ]
    return "\n".join(lines)


def _passes(result: Record) -> list[Record]:
    """The rows with gradients."""
    return [row for row in result["layers"] if row["part"] != "forward"]


def _not_run(result: Record) -> list[str]:
    """Which plain layers the table lacks."""
    run = _plain_run(result["layers"])
    absent = [name for name in NAMES.values() if name not in run]
    return [f"Not run for this table: {' and '.join(absent)}."] if run and absent else []


def factors(values: Sequence[float]) -> str:
    """The range of factors, as in 12-20x."""
    low, high = (figures(v, 2 if v < 100 else 3) for v in (min(values), max(values)))
    return f"{low}x" if low == high else f"{low}-{high}x"


def _speed_ups(result: Record) -> str:
    """How many times faster than each kind of rival, over all passes."""
    rows = _passes(result)
    run = _plain_run(rows)
    which = f" ({', '.join(run)})" if len(run) < len(PLAIN) else ""
    said = []
    for names, what in (
        ((LOOP,), "the eager loop"),
        ((COMPILED,), "with a compiled step"),
        (PLAIN, f"plain LIF{which}"),
    ):
        found = [rival(row, n, "ms") / row["ms"] for row in rows if (n := _fastest(row, names))]
        if found:
            said.append(f"{factors(found)} {'' if said else 'faster '}than {what}")
    return ", ".join(said)


def _memory_ratio(result: Record) -> list[str]:
    """How much less memory than the loop takes, over all passes."""
    peaks = [(_peak(row, "loop"), _peak(row, "ours")) for row in result["memory"]]
    found = [loop / ours for loop, ours in peaks if loop and ours]
    return [f"- {factors(found)} less peak memory than the eager loop."] if found else []


def elsewhere(result: Record, file: str) -> str:
    """Another machine in one sentence, in lines of 100 columns without the link's target."""
    m = result["machine"]
    name = f"[{m['device']} ({m['instructions']}), {m['threads']} threads]"
    text = textwrap.fill(f"{name}: {_speed_ups(result)}.", 100, break_on_hyphens=False)
    return text.replace(name, f"{name}({file})")


def _peak(row: Record, who: str) -> float | None:
    found: float | None = row.get(who, {}).get("peak")
    return found


def readme_section(root: Path) -> str:
    """The README's text between its markers: the newest result, and the ratios of the others."""
    found = [(file, json.loads(file.read_text(encoding="utf-8"))) for file in stored(root)]
    if not found:
        return NOTHING_STORED
    found.sort(key=lambda pair: pair[1]["machine"]["date"], reverse=True)
    names = [file.relative_to(root).as_posix() for file, _ in found]
    (_, newest), *others = found
    table = readme_table(newest, names[0])
    more = [elsewhere(result, name) for (_, result), name in zip(others, names[1:], strict=True)]
    return "\n".join([table, *more])


def between_markers(text: str, begin: str = BEGIN, end: str = END) -> str:
    found = re.search(f"{re.escape(begin)}\n(.*?)\n{re.escape(end)}", text, re.DOTALL)
    if found is None:
        raise ValueError(f"no {begin} ... {end}")
    return found[1]


def replace_between(file: Path, begin: str, end: str, section: str) -> None:
    """Writes `section` between the markers of a file."""
    content = file.read_text(encoding="utf-8")
    old = between_markers(content, begin, end)
    records.write(file, content.replace(f"{begin}\n{old}\n{end}", f"{begin}\n{section}\n{end}"))


def write_readme(root: Path) -> None:
    replace_between(root / "README.md", BEGIN, END, readme_section(root))


# -- on the screen ---------------------------------------------------------------------------------


def text(result: Record) -> str:
    """All of it."""
    m, rates, gate = result["machine"], result["rates"], result["gate"]
    lines = ["REHEARSAL, tiny sizes: no figure here means anything"] if result["rehearsal"] else []
    lines += [
        f"{m['device']} ({m['instructions']}), {m['threads']} threads, load {m['load_average']},"
        f" torch {m['torch']}, Numba {m['numba']}, Python {m['python']}, {m['date']}, commit"
        f" {m['commit']}{' (changed)' if m['changed'] else ''}",
        f"gate: {gate['state']} ({gate['passed']} passed, {gate['failed']} failed)",
        f"peak {rates['fma'] / 1e9:.1f} GFMA/s, copies {rates['copy'] / 1e9:.1f} GB/s,"
        f" {result['seconds']:.0f} s in all",
        "",
        *_layers(result["layers"]),
        "",
        *_operators(result["operators"]),
        "",
    ]
    for g in result["growth"]:
        error = "" if g.get("standard_error") is None else f" ± {g['standard_error']:.2g}"
        met = {True: ", met", False: ", not met", None: ""}[g.get("met")]
        lines.append(
            f"time against {g['axis']} {g['sizes'][0]}-{g['sizes'][-1]}, {g['layer']}: exponent"
            f" {g['exponent']}{error} (wanted {g['wanted']}{met})"
        )
    if result["memory_growth"]:
        g = result["memory_growth"]
        lines.append(f"bytes per step against inputs and neurons: exponent {g['exponent']}")
    lines += ["", *_memory(result["memory"])]
    notes = [
        f"- {row['name']} {row['part']}, {name}: {rival['reason']}"
        for row in result["layers"]
        for name, rival in row["rivals"].items()
        if rival.get("reason")
    ]
    return "\n".join([*lines, "", "Not measured:", *notes] if notes else lines)


def _layers(rows: list[Record]) -> list[str]:
    names = (LOOP, COMPILED, *PLAIN, OURS_LESS)
    head = ["row", "part", "ms", "quartiles", "of the peak", *(f"x {name}" for name in names)]
    cells = [
        [
            row["name"],
            row["part"],
            _number(row["ms"]),
            f"{_number(row.get('low_ms'))}-{_number(row.get('high_ms'))}",
            _number(row.get("fraction"), ".1%"),
            *(_number(rival(row, name, "ratio")) for name in names),
        ]
        for row in rows
    ]
    return records.aligned([head, *cells])


def _operators(rows: list[Record]) -> list[str]:
    head = ["operator", "ms", "quartiles", "GFMA/s", "of the peak", "GB/s"]
    cells = [
        [
            row["name"],
            _number(row["ms"]),
            f"{_number(row.get('low_ms'))}-{_number(row.get('high_ms'))}",
            _number(row.get("gfma")),
            _number(row.get("fraction"), ".1%"),
            _number(row.get("gbytes")) if not row["fma"] else "-",
        ]
        for row in rows
    ]
    return records.aligned([head, *cells])


def _memory(rows: list[Record]) -> list[str]:
    head = [
        "memory, MB", "ours", "of z, V and g", "kept", "loop", "kept", "loop / ours",
        "first call ms", "loop",
    ]  # fmt: skip
    cells = [
        [
            row["name"],
            _number(_peak(row, "ours"), scale=1e-6),
            _number(row.get("of_z_v_and_g")),
            _number(row["ours"].get("saved"), scale=1e-6),
            _number(_peak(row, "loop"), ".4g", 1e-6),
            _number(row["loop"].get("saved"), ".4g", 1e-6),
            _number(row.get("loop_over_ours")),
            _number(row["ours"].get("first_ms")),
            _number(row["loop"].get("first_ms"), ".4g"),
        ]
        for row in rows
    ]
    return records.aligned([head, *cells])
