"""Poisson spikes, firing rates, and a penalty for rates away from a target."""

from collections.abc import Sequence

import torch
from torch import Tensor


def poisson_spikes(
    shape: tuple[int, ...], rate_hz: float, dt_ms: float, generator: torch.Generator
) -> Tensor:
    """Draw a spike (1.0) per step with probability `rate_hz * dt_ms / 1000`, at most 1."""
    return (torch.rand(shape, generator=generator) < rate_hz * dt_ms / 1000).float()


def firing_rates(spikes: Sequence[Tensor], dt_ms: float) -> Tensor:
    """Return the rate in Hz of every neuron [sum J], averaged over time and batch of [T, B, J]."""
    return torch.cat([layer.mean((0, 1)) for layer in spikes]) * (1000.0 / dt_ms)


def rate_penalty(spikes: Sequence[Tensor], dt_ms: float, wanted_hz: float) -> Tensor:
    """Return the mean over neurons of ((rate - wanted) / wanted)^2."""
    return ((firing_rates(spikes, dt_ms) / wanted_hz - 1) ** 2).mean()
