"""Taking tiles apart in registers: no transposes, no trips through memory where none is needed."""

import triton
import triton.language as tl


@triton.jit
def quarter(b_tile, G: tl.constexpr):
    """[G, 4] -> four vectors [G]: one 16-byte load holds four neighboring inputs."""
    b_even, b_odd = tl.split(tl.reshape(b_tile, [G, 2, 2]))
    b_0, b_2 = tl.split(b_even)
    b_1, b_3 = tl.split(b_odd)
    return b_0, b_1, b_2, b_3
