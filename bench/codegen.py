"""Compiles the GPU kernels ahead of time and predicts their speed: no GPU needed, none used.

    python -m bench.codegen [--cases SET ...] [--target sm_90 ...] [--kernel NAME] [--json FILE]

For every distinct launch (kernel, constants, warps): registers, spills inside loops, shared memory
and, on NVIDIA targets, the census of the loop over time, its own spills among it. For sm_90 also
each case's bytes and the predicted fraction of its floor (`model.py`): **predicted, not measured.**

SETs are listed in `variants.py`; the default is benchmark. Exits with 1 if anything fails to
compile; the rest is still reported.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton

from bench import model, provenance, records
from bench.aot import TARGETS, compile_launch
from bench.cases import Case
from bench.provenance import said
from bench.variants import SETS
from hetsyn_triton.kernels.gpu.lib.launch import Launch

Record = dict[str, Any]


class Task(NamedTuple):
    """The launch number `place` of a case, to be compiled for a target."""

    case: Case
    place: int
    target: str


_FLUSHING = re.compile(r"\bF(?:FMA|ADD|MUL|SET|SETP|MNMX)\S*\.FTZ")
"""Arithmetic that takes numbers below the normal ones for 0; divisions of integers convert so."""


def constants_of(call: Launch) -> dict[str, int | str]:
    """Flags as 0 and 1."""
    return {n: v if isinstance(v, str) else int(v) for n, v in call.constants.items()}


def key_of(call: Launch) -> str:
    """Equal for launches that are one compiled kernel."""
    constants = " ".join(f"{n}={v}" for n, v in sorted(constants_of(call).items()))
    options = " ".join(sorted(call.options))
    return f"{call.name} {constants} warps={call.num_warps} {options}".strip()


def compiled(task: Task) -> Record:
    """Compiles in a process of the pool: what is recorded there is what was recorded here."""
    call = task.case.record()[task.place]
    record: Record = {
        "key": key_of(call),
        "kernel": call.name,
        "target": task.target,
        "constants": constants_of(call),
        "warps": call.num_warps,
    }
    try:
        code = compile_launch(call, task.target)
    except Exception:
        return record | {"error": traceback.format_exc(limit=-3)}
    record |= {"registers": code.registers, "shared": code.shared, "spills": code.spills}
    if code.sass:
        record["spills_over_time"] = code.spills_over_time
        record["flushing"] = len(_FLUSHING.findall(code.sass))
    if code.hot:
        record["loop"] = {
            "fma": code.hot.fma,
            "instructions": code.hot.total,
            "share": round(code.hot.share, 4),
            "spills": code.hot.spills,
            "census": dict(code.hot.counts.most_common()),
        }
    return record


def compile_all(
    cases: Sequence[Case], targets: Sequence[str], kernel: str = "", jobs: int = 2
) -> list[Record]:
    """Every distinct launch of the cases once per target."""
    tasks: dict[tuple[str, str], Task] = {}
    for case in cases:
        for place, call in enumerate(case.record()):
            if kernel in call.name:
                for target in targets:
                    tasks.setdefault((key_of(call), target), Task(case, place, target))
    if not tasks:
        return []
    # Not forked: each process imports Triton by itself, to compile and not to interpret.
    spawn = multiprocessing.get_context("spawn")
    with _compiling(), ProcessPoolExecutor(min(jobs, len(tasks)), mp_context=spawn) as pool:
        return list(pool.map(compiled, tasks.values()))


@contextmanager
def _compiling() -> Iterator[None]:
    """The environment without TRITON_INTERPRET, under which nothing compiles."""
    before = os.environ.pop("TRITON_INTERPRET", None)
    try:
        yield
    finally:
        if before is not None:
            os.environ["TRITON_INTERPRET"] = before


def work_of(call: Launch, record: Record) -> model.Work:
    """What the model needs of a launch."""
    loop = record.get("loop", {"fma": 0, "instructions": 0})
    programs = 1
    for size in call.grid:
        programs *= size
    return model.Work(
        call.name,
        programs,
        call.num_warps,
        record["registers"],
        record["shared"],
        loop["fma"],
        loop["instructions"],
        call.constants.get("U", 1),
        "LANES" in call.constants,
    )


def predicted(case: Case, records: dict[str, Record]) -> Record | None:
    """The row of a case; None where a launch of it was not compiled, or has no loop to go by."""
    calls = case.record()
    keys = [key_of(call) for call in calls]
    if any(k not in records or "error" in records[k] for k in keys):
        return None
    works = [work_of(call, records[k]) for call, k in zip(calls, keys, strict=True)]
    if not any(work.fma for work in works):
        return None
    work = model.main(works)
    return {
        **asdict(case),
        "launches": keys,
        "programs": work.programs,
        "programs_at_once": work.slots,
        "cost": case.cost()._asdict(),
        "prediction": model.as_row(model.predict(case, works)),
    }


def commit() -> str:
    """Of the checkout, `-dirty` where its GPU kernels hold changes."""
    changed = "-dirty" if said("git", "status", "--porcelain", "kernels/gpu") else ""
    return provenance.commit() + changed


def table(rows: Sequence[Sequence[str]]) -> str:
    """`records.aligned`, with a line under the head."""
    lines = records.aligned(rows)
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def kernel_table(records: Sequence[Record]) -> str:
    """One line per compiled launch; spills of all loops, and last those of the loop over time."""
    head = ["launch", "target", "regs", "spills", "shared", "FFMA", "instr", "share", "spills"]
    rows = [head]
    for r in records:
        if "error" in r:
            rows.append([r["key"], r["target"], "failed", *[""] * 6])
            continue
        loop = r.get("loop")
        found = [""] * 4
        if loop:
            found = [f"{loop[n]}" for n in ("fma", "instructions", "share", "spills")]
        sizes = [str(r[n]) for n in ("registers", "spills", "shared")]
        rows.append([r["key"], r["target"], *sizes, *found])
    return table(rows)


def case_table(rows: Sequence[Record]) -> str:
    """One line per case."""
    head = ["case", "GFMA", "HBM MB", "L2 MB", "floor us", "time us", "bound", "share"]
    head += ["fraction", "in waves", "us/step"]
    lines = [head]
    for row in rows:
        cost, p = row["cost"], row["prediction"]
        lines.append(
            [
                row["name"],
                f"{cost['fma'] / 1e9:.2f}",
                f"{cost['hbm'] / 1e6:.1f}",
                f"{cost['l2'] / 1e6:.1f}",
                f"{p['floor_us']:.1f}",
                f"{p['time_us']:.1f}",
                p["bound"],
                f"{p['share']:.3f}",
                f"{p['fraction']:.3f}",
                f"{p['in_waves']:.3f}",
                "" if p["us_per_step"] is None else f"{p['us_per_step']:.3f}",
            ]
        )
    return table(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cases",
        nargs="+",
        choices=list(SETS),
        default=["benchmark"],
        help="benchmark: the sizes of bench/cases.py; goals: those the promised figures stand on;"
        " one: every kernel once; every: all tiles and flags (default benchmark)",
    )
    parser.add_argument(
        "--target", nargs="+", choices=list(TARGETS), default=["sm_90"], help="default sm_90"
    )
    parser.add_argument("--kernel", default="", help="only kernels whose name contains this")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    given = parser.parse_args(arguments)

    cases = list(dict.fromkeys(case for name in given.cases for case in SETS[name]))
    names = {call.name for case in cases for call in case.record()}
    if not any(given.kernel in name for name in names):
        parser.error(f"--kernel: none of {', '.join(sorted(names))} contains {given.kernel!r}")
    print("compiling, some kernels take half a minute each", file=sys.stderr, flush=True)
    records = compile_all(cases, given.target, given.kernel, given.jobs)
    by_key = {r["key"]: r for r in records if r["target"] == "sm_90"}
    rows = [row for row in (predicted(case, by_key) for case in cases) if row]
    print(kernel_table(records))
    if rows:
        print("\nPredicted, not measured (H200; what is left out: bench/model.py)\n")
        print(case_table(rows))
    for r in records:
        if "error" in r:
            print(f"\n{r['target']} {r['key']}\n{r['error']}", file=sys.stderr)
    if given.json:
        stored = {
            "label": "predicted, not measured",
            "command": " ".join(["python", "-m", "bench.codegen", *(arguments or sys.argv[1:])]),
            "date": datetime.date.today().isoformat(),
            "commit": commit(),
            "triton": triton.__version__,
            "torch": torch.__version__,
            "model": {
                n: getattr(model, n) for n in ("SMS", "CLOCK", "FMA_RATE", "HBM_RATE", "L2_RATE")
            },
            "kernels": records,
            "cases": rows,
        }
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    return 1 if any("error" in r for r in records) else 0


if __name__ == "__main__":
    sys.exit(main())
