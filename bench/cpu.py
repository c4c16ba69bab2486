"""Times the CPU path against its rivals, in one run. One command, one file.

    python -m bench.cpu [--quick] [--json FILE] [--threads N] [--parts ...]

1. gate: the proofs of the CPU kernels. Nothing is timed while they are red.
2. peak: what the cores can do at most (`peak.py`), at the start and at the end.
3. layers, network: forward and gradients, a training step, against the loop over time under
   autograd, the loop with a compiled step, and plain LIF layers of other libraries
   (`plain_lif.py`).
4. operators: time, multiply-adds a second and their share of the peak; neuron scans: bytes.
5. growth: time against each size.
6. memory: first calls, peaks and what is kept for the backward, in processes of their own.

Contenders of a row take turns in one process, in which freed memory is kept: the loop's tape of
hundreds of megabytes is mapped once. Writes `cpu-<device>-<instructions>-<threads>-threads.json` to
the results.
`--quick` goes the same way with tiny sizes: no figure counts, and nothing is written but to FILE.
`--readme` brings the README's table to what is stored.
"""

# ruff: noqa: E402 - OpenMP reads the environment when PyTorch is imported

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def arguments_of(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="tiny sizes; no figure counts")
    add("--json", type=Path, help="file of the result, instead of bench/results")
    add("--threads", type=int, default=2, help="of PyTorch and of the kernels (default 2)")
    add("--seconds", type=float, default=6.0, help="for each row with rivals (default 6)")
    add("--parts", nargs="+", choices=PARTS, default=PARTS, help="some of it, only with --json")
    add("--commit", default="", help="what is measured, where there is no git to ask")
    add("--readme", action="store_true", help="only write the README's table from what is stored")
    return parser.parse_args(given)


PARTS = ["layers", "network", "operators", "growth", "memory"]

if __name__ == "__main__":
    _threads = str(arguments_of(None).threads)
    os.environ |= {"OMP_NUM_THREADS": _threads, "MKL_NUM_THREADS": _threads}

import torch

from bench import (
    cpu_rows,
    cpu_table,
    gate,
    growth,
    machines,
    plain_lif,
    provenance,
    records,
    timing,
)
from bench.cpu_rows import OURS, Contest
from bench.records import NOT_MEASURED, Record

RESULTS = ROOT / "bench" / "results"


# -- contests --------------------------------------------------------------------------------------


def contest(row: Contest, seconds: float, least: int) -> Record:
    """Times of all who take part, in turn. Who cannot is named with the reason."""
    runs, others = {}, {}
    for name, make in row.runs.items():
        try:
            run = make()
            run()
            runs[name] = run
        except Exception as error:  # what breaks may not cost another its time
            reason = str(error) if isinstance(error, plain_lif.Missing) else _short(error)
            others[name] = {"status": NOT_MEASURED, "reason": reason}
    for name, found in timing.interleaved(runs, seconds, least).items() if runs else ():
        kept = {k: v for k, v in asdict(found).items() if k not in ("sets", "peak_bytes")}
        others[name] = {"status": "measured", **kept}
    sizes = {n: getattr(row, n) for n in ("T", "B", "I", "J", "recurrent", "fma", "bytes")}
    ours = others.pop(OURS)
    return {"name": row.name, "part": row.part, **sizes, "ms": None, **ours, "rivals": others}


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines() or ["?"]
    return f"{type(error).__name__}: {lines[0]}"[:300]


def derived(record: Record, rates: Record) -> Record:
    """What follows from the times: ratios, multiply-adds and bytes a second, share of the peak."""
    found = records.derive(record, rates["fma"])
    found.pop("of_predicted")
    ms = record["ms"]
    if ms and record["fma"]:
        found["gfma"] = record["fma"] / ms / 1e6
    if ms and record["bytes"]:
        found["gbytes"] = record["bytes"] / ms / 1e6
    return found


# -- memory, each in a process of its own ----------------------------------------------------------


