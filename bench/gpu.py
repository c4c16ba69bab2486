"""Proves the kernels on this GPU, then times them against the loop. One command, one file.

    python -m bench.gpu [--out DIR] [--budget SECONDS] [--tune] [--ungated] [--rehearse]

1. gate: the proofs of tests/gpu. Nothing is timed while they are red, or only some were chosen by
   `--gate` (`--ungated` does, and says so in the result).
2. warm: every row once in several processes, so that compilers work side by side.
3. times: the rows of `rows.py`, each against its rivals in the same process.

Every row is written to `gpu.jsonl` as it comes; at the end `gpu-<device>.json` and `.txt` hold all
of it. What breaks or does not fit is recorded with its reason and costs no other row. `--rehearse`
goes the same way on a CPU, interpreted, with tiny sizes.
"""

# ruff: noqa: E402 - Triton reads the environment when it is imported

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
os.environ["TRITON_INTERPRET"] = str(int("--rehearse" in sys.argv))

import torch

from bench import gate, gpu_table, machines, model, records, rivals, tuning
from bench.records import NOT_MEASURED, Record
from bench.rows import Row, kernel_rows, layer_rows, tiny_rows
from bench.timing import Call, Timing, measure, rotating
from hetsyn_triton.kernels.gpu.lib import configs

LEAST_SECONDS = 10.0
"""Nothing new is begun with less than this left."""


