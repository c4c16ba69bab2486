"""Simulate the time of a GPU kernel from its machine code: loop over time, launch, memory.

`simulate` lets the warps of the resident programs run through the loop over time on the four
schedulers of one Hopper multiprocessor. `launch_ms` turns its cycles into the time of a launch.
Nothing here is measured. `Machine` has all constants; none depends on a kernel or its size.

Assumptions, with their sources:

- A scheduler issues one instruction per cycle, in order within a warp. It stays with a warp while
  that can issue. Stall counts, scoreboards and `.reuse` are those of the encoding.
- A scheduler has two register banks, even and odd. Each gives one register of a warp per cycle, and
  an instruction reads within three cycles (measured on GA102: Huerta et al., arXiv 2503.20481).
- FP32 issues every cycle, integer and IMAD every second. The load-store unit moves 128 bytes per
  cycle, so a 16-byte load of a warp takes four cycles.
- A load returns after the latency of its level, +-10 %. L2: 263 cycles on an H100, device memory
  unloaded: 479 (arXiv 2402.13499). Under the load of these kernels device memory takes 800 (fitted
  to kernels measured on an H200).
- The level follows from three rules (`levels`): in a loop that prefetches, all loads hit L2,
  whichever it prefetches. So do loads from where the program also stores. Other loads go to device
  memory, because calls of the
  benchmark rotate through more inputs than L2 holds. The exception is what the call itself has just
  made, such as a padded copy, if it fits into L2.
- A launch runs in rounds of the programs that are resident at once. It takes no less time than its
  tensors need to pass through device memory once.

Not simulated: prologue and epilogue of a program, other loops, instruction cache, TLB, waiting for
other programs, and the launch itself.
"""

from __future__ import annotations

import random
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from math import ceil, inf, prod

from torch import Tensor

from bench.aot import Code, Instruction, Loop, parse
from hetsyn_triton.kernels.gpu.lib.launch import Launch

Shapes = set[tuple[int, ...]]


@dataclass(frozen=True)
class Machine:
    """An H200: latencies in cycles, sizes in bytes."""

    device: int = 800
    l2: int = 270
    l1: int = 38
    shared: int = 27
    shuffle: int = 22
    special: int = 22
    """Latency of the units with a quarter of the rate: conversions, exponentials."""
    uniform: int = 12
    barrier: int = 18
    store: int = 12
    """Until a store has read its registers."""
    jitter: float = 0.1
    ports: int = 1
    """Registers that a bank gives per cycle."""
    queue: int = 8
    """Memory instructions of a scheduler that wait for the load-store unit."""
    width: int = 128
    """Bytes that the load-store unit moves per cycle."""
    processors: int = 132
    clock_hz: float = 1.98e9
    registers: int = 65536
    shared_bytes: int = 228 << 10
    warps: int = 64
    programs: int = 32
    l2_bytes: float = 60e6
    device_rate: float = 4.8e12
    """Bytes per second of device memory."""


H200 = Machine()

# -- instructions ----------------------------------------------------------------------------------

_UNITS = {
    "fma": "FFMA FMUL FADD FFMA2 FADD2 FMUL2 HFMA2 HADD2 HMUL2",
    "imad": "IMAD IDP",
    "memory": "LDG STG LDS STS LDSM STSM SHFL ATOMG REDG ATOMS LDGSTS LDL STL CCTL ST LD ATOM RED"
    " UBLKCP SYNCS MEMBAR",
    "special": "MUFU I2F F2I I2FP POPC FLO S2R LDC S2UR R2UR VOTEU F2F CS2R",
    "control": "BRA NOP EXIT WARPSYNC BSSY BSYNC DEPBAR BAR YIELD ELECT",
}
_UNIT = {operation: unit for unit, names in _UNITS.items() for operation in names.split()}
_INTERVAL = {"alu": 2, "imad": 2, "uniform": 2, "special": 4}
"""Cycles between two instructions of a scheduler on a unit; any other: 1."""
_GLOBAL_LOADS = ("LDG", "LD", "ATOMG")


