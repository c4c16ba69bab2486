"""Store measurements, and write tables, charts and documents from the stored files.

    python -m bench.report FILE            store a file of `pytest --benchmark --benchmark-rows`
    python -m bench.report                 write the documents again from the stored files
    python -m bench.report --compare A B   compare two files, entry by entry

Storing first tests the kernels, unless FILE has the result of `bench.correctness`. It writes
nothing if a test fails, or if FILE was measured with other kernels or tests. The stored file is
`results/benchmark-<device>-<instructions>-<threads>-threads.json`; a folder beside it has a table
of all rows and the charts. docs/speed.md and the README get their tables between markers.
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

from bench import ROOT, correctness, machines, records, speed_tables, stored
from bench.machines import commit, sources
from bench.records import Record, Refused

SPEED = "benchmark"
README = {
    "cpu-speed": "Intel-R-Xeon-R-Processor-AVX512-2-threads",
    "gpu-speed": "NVIDIA-H200-16-threads",
}
"""Each marker in the README -> the machine whose stored file its table shows."""
NOTHING_STORED = (
    "Not measured yet: `pytest --benchmark --benchmark-rows=FILE.jsonl` measures,"
    " `python -m bench.report FILE.jsonl` stores."
)
SECONDS = 900
LOAD = 0.5
"""Largest difference between the load averages of two comparable measurements."""


# -- storing ---------------------------------------------------------------------------------------


def tests_of(result: Record) -> Record:
    """Test what was measured; return the tests' result and sources."""
    if result.get("tests"):
        return dict(result["tests"])  # of --benchmark-tested
    if "cuda" in result["machine"] and not torch.cuda.is_available():
        raise Refused("the tests need a GPU: measure with --benchmark-tested")
    tests = correctness.GPU_TESTS if "cuda" in result["machine"] else correctness.CPU_TESTS
    with tempfile.TemporaryDirectory() as folder:
        found = correctness.run(tests, Path(folder), SECONDS, os.cpu_count() or 1)
    return found | {"commit": commit(), "sources": sources()}


def store(file: Path, root: Path) -> Path:
    """Store a result and return its file; raise Refused if it cannot be stored."""
    result = stored.load(file)
    passed = {"tests": {"state": "passed"}}
    stored.check(result | passed)  # before the tests, which take minutes
    stored.check_same(result["machine"], commit(), sources())
    print("testing the kernels", flush=True)
    tests = result["tests"] = tests_of(result)
    print(f"tests {tests['state']} {tests['reason'] or ''}", flush=True)
    for failure in tests["failures"][:20]:
        print("  ", failure)
    stored.check(result)
    folder = root / "bench" / "results"
    to = folder / machines.file_name(result["machine"])
    records.write(to, json.dumps(result, indent=1) + "\n")
    return to


# -- writing ---------------------------------------------------------------------------------------


def section(file: Path, result: Record, root: Path) -> str:
    """Return the section of a machine in docs/speed.md."""
    from bench.charts import CHARTS

    folder = file.with_suffix("")
    name = file.relative_to(root).as_posix()
    lines = [f"## {result['machine']['device']}", "", _wrapped(speed_tables.machine(result))]
    lines += [f"Set: {result['set']}. Files: [results](../{name}),"]
    lines += [f"[all rows](../{folder.relative_to(root).as_posix()}/table.csv)."]
    for chart, (title, _) in CHARTS.items():
        for file in folder.glob(f"{chart}.*"):
            lines += ["", f"![{title}](../{file.relative_to(root).as_posix()})"]
    titles = (
        ("### Contenders", speed_tables.contenders(result)),
        ("### Fixed cost of a call", speed_tables.fixed(result)),
        ("### Other sizes and parts", speed_tables.sweep(result)),
        ("### Operators", speed_tables.alone(result)),
        ("### Growth", speed_tables.growth(result)),
        ("### Many small networks", speed_tables.replicas(result)),
    )
    for title, found in titles:
        lines += ["", title, "", *map(_wrapped, found)] if found else []
    left_out = speed_tables.missing(result)
    return "\n".join([*lines, *([""] if left_out else []), *left_out])


def _wrapped(line: str) -> str:
    """Wrap prose in 100 columns, not counting the targets of links; leave lines of tables."""
    if line.startswith("|"):
        return line
    links = re.findall(r"\[[^]]*\](\([^)]*\))", line)
    bare = re.sub(r"(\[[^]]*\])\([^)]*\)", r"\1\\", line)
    lines = textwrap.fill(bare, 100, break_on_hyphens=False)
    for link in links:
        lines = lines.replace("\\", link, 1)
    return lines


