"""Measure the groups of entries of `pytest --benchmark`.

The test of a group's first entry has the whole group measured, interleaved, in another process.
Each test then reports its own times. The process is replaced if it ends or loses its GPU: after an
illegal access all its calls fail. On a CPU, `isolated.py` measures memory afterwards.
"""

from __future__ import annotations

import gc
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bench import baseline_loop, contenders, registry, timing
from bench.isolated import Isolated
from bench.plain_lif import Missing
from bench.processes import OUT_OF_TIME, Answer, Worker, environment
from bench.records import Record, rounded
from bench.registry import CHECKPOINTED, COMPILED, LOOP, OURS, REFERENCE, Entry, Work

LEAST_SECONDS = 10.0
"""No group starts with less time left."""


@dataclass(frozen=True)
class Plan:
    """How to measure entries."""

    device: str
    threads: int
    seconds: float
    """Time for each contender of a group."""
    rounds: int
    """Minimum number."""
    timed: bool = True
    thorough: bool = False
    """Also measure first calls, what autograd saves, and the memory of all contenders."""
    rehearse: bool = False
    reserved_bytes: int = 0
    """Memory that the process maps first and keeps."""

    @property
    def environment(self) -> dict[str, str]:
        """Environment of the measuring process; a rehearsal on a CPU interprets Triton kernels."""
        rehearsed = {"BENCH_COMPILER": "eager", "TRITON_INTERPRET": "1"}
        return rehearsed if self.rehearse and self.device == "cpu" else {}


# -- in pytest's process ---------------------------------------------------------------------------


class Measurements:
    """Measure groups of entries; `say` prints a line and `keep` stores the row of each entry."""

    def __init__(
        self,
        plan: Plan,
        entries: Sequence[Entry],
        say: Callable[[str], None],
        fma_rate: float = 0.0,
        keep: Callable[[Record], None] = lambda row: None,
        end: float = math.inf,
    ) -> None:
        self.plan, self.say, self.fma_rate, self.keep, self.end = plan, say, fma_rate, keep, end
        self.groups: dict[str, list[Entry]] = {}
        for entry in entries:
            self.groups.setdefault(entry.group, []).append(entry)
        self.found: dict[Entry, Record] = {}
        self.times: dict[Entry, list[float]] = {}
        self.worker = Worker(prepare, plan, threads=plan.threads, **plan.environment)
        self.isolated = Isolated(plan.threads)

    def of(self, entry: Entry) -> Record:
        """Return the row of an entry: results, or why it is `missing`, or what is `wrong`."""
        if entry not in self.found:
            group = self.groups[entry.group]
            self.say(f"{entry.group}: {', '.join(e.label for e in group)}")
            width = max(len(e.label) for e in group)
            for one, row in zip(group, self._measured(group), strict=True):
                self.times[one] = row.pop("times_ms", [])
                if row.get("ms") and self.plan.device == "cpu":
                    row |= memory(one, self.plan, self.isolated)
                self.found[one] = row
                self.keep(row)
                self.say(f"  {one.label:<{width}}  {line(row, self.fma_rate)}")
        return self.found[entry]

    def _measured(self, group: Sequence[Entry]) -> list[Record]:
        left = self.end - time.monotonic()
        answer: Answer = {"reason": OUT_OF_TIME}
        if left >= LEAST_SECONDS:
            longest = min(left, 1e6)  # the longest that a pipe waits
            answer = self.worker.call(measured, group, self.plan, seconds=longest)
        if "reason" in answer:
            return [_row(entry) | {"missing": answer["reason"]} for entry in group]
        if answer["lost"]:
            self.say("the process has lost the GPU: a new one measures the next group")
            self.worker.close()
        rows: list[Record] = answer["rows"]
        return rows

    def warm(self, workers: int) -> None:
        """Compile in parallel, for at most a third of the time left."""
        begin, seconds = time.monotonic(), min(600.0, (self.end - time.monotonic()) / 3)
        entries = [entry for group in self.groups.values() for entry in group]
        spawn = multiprocessing.get_context("spawn")
        processes = [
            spawn.Process(target=compiled, args=(entries[k::workers], self.plan), daemon=True)
            for k in range(workers)
        ]
        with environment(self.plan.threads, **self.plan.environment):
            for process in processes:
                process.start()
        for process in processes:
            process.join(max(0.1, begin + seconds - time.monotonic()))
            process.kill()
            process.join()
        cut = sum(process.exitcode != 0 for process in processes)
        self.say(f"warmed up in {time.monotonic() - begin:.0f} s, {cut} of {workers} cut off")

    def close(self) -> None:
        self.worker.close()
        self.isolated.close()


