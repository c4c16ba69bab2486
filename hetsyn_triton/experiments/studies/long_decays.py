"""The time constants of a network by pathway, and networks without long time constants."""

import copy
import math

import numpy as np
import torch
from torch import Tensor

from hetsyn_triton.experiments.tasks import delayed_match, multi_timescale_xor
from hetsyn_triton.experiments.training.network_time_constants import time_constants
from hetsyn_triton.modules import Decay, SpikingNetwork
from hetsyn_triton.timeconstants import decay_to_tau, tau_to_decay

INPUTS = "layer 1, input"
BINS = np.geomspace(0.5, 1000, 41)  # in steps; values outside count in the outermost bins
PATHWAYS: dict[str, dict[str, tuple[int, int]]] = {
    "delayed-match": {
        "cue": (0, 2 * delayed_match.GROUP),
        "noise": (2 * delayed_match.GROUP, 3 * delayed_match.GROUP),
    },
    "multi-timescale-xor": {
        "signal 1": (0, multi_timescale_xor.GROUP),
        "signal 2": (multi_timescale_xor.GROUP, 2 * multi_timescale_xor.GROUP),
    },
}
"""Groups of input channels of a task: first channel, and channel after the last."""


def pathways(network: SpikingNetwork, task: str, dt: float) -> dict[str, Tensor]:
    """Return the time constants of each group of synapses, with input synapses by channel group."""
    groups = time_constants(network, dt)
    parts = PATHWAYS.get(task)
    if parts is None:
        return groups
    inputs = groups.pop(INPUTS).view(-1, network.in_features)
    split = {name: inputs[:, low:high].flatten() for name, (low, high) in parts.items()}
    return {**split, **groups}


def histogram(steps: Tensor) -> list[float]:
    """Return the share of time constants in each of `BINS`."""
    inside = steps.clamp(float(BINS[0]), float(BINS[-1]) * (1 - 1e-9)).numpy()
    counts, _ = np.histogram(inside, BINS)
    return [float(count) / len(inside) for count in counts]


def beyond(taus: Tensor, bound: float) -> float:
    """Return the share of time constants above `bound`."""
    return (taus > bound).double().mean().item()


def mean_tau(network: SpikingNetwork, dt: float) -> float:
    """Return the mean of all time constants of a network."""
    return float(torch.cat(list(time_constants(network, dt).values())).mean())


def without_long(
    network: SpikingNetwork,
    bound: float,
    tau: float,
    dt: float,
    generator: torch.Generator | None = None,
) -> tuple[SpikingNetwork, float]:
    """Reset the time constants above `bound` to `tau` in a copy of `network`.

    With a `generator`, reset as many others instead, drawn in each group of synapses from those
    that are not long. If there are fewer of them, fewer are reset. Frozen decays do not change.

    Returns:
        The copy, and the share of all synapses that were reset.
    """
    changed = copy.deepcopy(network)
    reset = total = 0
    with torch.no_grad():
        for module in changed.modules():
            if not isinstance(module, Decay):
                continue
            free = torch.ones_like(module(), dtype=torch.bool)
            free = free if module.frozen is None else ~module.frozen.bool()
            chosen = (decay_to_tau(module().double(), dt) > bound) & free
            if generator is not None:
                places = (free & ~chosen).flatten().nonzero().squeeze(1)
                order = torch.randperm(len(places), generator=generator)
                picked = places[order[: int(chosen.sum())].to(places.device)]
                chosen = torch.zeros_like(free).flatten().index_fill_(0, picked, True)
                chosen = chosen.view_as(free)
            value = float(tau_to_decay(tau, dt))
            if module.parametrization == "sigmoid":
                module.logit[chosen] = math.log(value / (1 - value))
            else:
                module.raw[chosen] = value
            reset += int(chosen.sum())
            total += chosen.numel()
    return changed, reset / total
