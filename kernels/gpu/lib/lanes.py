"""Scans over neurons alone: a lane, one thread, is one neuron of one sample.

While a chunk of U steps is computed, the next U are on their way from memory.
"""

import triton
import triton.language as tl

from .configs import Configuration, configuration, kept


@triton.jit
def lanes_of_program(B, J: tl.constexpr, LANES: tl.constexpr):
    """Replica, lanes l = b J + j of this program, and which exist. The grid is `lane_grid`."""
    i = tl.program_id(0).to(tl.int64)
    lanes = B.to(tl.int64) * J
    blocks = tl.cdiv(lanes, LANES)
    o_l = i % blocks * LANES + tl.arange(0, LANES)
    return i // blocks, o_l, o_l < lanes


@triton.jit
def load_chunk(p_steps, left, m_l, stride_t, U: tl.constexpr, GIVEN: tl.constexpr):
    """U steps from a pointer on, in flight together; zeros where fewer are left or not GIVEN."""
    b_steps = ()
    for u in tl.static_range(U):
        if GIVEN:
            m = m_l & (u < left)
            b_steps = b_steps + (tl.load(p_steps + u * stride_t, mask=m, other=0.0),)
        else:
            b_steps = b_steps + (tl.zeros(m_l.shape, tl.float32),)
    return b_steps


@kept
def lane_configuration(kernel: str, lanes: int) -> Configuration:
    """Lanes of a program and steps loaded ahead. Neither changes a bit of the result.

    One warp spreads few lanes over more multiprocessors; four allow more warps in all.
    """

    def candidate(warps: int, steps: int) -> Configuration:
        constants = {"LANES": 32 * warps, "U": steps}
        return Configuration(f"warps{warps}_steps{steps}", constants, warps)

    few = lanes <= 1 << 17
    first, second = (1, 4) if few else (4, 1)
    return configuration(
        kernel,
        "few" if few else "many",
        [candidate(warps, steps) for warps in (first, second) for steps in (16, 8)],
    )


def lane_grid(replicas: int, lanes: int, chosen: Configuration) -> tuple[int]:
    """Programs for `lanes` = B J of each replica."""
    return (replicas * -(-lanes // chosen.constants["LANES"]),)