def line(row: Record, fma_rate: float) -> str:
    """Return the line on the screen for a row."""
    if "missing" in row:
        return f"skipped: {row['missing']}"
    if "wrong" in row:
        return f"WRONG: {row['wrong'].splitlines()[0]}"
    if not row["ms"]:
        return f"not timed; {row['check']}"
    said = [f"{row['ms']:9.3f} ms"]
    same = row["check"].startswith("equal")
    fma = row["fma"] if same else 0  # other models need other multiply-adds
    share = 1e3 * fma / row["ms"] / fma_rate if fma_rate else 0
    said.append(f"{share:6.1%} of the peak" if share else " " * 18)
    peak, fresh = row.get("peak_bytes"), row.get("fresh_ms")
    said.append(" " * 11 if peak is None else f"{peak / 1e6:8.1f} MB")
    said.append("" if fresh is None else f"{fresh:8.1f} ms in fresh memory")
    said.append("" if same else "(another model)")
    return "  ".join(said).rstrip()


# -- in the measuring process ----------------------------------------------------------------------


def prepare(plan: Plan) -> None:
    """Set up a new process."""
    torch.set_num_threads(plan.threads)
    timing.zero_denormals()
    if plan.reserved_bytes:
        timing.keep_freed_memory(plan.reserved_bytes)


def _row(entry: Entry) -> Record:
    row: Record = {"group": entry.group, "label": entry.label, "contender": entry.contender}
    return row | {"work": asdict(entry.work), "fma": entry.work.fma}


def measured(group: Sequence[Entry], plan: Plan) -> Answer:
    """Return the rows of a group, and whether the GPU is lost; untimed rows are then missing."""
    try:
        rows = measure(group, plan)
    except Exception as error:
        rows = [_row(entry) | _broken(error) for entry in group]
    gone = lost(plan.device)
    for row in rows:
        if gone and not row.get("ms"):
            row["missing"] = f"the GPU was lost: {row.pop('wrong', 'by an earlier call')}"
    return {"rows": rows, "lost": gone}


def measure(group: Sequence[Entry], plan: Plan) -> list[Record]:
    """Check all contenders, then time them interleaved; return a row for each."""
    device = torch.device(plan.device)
    rows = {entry: _row(entry) for entry in group}
    runs: dict[Entry, list[Callable[[], Any]]] = {}
    for entry, row in rows.items():
        try:
            runs[entry] = _ready(entry, plan, device, row)
        except Exception as error:  # one contender's failure must not cost the others their times
            row |= _broken(error)
    if plan.timed and runs:
        # The slope of a growth has many points, so each takes less time.
        share = 1 / 3 if len({e.work for e in group}) > 1 else 1
        seconds = plan.seconds * len(runs) * share
        times, broken = timing.interleaved(runs, seconds, plan.rounds, device=device)
        for entry, failure in broken.items():
            rows[entry] |= _broken(failure)
            del runs[entry]
        for entry, ms in times.items():
            low, median, high = statistics.quantiles(ms, n=4, method="inclusive")
            rows[entry] |= {"ms": median, "low_ms": low, "high_ms": high, "rounds": len(ms)}
            rows[entry] |= {"times_ms": ms, "sets": len(runs[entry])}
            with suppress(RuntimeError):  # times count without memory
                rows[entry] |= timing.peak_bytes(runs[entry][0], device)
    checked = list(runs)
    runs.clear()
    gc.collect()
    for entry in checked:
        if not plan.timed:
            rows[entry]["ms"] = 0.0
        if entry.work.kind == "current":
            rows[entry]["error"] = contenders.errors_over_time(entry.work, entry.contender, device)
    return [rounded(row) for row in rows.values()]


