"""Compile the GPU kernels ahead of time, without a GPU.

    python -m bench.codegen [--cases SET ...] [--target sm_90 ...] [--kernel NAME] [--json FILE]

Reports registers, shared memory and spills inside loops of every distinct launch (kernel,
constants, warps). On NVIDIA targets it also counts the instructions and multiply-adds of the loop
over time. The share of multiply-adds bounds the fraction of the FP32 peak, without latency.

For sm_90 it then compares times measured on an H200 with simulated ones (`simulator.py`). The
measured kernels had no prefetch, so the comparison compiles them without it. The last column is the
present code: simulated, not measured.

The SETs are those of `cases.py`; the default is benchmark. If a kernel fails to compile, the exit
status is 1 and the others are still reported.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import re
import sys
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
import triton

from bench import machines, records, simulator, stored
from bench.aot import TARGETS, Code, compile_launch, fma, spills
from bench.cases import BENCHMARK, SETS, Case, case
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
    with _pool(jobs, len(tasks)) as pool:
        return list(pool.map(compiled, tasks.values()))


def _pool(jobs: int, tasks: int) -> ProcessPoolExecutor:
    os.environ.pop("TRITON_INTERPRET", None)  # it prevents compilation
    # Not forked, because Triton may have been imported here to interpret kernels.
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(max(1, min(jobs, tasks)), mp_context=spawn)


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


# -- measured and simulated ------------------------------------------------------------------------

_WITHOUT_PREFETCH = {"AHEAD": 0, "RELAXED": False}
_BENCHMARK = "benchmark-NVIDIA-H200-16-threads.json"
_STEP = "gpu-NVIDIA-H200-smnist-step.txt"
_STEP_CASES = tuple(
    case(operator, I, J, T=784)
    for operator, sizes in {
        "synaptic_current": [(1, 64), (64, 64), (64, 10)],
        "synaptic_current_backward": [(64, 64), (64, 10)],
        "synaptic_parameter_gradient": [(1, 64), (64, 64), (64, 64), (64, 64), (64, 10)],
        "recurrent_scan": [(64, 64)] * 2,
        "recurrent_scan_backward": [(64, 64)] * 2,
    }.items()
    for I, J in sizes  # noqa: E741
)
"""The operators of the profiled training step: S-MNIST, 1-64r-64r-10."""
LEAST_MS = 0.1
STEADY = 0.02
"""Quartiles further apart, as a fraction of the median, are those of launch-bound calls."""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A time measured on an H200, of a call or of a kernel in a training step."""

    name: str
    ms: float
    spread: float
    """Distance of the quartiles / median."""
    cases: tuple[Case, ...]
    kernel: str = ""
    """Only launches of this kernel; all if empty."""

    def launches(self, kernel: str = "") -> list[tuple[Case, Launch]]:
        """Return the launches whose kernel's name contains `kernel`."""
        calls = [(one, call) for one in self.cases for call in one.record()]
        return [(c, k) for c, k in calls if self.kernel in ("", k.name) and kernel in k.name]

    @property
    def held(self) -> bool:
        """Whether the simulator must agree: not launch-bound, no program waits for another."""
        alone = all(k.constants.get("PROGRAMS", 1) == 1 for _, k in self.launches())
        return self.ms >= LEAST_MS and self.spread <= STEADY and alone


def measurements() -> list[Measurement]:
    """Return what has been measured of the kernels, from bench/results."""
    rows = stored.load(stored.RESULTS / _BENCHMARK)["rows"]
    by_name = {r["group"]: r for r in rows if r["contender"] == "hetsyn_triton"}
    found = []
    for one in BENCHMARK:
        row = by_name.get(f"kernel {one.name}")
        if row:
            spread = (row["high_ms"] - row["low_ms"]) / row["ms"]
            found.append(Measurement(one.name, row["ms"], spread, (one,)))
    text = (stored.RESULTS / _STEP).read_text(encoding="utf-8")
    names = {call.name for one in _STEP_CASES for call in one.record()}
    profiled = {k: float(ms) for ms, k in re.findall(r"([\d.]+) ms x[\d.]+ (\w+)\n", text)}
    for name in sorted(names & set(profiled) - {"add_partials_kernel"}):
        found.append(Measurement(f"step: {name}", profiled[name], 0.0, _STEP_CASES, name))
    return found


