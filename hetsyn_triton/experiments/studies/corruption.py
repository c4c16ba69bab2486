"""Corruption of test inputs: delete spikes, add spikes, stretch time.

The caller passes the random generator, so that all models get the same noise.
"""

import torch
from torch import Tensor

from hetsyn_triton.experiments.tasks import Batch


def deleted(values: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Return `values` [T, B, I] with each spike deleted with `probability`."""
    return values * (torch.rand(values.shape, generator=generator) >= probability)


def added(values: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Return `values` [T, B, I] with a spike added at each entry with `probability`.

    An entry that is a spike already stays one.
    """
    noise = (torch.rand(values.shape, generator=generator) < probability).to(values.dtype)
    return torch.maximum(values, noise)


def warped(values: Tensor, steps: int) -> Tensor:
    """Stretch `values` [T, B, I] from T to `steps` steps, alpha = steps / T.

    Spikes (values of 0 and 1 only) move from step t to floor(alpha (t + 1/2)); two spikes in the
    same step merge. Other values are held: step t gets the value of step floor((t + 1/2) / alpha).
    """
    before = len(values)
    if bool(((values == 0) | (values == 1)).all()):
        places = ((torch.arange(before) + 0.5) * (steps / before)).long().clamp_(max=steps - 1)
        moved = values.new_zeros(steps, *values.shape[1:])
        return moved.index_add_(0, places, values).clamp_(max=1)
    sources = ((torch.arange(steps) + 0.5) * (before / steps)).long().clamp_(max=before - 1)
    return values[sources]


def warped_batches(batch: Batch, steps: Tensor) -> list[Batch]:
    """Stretch each sample of `batch` to its own number in `steps` [B].

    Samples of the same length share a batch.
    """
    parts = []
    for length in steps.unique().tolist():
        rows = (steps == length).nonzero().squeeze(1)
        parts.append(Batch(warped(batch.input[:, rows], length), batch.target[rows]))
    return parts
