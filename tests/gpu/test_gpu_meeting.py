"""Several programs share a sample and meet once per step: the protocol run for real.

Interpreted programs run one after the other, so here every program of a launch is a process of its
own; all see the same memory, and the meetings happen as on a GPU.
"""

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, multiprocessing

from hetsyn_triton.kernels.gpu import leaky_recurrent_scan as leaky
from hetsyn_triton.kernels.gpu.lib.exchange import SENTINEL, await_all
from hetsyn_triton.kernels.gpu.lib.feedback_gradient import fused_if_allowed
from hetsyn_triton.kernels.gpu.lib.launch import Launch, launch, recording
from hetsyn_triton.kernels.gpu.lib.recurrent_reverse import backward_in_registers
from hetsyn_triton.kernels.gpu.lib.recurrent_tile import Tile, path
from hetsyn_triton.kernels.gpu.recurrent_scan import (
    forward_in_registers,
)
from tests.support.implementations import TRITON
from tests.support.operators import Size
from tests.support.truth import check

GRADIENTS = ("g_spikes", "g_potential", "g_feedback", "g_trace")
SWEEP = (*GRADIENTS, "derivative", "weight", "decay", "feedback_decay", "feedback_strength")

MOST = 4
"""Programs that run at the same time."""

SECONDS = 60
"""A meeting that takes longer has hung, or a program of it has died."""

interpreted = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1", reason="processes are for the interpreter"
)


def _run_program(
    call_name: str, arguments: dict[str, Any], constants: dict[str, Any], num_warps: int
) -> None:
    """One program of a launch, in a process of its own."""
    torch.set_num_threads(1)
    from hetsyn_triton.kernels.gpu import leaky_recurrent_scan, recurrent_scan
    from hetsyn_triton.kernels.gpu.lib import recurrent_reverse

    kernel = next(
        getattr(module, call_name)
        for module in (recurrent_scan, recurrent_reverse, leaky_recurrent_scan)
        if hasattr(module, call_name)
    )
    launch(kernel, (1,), arguments, constants, num_warps)


class Programs:
    """Processes, each of which runs one program of a launch at a time."""

    def __init__(self) -> None:
        self._pool = multiprocessing.get_context("spawn").Pool(MOST)

    def run_together(self, call: Launch) -> None:
        """All programs of a recorded launch at the same time."""
        assert call.grid[0] <= MOST
        for value in call.arguments.values():
            if isinstance(value, Tensor):
                value.share_memory_()
        running = [
            self._pool.apply_async(
                _run_program,
                (
                    call.name,
                    call.arguments | {"first_program": program},
                    call.constants | {"AHEAD": 0},  # the interpreter has no PTX
                    call.num_warps,
                ),
            )
            for program in range(call.grid[0])
        ]
        end = time.monotonic() + SECONDS
        try:
            for program in running:
                program.get(max(end - time.monotonic(), 0.0))
        except BaseException:
            self.close()
            self._pool = multiprocessing.get_context("spawn").Pool(MOST)
            raise

    def close(self) -> None:
        self._pool.terminate()
        self._pool.join()


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    made = Programs()
    yield made
    made.close()


# Rows of a program, groups, width: the sum over neurons has the same order for 1 program of all.
MEETINGS = [
    pytest.param(Size(R=1, T=5, B=3, J=7, K=1), Tile(2, 4, 2, 4, 1), 1, id="2 programs"),
    pytest.param(Size(R=2, T=4, B=2, J=11, K=2), Tile(3, 4, 4, 4, 1), 1, id="3 programs"),
    pytest.param(Size(R=2, T=3, B=3, J=5, K=1), Tile(2, 4, 2, 4, 1), 2, id="2 groups of 2"),
]


def alone(tile: Tile) -> Tile:
    """One program of all rows, with the same order of the sum."""
    return Tile(1, tile.KG * tile.KK, tile.KG, tile.KK, 1)


