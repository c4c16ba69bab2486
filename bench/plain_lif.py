"""Layers of plain leaky integrate-and-fire neurons in the libraries in use now.

They compute less than a layer here: one time constant for a whole layer, so its synapses are one
matrix product and no decay learns. They say what a time constant per synapse costs against what one
would use instead. Into a virtual environment (two of them name torchvision among their needs, which
their neurons do not use; hence --no-deps, and the few that they do use by name):

    pip install -e '.[bench]' loguru tqdm
    pip install --no-deps 'spikingjelly==2.0.*' 'snntorch==1.0.*' 'norse==1.1.*' nir nirtorch
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

RHO = math.exp(-1 / 20)
"""Decay of the plain neuron: 20 steps."""
SLOPE = 25.0
"""Of the fast sigmoid, snnTorch's own choice."""

Layer = tuple[Callable[[Tensor], Tensor], Sequence[Tensor]]
"""Spikes of a sequence [T, B, I], and the weights: [J, I], recurrent also the recurrent ones."""


class MakeLayer(Protocol):
    """The layer of a library; `Missing` where the library is."""

    def __call__(
        self,
        inputs: int,
        outputs: int,
        recurrent: bool,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Layer: ...


class Missing(Exception):
    """A rival that this machine does not have; the message says what is missing."""


MODULES = {
    "spikingjelly": "spikingjelly.activation_based.neuron",
    "snntorch": "snntorch",
    "norse": "norse.torch",
}


def missing(library: str) -> str | None:
    """Why a library is not there; None where it is."""
    try:
        importlib.import_module(MODULES[library])
    except ImportError as error:
        absent = (error.name or "").partition(".")[0] == library
        return f"not installed: {error}" if absent else f"broken: {error}"
    return None


def _present(library: str) -> None:
    reason = missing(library)
    if reason is not None:
        raise Missing(reason)


def spikingjelly_layer(
    inputs: int,
    outputs: int,
    recurrent: bool,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Layer:
    """h(t) = rho u(t-1) + (W z(t))_j,   s(t) = 1 if h(t) >= 1 else 0,   u(t) = h(t) - s(t)

    on whole sequences at once (step mode "m"), with the triangular surrogate. Recurrent: its
    `LinearRecurrentContainer` over the product of the inputs, which multiplies (W z(t), s(t-1)) by
    one matrix [J, 2 J]; with [1, R] the neuron is given W z(t) + R s(t-1).
    """
    _present("spikingjelly")
    from spikingjelly.activation_based import functional, layer, neuron, surrogate

    lif = neuron.LIFNode(
        tau=1 / (1 - RHO),
        decay_input=False,
        v_reset=None,
        surrogate_function=surrogate.PiecewiseQuadratic(alpha=1.0),
        step_mode="s" if recurrent else "m",
    )
    linear = nn.Linear(inputs, outputs, bias=False, dtype=dtype, device=device)
    neurons: Any = lif.to(device)
    if recurrent:
        neurons = layer.LinearRecurrentContainer(
            lif, outputs, outputs, bias=False, step_mode="m"
        ).to(device, dtype)
        with torch.no_grad():
            # To begin with the product itself, and few recurrent currents.
            neurons.rc.weight[:, :outputs] = torch.eye(outputs)
            neurons.rc.weight[:, outputs:] *= 0.1

    def forward(z: Tensor) -> Tensor:
        functional.reset_net(neurons)
        spikes: Tensor = neurons(linear(z))
        return spikes

    return forward, [linear.weight, *([neurons.rc.weight] if recurrent else [])]


def _stepped(
    linear: nn.Linear,
    back: nn.Linear | None,
    step: Callable[[Tensor, Any], tuple[Tensor, Any]],
) -> Layer:
    """A layer of a library that gives a cell: the product of all steps at once, then the cell step
    by step, as its tutorials do; recurrent currents are added to the cell's input."""

    def forward(z: Tensor) -> Tensor:
        state, found = None, list[Tensor]()
        for current in linear(z).unbind(0):
            given = current if back is None or not found else current + back(found[-1])
            s, state = step(given, state)
            found.append(s)
        return torch.stack(found)

    leaves: list[Tensor] = [linear.weight, *([back.weight] if back is not None else [])]
    return forward, leaves


def _linears(
    inputs: int, outputs: int, recurrent: bool, dtype: torch.dtype, device: torch.device | str
) -> tuple[nn.Linear, nn.Linear | None]:
    kind: dict[str, Any] = {"bias": False, "dtype": dtype, "device": device}
    linear = nn.Linear(inputs, outputs, **kind)
    return linear, nn.Linear(outputs, outputs, **kind) if recurrent else None


def snntorch_layer(
    inputs: int,
    outputs: int,
    recurrent: bool,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Layer:
    """u(t) = rho u(t-1) + (W z(t))_j - s(t-1),   s(t) = 1 if u(t) > 1 else 0

    with the fast sigmoid as surrogate, and no gradient through the reset, as the library has it.
    """
    _present("snntorch")
    import snntorch
    from snntorch import surrogate

    linear, back = _linears(inputs, outputs, recurrent, dtype, device)
    spike = surrogate.fast_sigmoid(slope=SLOPE)
    cell: Callable[..., tuple[Tensor, Any]]
    cell = snntorch.Leaky(beta=RHO, spike_grad=spike).to(device, dtype)

    def step(current: Tensor, state: Any) -> tuple[Tensor, Any]:
        return cell(current, torch.zeros_like(current) if state is None else state)

    return _stepped(linear, back, step)


def norse_layer(
    inputs: int,
    outputs: int,
    recurrent: bool,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Layer:
    """v(t) = rho v(t-1) + (1 - rho) (W z(t))_j, a spike above 1 - rho, which is then subtracted

    so that v / (1 - rho) is SpikingJelly's neuron; with the library's SuperSpike as surrogate.
    """
    _present("norse")
    import norse.torch as norse
    from norse.torch.functional.reset import reset_subtract

    def number(value: float) -> Tensor:
        return torch.tensor(value, dtype=dtype, device=device)

    parameters = norse.LIFBoxParameters(
        tau_mem_inv=number(1 - RHO),
        v_leak=number(0.0),
        v_th=number(1 - RHO),
        v_reset=number(0.0),
        reset_method=reset_subtract,
    )
    linear, back = _linears(inputs, outputs, recurrent, dtype, device)
    cell = norse.LIFBoxCell(parameters, dt=1.0)
    return _stepped(linear, back, cell)


LAYERS: dict[str, MakeLayer] = {
    "spikingjelly": spikingjelly_layer,
    "snntorch": snntorch_layer,
    "norse": norse_layer,
}
DIFFERENCE = "a plain LIF: one time constant, no decay learns, gradients of input and weights only"
