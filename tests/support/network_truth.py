"""What a network of HetSyn layers must return: the loops of its operators, one after the other.

As in `truth`, the spikes and ds/dV of every layer are given. A term of a gradient has at most the
sum of the roundings of all operators on its way.
"""

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from hetsyn_triton import HetSynLIF, Normal, SpikingNetwork
from tests.support.bounds import assert_spikes_follow, assert_within
from tests.support.operators import OPERATORS, Size
from tests.support.random_arguments import Tensors, vjp
from tests.support.tensors import total
from tests.support.truth import by_loop, double, gradient_roundings


def lif(inputs: int, neurons: int, recurrent: bool, generator: torch.Generator) -> HetSynLIF:
    """A layer that spikes, and whose gradients do not grow from step to step."""
    more: dict[str, Any] = {}
    if recurrent:
        more["recurrent_weight_init"] = Normal(0.0, 0.5 / neurons)
    return HetSynLIF(
        inputs,
        neurons,
        recurrent=recurrent,
        weight_init=Normal(0.3 / inputs, 1 / inputs**0.5),
        learn_threshold=True,
        generator=generator,
        **more,
    )


def _layers(network: SpikingNetwork) -> list[HetSynLIF]:
    return cast(list[HetSynLIF], list(network.layers))


def _constant(derivative: Tensor, *_: Tensor) -> Tensor:
    return derivative


def give_derivatives(network: SpikingNetwork, T: int, B: int) -> None:
    """Give every layer its own ds/dV [1, T, B, J], whatever V is."""
    generator = torch.Generator().manual_seed(5)
    for layer in _layers(network):
        values = torch.rand(1, T, B, layer.out_features, generator=generator) * 0.5
        layer.surrogate = partial(_constant, values.to(layer.weight.device))


def train(network: SpikingNetwork, x: Tensor, g: Tensor) -> Tensors:
    """Output, spikes of every layer, and gradients "d_" of x and the parameters."""
    leaves = {"x": x.detach().requires_grad_(), **dict(network.named_parameters())}
    output, _, spikes = network(leaves["x"], return_spikes=True)
    found = {"output": output} | {f"layers.{i}.spikes": s for i, s in enumerate(spikes)}
    gradients = {f"d_{name}": d for name, d in vjp([output], [g], leaves).items()}
    return {name: t.detach() for name, t in found.items()} | gradients


def _truth(
    network: SpikingNetwork, x: Tensor, g: Tensor, found: Tensors, absolute: bool
) -> Tensors:
    """Output, V of every layer, and gradients, for the spikes found."""
    leaves: Tensors = {}

    def leaf(name: str, t: Tensor, argument: str = "") -> Tensor:
        (made,) = double({argument: t.detach()}, absolute).values()
        leaves[name] = made.unsqueeze(0).requires_grad_()
        return leaves[name]

    def synapses(prefix: str, decay: Tensor, weight: Tensor) -> Tensors:
        return {
            "weight": leaf(f"{prefix}weight", weight),
            "decay": leaf(f"{prefix}decay.raw", decay),
        }

    z, results = leaf("x", x), {}
    for index, layer in enumerate(_layers(network)):
        name = f"layers.{index}."
        assert layer.reset_decay is not None
        given = synapses(name, layer.decay(), layer.weight)
        neuron = {
            "threshold": leaf(f"{name}threshold", layer.threshold),
            "feedback_decay": layer.reset_decay.double()[None, None],
            # A leaf of its own: it is subtracted, and magnitudes have to add up.
            "feedback_strength": leaf(
                f"{name}strength", layer.threshold, "feedback_strength"
            ).unsqueeze(1),
            "spikes": found[f"{name}spikes"].double().unsqueeze(0),
            "derivative": layer.surrogate(z, z).double(),
        }
        if layer.recurrent:
            assert layer.recurrent_weight is not None
            assert layer.recurrent_decay is not None
            current = by_loop("synaptic_current", {"z": z, **given})["current"]
            own = synapses(f"{name}recurrent_", layer.recurrent_decay(), layer.recurrent_weight)
            outputs = by_loop("recurrent_scan", {"current": current, **own, **neuron})
        else:
            outputs = by_loop("feedforward_scan", {"z": z, **given, **neuron})
        z, results[f"{name}potential"] = outputs["spikes"], outputs["potential"]
    if network.readout is not None:
        given = synapses("readout.", network.readout.decay(), network.readout.weight)
        z = by_loop("synaptic_current", {"z": z, **given})["current"]
    gradients = vjp([z], [*double({"g": g.unsqueeze(0)}, absolute).values()], leaves)
    for name in [name for name in gradients if name.endswith("strength")]:
        threshold = name.replace("strength", "threshold")
        parts = gradients[threshold], gradients.pop(name)
        gradients[threshold] = total(part.abs() if absolute else part for part in parts)
    results |= {"output": z} | {f"d_{name}": d for name, d in gradients.items()}
    return {name: t[0].detach() for name, t in results.items()}


def check_network(network: SpikingNetwork, x: Tensor, g: Tensor, found: Tensors) -> float:
    """Every layer spikes where its V says so, output and gradients are within rounding.

    Returns the largest share of a bound used.
    """
    exact, magnitude = (_truth(network, x, g, found, absolute) for absolute in (False, True))
    T, B, _ = x.shape
    roundings = 0
    for index, layer in enumerate(_layers(network)):
        size = Size(1, T, B, layer.in_features, layer.out_features, 1)
        scan = ("synaptic_current", "recurrent_scan") if layer.recurrent else ("feedforward_scan",)
        roundings += sum(gradient_roundings(operator, size) for operator in scan)
        names = f"layers.{index}.spikes", f"layers.{index}.potential"
        spikes, potential, large, threshold = (
            t.detach().unsqueeze(0)
            for t in (found[names[0]], exact[names[1]], magnitude[names[1]], layer.threshold)
        )
        n = sum(OPERATORS[operator].roundings(size) for operator in scan)
        assert_spikes_follow(spikes, potential, large, threshold, n)
        assert T * B < 20 or bool(spikes.any()), "a silent layer tests little"
    share = 0.0
    if network.readout is not None:
        size = Size(1, T, B, network.readout.in_features, network.readout.out_features, 0)
        n = OPERATORS["synaptic_current"].roundings(size)
        output = found["output"], exact["output"], magnitude["output"].abs()
        share = assert_within(*output, n, "output")
        roundings += gradient_roundings("synaptic_current", size)
    gradients = {name for name in exact if name.startswith("d_")}
    assert gradients == {name for name in found if name.startswith("d_")}
    for name in gradients:
        bound = magnitude[name].abs()
        share = max(share, assert_within(found[name], exact[name], bound, roundings, name))
    return share
