"""The simulator of GPU kernels: its rules on short loops, and its agreement with measured times."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench import aot, codegen, simulator
from bench.simulator import H200, Machine, Operation, simulate
from hetsyn_triton.kernels.gpu.lib.launch import Launch

NONE = 7
"""No scoreboard."""


def instruction(
    name: str,
    operands: str = "",
    *,
    stall: int = 1,
    write: int = NONE,
    read: int = NONE,
    wait: int = 0,
    address: int = 0,
) -> aot.Instruction:
    """An instruction with its control code."""
    control = stall | write << 5 | read << 8 | wait << 11
    return aot.Instruction(address, "", name, operands, control)


def op(name: str, operands: str = "", *, load: float = 100, **control: int) -> Operation:
    return simulator.operation(instruction(name, operands, **control), load)


def cycles(*body: Operation, warps: int = 1, programs: int = 1, **constants: float) -> float:
    machine = Machine(**({"jitter": 0.0} | constants))  # type: ignore[arg-type]
    return simulate(body, warps, programs, machine)


# -- decoding --------------------------------------------------------------------------------------


def test_control_code_of_a_listing() -> None:
    """Bits 105 to 125: stall 4, write barrier 2, no read barrier, wait for barriers 0 and 5."""
    high = (4 | 2 << 5 | 7 << 8 | 0b100001 << 11) << 41
    line = f"/*0010*/ @!P1 LDG.E.128 R4, [R2.64+0x40] ; /* 0x{0:016x} */\n /* 0x{high:016x} */"
    (found,) = aot.parse(line)
    assert (found.address, found.predicate, found.operation) == (16, "!P1", "LDG")
    decoded = simulator.operation(found, 300)
    assert (decoded.stall, decoded.write, decoded.read, decoded.wait) == (4, 2, 7, 0b100001)
    assert (decoded.latency, decoded.width) == (300, 32 * 16)


def test_one_pass_follows_unconditional_branches() -> None:
    listing = """
        /*0000*/ FFMA R1, R1, R1, R1 ;
        /*0010*/ @P1 BRA 0x40 ;
        /*0020*/ BRA 0x40 ;
        /*0030*/ FADD R1, R1, R1 ;
        /*0040*/ FMUL R1, R1, R1 ;
        /*0050*/ @P0 BRA 0x0 ;
    """
    (loop,) = aot.loops_of(listing)
    body = simulator.one_pass(aot.parse(listing), loop)
    assert [i.address for i in body] == [0x00, 0x10, 0x20, 0x40, 0x50]


# -- one multiprocessor ----------------------------------------------------------------------------


def test_stall_counts() -> None:
    """One warp waits for them, several warps of a scheduler fill each other's gaps."""
    body = [op("MOV", stall=4), op("FADD", stall=6)]
    assert cycles(*body) == pytest.approx(10)
    assert cycles(*body, warps=8) == pytest.approx(10)  # two on each scheduler
    assert cycles(*[op("FADD", stall=2)] * 10, warps=16) == pytest.approx(40, rel=0.1)


def test_scoreboards() -> None:
    """A load costs its latency only where an instruction waits for its scoreboard."""
    load = op("LDG.E", "R0, [R2.64]", write=0, load=500)
    use = op("FADD", "R1, R0, R0", wait=1)
    assert cycles(load, use) == pytest.approx(504, abs=4)
    other = op("LDG.E", "R4, [R2.64]", write=1, load=500)
    assert cycles(load, other, use) == pytest.approx(504, abs=4)  # in flight together
    assert cycles(load, use, other, op("FADD", wait=2)) == pytest.approx(1008, abs=8)
    assert cycles(load, op("FADD")) < 10


def test_load_store_unit_moves_128_bytes_a_cycle() -> None:
    """Of all four schedulers together; a wide load of a warp holds 512 bytes."""
    loads = [op("LDS.128", "R0, [R4]")] * 40
    assert cycles(*loads, warps=4) == pytest.approx(4 * 40 * 4, rel=0.05)
    narrow = [op("LDS", "R0, [R4]")] * 40
    assert cycles(*narrow, warps=4) == pytest.approx(4 * 40, rel=0.05)


def test_register_banks() -> None:
    """Three registers of one bank take three cycles; of both banks, or kept, fewer."""

    def of(operands: str) -> float:
        return cycles(*[op("FFMA", operands)] * 40, warps=4) / 40

    assert of("R1, R2, R4, R6") == pytest.approx(3, rel=0.05)
    assert of("R1, R2, R3, R4") == pytest.approx(2, rel=0.05)
    assert of("R1, R2, R3, RZ") == pytest.approx(1, rel=0.05)
    assert of("R1, R2.reuse, R4.reuse, R3") == pytest.approx(1, rel=0.1)
    body = [op("FFMA", "R1, R2, R4, R6")] * 40
    assert cycles(*body, warps=4, ports=3) == pytest.approx(40, rel=0.05)


def test_units() -> None:
    """Integer instructions issue every second cycle, FP32 every cycle."""
    assert cycles(*[op("IADD3")] * 20, warps=4) == pytest.approx(40, rel=0.05)
    assert cycles(*[op("FADD")] * 20, warps=4) == pytest.approx(20, rel=0.05)