def assert_bits_equal(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> None:
    for a, b in zip(found, wanted, strict=True):
        assert torch.equal(a.view(torch.int32), b.view(torch.int32))


@pytest.mark.slow
@interpreted
@pytest.mark.parametrize(("size", "tile", "groups"), MEETINGS)
def test_programs_that_meet_are_one_program(
    programs: Programs, size: Size, tile: Tile, groups: int
) -> None:
    """Bit for bit what one program computes, forward."""
    arguments = TRITON.given("recurrent_scan", size)
    with recording() as calls:
        found = forward_in_registers(tile, groups * tile.programs, **arguments)
    (call,) = calls
    assert call.options == {"launch_cooperative_grid": True}
    assert call.grid == (groups * tile.programs,)
    programs.run_together(call)
    check("recurrent_scan", arguments, found)
    assert_bits_equal(found, forward_in_registers(alone(tile), 1, **arguments))


@interpreted
@pytest.mark.parametrize("fused", [False, True], ids=["", "fused"])
@pytest.mark.parametrize("given", [GRADIENTS[:1], GRADIENTS], ids=["spikes", "all gradients"])
@pytest.mark.parametrize(("size", "tile", "groups"), MEETINGS[:2])
def test_programs_that_meet_are_one_program_in_reverse(
    programs: Programs, size: Size, tile: Tile, groups: int, given: tuple[str, ...], fused: bool
) -> None:
    """`fused`: with the surrogate and the gradients of feedback currents in the same launch."""
    made = TRITON.given("recurrent_scan_backward", size)
    made |= dict.fromkeys(set(GRADIENTS) - set(given))
    arguments: Any = {n: made[n] for n in SWEEP}
    spikes, feedback, spike = (made[n] for n in ("spikes", "feedback", "spike"))
    threshold = 0.5 + torch.rand(size.R, size.J)

    def run(tile: Tile, resident: int) -> tuple[Tensor, ...]:
        inside = None
        if fused:
            inside = fused_if_allowed(spikes, feedback, spike, threshold, "atan", (0.5, 2.0))
        found = backward_in_registers(tile, resident, **arguments, detach_reset=False, fused=inside)
        return found if inside is None else (*found, inside.to_decay, inside.to_strength)

    with recording() as calls:
        found = run(tile, groups * tile.programs)
    (call,) = calls
    programs.run_together(call)
    assert_bits_equal(found, run(alone(tile), 1))


@pytest.mark.slow
@interpreted
@pytest.mark.parametrize(("size", "tile", "groups"), MEETINGS)
def test_leaky_programs_that_meet_are_one_program(
    programs: Programs, size: Size, tile: Tile, groups: int
) -> None:
    """With one decay per neuron: forward, and backward with every gradient."""
    forward = TRITON.given("leaky_recurrent_scan", size)
    back = TRITON.given("leaky_recurrent_scan_backward", size)
    for name in ("spikes", "feedback", "spike"):  # what the sweep itself does not read
        del back[name]
    runs: list[Callable[..., tuple[Tensor, ...]]] = [
        partial(leaky.forward_in_registers, **forward),
        partial(leaky.backward_in_registers, **back, detach_reset=False),
    ]
    for run in runs:
        with recording() as calls:
            found = run(tile, groups * tile.programs)
        programs.run_together(calls[0])
        assert_bits_equal(found, run(alone(tile), 1))


@interpreted
def test_data_that_looks_unpublished_hangs_nobody(programs: Programs) -> None:
    """The sentinel's own bits in what a user hands in: NaN comes out, and nobody waits for it."""
    size, tile = Size(R=1, T=3, B=1, J=5, K=1), Tile(2, 4, 2, 4, 1)
    sentinel = await_all(torch.empty(1))

    made = TRITON.given("recurrent_scan_backward", size)
    arguments: Any = {n: made[n] for n in SWEEP}
    arguments["g_potential"][0, 1, 0, 2] = sentinel[0]
    arguments["derivative"][0, 2, 0, 4] = sentinel[0]
    with recording() as calls:
        g_v, *_ = backward_in_registers(tile, 2, **arguments, detach_reset=False)
    programs.run_together(calls[0])
    assert g_v[0, 1, 0, 2].isnan()
    assert g_v[0, 2, 0, 4].isnan()
    assert not bool((g_v.view(torch.int32) == SENTINEL.value).any())

    forward = TRITON.given("recurrent_scan", size)
    forward["spike"][0, 0, 3] = sentinel[0]
    forward["current"][0, 1, 0, 1] = sentinel[0]
    with recording() as calls:
        spikes, *_ = forward_in_registers(tile, 2, **forward)
    programs.run_together(calls[0])
    assert bool(((spikes == 0) | (spikes == 1)).all())


def test_path_depends_on_neurons_and_room_only() -> None:
    assert path(128, 1) == path(128, 132) == Tile(1, 128, 2, 64, 8)
    assert path(129, 132) == Tile(3, 64, 4, 64, 8)
    assert path(1024, 132) == Tile(64, 16, 16, 64, 8)
    assert path(1025, 132) is None
    assert path(512, 15) is None
    for neurons in range(1, 1025):
        tile = path(neurons, 132)
        assert tile is not None
        assert tile.programs * tile.BJ >= neurons > (tile.programs - 1) * tile.BJ
        assert neurons <= tile.KG * tile.KK
        assert 32 * tile.num_warps == tile.BJ * tile.KG  # one row and group to a thread
        assert tile.programs > 1 or tile.BJ == tile.KG * tile.KK


@pytest.mark.gpu
@pytest.mark.parametrize("neurons", [129, 256, 300, 512, 1000])
def test_meeting_on_the_device(neurons: int) -> None:
    """More samples than groups, the shipped tiles, against the truth; twice, bit for bit."""
    size = Size(R=2, T=6, B=41, J=neurons, K=1)
    for operator in [o for o in sorted(TRITON.operators) if "recurrent_scan" in o]:
        given = TRITON.given(operator, size)
        found = TRITON(operator, given)
        check(operator, given, found)
        assert_bits_equal(found, TRITON(operator, given))
