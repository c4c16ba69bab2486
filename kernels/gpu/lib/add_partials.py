"""Partial sums added in ascending order: [A, P, N] -> [A, N].

    total = ((part_0 + part_1) + part_2) + ...

| name | meaning |
|---|---|
| A, P, N | outer index, partials, adjacent elements |
| i_a, i_n | outer index and block of elements of a program |
| WIDTH | elements per thread: 4 (16-byte loads) where N allows |
| U | loads in flight per thread; the order of the sum does not depend on it |

Each thread owns its elements and adds the whole chain, so the order is the same for every problem.
Cost: no multiply-adds, A N (P - 1) additions; HBM bytes 4 A N (P + 1), and a few of them only if
the partials are still in the L2 cache. Where A N is small (gradients of parameters summed over P
samples) latency decides: P / U trips to memory, one after the other.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import launch

_SMALL = 1 << 16
"""Elements below which programs are narrow, on many multiprocessors, with more loads in flight."""


@triton.jit(do_not_specialize=["P", "units", "first"])
def add_partials_kernel(
    partials, total, P, units: tl.int64, first: tl.int64,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, U: tl.constexpr,
):  # fmt: skip
    """N = units * WIDTH: the compiler sees the alignment, and nothing is specialized."""
    i = tl.program_id(0).to(tl.int64) + first
    elements = units.to(tl.int64) * WIDTH  # the interpreter types by value
    blocks = tl.cdiv(elements, BLOCK)
    i_a = i // blocks
    o_n = i % blocks * BLOCK + tl.arange(0, BLOCK)
    m_n = o_n < elements
    p_part = partials + i_a * P * elements + o_n
    # -0.0 + x is x for every x, -0.0 among them: what lies past the last partial changes nothing.
    # From its bits, because Triton turns a literal -0.0 into 0.0.
    b_none = tl.full([BLOCK], -2147483648, tl.int32).to(tl.float32, bitcast=True)
    b_total = tl.load(p_part, mask=m_n & (P < 0), other=b_none)
    for p in range(0, P, U):
        b_parts = ()
        for u in tl.static_range(U):
            m = m_n & (p + u < P)
            b_parts = b_parts + (tl.load(p_part + u * elements, mask=m, other=b_none),)
        for u in tl.static_range(U):
            b_total = b_total + b_parts[u]
        p_part += U * elements
    tl.store(total + i_a * elements + o_n, b_total, mask=m_n)


def add_partials(partials: Tensor, features: int = 1) -> Tensor:
    """[A, P, N] float32, contiguous -> [A, N]: sums over P, chains of ascending p.

    N is a multiple of `features`, which decides how wide loads are: sizes that change from call to
    call, as T and B do, then compile nothing.

    P = 0 gives zeros; P = 1 gives the partials themselves, not a copy.
    """
    outer, parts, elements = partials.shape
    if parts == 0:
        return partials.new_zeros(outer, elements)
    if parts == 1:
        return partials[:, 0]
    assert partials.is_contiguous()
    total = torch.empty(outer, elements, device=partials.device, dtype=torch.float32)
    if outer * elements <= _SMALL:
        launch_sum(partials, total, parts, elements, outer, width=1, threads=32, unrolled=32)
    else:
        width = 1 if features % 4 else 4
        launch_sum(partials, total, parts, elements, outer, width=width, threads=128, unrolled=8)
    return total


def launch_sum(
    partials: Tensor,
    total: Tensor,
    parts: int,
    elements: int,
    outer: int,
    *,
    width: int,
    threads: int,
    unrolled: int,
    first: int = 0,
) -> None:
    """The kernel itself; `first` leaves out the programs before it."""
    block = threads * width
    launch(
        add_partials_kernel,
        (outer * -(-elements // block) - first,),
        {
            "partials": partials,
            "total": total,
            "P": parts,
            "units": elements // width,
            "first": first,
        },
        {"WIDTH": width, "BLOCK": block, "U": unrolled},
        threads // 32,
    )
