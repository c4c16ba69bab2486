"""What a kernel should reach, from counted work and compiled code. Predicted, not measured.

For an operator with synapses:

    floor    = multiply-adds the mathematics needs / FMA_RATE
    time     = max(multiply-adds done / FMA_RATE / share, HBM bytes / HBM_RATE, L2 bytes / L2_RATE)
    fraction = floor / time

`share` is the part of multiply-adds in all instructions of the loop over time (of a recurrent scan
with the few of its neurons). `in_waves` is the same with the arithmetic stretched to whole waves:
ceil(programs / slots) * slots / programs, slots = programs resident at once, and with the launch
that adds partial sums after it, not beside it. A program that has a
multiprocessor to itself runs faster than in a full one, so with several slots this errs upward in
time, as `fraction` errs downward.

A recurrent scan is bound by its steps: time = steps * us_per_step, where a step issues the loop of
all resident programs on four schedulers, once per round of samples. A scan without synapses has no
such floor: its floor are its bytes, its time the larger of these and of issuing its instructions.

Left out: latency (of memory, of dependent instructions, of barriers and of programs that meet each
step, which decides recurrent scans beyond J = 128), prologue and epilogue, launches, the second
kernel of a gradient, clocks below the maximum.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hetsyn_triton.kernels.gpu.lib import add_partials
from hetsyn_triton.kernels.gpu.lib.launch import Cost
from hetsyn_triton.kernels.gpu.synaptic_current import blocks_of, tile

SMS = 132
CLOCK = 1.98e9
FMA_RATE = SMS * 128 * CLOCK
"""Of an H200: 33.45e12 multiply-adds per second."""
HBM_RATE = 4.3e12
"""Bytes per second: 90 % of the 4.8e12 of the data sheet."""
L2_RATE = 7e12
"""Bytes per second, assumed."""

RESULTS = Path(__file__).parent / "results" / "codegen.json"


@dataclass(frozen=True)
class Work:
    """One launch as compiled."""

    kernel: str
    programs: int
    warps: int
    registers: int
    shared: int
    fma: int = 0
    """Multiply-adds in one pass of the loop over time; 0 where there is no such loop."""
    instructions: int = 0
    """All instructions of that pass."""
    steps_per_pass: int = 1
    lanes: bool = False
    """A scan of neurons: one thread each, no synapses."""

    @property
    def share(self) -> float:
        return self.fma / self.instructions

    @property
    def slots(self) -> int:
        return SMS * slots(self.registers, self.warps, self.shared)

    @property
    def waves(self) -> int:
        return -(-self.programs // self.slots)


@dataclass(frozen=True)
class Prediction:
    """Of one case. Times in microseconds."""

    floor_us: float
    time_us: float
    fraction: float
    in_waves: float
    bound: str
    """What takes longest: instructions, HBM or L2; steps for a recurrent scan."""
    share: float
    us_per_step: float | None = None


def slots(registers: int, warps: int, shared: int = 0) -> int:
    """Programs that one multiprocessor holds: by registers (handed out to a warp in units of 256),
    64 warps, 32 programs, 227 KiB of shared memory (1 KiB of it the system's in each program)."""
    of_warp = -(-max(registers, 1) * 32 // 256) * 256
    by_registers = 65536 // of_warp // warps
    by_memory = 232448 // (shared + 1024)
    return max(1, min(by_registers, 64 // warps, 32, by_memory))


def stretch(work: Work) -> float:
    """Whole waves over the programs there are."""
    return work.waves * work.slots / work.programs


def main(works: Sequence[Work]) -> Work:
    """The launch that does the operator's work: of synapses where there are any."""
    looping = [w for w in works if w.fma]
    return next((w for w in looping if not w.lanes), looping[0])


def us_per_step(work: Work, programs: int) -> float:
    """Issue time of a step on the busiest multiprocessor, all rounds of `programs` together."""
    resident = min(work.slots // SMS, -(-programs // SMS))
    rounds = -(-programs // (SMS * resident))
    return 1e6 * rounds * work.instructions * work.warps * resident / 4 / CLOCK


def predict_synapses(cost: Cost, works: Sequence[Work], after: int = 0) -> Prediction:
    """Of an operator with synapses, not recurrent; `after` bytes of the HBM bytes are moved when
    the main launch is done."""
    work = main(works)
    floor = cost.fma / FMA_RATE
    times = {
        "instructions": cost.executed / FMA_RATE / work.share,
        "HBM": cost.hbm / HBM_RATE,
        "L2": cost.l2 / L2_RATE,
    }
    bound = max(times, key=times.__getitem__)
    beside = (cost.hbm - after) / HBM_RATE
    whole = max(times["instructions"] * stretch(work), beside, times["L2"]) + after / HBM_RATE
    return Prediction(
        1e6 * floor, 1e6 * times[bound], floor / times[bound], floor / whole, bound, work.share
    )


def predict_recurrent(cost: Cost, works: Sequence[Work], steps: int, programs: int) -> Prediction:
    """Of a recurrent scan; `programs` of them would run all samples at once."""
    work = main(works)
    floor = cost.fma / FMA_RATE
    step = us_per_step(work, programs)
    time = steps * step / 1e6
    best = cost.executed / FMA_RATE / work.share
    time = max(time, best)
    return Prediction(
        1e6 * floor, 1e6 * time, floor / time, floor / time, "steps", work.share, step
    )


def predict_scan(cost: Cost, works: Sequence[Work], steps: int) -> Prediction:
    """Of scans of neurons alone: the floor are the bytes."""
    moved = max(cost.hbm / HBM_RATE, cost.l2 / L2_RATE)
    issued, stretched = 0.0, 0.0
    for work in works:
        if work.fma:
            passes = work.programs * work.warps * steps / work.steps_per_pass
            seconds = passes * work.instructions / (SMS * 4 * CLOCK)
            issued += seconds
            stretched += seconds * stretch(work)
    floor = cost.hbm / HBM_RATE
    time = max(moved, issued)
    return Prediction(
        1e6 * floor,
        1e6 * time,
        floor / time,
        floor / max(moved, stretched),
        "instructions" if issued > moved else "HBM",
        main(works).share,
    )


def predict(case: Any, works: Sequence[Work]) -> Prediction:
    """Of a `cases.Case` with its launches as compiled for sm_90, in order."""
    if not case.synapses:
        return predict_scan(case.cost(), works, case.T)
    if case.recurrent:
        work = main(works)
        # Programs that share a sample go over the samples in a loop: their grid is one round.
        programs = max(work.programs, case.R * case.B * programs_per_sample(case.J))
        return predict_recurrent(case.cost(), works, case.T, programs)
    after = 0
    if any(w.kernel == "add_partials_kernel" for w in works):
        backward = case.operator == "synaptic_current_backward"
        summed, outputs = (case.J, case.I) if backward else (case.I, case.J)
        parts = blocks_of(tile(summed, outputs), summed)
        after = add_partials.cost(1, parts, case.R * case.T * case.B * outputs).hbm
    return predict_synapses(case.cost(), works, after)


def programs_per_sample(neurons: int) -> int:
    """Of the recurrent scan in registers; 1 where it goes by steps."""
    from hetsyn_triton.kernels.gpu.lib.recurrent_tile import path

    tile = path(neurons, SMS)
    return tile.programs if tile else 1


def stored(name: str, file: Path = RESULTS) -> dict[str, Any] | None:
    """The stored prediction of the case of this name (the fields of `Prediction`), if any."""
    if not file.exists():
        return None
    for row in json.loads(file.read_text(encoding="utf-8"))["cases"]:
        if row["name"] == name:
            found: dict[str, Any] = row["prediction"]
            return found
    return None


def as_row(prediction: Prediction) -> dict[str, Any]:
    """Rounded to four figures, for a file."""
    return {
        k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in asdict(prediction).items()
    }