def _alone(threads: int, *arguments: Any) -> Record:
    """What `cpu_memory.py` says."""
    command = [sys.executable, "-m", "bench.cpu_memory", *map(str, arguments)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        return {"status": NOT_MEASURED, "reason": (done.stderr.splitlines() or ["?"])[-1][:300]}
    found: Record = json.loads(done.stdout.splitlines()[-1])
    return {"status": "measured", **found}


def _both(threads: int, what: str, *sizes: int) -> Record:
    """Of ours and of the loop the first call, and the peak; a process each."""
    return {
        who: _alone(threads, "first", what, who, *sizes)
        | _alone(threads, "peak", what, who, *sizes)
        for who in ("ours", "loop")
    }


def memory_rows(sizes: Record, threads: int) -> list[Record]:
    """First calls, peak and kept memory of ours and of the loop."""
    T, found = sizes["T"], []
    for recurrent in sizes["memory_of"]:
        for B, I, J in sizes["layers"]:  # noqa: E741
            what = "recurrent" if recurrent else "layer"
            name = f"{I}->{J}{' recurrent' if recurrent else ''}, B {B}"
            steps = 4 * T * B * (I + 2 * J)  # z, V, g
            row = {"name": name, "part": "gradients", "z_v_and_g": steps}
            row |= _both(threads, what, T, B, I, J)
            found.append(_with_factors(row))
            print(f"memory {name}: {found[-1].get('of_z_v_and_g')} of z, V and g", flush=True)
    B, layers = sizes["network"]
    row = {"name": cpu_rows.network_contest(T, B, layers).name, "part": "step"}
    row |= _both(threads, "network", T, B, *layers)
    return [*found, _with_factors(row)]


def _with_factors(row: Record) -> Record:
    ours, loop = row["ours"].get("peak"), row["loop"].get("peak")
    if ours and loop:
        row["loop_over_ours"] = loop / ours
    if ours and "z_v_and_g" in row:
        row["of_z_v_and_g"] = ours / row["z_v_and_g"]
    return row


# -- everything ------------------------------------------------------------------------------------

FULL: Record = {
    "T": cpu_rows.STEPS,
    "layers": cpu_rows.LAYERS,
    "network": cpu_rows.SHD,
    "memory_of": (False, True),
    "mapped": 10 << 30,
    "axes": growth.AXES,
    "recurrent_axes": growth.RECURRENT,
    "base": growth.BASE,
    "neurons": growth.NEURONS,
    "slope_steps": (250, 1000),
}
TINY: Record = {
    "T": 3,
    "layers": ((2, 5, 4),),
    "network": (2, (5, 4, 3, 2)),
    "memory_of": (),
    "mapped": 1 << 20,
    "axes": dict.fromkeys("TBIJ", (2, 4)),
    "recurrent_axes": {"T": (2, 4)},
    "base": dict.fromkeys("TBIJ", 2),
    "neurons": (8, 16),
    "slope_steps": (2, 50),
}


def growth_rows(sizes: Record, seconds: float) -> list[Record]:
    found = []
    for recurrent, axes in ((False, sizes["axes"]), (True, sizes["recurrent_axes"])):
        for axis, values in axes.items():
            row = growth.time_axis(axis, values, recurrent, seconds, sizes["base"])
            found.append(row)
            print(f"growth {row['layer']} {axis}: exponent {row['exponent']:.3f}", flush=True)
    return found


def measure_all(options: argparse.Namespace) -> Record:
    """Every part asked for."""
    from bench import peak

    begin = time.monotonic()
    sizes, quick = (TINY, True) if options.quick else (FULL, False)
    seconds, least = (0.01, 3) if quick else (options.seconds, 5)
    backend = "eager" if quick else "inductor"
    timing.zero_denormals()
    result: Record = {"rehearsal": quick, "machine": machines.cpu(options.commit)}
    result["machine"]["freed_memory_kept"] = timing.keep_freed_memory(sizes["mapped"])
    result["machine"]["plain_missing"] = {
        name: plain_lif.missing(name) for name in plain_lif.LAYERS
    }
    span = 0.02 if quick else 1.5
    rates = [peak.fma_rate(span)]
    copied = peak.copy_rate(1 << 20 if quick else 256 << 20)
    rows: list[Record] = []

    def run(contests: Sequence[Contest], seconds: float, least: int) -> None:
        for row in contests:
            rows.append(contest(row, seconds, least))
            print(f"{row.name} {row.part}: {_outcome(rows[-1])}", flush=True)

    if "layers" in options.parts:
        run(cpu_rows.layer_contests(sizes["T"], sizes["layers"], backend), seconds, least)
    if "network" in options.parts:
        run([cpu_rows.network_contest(sizes["T"], *sizes["network"], backend)], 4 * seconds, 3)
    rates.append(peak.fma_rate(span))
    layers = len(rows)
    if "operators" in options.parts:
        run(cpu_rows.operator_contests(sizes["T"], sizes["layers"]), seconds / 12, least)
    rates.append(peak.fma_rate(span))
    result["growth"] = growth_rows(sizes, seconds / 4) if "growth" in options.parts else []
    result["memory"], result["memory_growth"] = [], None
    if "memory" in options.parts:
        threads, B = options.threads, sizes["base"]["B"]
        result["memory"] = memory_rows(sizes, threads)
        slope = _alone(threads, "slope", B, *sizes["slope_steps"], *sizes["neurons"])
        result["memory_growth"] = growth.memory(sizes["neurons"], B, slope)
    rates.append(peak.fma_rate(span))
    result["rates"] = {"fma": max(rates), "copy": copied, "fma_each_time": rates}
    rows = [derived(row, result["rates"]) for row in rows]
    result["layers"], result["operators"] = rows[:layers], rows[layers:]
    result["seconds"] = time.monotonic() - begin
    return result


def _outcome(record: Record) -> str:
    if record["status"] != "measured":
        return str(record["reason"])
    others = [
        f"{name} {r['ms']:.1f}" if "ms" in r else f"{name}: {r['reason']}"
        for name, r in record["rivals"].items()
    ]
    return "; ".join([f"{record['ms']:.3f} ms", *others])


def gate_of(options: argparse.Namespace) -> Record:
    if options.quick:
        return {"state": "not run", "reason": "a rehearsal", "passed": 0, "failed": 0, "skipped": 0}
    with tempfile.TemporaryDirectory() as folder:
        found = gate.run(gate.CPU_PROOFS, Path(folder), 300, options.threads)
        log = Path(folder, "gate.log").read_text(encoding="utf-8").splitlines()
    return found | {"log": log[-10:] if found["state"] == "red" else []}


def main(given: Sequence[str] | None = None) -> int:
    options = arguments_of(given)
    if options.readme:
        cpu_table.write_readme(ROOT)
        return 0
    if list(options.parts) != PARTS and not (options.json or options.quick):
        print("some parts alone are stored nowhere but where --json says")
        return 2
    if not (options.json or options.quick) and provenance.provenance("")["changed"]:
        print("changes that are in no commit: measured, but stored nowhere but where --json says")
        return 2
    torch.set_num_threads(options.threads)
    load = os.getloadavg()[0]  # before the gate, which is a load itself
    passed = gate_of(options)
    print(f"gate: {passed['state']}", passed["reason"] or "", flush=True)
    if passed["state"] == "red":
        print(*passed["failures"][:20], *passed["log"], sep="\n  ")
        print("nothing is timed while the gate is red")
        return 1
    result = records.rounded({"gate": passed} | measure_all(options))
    result["machine"]["load_average"] = load
    file: Path | None = options.json
    if file is None and not options.quick:
        file = RESULTS / machines.file_name("cpu", result["machine"])
    print(cpu_table.text(result))
    if file is not None:
        records.write(file, json.dumps(result, indent=1) + "\n")
        print(f"\nwritten: {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