@dataclass(frozen=True)
class Operation:
    """What the simulator needs to know of an instruction."""

    unit: str
    stall: int
    write: int
    """Scoreboard released by the result; 7 for none."""
    read: int
    """Scoreboard released when the registers are read; 7 for none."""
    wait: int
    """Mask of the scoreboards that must be free."""
    reads: tuple[tuple[int, int, bool], ...]
    """Slot, register and whether it is kept for reuse."""
    latency: float
    width: int
    """Bytes of a warp that the load-store unit moves."""
    is_barrier: bool
    is_load: bool


def _bytes_per_thread(i: Instruction) -> int:
    if i.operation in ("LDSM", "STSM"):
        found = re.search(r"\.(\d)\b", i.name)
        return 4 * int(found[1]) if found else 4
    wide = re.search(r"\.(128|64)\b", i.name)
    return int(wide[1]) // 8 if wide else 4


def _reads(i: Instruction) -> tuple[tuple[int, int, bool], ...]:
    operands = [o.strip() for o in i.operands.split(",")]
    sources = [o for o in operands if not re.match(r"!?U?P(\d|T)", o)][1:]
    found = []
    for slot, operand in enumerate(sources):
        register = re.match(r"[-|~!]*R(\d+)(?:\.64)?(\.reuse)?", operand)
        if register:
            one = (min(slot, 2), int(register[1]), bool(register[2]))
            found.append(one)
            if i.operation in ("FFMA2", "FADD2", "FMUL2"):
                found.append((one[0], one[1] + 1, one[2]))
    return tuple(found)


def operation(i: Instruction, global_load: float = H200.l2, machine: Machine = H200) -> Operation:
    """Decode an instruction; `global_load` is the latency if it loads from global memory."""
    unit = _UNIT.get(i.operation, "uniform" if i.operation.startswith("U") else "alu")
    latency = {"memory": machine.shared, "special": machine.special, "uniform": machine.uniform}
    known: dict[str, float] = {"SHFL": machine.shuffle, "LDL": machine.l1}
    known |= dict.fromkeys(_GLOBAL_LOADS, global_load)
    moves = unit == "memory" and i.operation not in ("CCTL", "SYNCS", "MEMBAR", "UBLKCP")
    return Operation(
        unit=unit,
        stall=max(i.control & 15, 1),
        write=i.control >> 5 & 7,
        read=i.control >> 8 & 7,
        wait=i.control >> 11 & 63,
        reads=_reads(i) if unit in ("fma", "imad", "alu") else (),
        latency=known.get(i.operation, latency.get(unit, 6)),
        width=32 * _bytes_per_thread(i) if moves else 32,
        is_barrier=i.operation == "BAR" and "ARV" not in i.name,
        is_load=i.operation in (*_GLOBAL_LOADS, "LDL"),
    )


def one_pass(code: Sequence[Instruction], loop: Loop) -> list[Instruction]:
    """Return the instructions of one pass through a loop.

    Unconditional forward branches are followed, conditional ones are not taken. A loop inside,
    which waits for other programs, runs once.
    """
    place = {i.address: n for n, i in enumerate(code)}
    body: list[Instruction] = []
    n = place[loop.first]
    while True:
        i = code[n]
        body.append(i)
        if i.address >= loop.last:
            return body
        ahead = i.target is not None and not i.predicate and i.address < i.target <= loop.last
        n = place[i.target] if ahead and i.target is not None else n + 1


def _pointer(i: Instruction) -> str:
    found = re.search(r"\[(R\d+)", i.operands)
    return found[1] if found else ""


def _loads_stored_again(body: Sequence[Instruction]) -> set[int]:
    """Return addresses of the loads from where the loop then stores: its own earlier results."""
    found: set[int] = set()
    loads: dict[str, int] = {}  # by pointer, until it changes
    for i in body:
        if i.operation == "STG" and _pointer(i) in loads:
            found.add(loads[_pointer(i)])
        elif i.operation == "LDG":
            loads[_pointer(i)] = i.address
        else:
            loads.pop(i.operands.split(",")[0].strip(), None)
    return found