def _ready(entry: Entry, plan: Plan, device: torch.device, row: Record) -> list[Callable[[], Any]]:
    """Check a contender and call it once; return its calls.

    On a GPU this library has calls with several inputs, to exceed the cache; a loop's graph does.
    """
    work, name = entry.work, entry.contender
    fits(entry, plan)
    row["check"] = contenders.checked(work, name, device)
    made = contenders.make(work, name, device)
    made.run()
    if made.moved:
        row["bytes"] = made.moved
    if device.type != "cuda" or name not in (OURS, registry.OURS_GRAPH) or work.kind == "replicas":
        return [made.run]
    given = made.given if work.operator else made.given[:1]
    seeds = range(1, timing.sets_for(timing.size_of(*given)))
    return [made.run, *(contenders.make(work, name, device, seed).run for seed in seeds)]


def _broken(error: Exception) -> Record:
    """Return the row's entry for an error: missing without memory or library, else wrong."""
    if isinstance(error, Missing):
        return {"missing": str(error)}
    said = f"{type(error).__name__}: {str(error).strip() or '?'}"[:600]
    if isinstance(error, torch.OutOfMemoryError):
        return {"missing": said}
    return {"wrong": str(error) if isinstance(error, AssertionError) else said}


def memory(entry: Entry, plan: Plan, isolated: Isolated) -> Record:
    """Measure memory on a CPU in other processes; if the plan says so, time a first call."""
    if entry.work.operator:
        return {}
    if entry.contender in (COMPILED, REFERENCE) and not plan.thorough:
        return {"memory": "not measured: needs --benchmark-full"}
    try:
        fits(entry, plan, tapes=2.5)  # beside the memory of the measuring process
    except Missing as reason:
        return {"memory": f"not measured: {reason}"}
    info: Record = {}
    whole = plan.rehearse or entry.work.name in registry.published("cpu")
    if plan.thorough and whole and entry.contender in (OURS, LOOP):
        first = isolated.first_call(entry.work, entry.contender)
        info |= {"first_ms": first["first_ms"]} if "first_ms" in first else {}
    found = isolated.memory(entry.work, entry.contender, plan.thorough)
    if "reason" in found:
        return info | {"memory": f"not measured: {found['reason']}"}
    names = {"peak": "peak_bytes", "saved": "saved_bytes", "fresh_ms": "fresh_ms"}
    info |= {names[key]: found[key] for key in names if found.get(key) is not None}
    return info | ({"memory": f"not measured: {found['no_peak']}"} if "no_peak" in found else {})


def fits(entry: Entry, plan: Plan, tapes: float = 1.5) -> None:
    """Raise Missing if a loop's tape, `tapes` times, exceeds memory, or a graph needs CUDA."""
    captured = entry.contender in registry.CAPTURED
    if captured and plan.device != "cuda" and not plan.rehearse:
        raise Missing("a CUDA graph needs a CUDA device")
    kept = tape(entry.work, entry.contender)
    if not kept or entry.contender == CHECKPOINTED:
        return
    # A CUDA graph keeps its tape while an eager contender makes another.
    need = (2 * tapes if captured else tapes) * kept + 1e9
    free = _free_bytes(plan.device)
    if free is not None and need > free:
        raise Missing(f"needs about {need / 1e9:.0f} GB, {free / 1e9:.0f} GB are free")


def tape(work: Work, contender: str) -> int:
    """Return the bytes that a loop saves for its backward pass."""
    forward = ("forward", "synaptic_current", "recurrent_scan")
    if registry.CAPTURED.get(contender, contender) not in registry.LOOPS or work.part in forward:
        return 0
    steps = baseline_loop.CHUNK if contender == CHECKPOINTED else work.T
    return baseline_loop.tape_bytes(steps, work.B, work.synapses)


def _free_bytes(device: str) -> int | None:
    """Return the bytes of free memory, None if the system does not report it."""
    if device == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info()[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(s.split()[1]) for s in lines if s.startswith("MemAvailable:")), None)


def lost(device: str) -> bool:
    """Whether this process can no longer use the GPU after an error."""
    try:
        if device == "cuda":
            torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def compiled(entries: Sequence[Entry], plan: Plan) -> None:
    """Run kernels once and two steps of each compiled loop, to cache their compiled code."""
    prepare(replace(plan, reserved_bytes=0))
    for entry in [e for e in entries if e.contender in (OURS, COMPILED)]:
        ours = entry.contender == OURS
        work = entry.work if ours else replace(entry.work, T=2)
        try:
            contenders.make(work, entry.contender, torch.device(plan.device)).run()
        except Exception as error:
            print(f"warm: {entry.id}: {type(error).__name__}: {error}", flush=True)
