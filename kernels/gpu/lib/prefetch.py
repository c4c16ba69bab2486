"""Prefetch steps of a sequence into the L2 cache, where waiting for them is short.

A load from device memory takes about 800 cycles on an H200, and a kernel that needs a step's values
at once waits as long in each step. Nothing waits for a prefetch, and it cannot change a result.
The fused feedforward scan has none: its registers would spill.
"""

import triton
import triton.language as tl


@triton.jit
def prefetch(p_floats):
    """Prefetch the 32 bytes at each pointer, or their line of 128, as the GPU chooses."""
    tl.inline_asm_elementwise(
        "{ prefetch.global.L2 [$1]; mov.b32 $0, 0; }",
        "=r,l",
        [p_floats],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )


@triton.jit
def lines_of_row(p_row, first, N: tl.constexpr, COUNT: tl.constexpr):
    """Pointers to COUNT floats of a row of N, `first` on, one for every 64 bytes."""
    LINES: tl.constexpr = (COUNT + 15) // 16
    return p_row + tl.minimum(first + tl.arange(0, LINES) * 16, N - 1)


@triton.jit
def prefetch_next(p_lines, stride_t, more):
    """Prefetch a step; return the pointers of the next one, or of the same if there are no `more`.

    Pointers that move take fewer instructions than offsets by the step's number.
    """
    prefetch(p_lines)
    return p_lines + tl.where(more, stride_t, 0)


@triton.jit
def prefetch_steps(
    p_steps, stride_t, left, first, N: tl.constexpr, COUNT: tl.constexpr, STEPS: tl.constexpr,
    AHEAD: tl.constexpr,
):  # fmt: skip
    """Prefetch COUNT floats of STEPS rows, AHEAD steps from here, at most `left` steps."""
    LINES: tl.constexpr = (COUNT + 15) // 16
    o = tl.arange(0, STEPS * LINES)
    o_t = tl.minimum(o // LINES + AHEAD, left)
    prefetch(p_steps + o_t * stride_t + tl.minimum(first + o % LINES * 16, N - 1))