def levels(body: Sequence[Instruction], cached: bool, machine: Machine = H200) -> list[Operation]:
    """Decode a loop; each global load has the latency of the level of memory that it hits.

    Args:
        body: One pass through the loop.
        cached: Whether L2 holds what the launch streams.
        machine: The constants.
    """
    cached |= any(i.operation == "CCTL" and "PF" in i.name for i in body)
    own = _loads_stored_again(body)

    def latency(i: Instruction) -> int:
        return machine.l2 if cached or i.address in own else machine.device

    return [operation(i, latency(i), machine) for i in body]


# -- one multiprocessor ----------------------------------------------------------------------------


@dataclass(eq=False)
class _Warp:
    program: int
    next: int = 0
    ready: float = 0.0
    pending: list[list[float]] = field(default_factory=lambda: [[] for _ in range(6)])
    """For each scoreboard, when its instructions release it."""
    marks: list[float] = field(default_factory=list)
    """When each pass ended."""

    @property
    def progress(self) -> tuple[int, int]:
        return len(self.marks), self.next


@dataclass
class _Scheduler:
    warps: list[_Warp] = field(default_factory=list)
    last: _Warp | None = None
    free: float = 0.0
    units: dict[str, float] = field(default_factory=dict)
    """When each unit is free."""
    queue: deque[float] = field(default_factory=deque)
    """When the waiting memory instructions start."""
    banks: tuple[dict[int, int], dict[int, int]] = field(default_factory=lambda: ({}, {}))
    """Registers read from each bank, by cycle."""
    kept: dict[tuple[int, int], tuple[_Warp, int]] = field(default_factory=dict)
    """Register kept in each slot and bank."""


