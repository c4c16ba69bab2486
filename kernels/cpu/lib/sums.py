"""Sums of parts that lie side by side, in their order."""

from __future__ import annotations

import torch
from torch import Tensor

from .arrays import flat
from .compiling import kernel
from .threads import run


@kernel
def _sum(begin, end, parts, total, P, N):
    """Tasks: rows."""
    for row in range(begin, end):
        for n in range(N):
            total[row * N + n] = 0
        for p in range(P):
            for n in range(N):
                total[row * N + n] += parts[(row * P + p) * N + n]


def sum_in_order(parts: Tensor) -> Tensor:
    """[rows, parts, N] -> [rows, N], parts ascending."""
    rows, P, N = parts.shape
    total = torch.empty((rows, N), dtype=parts.dtype)
    run(_sum, rows, rows * P * N, flat(parts), flat(total), P, N)
    return total
