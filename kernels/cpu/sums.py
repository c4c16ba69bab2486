"""Sums over samples, ascending: of parts that tasks left side by side."""

from __future__ import annotations

import torch
from torch import Tensor

from .arrays import flat
from .compiling import kernel
from .threads import run


@kernel
def _sum_over_samples(begin, end, parts, total, B, J):
    """Tasks: replicas."""
    for replica in range(begin, end):
        for j in range(J):
            total[replica * J + j] = 0
        for b in range(B):
            for j in range(J):
                total[replica * J + j] += parts[(replica * B + b) * J + j]


def sum_over_samples(parts: Tensor) -> Tensor:
    """[R, B, J] -> [R, J], samples ascending."""
    R, B, J = parts.shape
    total = torch.empty((R, J), dtype=parts.dtype)
    run(_sum_over_samples, R, R * B * J, flat(parts), flat(total), B, J)
    return total
