"""Derivatives of the built-in surrogates: ds/dV of all potentials in one pass, as
`kernels/surrogate_kinds.py` defines them.

| name | shape | meaning |
|---|---|---|
| potential, derivative | [R, T, B, J] | V, ds/dV |
| threshold | [R, J] | theta |
| a, b, c, d, e, least | - | numbers of the surrogate, the others are 0 |

One thread takes WIDTH neighboring elements, each by itself. In PyTorch the same is up to a dozen
operations, each of which reads and writes a tensor of that size.

Cost: 8 R T B J bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..surrogate_kinds import all_numbers
from .lib.launch import dense, launch
from .lib.neuron import surrogate_derivative

_THREADS = 128


@triton.jit(do_not_specialize=["units", "first"])
def surrogate_kernel(
    potential, threshold, derivative, units: tl.int64, first: tl.int64, a, b, c, d, e, least,
    J: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, KIND: tl.constexpr,
):  # fmt: skip
    """T B J = units * WIDTH: the compiler sees the alignment, and nothing is specialized."""
    i = tl.program_id(0).to(tl.int64) + first
    elements = units.to(tl.int64) * WIDTH  # the interpreter types by value
    blocks = tl.cdiv(elements, BLOCK)
    i_r = i // blocks
    i_first = i % blocks * BLOCK
    o_n = i_first + tl.arange(0, BLOCK)
    m_n = o_n < elements
    o_j = ((i_first % J).to(tl.int32) + tl.arange(0, BLOCK)) % J
    b_theta = tl.load(threshold + i_r * J + o_j)
    b_v = tl.load(potential + i_r * elements + o_n, mask=m_n, other=0.0)
    b_d = surrogate_derivative(b_v, b_theta, a, b, c, d, e, least, KIND)
    tl.store(derivative + i_r * elements + o_n, b_d, mask=m_n)


def surrogate(potential: Tensor, threshold: Tensor, kind: str, numbers: Sequence[float]) -> Tensor:
    """V [R, T, B, J] and theta [R, J] -> ds/dV, by a kind of `surrogate_kinds`."""
    potential = dense(potential)
    found = torch.empty_like(potential)
    if found.numel():
        launch_surrogate(kind, numbers, potential, dense(threshold), found)
    return found


def launch_surrogate(
    kind: str,
    numbers: Sequence[float],
    potential: Tensor,
    threshold: Tensor,
    found: Tensor,
    *,
    first: int = 0,
) -> None:
    """The kernel itself; `first` leaves out the programs before it."""
    replicas, steps, batch, neurons = potential.shape
    width = 1 if neurons % 4 else 4
    block = _THREADS * width
    elements = steps * batch * neurons
    launch(
        surrogate_kernel,
        (replicas * -(-elements // block) - first,),
        {
            "potential": potential,
            "threshold": threshold,
            "derivative": found,
            "units": elements // width,
            "first": first,
            **all_numbers(kind, numbers),
        },
        {"J": neurons, "WIDTH": width, "BLOCK": block, "KIND": kind},
        _THREADS // 32,
    )
