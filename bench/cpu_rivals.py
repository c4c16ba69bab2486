"""What the layers are compared with on a CPU, beside the loops of `rivals.py`: SpikingJelly's plain
LIF.

It computes less: one time constant for a whole layer, so its synapses are one matrix product and no
decay learns. It is here because it is what one would use instead. Into a virtual environment:

    pip install -e '.[test]' loguru tqdm && pip install --no-deps 'spikingjelly==2.0.*'

(its own list of needs has packages that its neurons do not use).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

RHO = math.exp(-1 / 20)
"""Decay of the plain neuron: 20 steps."""


class Missing(Exception):
    """A rival that this machine does not have; the message says what is missing."""


def missing_spikingjelly() -> str | None:
    """Why SpikingJelly is not there; None where it is."""
    try:
        from spikingjelly.activation_based import functional, layer, neuron  # noqa: F401
    except ImportError as error:
        return f"not installed: {error}" if error.name == "spikingjelly" else f"broken: {error}"
    return None


def spikingjelly_layer(
    inputs: int, outputs: int, recurrent: bool, dtype: torch.dtype = torch.float32
) -> tuple[Callable[[Tensor], Tensor], Sequence[nn.Parameter]]:
    """-> spikes of a sequence, and the weights: [J, I], recurrent also [J, 2 J].

        h(t) = rho u(t-1) + (W z(t))_j,   s(t) = 1 if h(t) >= 1 else 0,   u(t) = h(t) - s(t)

    on whole sequences at once (step mode "m"), with the triangular surrogate. Recurrent: its
    `LinearRecurrentContainer` over the product of the inputs, which multiplies (W z(t), s(t-1)) by
    one matrix [J, 2 J]; with [1, R] the neuron is given W z(t) + R s(t-1).
    """
    reason = missing_spikingjelly()
    if reason is not None:
        raise Missing(reason)
    from spikingjelly.activation_based import functional, layer, neuron, surrogate

    lif = neuron.LIFNode(
        tau=1 / (1 - RHO),
        decay_input=False,
        v_reset=None,
        surrogate_function=surrogate.PiecewiseQuadratic(alpha=1.0),
        step_mode="s" if recurrent else "m",
    )
    linear = nn.Linear(inputs, outputs, bias=False, dtype=dtype)
    neurons: Any = lif
    if recurrent:
        neurons = layer.LinearRecurrentContainer(
            lif, outputs, outputs, bias=False, step_mode="m"
        ).to(dtype)
        with torch.no_grad():
            # To begin with the product itself, and few recurrent currents.
            neurons.rc.weight[:, :outputs] = torch.eye(outputs)
            neurons.rc.weight[:, outputs:] *= 0.1

    def forward(z: Tensor) -> Tensor:
        functional.reset_net(neurons)
        spikes: Tensor = neurons(linear(z))
        return spikes

    return forward, [linear.weight, *([neurons.rc.weight] if recurrent else [])]