def arguments_of(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--out", type=Path, default=ROOT / "bench" / "results", help="folder of the results")
    add("--budget", type=float, default=570.0, help="seconds for everything (default 570)")
    add("--gate-share", type=float, default=0.55, help="most of the budget the gate may take")
    add("--seconds", type=float, default=0.4, help="of measuring for each time (default 0.4)")
    add("--workers", type=int, default=max(1, min(14, (os.cpu_count() or 2) - 2)))
    add("--tune", action="store_true", help="try every configuration, keep the fastest")
    add("--proven", type=Path, help="an earlier result: its green gate counts (GPU, sources alike)")
    add("--ungated", action="store_true", help="time although the gate is red")
    add("--rehearse", action="store_true", help="on a CPU with tiny sizes; no figure counts")
    add("--only", default="", help="rows whose name and part match this regular expression")
    add("--readme", action="store_true", help="only write the README's table from what is stored")
    add("--commit", default="", help="what is measured, where there is no git to ask")
    add(
        "--gate",
        nargs=argparse.REMAINDER,
        help="last: pytest's arguments instead of tests/gpu; what passes is 'partial', not green",
    )
    add("--warm", default="", help=argparse.SUPPRESS)  # k/n: the kth of n warming processes
    add("--after", type=int, default=0, help=argparse.SUPPRESS)  # rows that are timed already
    return parser.parse_args(given)


class Clock:
    """What is left of the budget."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return self.end - time.monotonic()


# -- rows ------------------------------------------------------------------------------------------


def rows_of(options: argparse.Namespace) -> list[Row]:
    """Layers and the network first: what is missing when time runs out is missed least."""
    rows = tiny_rows() if options.rehearse else [*layer_rows(), *kernel_rows()]
    return [r for r in rows if re.search(options.only, f"{r.name} {r.part}")]


@contextmanager
def tidy() -> Any:
    """Memory of a measurement is given back, whatever became of it and of the one before."""

    def clear() -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            torch.cuda.empty_cache()

    clear()
    try:
        yield
    finally:
        clear()


def attempt(clock: Clock, run: Callable[[], Timing]) -> Record:
    """A measurement, or why there is none."""
    if clock.left < LEAST_SECONDS:
        return {"status": NOT_MEASURED, "reason": "out of time"}
    try:
        with tidy():
            return {"status": "measured", **asdict(run())}
    except Exception as error:  # nothing that breaks here may cost another row
        last = traceback.format_exc().splitlines()[-8:]
        reason = f"{type(error).__name__}: {str(error).strip() or '?'}"
        return {"status": NOT_MEASURED, "reason": reason[:600], "traceback": last}


def compiler_of(kind: str, rehearse: bool) -> rivals.Compile:
    if "compiled" not in kind:
        return rivals.as_it_is
    return rivals.compiler("eager" if rehearse else "inductor")


def time_rival(
    row: Row, kind: str, device: torch.device, options: argparse.Namespace
) -> Callable[[], Timing]:
    def run() -> Timing:
        if device.type == "cuda":
            # Captured, all that a backward passes through stays allocated.
            need = row.tape_bytes * 1.3 + 2e9
            free = torch.cuda.mem_get_info(device)[0]
            if need > free:
                raise MemoryError(f"needs about {need / 1e9:.0f} GB, {free / 1e9:.0f} GB are free")
        assert row.rival is not None
        call = row.rival(device, compiler_of(kind, options.rehearse))
        if "graph" in kind:
            call = Call(rivals.in_a_graph(call.run))
        return measure([call], device, options.seconds, 50)

    return run


def time_row(row: Row, device: torch.device, options: argparse.Namespace, clock: Clock) -> Record:
    def ours() -> Timing:
        return measure(
            rotating(lambda seed: row.ours(device, seed), device), device, options.seconds
        )

    def captured(seed: int) -> Call:
        call = row.ours(device, seed)
        return Call(rivals.in_a_graph(call.run), call.bytes)

    def ours_in_a_graph() -> Timing:
        return measure(rotating(captured, device), device, options.seconds)

    record: Record = {
        "name": row.name,
        "part": row.part,
        "group": row.group,
        **{n: getattr(row, n) for n in "TBIJ"},
        "fma": row.fma,
        "ms": None,
        **attempt(clock, ours),
    }
    if row.case is not None:
        record["hbm_bytes"] = row.case.cost().hbm
        record["predicted"] = None if options.rehearse else model.stored(row.case.name)
    elif row.part in ("both", "step"):
        record["in_a_graph"] = attempt(clock, ours_in_a_graph)
    record["rivals"] = {
        kind: attempt(clock, time_rival(row, kind, device, options)) for kind in row.kinds
    }
    if row.no_rival:
        record["no_rival"] = row.no_rival
    return record


# -- compilers side by side ------------------------------------------------------------------------


def warm(rows: Sequence[Row], device: torch.device, options: argparse.Namespace) -> None:
    """One of n processes: runs its share once, which leaves compiled kernels in the cache."""
    mine, count = (int(part) for part in options.warm.split("/"))
    for row in rows[mine::count]:
        try:
            with tidy():
                row.ours(device, 0).run()
        except Exception as error:
            print(f"warm: {row.name} {row.part}: {type(error).__name__}: {error}", flush=True)
    if options.rehearse:
        return
    chosen = {(row.name, row.part) for row in rows}
    # The cell of a step has no time in it: two steps compile what all of them need.
    short = zip(layer_rows(steps=2), layer_rows(), strict=True)
    wanted = [row for row, whole in short if (whole.name, whole.part) in chosen]
    for row in wanted[mine::count]:
        if "compiled" in row.kinds and row.rival is not None:
            try:
                with tidy():
                    row.rival(device, rivals.compiler()).run()
            except Exception as error:
                print(f"warm: {row.name} compiled: {type(error).__name__}: {error}", flush=True)


def warm_all(rows: Sequence[Row], options: argparse.Namespace, clock: Clock) -> Record:
    """Starts the warming processes, waits for them, at most a third of what is left."""
    begin, seconds = time.monotonic(), clock.left / 3
    count = min(1 if options.rehearse else options.workers, len(rows))
    log = (options.out / "warm.log").open("w", encoding="utf-8")
    own = ["--rehearse"] if options.rehearse else []
    own += ["--only", options.only]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "bench.gpu", *own, "--warm", f"{k}/{count}"],
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
        for k in range(count)
    ]
    for process in processes:
        try:
            process.wait(max(0.1, begin + seconds - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    log.close()
    return {
        "processes": count,
        "seconds": time.monotonic() - begin,
        "cut_off": sum(p.returncode != 0 for p in processes),
    }


# -- everything ------------------------------------------------------------------------------------


def gate_of(options: argparse.Namespace, machine: Record) -> Record:
    if options.proven is not None:
        return proven(options.proven, machine)
    if options.gate is not None:
        wanted: Sequence[str] = options.gate
    elif options.rehearse:
        wanted = ("tests/gpu/test_gpu_gate.py", "-k", "dropped_term")
    else:
        wanted = gate.PROOFS
    workers = 1 if options.rehearse else options.workers
    seconds = options.gate_share * options.budget
    found = gate.run(wanted, options.out, seconds, workers)
    if options.gate is not None and found["state"] == "green":
        found |= {"state": "partial", "reason": "passed, but not all proofs: chosen by --gate"}
    return found


def proven(file: Path, machine: Record) -> Record:
    """The gate of an earlier result; SystemExit unless it was green, here and of these sources."""
    earlier = json.loads(file.read_text(encoding="utf-8"))
    for name, here in (("device", machine["device"]), ("sources", machine["sources"])):
        if earlier["machine"][name] != here:
            raise SystemExit(
                f"--proven: expected {name} {here}, got {earlier['machine'][name]} in {file.name}"
            )
    gate = dict(earlier["gate"])
    if gate["state"] != "green":
        raise SystemExit(f"--proven: expected a green gate, got {gate['state']} in {file.name}")
    return gate | {"date": earlier["machine"]["date"]}


def tune_all(
    rows: Sequence[Row], device: torch.device, options: argparse.Namespace, clock: Clock
) -> Record:
    """Tunes on the kernel rows and stores the winners."""
    best: dict[str, str] = {}
    found: Record = {"times_ms": {}, "failed": {}}
    for row in rows:
        if row.case is None or clock.left < LEAST_SECONDS:
            continue
        try:
            with tidy():
                calls = rotating(lambda seed, row=row: row.ours(device, seed), device)
                best, times = tuning.tune(
                    calls[0].run, lambda calls=calls: measure(calls, device, 0.1).ms, best
                )
                found["times_ms"] |= times
        except Exception as error:
            found["failed"][row.name] = f"{type(error).__name__}: {error}"
    if not options.rehearse:
        found["file"] = str(configs.store_tuned(best))
    return found | {"winners": best}


def lost(device: torch.device) -> bool:
    """Whether an error has ended this process's use of the GPU: every call fails from then on."""
    try:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False


def time_rows(
    rows: Sequence[Row], device: torch.device, options: argparse.Namespace, clock: Clock, file: Path
) -> None:
    """A line in `file` for each row; not for all of them where the GPU is lost."""
    fma_rate = records.lines(file)[0]["machine"]["fma_rate"]
    for row in rows:
        record = time_row(row, device, options, clock)
        record = records.rounded(records.derive(record, fma_rate))
        records.append(file, record)
        print(f"{row.name} {row.part}: {record['ms'] or record['reason']}", flush=True)
        if lost(device):
            print("the GPU is lost to this process: the other rows need a new one", flush=True)
            return


def time_all(
    rows: Sequence[Row], device: torch.device, options: argparse.Namespace, clock: Clock, file: Path
) -> list[Record]:
    """The records of all rows: in this process, and where it loses the GPU in others after it."""

    def timed() -> list[Record]:
        return [line for line in records.lines(file) if "name" in line]

    time_rows(rows, device, options, clock, file)
    while (before := len(timed())) < len(rows):
        own = ["--rehearse"] if options.rehearse else []
        own += ["--out", str(options.out), "--only", options.only, "--after", str(before)]
        own += ["--seconds", str(options.seconds), "--budget", str(clock.left)]
        subprocess.run([sys.executable, "-m", "bench.gpu", *own], cwd=ROOT, check=False)
        if len(timed()) == before:
            records.append(file, _unmeasured(rows[before], "its process ended"))
    return timed()


def main(given: Sequence[str] | None = None) -> int:
    options = arguments_of(given)
    if options.readme:
        gpu_table.write_readme(ROOT)
        return 0
    clock = Clock(options.budget)
    device = torch.device("cpu" if options.rehearse else "cuda")
    rows = rows_of(options)
    if not options.rehearse and not torch.cuda.is_available():
        print("no CUDA device is visible; `--rehearse` goes through the motions on a CPU")
        return 2
    if options.warm:
        warm(rows, device, options)
        return 0
    lines = options.out / "gpu.jsonl"
    if options.after:
        time_rows(rows[options.after :], device, options, clock, lines)
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    lines.unlink(missing_ok=True)
    result: Record = {
        "rehearsal": options.rehearse,
        "machine": machines.gpu(device, options.commit),
        "gate": {},
        "rows": [],
    }
    print(f"gate: the proofs, at most {options.gate_share * options.budget:.0f} s", flush=True)
    result["gate"] = gate_of(options, result["machine"])
    records.append(lines, {"machine": result["machine"], "gate": result["gate"]})
    state = result["gate"]["state"]
    print(f"gate: {state}", result["gate"]["reason"] or "", flush=True)
    for failure in result["gate"]["failures"][:20]:
        print("  ", failure)
    if state != "green" and not options.ungated:
        print(f"nothing is timed while the gate is {state} (--ungated would)")
        result["rows"] = [_unmeasured(row, f"the gate is {state}") for row in rows]
        finish(result, options)
        return 1
    if state != "green":
        print(
            "!" * 80
            + f"\nTHE GATE IS {state.upper()}: times of kernels not known to be right\n"
            + "!" * 80
        )
    result["warm"] = warm_all(rows, options, clock)
    print(f"warm: {result['warm']['seconds']:.0f} s", flush=True)
    if options.tune:
        result["tuned"] = tune_all(rows, device, options, clock)
        records.append(lines, {"tuned": result["tuned"]})
    result["rows"] = time_all(rows, device, options, clock, lines)
    finish(result, options)
    return 0


def _unmeasured(row: Row, reason: str) -> Record:
    return {"name": row.name, "part": row.part, "status": NOT_MEASURED, "reason": reason}


def finish(result: Record, options: argparse.Namespace) -> None:
    name = machines.file_name("gpu", result["machine"])
    file = options.out / ("gpu-rehearsal.json" if options.rehearse else name)
    records.write(file, json.dumps(records.rounded(result), indent=1) + "\n")
    text = records.table(result)
    records.write(file.with_suffix(".txt"), text + "\n")
    print(text)
    print(f"\nwritten: {file}")


if __name__ == "__main__":
    sys.exit(main())
