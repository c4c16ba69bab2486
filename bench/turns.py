"""How `pytest --benchmark` measures: the contenders of a group take turns, when the first of them
is asked for; each test then reports its own times.

pytest-benchmark times a test with the clock it is given. Here that clock, `measured_time`, stands
still but for `advance`: a round of a test advances it by a time that was measured before, in turn
with the others', on a GPU between CUDA events. So all of pytest-benchmark's statistics, options and
files are those of times measured that way.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from bench import contests, rivals, timing
from bench.apart import Apart
from bench.plain_lif import Missing
from bench.registry import CHECKPOINTED, COMPILED, LOOP, REFERENCE, Entry, Work

_now = 0.0


def measured_time() -> float:
    """Seconds measured so far."""
    return _now


def advance(seconds: float) -> None:
    global _now
    _now += seconds


@dataclass(frozen=True)
class Measured:
    """What became of an entry: its times in seconds and what is stored beside them; or why there
    are none, either because this machine cannot, or because it computes something wrong."""

    seconds: list[float] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)
    missing: str = ""
    wrong: str = ""


@dataclass(frozen=True)
class Plan:
    """How long, and whether at all."""

    device: torch.device
    threads: int
    seconds: float
    """For each contender of a group."""
    rounds: int
    """At least."""
    timed: bool = True
    thorough: bool = False
    """Also the memory of what has to be compiled once more for it or takes what the loop takes, and
    what autograd keeps."""


class Turns:
    """Measures groups of entries, `say`s a line for each entry."""

    def __init__(
        self, plan: Plan, entries: Sequence[Entry], say: Callable[[str], None], fma_rate: float
    ) -> None:
        self.plan, self.say, self.fma_rate = plan, say, fma_rate
        self.groups: dict[str, list[Entry]] = {}
        for entry in entries:
            self.groups.setdefault(entry.group, []).append(entry)
        self.found: dict[Entry, Measured] = {}
        self.apart = Apart(plan.threads)

    def of(self, entry: Entry) -> Measured:
        if entry not in self.found:
            self.say(f"{entry.group}: {', '.join(e.label for e in self.groups[entry.group])}")
            self._measure(self.groups[entry.group])
        return self.found[entry]

    def close(self) -> None:
        self.apart.close()

    def _measure(self, group: Sequence[Entry]) -> None:
        checks, runs, made = {}, {}, {}
        for entry in group:
            try:
                _fits(entry, self.plan.device)
                checks[entry] = contests.checked(entry.work, entry.contender, self.plan.device)
                made[entry] = contests.make(entry.work, entry.contender, self.plan.device)
                runs[entry.label] = made[entry].run
                runs[entry.label]()
            except Missing as reason:
                self.found[entry] = Measured(missing=str(reason))
            except AssertionError as error:
                self.found[entry] = Measured(wrong=str(error))
            except Exception as error:  # what breaks may not cost another its time
                self.found[entry] = Measured(wrong=f"{type(error).__name__}: {error}")
            if entry in self.found:
                made.pop(entry, None)
                runs.pop(entry.label, None)
        milliseconds = {}
        if self.plan.timed and runs:
            # Growth is a slope over many points.
            share = 1 / 3 if len({e.work for e in group}) > 1 else 1
            seconds = self.plan.seconds * len(runs) * share
            milliseconds = timing.in_turn(runs, seconds, self.plan.rounds, device=self.plan.device)
        memory = {entry: self._gpu_memory(made[entry]) for entry in made}
        made.clear()
        runs.clear()
        gc.collect()
        for entry, check in checks.items():
            if entry not in self.found:
                info = {"label": entry.label, "contender": entry.contender, "check": check}
                info |= {"work": asdict(entry.work), "fma": entry.work.fma}
                if self.plan.timed:
                    info |= memory[entry] or self._memory(entry)
                if entry.work.kind == "current":
                    info["error"] = contests.errors_over_time(
                        entry.work, entry.contender, self.plan.device
                    )
                times = [ms / 1e3 for ms in milliseconds.get(entry.label, [])]
                self.found[entry] = Measured(times, info)
        self._tell(group)

    def _gpu_memory(self, made: contests.Made) -> dict[str, Any]:
        peak = timing.peak_bytes(made.run, self.plan.device) if self.plan.timed else None
        return {} if peak is None else {"peak_bytes": peak}

    def _memory(self, entry: Entry) -> dict[str, Any]:
        """On a CPU, in another process."""
        if entry.contender in (COMPILED, REFERENCE) and not self.plan.thorough:
            return {"memory": "not measured but with --benchmark-full"}
        if self.plan.device.type != "cpu":
            return {}
        try:
            _fits(entry, self.plan.device, tapes=2.5)  # beside what this process keeps
        except Missing as reason:
            return {"memory": f"not measured: {reason}"}
        found = self.apart.ask(entry.work, entry.contender, self.plan.thorough)
        if "reason" in found:
            return {"memory": f"not measured: {found['reason']}"}
        names = {"peak": "peak_bytes", "saved": "saved_bytes", "fresh_ms": "fresh_ms"}
        info = {names[key]: found[key] for key in names if found.get(key) is not None}
        return info | (
            {"memory": f"not measured: {found['no_peak']}"} if "no_peak" in found else {}
        )

    def _tell(self, group: Sequence[Entry]) -> None:
        width = max(len(entry.label) for entry in group)
        for entry in group:
            self.say(f"  {entry.label:<{width}}  {line(self.found[entry], self.fma_rate)}")


def line(found: Measured, fma_rate: float) -> str:
    """What is shown of a measurement while the next one runs."""
    if found.missing:
        return f"skipped: {found.missing}"
    if found.wrong:
        return f"WRONG: {found.wrong.splitlines()[0]}"
    if not found.seconds:
        return f"not timed; {found.info['check']}"
    seconds = sorted(found.seconds)[len(found.seconds) // 2]
    said = [f"{1e3 * seconds:9.3f} ms"]
    same = found.info["check"].startswith("equal")
    fma = found.info["fma"] if same else 0  # who computes less has no share of these
    said.append(f"{fma / seconds / fma_rate:6.1%} of the peak" if fma and fma_rate else " " * 18)
    peak, fresh = found.info.get("peak_bytes"), found.info.get("fresh_ms")
    said.append(" " * 11 if peak is None else f"{peak / 1e6:8.1f} MB")
    said.append("" if fresh is None else f"{fresh:8.1f} ms in fresh memory")
    said.append("" if same else "(plain LIF)")
    return "  ".join(said).rstrip()


def _fits(entry: Entry, device: torch.device, tapes: float = 1.5) -> None:
    """Missing where so many of a loop's `tapes` do not fit: it would take the machine down."""
    if entry.contender not in (LOOP, COMPILED, REFERENCE) or entry.work.part == "forward":
        return
    need = tapes * tape(entry.work, entry.contender) + 1e9
    free = _free_bytes(device)
    if free is not None and need > free:
        raise Missing(f"needs about {need / 1e9:.0f} GB, {free / 1e9:.0f} GB are free")


def tape(work: Work, contender: str) -> int:
    """Bytes that a loop keeps of the work for its backward."""
    if contender not in (LOOP, COMPILED, REFERENCE, CHECKPOINTED) or work.part == "forward":
        return 0
    steps = rivals.CHUNK if contender == CHECKPOINTED else work.T
    return rivals.tape_bytes(steps, work.B, work.synapses)


def _free_bytes(device: torch.device) -> int | None:
    """None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(s.split()[1]) for s in lines if s.startswith("MemAvailable:")), None)
