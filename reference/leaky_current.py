"""Leaky current, one decay per neuron: the loop, and the closed form with its backward."""

import torch
from torch import Tensor

from .lib.steps import leaky_step, previous_steps, stack_steps


def loop(drive: Tensor, decay: Tensor, current: Tensor) -> Tensor:
    """Leaky integration with one decay per neuron: drive [R, T, B, J], decay [R, J], current [R, B,
    J] -> [R, T, B, J]."""
    currents = []
    for drive_t in drive.unbind(1):
        current = leaky_step(current, drive_t, decay)
        currents.append(current)
    return stack_steps(currents, current)


@torch.no_grad()
def leaky_current(drive: Tensor, decay: Tensor, current: Tensor) -> Tensor:
    """c(t) = rho c(t-1) + u(t): drive [R, T, B, J], decay [R, J], current [R, B, J] -> [R, T, B,
    J]."""
    result = torch.empty_like(drive, memory_format=torch.contiguous_format)
    decay = decay.unsqueeze(1)
    for t in range(drive.shape[1]):
        current = torch.addcmul(drive[:, t], decay, current)
        result[:, t] = current
    return result


@torch.no_grad()
def leaky_current_backward(
    g: Tensor, currents: Tensor, decay: Tensor, current: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """g and currents [R, T, B, J] -> d_drive [R, T, B, J], d_decay [R, J], d_current [R, B, J]."""
    d_drive = leaky_current(g.flip(1), decay, torch.zeros_like(current)).flip(1)
    d_decay = (d_drive * previous_steps(currents, current)).sum((1, 2))
    d_current = decay.unsqueeze(1) * d_drive[:, 0] if g.shape[1] else torch.zeros_like(current)
    return d_drive, d_decay, d_current
