"""Weighted sums of one time step, for recurrent layers too large for registers.

    n_o = sum_s w_os z_s

| name | shape | meaning |
|---|---|---|
| z, n | [R, B, J] | summed values and their sums; any strides over replicas and samples |
| p_weight | [R, J, J] | w, or its transpose by exchanged strides |
| BO, BS | - | rows o of a program, and the s it takes at once |

Order of a sum: chains over blocks of BS, ascending, then the block's tree.

Cost of a step: R B J^2 multiply-adds; L2 bytes 4 R B J^2 for w, HBM bytes 4 R J^2 if it stays in
the L2 cache.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import launch

_BLOCK = {"BO": 8, "BS": 128}
_WARPS = 4


@triton.jit(do_not_specialize=["B", "stride_zr", "stride_zb"])
def weighted_sums_kernel(
    p_z, p_weight, p_n, B, stride_zr: tl.int64, stride_zb: tl.int64,
    J: tl.constexpr, STRIDE_O: tl.constexpr, STRIDE_S: tl.constexpr,
    BO: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    BLOCKS: tl.constexpr = (J + BO - 1) // BO
    i_n = (tl.program_id(0) // BLOCKS).to(tl.int64)
    i_r = i_n // B
    o_o = tl.program_id(0) % BLOCKS * BO + tl.arange(0, BO)
    m_o = o_o < J
    p_of_sample = p_z + i_r * stride_zr + i_n % B * stride_zb
    p_w = p_weight + i_r * (J * J)
    b_sum = tl.zeros([BO, BS], tl.float32)
    for s_0 in range(0, J, BS):
        o_s = s_0 + tl.arange(0, BS)
        m = m_o[:, None] & (o_s < J)[None, :]
        o = o_o.to(tl.int64)[:, None] * STRIDE_O + o_s.to(tl.int64)[None, :] * STRIDE_S
        b_z = tl.load(p_of_sample + o_s, mask=o_s < J, other=0.0)
        b_w = tl.load(p_w + o, mask=m, other=0.0)
        b_sum = tl.fma(b_w, tl.broadcast_to(b_z[None, :], [BO, BS]), b_sum)
    tl.store(p_n + i_n * J + o_o, tl.sum(b_sum, axis=1), mask=m_o)


def weighted_sums(z: Tensor, weight: Tensor, transposed: bool) -> Tensor:
    """z [R, B, J], adjacent in J, and contiguous weight [R, J, J] -> [R, B, J]."""
    replicas, batch, neurons = z.shape
    sums = torch.empty(z.shape, device=z.device, dtype=torch.float32)
    strides = (1, neurons) if transposed else (neurons, 1)
    launch(
        weighted_sums_kernel,
        (replicas * batch * -(-neurons // _BLOCK["BO"]),),
        {
            "p_z": z,
            "p_weight": weight,
            "p_n": sums,
            "B": batch,
            "stride_zr": z.stride(0),
            "stride_zb": z.stride(1),
        },
        {"J": neurons, "STRIDE_O": strides[0], "STRIDE_S": strides[1], **_BLOCK},
        _WARPS,
    )
    return sums