def test_barrier_waits_for_the_slowest_warp_of_a_program() -> None:
    """Five warps: two share a scheduler, and all wait for them. Programs do not wait."""
    body = [*[op("FADD")] * 100, op("BAR.SYNC")]
    assert cycles(*body, warps=4) == pytest.approx(101 + H200.barrier, abs=2)
    assert cycles(*body, warps=5) == pytest.approx(201 + H200.barrier, abs=4)
    assert cycles(*body, warps=1, programs=4) == pytest.approx(101 + H200.barrier, abs=2)


# -- levels of memory ------------------------------------------------------------------------------


def latencies(*body: aot.Instruction, cached: bool = False) -> list[float]:
    return [o.latency for o in simulator.levels(body, cached) if o.is_load]


def test_levels_of_loads() -> None:
    load = instruction("LDG.E", "R0, [R2.64]")
    assert latencies(load) == [H200.device]
    assert latencies(load, cached=True) == [H200.l2]
    assert latencies(load, instruction("CCTL.E.PF2", "[R8.64]")) == [H200.l2]


def test_loads_of_what_the_loop_stores_hit_l2() -> None:
    """Unless the pointer has changed in between."""
    load = instruction("LDG.E", "R0, [R2.64]")
    store = instruction("STG.E", "[R2.64], R0")
    assert latencies(load, store) == [H200.l2]
    assert latencies(load, instruction("IADD3", "R2, R2, R9, RZ"), store) == [H200.device]


def call(grid: tuple[int, ...] = (1,), warps: int = 4, **arguments: Any) -> Launch:
    kernel = SimpleNamespace(fn=SimpleNamespace(__name__="kernel"))
    return Launch(kernel, grid, arguments, {}, warps, {})


def test_only_what_the_call_has_made_is_cached() -> None:
    z = torch.empty(1, 100, 32, 64, device="meta")
    assert not simulator.is_cached(call(z=z, T=100), {(1, 100, 32, 64)})
    assert simulator.is_cached(call(z=z, T=100), {(1, 100, 32, 62)})
    large = torch.empty(1, 100, 32, 6400, device="meta")
    assert not simulator.is_cached(call(z=large, T=100), set())


# -- launches --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("registers", "shared", "warps", "programs"),
    [(255, 0, 4, 2), (255, 0, 8, 1), (128, 0, 4, 4), (32, 0, 1, 32), (32, 100 << 10, 4, 2)],
)
def test_resident_programs(registers: int, shared: int, warps: int, programs: int) -> None:
    code = aot.Code("kernel", "sm_90", registers, shared)
    assert simulator.resident(code, warps) == programs


def test_rounds() -> None:
    """The last round has fewer programs on a multiprocessor."""
    assert simulator.rounds(2816, 2) == [(10, 2), (1, 2)]
    assert simulator.rounds(256, 1) == [(1, 1), (1, 1)]
    assert simulator.rounds(352, 2) == [(1, 2), (1, 1)]
    assert simulator.rounds(264, 2) == [(1, 2)]


def test_a_launch_takes_as_long_as_its_memory() -> None:
    """Code without a loop over time: each tensor once, one given twice counted once."""
    z = torch.empty(48_000_000, device="meta")
    ms = simulator.launch_ms(call(a=z, b=z), aot.Code("kernel", "sm_90", 32, 0))
    assert ms == pytest.approx(48e6 * 4 / 4.8e12 * 1e3)


# -- agreement with what was measured --------------------------------------------------------------

WITHIN = (0.75, 1.25)
QUICK = (
    "feedforward_scan_fused 700->128 T250 B32",
    "synaptic_current 1->64 T784 B256",
    "feedforward_scan_fused 1->64 T784 B256",
)
HELD = [m for m in codegen.measurements() if m.held]


def test_held_measurements() -> None:
    """All kernels of one program per sample that a call or the profiler measured alone."""
    kernels = {call.name for m in HELD for _, call in m.launches()}
    assert {
        "feedforward_scan_kernel",
        "parameter_gradient_kernel",
        "recurrent_scan_backward_kernel",
        "recurrent_scan_kernel",
        "synaptic_current_kernel",
    } <= kernels
    assert len(HELD) >= 20
    assert not any("256->256" in m.name or "512->512" in m.name for m in HELD)


def test_prefetch_can_be_left_out() -> None:
    """The constants that the comparison replaces are those of the kernels."""
    launches = [call for m in HELD for _, call in m.launches()]
    for name in codegen._WITHOUT_PREFETCH:
        assert any(name in call.constants for call in launches)


@pytest.fixture(scope="module")
def process() -> Iterator[ProcessPoolExecutor]:
    """A process that compiles: here Triton may be told to interpret."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TRITON_INTERPRET", raising=False)
        pool = codegen._pool(1, 1)
        pool.submit(codegen.measurements).result()  # starts the process
    with pool:
        yield pool


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "measured",
    [
        pytest.param(m, id=m.name, marks=pytest.mark.slow if m.name in QUICK else pytest.mark.full)
        for m in HELD
    ],
)
def test_simulated_times_agree(measured: codegen.Measurement, process: ProcessPoolExecutor) -> None:
    ms = process.submit(codegen.simulated_ms, measured, prefetch=False).result()
    assert WITHIN[0] <= ms / measured.ms <= WITHIN[1]
