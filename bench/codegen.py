"""Compile the GPU kernels ahead of time, without a GPU.

    python -m bench.codegen [--cases SET ...] [--target sm_90 ...] [--kernel NAME] [--json FILE]

Reports registers, shared memory and spills inside loops of every distinct launch (kernel,
constants, warps). On NVIDIA targets it also counts the instructions and multiply-adds of the loop
over time. The share of multiply-adds bounds the fraction of the FP32 peak, without latency.

The SETs are those of `cases.py`; the default is benchmark. If a kernel fails to compile, the exit
status is 1 and the others are still reported.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import sys
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import triton

from bench import machines, records
from bench.aot import TARGETS, compile_launch, fma, spills
from bench.cases import SETS, Case
from bench.records import Record
from hetsyn_triton.kernels.gpu.lib.launch import Launch

Task = tuple[Case, int, str]
"""A case, the index of a launch in it, and the target to compile for."""
_FLUSHING = re.compile(r"\bF(?:FMA|ADD|MUL|SET|SETP|MNMX)\S*\.FTZ")
"""Arithmetic that flushes subnormal numbers to 0, without the conversions of integer divisions."""


def constants_of(call: Launch) -> dict[str, int | str]:
    """Return the constants of a launch, flags as 0 and 1."""
    return {n: v if isinstance(v, str) else int(v) for n, v in call.constants.items()}


def key_of(call: Launch) -> str:
    """Return a key that is equal for launches of the same compiled kernel."""
    constants = " ".join(f"{n}={v}" for n, v in sorted(constants_of(call).items()))
    options = " ".join(sorted(call.options))
    return f"{call.name} {constants} warps={call.num_warps} {options}".strip()


def compiled(task: Task) -> Record:
    """Compile a task in a process of the pool, which records the same launches again."""
    case, place, target = task
    call = case.record()[place]
    record: Record = {
        "key": key_of(call),
        "kernel": call.name,
        "target": target,
        "constants": constants_of(call),
        "warps": call.num_warps,
    }
    try:
        code = compile_launch(call, target)
    except Exception:
        return record | {"error": traceback.format_exc(limit=-3)}
    record |= {"registers": code.registers, "shared": code.shared, "spills": code.spills}
    if code.sass:
        record["spills_over_time"] = code.spills_over_time
        record["flushing"] = len(_FLUSHING.findall(code.sass))
    if code.hot:
        record["loop"] = {
            "fma": fma(code.hot.counts),
            "instructions": code.hot.counts.total(),
            "share": round(code.hot.share, 4),
            "spills": spills(code.hot.counts),
            "census": dict(code.hot.counts.most_common()),
        }
    return record


def compile_all(
    cases: Sequence[Case], targets: Sequence[str], kernel: str = "", jobs: int = 2
) -> list[Record]:
    """Compile every distinct launch of the cases once per target."""
    tasks: dict[tuple[str, str], Task] = {
        (key_of(call), target): (case, place, target)
        for case in cases
        for place, call in enumerate(case.record())
        for target in targets
        if kernel in call.name
    }
    os.environ.pop("TRITON_INTERPRET", None)  # it prevents compilation
    # Not forked, because Triton may have been imported here to interpret kernels.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max(1, min(jobs, len(tasks))), mp_context=spawn) as pool:
        return list(pool.map(compiled, tasks.values()))


def table(found: Sequence[Record]) -> str:
    """Format a line per launch: spills of all loops, and last those of the loop over time."""
    head = ["launch", "target", "regs", "spills", "shared", "FFMA", "instr", "share", "spills"]
    rows = [head]
    for r in found:
        loop = r.get("loop", {})
        sizes = [str(r.get(n, "failed")) for n in ("registers", "spills", "shared")]
        inside = [str(loop.get(n, "")) for n in ("fma", "instructions", "share", "spills")]
        rows.append([r["key"], r["target"], *sizes, *inside])
    return "\n".join(records.aligned(rows))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    about = "sets of cases (default benchmark)"
    add("--cases", nargs="+", choices=list(SETS), default=["benchmark"], help=about)
    add("--target", nargs="+", choices=list(TARGETS), default=["sm_90"], help="default sm_90")
    add("--kernel", default="", help="only kernels whose name contains this")
    add("--json", type=Path, help="also write everything to this file")
    add("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="processes (default 2)")
    given = parser.parse_args(arguments)

    cases = list(dict.fromkeys(case for name in given.cases for case in SETS[name]))
    names = {call.name for case in cases for call in case.record()}
    if not any(given.kernel in name for name in names):
        parser.error(f"--kernel: none of {', '.join(sorted(names))} contains {given.kernel!r}")
    print("compiling; some kernels take 30 s each", file=sys.stderr, flush=True)
    found = compile_all(cases, given.target, given.kernel, given.jobs)
    print(table(found))
    broken = [r for r in found if "error" in r]
    for r in broken:
        print(f"\n{r['target']} {r['key']}\n{r['error']}", file=sys.stderr)
    if given.json:
        command = " ".join(["python -m bench.codegen", *(arguments or sys.argv[1:])])
        about_it = {"command": command, "triton": triton.__version__, **machines.provenance()}
        records.write(given.json, json.dumps(about_it | {"kernels": found}, indent=1) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