_CODE: dict[str, Code] = {}


def _compiled(call: Launch) -> Code:
    """Compile a launch once per process."""
    key = key_of(call)
    if key not in _CODE:
        _CODE[key] = compile_launch(call, "sm_90")
    return _CODE[key]


def simulated_ms(measured: Measurement, prefetch: bool) -> float:
    """Simulate all launches of a measurement, with the present code or without prefetch."""
    ms = 0.0
    for one, call in measured.launches():
        if not prefetch:
            without = {n: v for n, v in _WITHOUT_PREFETCH.items() if n in call.constants}
            call = call._replace(constants=call.constants | without)
        given = one.arguments("meta")
        inputs = {tuple(t.shape) for t in given if isinstance(t, torch.Tensor)}
        ms += simulator.launch_ms(call, _compiled(call), simulator.is_cached(call, inputs))
    return ms


def compared(measured: Measurement) -> Record:
    """Compare a measurement with the simulator."""
    ms = simulated_ms(measured, prefetch=False)
    return {
        "measured": measured.name,
        "ms": measured.ms,
        "simulated_ms": ms,
        "ratio": ms / measured.ms,
        "present_ms": simulated_ms(measured, prefetch=True),
        "held": measured.held,
    }


def compare_all(cases: Sequence[Case], kernel: str = "", jobs: int = 2) -> list[Record]:
    """Compare all measurements that contain one of the cases."""
    chosen = [m for m in measurements() if set(m.cases) & set(cases) and m.launches(kernel)]
    with _pool(jobs, len(chosen)) as pool:
        return [records.rounded(r) for r in pool.map(compared, chosen)]


def comparison(found: Sequence[Record]) -> str:
    """Format a line per measurement."""
    rows = [["H200, ms", "measured", "simulated", "ratio", "held", "present (simulated only)"]]
    for r in found:
        times = [f"{r[n]:.4f}" for n in ("ms", "simulated_ms")]
        held = "yes" if r["held"] else ""
        rows.append([r["measured"], *times, f"{r['ratio']:.2f}", held, f"{r['present_ms']:.4f}"])
    return "\n".join(records.aligned(rows))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    about = "sets of cases (default benchmark)"
    add("--cases", nargs="+", choices=list(SETS), default=["benchmark"], help=about)
    add("--target", nargs="+", choices=list(TARGETS), default=["sm_90"], help="default sm_90")
    add("--kernel", default="", help="only kernels whose name contains this")
    add("--json", type=Path, help="also write everything to this file")
    about = "do not simulate times"
    add("--no-simulation", dest="simulate", action="store_false", help=about)
    add("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="processes (default 2)")
    given = parser.parse_args(arguments)

    cases = list(dict.fromkeys(case for name in given.cases for case in SETS[name]))
    names = {call.name for case in cases for call in case.record()}
    if not any(given.kernel in name for name in names):
        parser.error(f"--kernel: none of {', '.join(sorted(names))} contains {given.kernel!r}")
    print("compiling; some kernels take 30 s each", file=sys.stderr, flush=True)
    found = compile_all(cases, given.target, given.kernel, given.jobs)
    print(table(found))
    times: list[Record] = []
    if given.simulate and "sm_90" in given.target:
        times = compare_all(cases, given.kernel, given.jobs)
        print(f"\n{comparison(times)}")
    broken = [r for r in found if "error" in r]
    for r in broken:
        print(f"\n{r['target']} {r['key']}\n{r['error']}", file=sys.stderr)
    if given.json:
        command = " ".join(["python -m bench.codegen", *(arguments or sys.argv[1:])])
        about_it = {"command": command, "triton": triton.__version__, **machines.provenance()}
        stored_too = about_it | ({"simulated": times} if times else {})
        records.write(given.json, json.dumps(stored_too | {"kernels": found}, indent=1) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
