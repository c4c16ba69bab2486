"""From measurements to stored files, tables, pictures and documents.

    python -m bench.report FILE            store a file of `pytest --benchmark --benchmark-rows`
    python -m bench.report                 write the documents again from the stored files
    python -m bench.report --compare A B   compare two files, entry by entry

Storing runs the tests of the kernels first, unless FILE has the result of `bench.gate`; if a test
fails, nothing is written. FILE must be of the kernels and tests that lie here. It becomes
`results/benchmark-<device>-<instructions>-<threads>-threads.json`, beside it a folder with a table
of all rows and the pictures. docs/speed.md and the README's tables are written between their
markers.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path

import torch

from bench import ROOT, gate, machines, records, stored, tables
from bench.machines import commit, sources
from bench.records import Record, Refused

SPEED = "benchmark"
README = {
    "cpu-speed": "Intel-R-Xeon-R-Processor-AVX512-2-threads",
    "gpu-speed": "NVIDIA-H200-16-threads",
}
"""Markers in the README, and the machine whose stored file makes the table between them."""
NOTHING_STORED = (
    "Not measured yet: `pytest --benchmark --benchmark-rows=FILE.jsonl` measures,"
    " `python -m bench.report FILE.jsonl` stores."
)
SECONDS = 900
LOAD = 0.5
"""How far the loads of two measurements may be apart, in running processes."""


# -- storing ---------------------------------------------------------------------------------------


def gate_of(result: Record) -> Record:
    """All tests of what was measured, and of which sources they are."""
    if result.get("gate"):
        return dict(result["gate"])  # of --benchmark-proven
    if "cuda" in result["machine"] and not torch.cuda.is_available():
        raise Refused("the tests need a GPU: measure with --benchmark-proven")
    wanted = gate.GPU_TESTS if "cuda" in result["machine"] else gate.CPU_TESTS
    with tempfile.TemporaryDirectory() as folder:
        found = gate.run(wanted, Path(folder), SECONDS, os.cpu_count() or 1)
    return found | {"commit": commit(), "sources": sources()}


def store(file: Path, root: Path) -> Path:
    """Store a result; return its file. Raises Refused if it cannot be stored."""
    result = stored.load(file)
    green = {"gate": {"state": "green"}}
    stored.check(result | green)  # without the gate's minutes, if the result is refused anyway
    stored.check_same(result["machine"], commit(), sources())
    print("gate: the tests of the kernels", flush=True)
    result["gate"] = gate_of(result)
    print(f"gate: {result['gate']['state']} {result['gate']['reason'] or ''}", flush=True)
    for failure in result["gate"]["failures"][:20]:
        print("  ", failure)
    stored.check(result)
    folder = root / "bench" / "results"
    to = folder / machines.file_name(result["machine"])
    records.write(to, json.dumps(result, indent=1) + "\n")
    return to


# -- writing ---------------------------------------------------------------------------------------


def section(file: Path, result: Record, root: Path) -> str:
    """What docs/speed.md says of a machine."""
    from bench.pictures import PICTURES

    folder = file.with_suffix("")
    name = file.relative_to(root).as_posix()
    lines = [f"## {result['machine']['device']}", "", _wrapped(tables.machine(result))]
    lines += [f"Set: {result['set']}. Files: [results](../{name}),"]
    lines += [f"[all rows](../{folder.relative_to(root).as_posix()}/table.csv)."]
    for picture, (title, _) in PICTURES.items():
        for file in folder.glob(f"{picture}.*"):
            lines += ["", f"![{title}](../{file.relative_to(root).as_posix()})"]
    titles = (
        ("### Contenders", tables.contests(result)),
        ("### Fixed cost of a call", tables.fixed(result)),
        ("### Other sizes and parts", tables.sweep(result)),
        ("### Operators", tables.alone(result)),
        ("### Growth", tables.growth(result)),
        ("### Many small networks", tables.replicas(result)),
    )
    for title, found in titles:
        lines += ["", title, "", *map(_wrapped, found)] if found else []
    left_out = tables.missing(result)
    return "\n".join([*lines, *([""] if left_out else []), *left_out])


def _wrapped(line: str) -> str:
    """A line of prose in 100 columns without the targets of links; one of a table as it is."""
    if line.startswith("|"):
        return line
    links = re.findall(r"\[[^]]*\](\([^)]*\))", line)
    bare = re.sub(r"(\[[^]]*\])\([^)]*\)", r"\1\\", line)
    lines = textwrap.fill(bare, 100, break_on_hyphens=False)
    for link in links:
        lines = lines.replace("\\", link, 1)
    return lines


def sections(root: Path) -> str:
    """What docs/speed.md says between its markers."""
    found = stored.machines(root / "bench" / "results")
    return "\n\n".join(section(*pair, root) for pair in found.items()) or NOTHING_STORED


def readme_section(root: Path, marker: str) -> str:
    """The README's text between two markers: the named machine, then the ranges of others."""
    found = stored.machines(root / "bench" / "results")
    on_a_gpu = marker.startswith("gpu")
    here = [pair for pair in found.items() if ("cuda" in pair[1]["machine"]) == on_a_gpu]
    named = next((pair for pair in here if pair[0].stem.endswith(README[marker])), None)
    if named is None:
        return NOTHING_STORED
    result = named[1]
    chart = named[0].with_suffix("").relative_to(root).as_posix()
    lines = [
        f"![Time of a pass by contender]({chart}/speed.svg)",
        *map(_wrapped, tables.summary(result)),
        "",
    ]
    lines += [*tables.passes(result), ""]
    lines.append(_wrapped(tables.medians(*named)))
    for file, other in here:
        if other is not result and stored.passes(other):
            m = other["machine"]
            where = f"{tables.device(m)}, {m['threads']} threads"
            link = f"[{where}](bench/results/{file.name})"
            lines.append(_wrapped(f"{link}: {tables.speed_ups(other)}."))
    return "\n".join(lines)


