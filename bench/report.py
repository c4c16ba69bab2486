"""From stored measurements to tables, pictures and documents. One command.

    python -m bench.report FILE            stores a file of `pytest --benchmark --benchmark-json`
    python -m bench.report                 writes all again from what is stored
    python -m bench.report --compare A B   two files or two commits, entry by entry

Storing runs the proofs of the kernels first; while they are red nothing is written. FILE has to be
of the kernels and proofs that lie here. Writing again proves nothing: the documents say of which
commit figures and proofs are, the screen whether kernels or proofs have changed since. FILE
becomes `results/benchmark-<device>-<instructions>-<threads>-threads.json`, beside it a folder with
a table of all rows (`table.csv`), a readable one (`table.md`) and the pictures; then docs/speed.md
and the README's table are written between their markers. A commit is measured in a working tree of
its own, by the benchmark of this one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path

from bench import cpu_table, gate, machines, records, stored, tables
from bench.provenance import commit, said, sources
from bench.records import Record

ROOT = Path(__file__).resolve().parent.parent

BEGIN, END = "<!-- benchmark -->", "<!-- /benchmark -->"
NOTHING_STORED = (
    "Not measured yet: `pytest --benchmark --benchmark-json FILE` measures,"
    " `python -m bench.report FILE` stores."
)
SECONDS = 900
LOAD = 0.5
"""How far the loads of two measurements may be apart, in running processes."""


def arguments_of(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("file", nargs="?", type=Path, help="of pytest --benchmark-json, to be stored")
    add("--compare", nargs=2, metavar=("A", "B"), help="files or commits")
    add("-k", default="", help="with --compare: which entries of a commit are measured")
    add("--root", type=Path, default=ROOT, help="where results and documents are written")
    return parser.parse_args(given)


# -- storing ---------------------------------------------------------------------------------------


def gate_of(result: Record) -> Record:
    """All proofs of what was measured, and of which sources they are."""
    wanted = gate.PROOFS if "cuda" in result["machine"] else gate.CPU_PROOFS
    with tempfile.TemporaryDirectory() as folder:
        found = gate.run(wanted, Path(folder), SECONDS, os.cpu_count() or 1)
    return found | {"commit": commit(), "sources": sources()}


def store(file: Path, root: Path) -> Path:
    """Where it is stored; Refused where it may not be."""
    result = stored.load(file)
    green = {"gate": {"state": "green"}}
    stored.check(result | green)  # what the gate cannot mend needs no gate
    stored.check_same(result["machine"], commit(), sources())
    result["machine"].setdefault("sources", sources())
    print("gate: the proofs of the kernels", flush=True)
    result["gate"] = gate_of(result)
    print(f"gate: {result['gate']['state']} {result['gate']['reason'] or ''}", flush=True)
    for failure in result["gate"]["failures"][:20]:
        print("  ", failure)
    stored.check(result)
    to = root / "bench" / "results" / machines.file_name("benchmark", result["machine"])
    records.write(to, json.dumps(result, indent=1) + "\n")
    return to


# -- writing ---------------------------------------------------------------------------------------


def section(file: Path, root: Path) -> str:
    """What docs/speed.md says of a stored file."""
    result = stored.load(file)
    stored.check(result)
    from bench.pictures import PICTURES

    folder = file.with_suffix("")
    name = file.relative_to(root).as_posix()
    lines = [f"## {result['machine']['device']}", "", _wrapped(tables.machine(result))]
    lines += [f"Set: {result['set']}. Files: [results](../{name}),"]
    lines += [f"[all rows](../{folder.relative_to(root).as_posix()}/table.csv)."]
    for picture, (title, _) in PICTURES.items():
        if (folder / f"{picture}.png").exists():
            path = (folder / f"{picture}.png").relative_to(root).as_posix()
            lines += ["", f"![{title}](../{path})"]
    titles = (
        ("### Contenders", tables.contests(result)),
        ("### Other sizes and parts", tables.sweep(result)),
        ("### Growth", tables.growth(result)),
        ("### Many small networks", tables.replicas(result)),
    )
    for title, found in titles:
        lines += ["", title, *map(_wrapped, found)] if found else []
    return "\n".join([*lines, *tables.missing(result)])


def _wrapped(line: str) -> str:
    """A line of prose in 100 columns; one of a table as it is."""
    return line if line.startswith("|") else textwrap.fill(line, 100, break_on_hyphens=False)


def sections(root: Path) -> str:
    """What docs/speed.md has to say between its markers."""
    files = stored.files(root / "bench" / "results")
    return "\n\n".join(section(file, root) for file in files) or NOTHING_STORED


def write_all(root: Path) -> list[Path]:
    """Tables, pictures and documents from what is stored."""
    from bench import pictures

    written = []
    for file in stored.files(root / "bench" / "results"):
        result = stored.load(file)
        stored.check(result)
        if result["machine"].get("sources") != sources():
            of = result["machine"]["commit"][:10]
            print(f"{file.name}: of commit {of}; kernels or proofs may have changed since")
        folder = file.with_suffix("")
        shutil.rmtree(folder, ignore_errors=True)
        written += [folder / name for name in pictures.draw(result, folder)]
        records.write(folder / "table.csv", tables.as_csv(result))
        written.append(folder / "table.csv")
        parts = (tables.contests, tables.sweep, tables.growth, tables.replicas, tables.missing)
        text = [tables.machine(result), *(line for part in parts for line in part(result))]
        records.write(folder / "table.md", "\n".join(text) + "\n")
        written.append(folder / "table.md")
    speed = root / "docs" / "speed.md"
    cpu_table.replace_between(speed, BEGIN, END, sections(root))
    cpu_table.write_readme(root)
    return [*written, speed, root / "README.md"]


# -- comparing -------------------------------------------------------------------------------------


def measured(what: str, only: str) -> Record:
    """Of a file, or of a commit: stored, or else measured now."""
    if Path(what).is_file():
        return stored.load(Path(what))
    wanted = said("git", "rev-parse", "--verify", f"{what}^{{commit}}")
    if wanted is None:
        raise stored.Refused(f"{what}: neither a file nor a commit")
    for file in stored.files():
        result = stored.load(file)
        if result["machine"]["commit"] == wanted and not result["machine"]["changed"]:
            print(f"{what}: stored in {file.name}", flush=True)
            return result
    with tempfile.TemporaryDirectory() as folder:
        tree, found = Path(folder, "tree"), Path(folder, "found.json")
        if said("git", "worktree", "add", "--detach", str(tree), wanted) is None:
            raise stored.Refused(f"{what}: git cannot check it out")
        try:
            shutil.rmtree(tree / "bench", ignore_errors=True)
            shutil.copytree(ROOT / "bench", tree / "bench")
            shutil.copy(ROOT / "conftest.py", tree)
            command = [sys.executable, "-m", "pytest", "--benchmark", "--benchmark-json"]
            command += [str(found), *(["-k", only] if only else [])]
            print(f"{what}: measured in a tree of its own", flush=True)
            done = subprocess.run(command, cwd=tree)
            if not found.exists():
                ended = f"pytest ended with {done.returncode}"
                raise stored.Refused(f"{what}: nothing measured, {ended}")
            result = stored.load(found)
            result["machine"] |= {"commit": wanted, "changed": False}
            return result
        finally:
            said("git", "worktree", "remove", "--force", str(tree))


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
        figures = [cpu_table.figures(value) for value in (old["ms"], row["ms"])]
        ratio = cpu_table.figures(row["ms"] / old["ms"])
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
    options = arguments_of(given)
    try:
        if options.compare:
            print(comparison(*(measured(what, options.k) for what in options.compare)))
            return 0
        if options.file is not None:
            print(f"stored: {store(options.file, options.root)}")
        for path in write_all(options.root):
            print(f"written: {path}")
    except stored.Refused as reason:
        print(f"refused: {reason}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
