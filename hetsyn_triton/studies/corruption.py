"""Inputs made worse at test: spikes deleted, spikes added, time stretched.

Everything is drawn from generators of the caller, so that all models meet the same noise.
"""

import torch
from torch import Tensor

from hetsyn_triton.tasks import Batch


def deleted(values: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """`values` [T, B, I] with each entry (a spike, where there is one) dropped at random."""
    return values * (torch.rand(values.shape, generator=generator) >= probability)


def added(values: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """`values` [T, B, I] with a spike in each place, with `probability`, that has a smaller value.

    A place with a spike keeps it.
    """
    noise = (torch.rand(values.shape, generator=generator) < probability).to(values.dtype)
    return torch.maximum(values, noise)


def warped(values: Tensor, steps: int) -> Tensor:
    """`values` [T, B, I] over `steps` instead of T steps, alpha = steps / T.

    Spikes (values of 0 and 1 only) move from step t to floor(alpha (t + 1/2)); two that meet are
    one. Any other values are held: step t takes that of step floor((t + 1/2) / alpha).
    """
    before = len(values)
    if bool(((values == 0) | (values == 1)).all()):
        places = ((torch.arange(before) + 0.5) * (steps / before)).long().clamp_(max=steps - 1)
        moved = values.new_zeros(steps, *values.shape[1:])
        return moved.index_add_(0, places, values).clamp_(max=1)
    sources = ((torch.arange(steps) + 0.5) * (before / steps)).long().clamp_(max=before - 1)
    return values[sources]


def warped_batches(batch: Batch, steps: Tensor) -> list[Batch]:
    """The samples of `batch`, each over its own number in `steps` [B]; those of a length share a
    batch."""
    parts = []
    for length in steps.unique().tolist():
        rows = (steps == length).nonzero().squeeze(1)
        parts.append(Batch(warped(batch.input[:, rows], length), batch.target[rows]))
    return parts
