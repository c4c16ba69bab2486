"""Compiles the GPU kernels ahead of time: no GPU needed, none used.

    python -m bench.codegen [--cases SET ...] [--target sm_90 ...] [--kernel NAME] [--json FILE]

For every distinct launch (kernel, constants, warps): registers, shared memory, and spills inside
loops; on NVIDIA targets also the instructions of the loop over time, and the multiply-adds among
them. Their share bounds the fraction of the FP32 peak: latency is not in it.

SETs are those of `cases.py`; the default is benchmark. Exits with 1 if anything fails to compile;
the rest is still reported.
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
"""A case, the number of its launch, and the target that this is to be compiled for."""
_FLUSHING = re.compile(r"\bF(?:FMA|ADD|MUL|SET|SETP|MNMX)\S*\.FTZ")
"""Arithmetic that flushes subnormal numbers to 0; divisions of integers convert so."""


def constants_of(call: Launch) -> dict[str, int | str]:
    """Flags as 0 and 1."""
    return {n: v if isinstance(v, str) else int(v) for n, v in call.constants.items()}


def key_of(call: Launch) -> str:
    """Equal for launches that are one compiled kernel."""
    constants = " ".join(f"{n}={v}" for n, v in sorted(constants_of(call).items()))
    options = " ".join(sorted(call.options))
    return f"{call.name} {constants} warps={call.num_warps} {options}".strip()


def compiled(task: Task) -> Record:
    """Compile in a process of the pool: what is recorded there is what was recorded here."""
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
    os.environ.pop("TRITON_INTERPRET", None)  # under which nothing compiles
    # Not forked: each process imports Triton by itself, to compile and not to interpret.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max(1, min(jobs, len(tasks))), mp_context=spawn) as pool:
        return list(pool.map(compiled, tasks.values()))


def table(found: Sequence[Record]) -> str:
    """One line per compiled launch; spills of all loops, and last those of the loop over time."""
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
    about = "default benchmark"
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
    print("compiling, some kernels take half a minute each", file=sys.stderr, flush=True)
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