def sections(root: Path) -> str:
    """Return the text between the markers of docs/speed.md."""
    found = stored.machines(root / "bench" / "results")
    return "\n\n".join(section(*pair, root) for pair in found.items()) or NOTHING_STORED


def readme_section(root: Path, marker: str) -> str:
    """Return the README's text for a marker: the named machine, then the ranges of others."""
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
        *map(_wrapped, speed_tables.summary(result)),
        "",
    ]
    lines += [*speed_tables.passes(result), ""]
    lines.append(_wrapped(speed_tables.medians(*named)))
    for file, other in here:
        if other is not result and stored.passes(other):
            m = other["machine"]
            where = f"{speed_tables.device(m)}, {m['threads']} threads"
            link = f"[{where}](bench/results/{file.name})"
            lines.append(_wrapped(f"{link}: {speed_tables.speed_ups(other)}."))
    return "\n".join(lines)


def between(text: str, marker: str) -> str:
    """Return the text between <!-- marker --> and <!-- /marker -->."""
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
    """Write tables, charts and documents from the stored files."""
    from bench import charts

    written = []
    for file, result in stored.machines(root / "bench" / "results").items():
        if result["machine"].get("sources") != sources():
            of = result["machine"]["commit"][:10]
            print(f"{file.name}: of commit {of}; kernels or tests may have changed since")
        folder = file.with_suffix("")
        shutil.rmtree(folder, ignore_errors=True)
        written += [folder / name for name in charts.draw(result, folder)]
        records.write(folder / "table.csv", speed_tables.as_csv(result))
        written.append(folder / "table.csv")
    _replace(root / "docs" / "speed.md", SPEED, sections(root))
    for marker in README:
        _replace(root / "README.md", marker, readme_section(root, marker))
    return [*written, root / "docs" / "speed.md", root / "README.md"]


# -- comparing -------------------------------------------------------------------------------------


RUN_TO_RUN = 1.16
"""Largest ratio between two runs of the same code (Xeon, commits 7db5b89 and c0917f2, less than 300
steps). The quartiles of 40 % of the entries did not overlap even so."""


def comparison(a: Record, b: Record) -> str:
    """Compare times entry by entry, and say which ratios exceed the run-to-run variation."""
    first = {(row["group"], row["label"]): row for row in a["rows"]}
    rows = [["", "A ms", "B ms", "B / A", ""]]
    for row in b["rows"]:
        old = first.get((row["group"], row["label"]))
        if old is None:
            continue
        differ = row["low_ms"] > old["high_ms"] or row["high_ms"] < old["low_ms"]
        ratio = row["ms"] / old["ms"]
        verdict = "slower" if ratio > 1 else "faster"
        if not differ or 1 / RUN_TO_RUN < ratio < RUN_TO_RUN:
            verdict = "run-to-run variation" if differ else "quartiles overlap"
        figures = map(speed_tables.figures, (old["ms"], row["ms"], ratio))
        rows.append([f"{row['group']}, {row['label']}", *figures, verdict])
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
"""What two machines must have in common for their times to be comparable."""


def unlike(a: Record, b: Record) -> list[str]:
    """Warn of differences that change times, other than the code: machine, load, and the set,
    because interleaved contenders affect each other."""
    pairs = [(name, a["machine"].get(name), b["machine"].get(name)) for name in ALIKE]
    pairs.append(("set", a["set"], b["set"]))
    found = [f"WARNING: {name} differs: {x} and {y}" for name, x, y in pairs if x != y]
    loads = [result["machine"].get("load_average") for result in (a, b)]
    if None not in loads and abs(loads[0] - loads[1]) > LOAD:
        found.append(f"WARNING: load at the start differs: {loads[0]:.1f} and {loads[1]:.1f}")
    return [*found, "The ratios are not due to the code alone."] if found else []


def _where(result: Record) -> str:
    m = result["machine"]
    changed = " with changes" if m["changed"] else ""
    return f"{m['device']}, {m['threads']} threads, {m['date']}, commit {m['commit'][:10]}{changed}"


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("file", nargs="?", type=Path, help="rows of pytest --benchmark-rows, to be stored")
    add("--compare", nargs=2, type=Path, metavar=("A", "B"), help="two files, stored or not")
    add("--root", type=Path, default=ROOT, help="root folder of results and documents")
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