class _Multiprocessor:
    def __init__(
        self, body: Sequence[Operation], warps: int, programs: int, machine: Machine
    ) -> None:
        self.body, self.machine, self.warps = body, machine, warps
        self.random = random.Random(0)
        self.free = 0.0  # the load-store unit
        self.most = 0
        self.arrived: dict[tuple[int, int, int], list[_Warp]] = {}
        self.schedulers = [_Scheduler() for _ in range(4)]
        self.everyone = [_Warp(n // warps) for n in range(warps * programs)]
        for n, warp in enumerate(self.everyone):
            self.schedulers[n % 4].warps.append(warp)

    def run(self, passes: int) -> float:
        """Return the cycles of a pass, without the first passes."""
        now = 0
        self.most = 2 * passes  # a warp that never waits would go on forever
        while any(len(warp.marks) < passes for warp in self.everyone):
            now = ceil(min(self.cycle(s, now) for s in self.schedulers))
        skip = max(1, passes // 3)
        spans = [warp.marks[passes - 1] - warp.marks[skip] for warp in self.everyone]
        return sum(spans) / len(spans) / (passes - 1 - skip)

    def cycle(self, s: _Scheduler, now: int) -> float:
        """Issue at most one instruction; return when the scheduler has to be asked again."""
        if s.free > now:
            return s.free
        soonest = inf
        for warp in sorted(s.warps, key=lambda w: (w is not s.last, w.progress)):
            at = self.possible(s, warp, now)
            if at <= now:
                self.issue(s, warp, now)
                return s.free
            soonest = min(soonest, at)
        return soonest

    def possible(self, s: _Scheduler, warp: _Warp, now: int) -> float:
        """Return when the next instruction of a warp can issue."""
        op = self.body[warp.next]
        at = warp.ready if len(warp.marks) < self.most else inf
        if op.wait:
            pending = (warp.pending[b] for b in range(6) if op.wait >> b & 1)
            at = max([at, *(max(times) for times in pending if times)])
        at = max(at, s.units.get(op.unit, 0.0))
        if op.unit == "memory":
            while s.queue and s.queue[0] <= max(now, at):
                s.queue.popleft()
            if len(s.queue) >= self.machine.queue:
                at = max(at, s.queue[0])
        return at

    def issue(self, s: _Scheduler, warp: _Warp, cycle: int) -> None:
        op = self.body[warp.next]
        now = cycle + self.register_delay(s, warp, op, cycle)
        s.free = now + 1
        s.last = warp
        warp.ready = now + op.stall
        if op.unit in _INTERVAL:
            s.units[op.unit] = now + _INTERVAL[op.unit]
        done = read = now + op.latency
        if op.unit == "memory":
            done, read = self.transfer(s, op, now)
        if op.is_barrier:
            self.meet(warp, now)
        for scoreboard, when in ((op.write, done), (op.read, read)):
            if scoreboard < 6:
                earlier = [e for e in warp.pending[scoreboard] if e > now]
                warp.pending[scoreboard] = [*earlier, when]
        warp.next += 1
        if warp.next == len(self.body):
            warp.next = 0
            warp.marks.append(now + 1)

    def register_delay(self, s: _Scheduler, warp: _Warp, op: Operation, now: int) -> int:
        """Reserve the reads of an instruction; return the cycles it is delayed."""
        need = [0, 0]
        for slot, register, keep in op.reads:
            place = (slot, register & 1)
            need[register & 1] += s.kept.get(place) != (warp, register)
            if keep:
                s.kept[place] = (warp, register)
            else:
                s.kept.pop(place, None)
        need = [min(count, 3 * self.machine.ports) for count in need]
        delay = 0
        for bank, count in zip(s.banks, need, strict=True):
            while sum(self.left(bank, now + delay + c) for c in range(3)) < count:
                delay += 1
        for bank, count in zip(s.banks, need, strict=True):
            for c in range(now + delay, now + delay + 3):
                taken = min(count, self.left(bank, c))
                bank[c] = bank.get(c, 0) + taken
                count -= taken
            for c in [c for c in bank if c < now]:
                del bank[c]
        return delay

    def left(self, bank: dict[int, int], cycle: int) -> int:
        return self.machine.ports - bank.get(cycle, 0)

    def transfer(self, s: _Scheduler, op: Operation, now: float) -> tuple[float, float]:
        """Return when a memory instruction is done and when it has read its registers."""
        start = max(now + 2, s.units.get("port", 0.0), self.free)
        self.free = start + op.width / self.machine.width
        s.units["port"] = start + 2
        s.queue.append(start)
        more = op.width / self.machine.width - 1
        latency = op.latency
        if op.is_load:
            latency *= 1 + self.machine.jitter * (2 * self.random.random() - 1)
        return start + latency + more, start + self.machine.store + more

    def meet(self, warp: _Warp, now: float) -> None:
        """Make a warp wait at a barrier until all warps of its program are there."""
        key = (warp.program, *warp.progress)
        group = self.arrived.setdefault(key, [])
        group.append(warp)
        warp.ready = inf
        if len(group) == self.warps:
            for one in self.arrived.pop(key):
                one.ready = now + self.machine.barrier


@cache
def simulate(
    body: tuple[Operation, ...],
    warps: int,
    programs: int = 1,
    machine: Machine = H200,
    passes: int = 10,
) -> float:
    """Return the cycles of one pass through a loop.

    Args:
        body: One pass through the loop, decoded.
        warps: Warps of a program.
        programs: Programs on the multiprocessor.
        machine: The constants.
        passes: Passes to simulate; the first third is not counted.
    """
    return _Multiprocessor(body, warps, programs, machine).run(passes)


# -- launches --------------------------------------------------------------------------------------


def resident(code: Code, warps: int, machine: Machine = H200) -> int:
    """Return the programs of a kernel that a multiprocessor holds at once."""
    registers = ceil(code.registers * 32 / 256) * 256 * warps
    return min(
        machine.programs,
        machine.warps // warps,
        machine.registers // registers,
        machine.shared_bytes // (code.shared + 1024),
    )


def _tensors(call: Launch) -> list[Tensor]:
    return list({id(t): t for t in call.arguments.values() if isinstance(t, Tensor)}.values())


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def is_cached(call: Launch, inputs: Shapes, machine: Machine = H200) -> bool:
    """Return whether L2 holds what a launch streams, because the call has just made it.

    Args:
        call: A launch of the call; of its arguments over time, the first is read.
        inputs: The shapes of the call's own arguments.
        machine: The constants.
    """
    steps = call.arguments.get("T")
    streams = [t for t in _tensors(call) if t.dim() > 3 and t.shape[-3] == steps]
    return not any(tuple(t.shape) in inputs for t in streams) and (
        _bytes(streams[:1]) <= machine.l2_bytes
    )


def _fma_per_step(call: Launch) -> float:
    """Return the multiply-adds of a thread in a time step."""
    c, threads = call.constants, 32 * call.num_warps
    if "KK" in c:
        return 2 * float(c["BJ"] * c["KG"] * c["KK"]) / threads
    if "ROWS" in c:
        return 4 * float(c["ROWS"] * c["BJ"] * min(c["BI"], c["I"])) / threads
    return 2 * float(c["GROUPS"] * c["BO"] * c["BS"]) / threads


def _sweeps(call: Launch) -> int:
    """Return how often a program runs through all time steps."""
    c, a = call.constants, call.arguments
    if "depth" in a:  # groups of samples
        return min(int(a["depth"]), -(-int(a["B"]) // int(c["ROWS"])))
    if "groups" in a:  # samples
        return ceil(a["samples"] / a["groups"]) if c["PROGRAMS"] > 1 else 1
    # Blocks of inputs of the fused layer; otherwise each program has one.
    return ceil(c["S"] / (c["GROUPS"] * c["BS"])) if "CHUNK" in a else 1


def _loops(call: Launch, code: Code, cached: bool) -> list[tuple[Loop, float, bool]]:
    """Return the loops over time, how often a program passes each, and whether it hits L2."""
    hot = code.hot
    steps = call.arguments.get("T")
    if hot is None or steps is None:
        return []
    per_pass = call.constants.get("U") or max(1, hot.own["FFMA"] // _fma_per_step(call))
    found = [(hot, _sweeps(call) * steps / per_pass, cached)]
    if "CHUNK" in call.arguments:  # the fused layer's neurons: they load its own sums
        inner = [loop for loop in code.loops if loop.innermost and loop.own["FFMA"]]
        found.append((min(inner, key=lambda loop: loop.own["FFMA"]), steps, True))
    return found


def rounds(programs: int, at_once: int, machine: Machine = H200) -> list[tuple[int, int]]:
    """Return the rounds of a launch, as counts and programs on a multiprocessor."""
    full, left = divmod(programs, at_once * machine.processors)
    found = [(full, at_once)] if full else []
    return [*found, (1, ceil(left / machine.processors))] if left else found


def launch_ms(call: Launch, code: Code, cached: bool = False, machine: Machine = H200) -> float:
    """Return the milliseconds of a launch.

    Args:
        call: The launch.
        code: Its code, compiled for sm_90.
        cached: Whether L2 holds what the launch streams, see `is_cached`.
        machine: The constants.
    """
    instructions = parse(code.sass)
    at_once = resident(code, call.num_warps, machine)
    cycles = 0.0
    for loop, passes, hits in _loops(call, code, cached):
        body = tuple(levels(one_pass(instructions, loop), hits, machine))
        for count, programs in rounds(prod(call.grid), at_once, machine):
            cycles += count * passes * simulate(body, call.num_warps, programs, machine)
    streaming = _bytes(_tensors(call)) / machine.device_rate
    return 1e3 * max(cycles / machine.clock_hz, streaming)
