"""Layers of plain leaky integrate-and-fire neurons in other libraries.

They compute less than the layers of this library: a whole layer has one time constant, which is not
learned, so its synapses are one matrix product. Comparing with them shows what a time constant per
synapse costs. bench/README.md says how to install them.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

RHO = math.exp(-1 / 20)
"""Decay of the plain neuron; the time constant is 20 steps."""
SLOPE = 25.0
"""Slope of the fast sigmoid, snnTorch's default."""

# On a GPU SpikingJelly would try several implementations and log which one runs. Now it is Triton,
# or an error, which the benchmark reports. It is read when SpikingJelly is imported.
os.environ.setdefault("SJ_LIF_CUDA_IMPLEMENTATION", "triton")

Layer = tuple[Callable[[Tensor], Tensor], list[Tensor]]
"""A function from inputs [T, B, I] to spikes; the weights [J, I], and recurrent ones if any."""


class Missing(Exception):
    """A contender cannot run on this machine; the message says what is missing."""


MODULES = {
    "spikingjelly": "spikingjelly.activation_based.neuron",
    "snntorch": "snntorch",
    "norse": "norse.torch",
}


def missing(library: str) -> str | None:
    """Return why a library cannot be imported, None if it can."""
    try:
        importlib.import_module(MODULES[library])
    except ImportError as error:
        absent = (error.name or "").partition(".")[0] == library
        return f"not installed: {error}" if absent else f"broken: {error}"
    return None


def layer(
    library: str,
    inputs: int,
    outputs: int,
    recurrent: bool,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Layer:
    """Make the layer of a library; raise Missing if it cannot be imported."""
    reason = missing(library)
    if reason is not None:
        raise Missing(reason)
    linear = nn.Linear(inputs, outputs, bias=False, dtype=dtype, device=device)
    return LAYERS[library](linear, recurrent)


def _spikingjelly(linear: nn.Linear, recurrent: bool) -> Layer:
    """h(t) = rho u(t-1) + (W z(t))_j,   s(t) = 1 if h(t) >= 1 else 0,   u(t) = h(t) - s(t)

    on whole sequences at once (step mode "m"), with the triangular surrogate. A recurrent layer is
    its `LinearRecurrentContainer`, which multiplies (W z(t), s(t-1)) by one matrix [J, 2 J]. With
    the matrix [1, R], the neuron gets W z(t) + R s(t-1).
    """
    from spikingjelly.activation_based import functional, layer, neuron, surrogate

    lif = neuron.LIFNode(
        tau=1 / (1 - RHO),
        decay_input=False,
        v_reset=None,
        surrogate_function=surrogate.PiecewiseQuadratic(alpha=1.0),
        step_mode="s" if recurrent else "m",
    )
    neurons: Any = lif
    if recurrent:
        J = linear.out_features
        neurons = layer.LinearRecurrentContainer(lif, J, J, bias=False, step_mode="m")
        with torch.no_grad():
            # Start with the identity for the input and small recurrent weights.
            neurons.rc.weight[:, :J] = torch.eye(J)
            neurons.rc.weight[:, J:] *= 0.1
    neurons = neurons.to(linear.weight.device, linear.weight.dtype)

    def forward(z: Tensor) -> Tensor:
        functional.reset_net(neurons)
        spikes: Tensor = neurons(linear(z))
        return spikes

    return forward, [linear.weight, *([neurons.rc.weight] if recurrent else [])]


def _stepped(
    linear: nn.Linear, recurrent: bool, step: Callable[[Tensor, Any], tuple[Tensor, Any]]
) -> Layer:
    """Make a layer of a library that has a cell: one product for all steps, then step by step.

    This is how its tutorials do it. Recurrent currents are added to the cell's input.
    """
    J, like = linear.out_features, linear.weight
    back = nn.Linear(J, J, bias=False, dtype=like.dtype, device=like.device) if recurrent else None

    def forward(z: Tensor) -> Tensor:
        state, found = None, list[Tensor]()
        for current in linear(z).unbind(0):
            given = current if back is None or not found else current + back(found[-1])
            s, state = step(given, state)
            found.append(s)
        return torch.stack(found)

    return forward, [linear.weight, *([back.weight] if back is not None else [])]


def _snntorch(linear: nn.Linear, recurrent: bool) -> Layer:
    """u(t) = rho u(t-1) + (W z(t))_j - s(t-1),   s(t) = 1 if u(t) > 1 else 0

    with the fast sigmoid as surrogate and no gradient through the reset, the library's defaults.
    """
    import snntorch
    from snntorch import surrogate

    spike = surrogate.fast_sigmoid(slope=SLOPE)
    cell: Callable[..., tuple[Tensor, Any]]
    cell = snntorch.Leaky(beta=RHO, spike_grad=spike).to(linear.weight.device, linear.weight.dtype)

    def step(current: Tensor, state: Any) -> tuple[Tensor, Any]:
        return cell(current, torch.zeros_like(current) if state is None else state)

    return _stepped(linear, recurrent, step)


def _norse(linear: nn.Linear, recurrent: bool) -> Layer:
    """v(t) = rho v(t-1) + (1 - rho) (W z(t))_j, a spike above 1 - rho, which is then subtracted

    so v / (1 - rho) is SpikingJelly's neuron; the surrogate is the library's SuperSpike.
    """
    import norse.torch as norse
    from norse.torch.functional.reset import reset_subtract

    parameters = norse.LIFBoxParameters(
        tau_mem_inv=linear.weight.new_tensor(1 - RHO),
        v_leak=linear.weight.new_tensor(0.0),
        v_th=linear.weight.new_tensor(1 - RHO),
        v_reset=linear.weight.new_tensor(0.0),
        reset_method=reset_subtract,
    )
    return _stepped(linear, recurrent, norse.LIFBoxCell(parameters, dt=1.0))


LAYERS = {"spikingjelly": _spikingjelly, "snntorch": _snntorch, "norse": _norse}
DIFFERENCE = "plain LIF: one time constant, not learned; gradients of input and weights only"