def between(text: str, marker: str) -> str:
    """What stands between <!-- marker --> and <!-- /marker -->."""
    found = re.search(f"<!-- {marker} -->\n(.*?)\n<!-- /{marker} -->", text, re.DOTALL)
    if found is None:
        raise ValueError(f"no <!-- {marker} --> ... <!-- /{marker} -->")
    return found[1]


def _replace(file: Path, marker: str, section: str) -> None:
    content = file.read_text(encoding="utf-8")
    begin, end = f"<!-- {marker} -->\n", f"\n<!-- /{marker} -->"
    old = between(content, marker)
    records.write(file, content.replace(f"{begin}{old}{end}", f"{begin}{section}{end}"))


def write_all(root: Path) -> list[Path]:
    """Tables, pictures and documents from what is stored."""
    from bench import pictures

    written = []
    for file, result in stored.machines(root / "bench" / "results").items():
        if result["machine"].get("sources") != sources():
            of = result["machine"]["commit"][:10]
            print(f"{file.name}: of commit {of}; kernels or tests may have changed since")
        folder = file.with_suffix("")
        shutil.rmtree(folder, ignore_errors=True)
        written += [folder / name for name in pictures.draw(result, folder)]
        records.write(folder / "table.csv", tables.as_csv(result))
        written.append(folder / "table.csv")
    _replace(root / "docs" / "speed.md", SPEED, sections(root))
    for marker in README:
        _replace(root / "README.md", marker, readme_section(root, marker))
    return [*written, root / "docs" / "speed.md", root / "README.md"]


# -- comparing -------------------------------------------------------------------------------------


RUN_TO_RUN = 1.16
"""Within this ratio lay all entries of two full runs of the Xeon (7db5b89, c0917f2) that had the
same code and less than 300 steps; of 40 % the quartiles were apart nevertheless."""


def comparison(a: Record, b: Record) -> str:
    """Entry by entry: times, ratio, and whether it is more than two runs of one code differ by."""
    first = {(row["group"], row["label"]): row for row in a["rows"]}
    rows = [["", "A ms", "B ms", "B / A", ""]]
    for row in b["rows"]:
        old = first.get((row["group"], row["label"]))
        if old is None:
            continue
        apart = row["low_ms"] > old["high_ms"] or row["high_ms"] < old["low_ms"]
        verdict = ("slower" if row["ms"] > old["ms"] else "faster") if apart else "quartiles meet"
        if apart and 1 / RUN_TO_RUN < row["ms"] / old["ms"] < RUN_TO_RUN:
            verdict = "as two runs of one code"
        figures = [tables.figures(value) for value in (old["ms"], row["ms"])]
        ratio = tables.figures(row["ms"] / old["ms"])
        rows.append([f"{row['group']}, {row['label']}", *figures, ratio, verdict])
    lines = [f"{name}: {_where(result)}" for name, result in (("A", a), ("B", b))]
    lines += unlike(a, b)
    if len(rows) == 1:
        return "\n".join([*lines, "no entry in common"])
    return "\n".join([*lines, "", *records.aligned(rows)])


ALIKE = (
    "device", "instructions", "cores", "threads", "omp_num_threads", "torch", "numba", "llvmlite",
    "triton", "python", "driver", "power_limit_w", "spikingjelly", "snntorch", "norse", "compiler",
    "denormals_zero",
)  # fmt: skip
"""Of two machines, for their times to be compared."""


def unlike(a: Record, b: Record) -> list[str]:
    """Warnings: what besides the code may be why times differ. Contenders of a group take turns, so
    the set matters too; loads are those at the start."""
    pairs = [(name, a["machine"].get(name), b["machine"].get(name)) for name in ALIKE]
    pairs.append(("set", a["set"], b["set"]))
    found = [f"WARNING: {name} differs: {x} and {y}" for name, x, y in pairs if x != y]
    loads = [result["machine"].get("load_average") for result in (a, b)]
    if None not in loads and abs(loads[0] - loads[1]) > LOAD:
        found.append(f"WARNING: load at the start differs: {loads[0]:.1f} and {loads[1]:.1f}")
    return [*found, "The ratios are not those of the code alone."] if found else []


def _where(result: Record) -> str:
    m = result["machine"]
    changed = " with changes" if m["changed"] else ""
    return f"{m['device']}, {m['threads']} threads, {m['date']}, commit {m['commit'][:10]}{changed}"


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("file", nargs="?", type=Path, help="of pytest --benchmark-rows, to be stored")
    add("--compare", nargs=2, type=Path, metavar=("A", "B"), help="two files, stored or not")
    add("--root", type=Path, default=ROOT, help="where results and documents are written")
    options = parser.parse_args(given)
    try:
        if options.compare:
            print(comparison(*map(stored.load, options.compare)))
            return 0
        if options.file is not None:
            print(f"stored: {store(options.file, options.root)}")
        for path in write_all(options.root):
            print(f"written: {path}")
    except Refused as reason:
        print(f"refused: {reason}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
