"""The time constants of a network, by layer."""

import torch
from torch import Tensor

from hetsyn_triton.modules import SpikingNetwork
from hetsyn_triton.timeconstants import decay_to_tau


def time_constants(network: SpikingNetwork, dt: float) -> dict[str, Tensor]:
    """Return all time constants of each group of synapses, flat, in the unit of `dt`.

    A decay of 1 gives infinity, and a decay of 0 gives 0.
    """
    groups: dict[str, Tensor] = {}
    for number, layer in enumerate(network.layers, 1):
        last = network.readout is None and number == len(network.layers)
        name = "output layer" if last else f"layer {number}"
        for attribute, source in (("decay", "input"), ("recurrent_decay", "recurrent")):
            decay = getattr(layer, attribute, None)
            if decay is not None:
                groups[f"{name}, {source}"] = decay()
    if network.readout is not None:
        groups["readout"] = network.readout.decay()
    with torch.no_grad():
        return {
            name: decay_to_tau(decay.detach().double().flatten(), dt).cpu()
            for name, decay in groups.items()
        }


def quartiles(taus: Tensor) -> list[float]:
    """Return lower quartile, median and upper quartile; time constants may be infinite."""
    ordered = taus.sort().values
    last = len(ordered) - 1
    return [float(ordered[round(part * last)]) for part in (0.25, 0.5, 0.75)]
