"""Every kind of layer in small, and the paper's equations for it, written out once more.

`paper` is the loop over time in the paper's own form, a current per synapse, under autograd. It
shares no code with the package or with `truth`: of a layer it reads weights, decays and threshold;
what else the layer should do follows from the options it was made with.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hetsyn_triton import (
    HetNeuLIF,
    HetNeuReadout,
    HetSynLIF,
    HetSynReadout,
    HomNeuALIF,
    HomNeuLIF,
    HomNeuReadout,
    Normal,
    SpikingNetwork,
    Uniform,
)
from hetsyn_triton.modules.base import SpikingLayer

I, J = 6, 5  # noqa: E741 - the field's letter


@dataclass(frozen=True)
class Case:
    """A layer class with options, 6 inputs and 5 outputs, float64 unless asked otherwise."""

    cls: Callable[..., Any]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def spiking(self) -> bool:
        return "LIF" in self.cls.__name__

    @property
    def recurrent(self) -> bool:
        return bool(self.options.get("recurrent", False))

    def make(self, seed: int = 0, **more: Any) -> Any:
        """Drawn from `seed`, with weights that make it spike and distinct learned thresholds."""
        generator = torch.Generator().manual_seed(seed)
        given = {"weight_init": Normal(0.25, 0.5), "dtype": torch.float64}
        if self.recurrent:
            given["recurrent_weight_init"] = Normal(0.0, 0.4)
        layer = self.cls(I, J, generator=generator, **(given | self.options | more))
        if self.options.get("learn_threshold"):
            with torch.no_grad():
                layer.threshold.mul_(torch.linspace(0.5, 1.5, J))
        return layer


RECURRENT: dict[str, Any] = {"recurrent": True}
ADAPTIVE: dict[str, Any] = {"adaptation": 0.3, "tau_adaptation": 30.0}

SPIKING = {
    "HetSynLIF": Case(HetSynLIF),
    "HetSynLIF, sigmoid": Case(HetSynLIF, {"decay_parametrization": "sigmoid"}),
    "HetSynLIF, threshold": Case(HetSynLIF, {"learn_threshold": True, "tau_reset": 3.0}),
    "HetSynLIF, recurrent": Case(HetSynLIF, RECURRENT),
    "HetSynLIF, no self": Case(HetSynLIF, RECURRENT | {"self_connections": False}),
    "HetSynLIF, everything": Case(
        HetSynLIF,
        RECURRENT
        | ADAPTIVE
        | {"learn_threshold": True, "tau": Uniform(1.0, 9.0), "tau_recurrent": Normal(5.0, 2.0)}
        | {"frozen_fraction": 0.4, "tau_reset": 7.0},
    ),
    "HomNeuLIF": Case(HomNeuLIF),
    "HomNeuLIF, recurrent": Case(HomNeuLIF, RECURRENT | {"tau": 6.0}),
    "HomNeuLIF, tied": Case(HomNeuLIF, {"tau": 6.0, "tau_reset": "tied"}),
    "HomNeuALIF": Case(HomNeuALIF),
    "HomNeuALIF, self": Case(HomNeuALIF, RECURRENT | ADAPTIVE | {"self_connections": True}),
    "HetNeuLIF": Case(HetNeuLIF),
    "HetNeuLIF, tied": Case(HetNeuLIF, {"tau_reset": "tied", "learn_threshold": True}),
    "HetNeuLIF, everything": Case(
        HetNeuLIF, RECURRENT | ADAPTIVE | {"tau_reset": "tied", "learn_threshold": True}
    ),
}
READOUTS = {
    "HetSynReadout": Case(HetSynReadout),
    "HomNeuReadout": Case(HomNeuReadout, {"tau": 6.0}),
    "HetNeuReadout": Case(HetNeuReadout),
}
ALL = SPIKING | READOUTS


def first_layer(network: SpikingNetwork) -> SpikingLayer:
    """The first layer of a network by its own type, which `nn.ModuleList` does not keep."""
    layer = network.layers[0]
    assert isinstance(layer, SpikingLayer)
    return layer


def spikes(*shape: int, seed: int = 1, rate: float = 0.4, dtype: Any = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator) < rate).to(dtype)


def normal_like(value: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(value.shape, generator=generator, dtype=value.dtype)


class ForcedSpike(torch.autograd.Function):
    """The given spike forward, the triangular surrogate max(0, 1 - |u| / theta) backward.

    `truth.given_spikes` is given ds/dV too. Here it follows from u, so that the default surrogate
    of the layers is tested.
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, theta: Tensor, spike: Tensor) -> Tensor:
        ctx.save_for_backward(u, theta)
        return spike.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        u, theta = ctx.saved_tensors
        return g * (1 - u.abs() / theta).clamp(min=0), None, None


forced_spike: Callable[..., Tensor] = ForcedSpike.apply


@dataclass
class Paper:
    """What the equations give: potentials [T, B, J] (of a readout: its output), spikes, the last
    currents [B, J, I], recurrent ones, reset and adaptation current, and at every step the sum of
    the magnitudes of all terms of V, for rounding bounds."""

    potential: Tensor
    spikes: Tensor
    current: Tensor
    recurrent: Tensor
    reset: Tensor
    adaptation: Tensor
    magnitude: Tensor


def stored(tau: float, layer: Any) -> float:
    """exp(-1 / tau), in the precision the layer keeps it."""
    return torch.tensor(math.exp(-1 / tau), dtype=layer.weight.dtype).double().item()


def paper(case: Case, layer: Any, x: Tensor, forced: Tensor | None) -> Paper:
    """The equations in float64 with s(t) = `forced`, zero initial state; dt is 1."""
    defaults = {"HomNeuALIF": {"adaptation": 0.05, "tau_adaptation": 100.0}}
    options = defaults.get(case.cls.__name__, {}) | case.options
    w, r = layer.weight.double(), layer.decay().double()
    per_synapse = r if r.dim() == 2 else r[:, None].expand_as(w)
    B = x.shape[1]
    current = w.new_zeros(B, J, I)
    recurrent, reset, adaptation, s = (w.new_zeros(B, *n) for n in ((J, J), (J,), (J,), (J,)))
    u, u_rec = w.new_zeros(B, J, I), w.new_zeros(B, J, J)
    potentials, all_spikes, magnitudes = [], [], []
    if case.recurrent:
        w_rec = layer.recurrent_weight.double()
        hom = case.cls.__name__.startswith("Hom")
        if not options.get("self_connections", not hom):
            w_rec = w_rec - torch.diag(torch.diag(w_rec))
        r_rec = layer.recurrent_decay().double() if r.dim() == 2 else r[:, None].expand_as(w_rec)
    if case.spiking:
        theta = layer.threshold.double()
        tau_reset = options.get("tau_reset", 20.0)
        kappa = r if tau_reset == "tied" else stored(tau_reset, layer)
        a = torch.tensor(options.get("adaptation", 0.0), dtype=layer.weight.dtype).double()
        rho = stored(options.get("tau_adaptation", 1.0), layer)
    for t in range(x.shape[0]):
        z = x[t].double()[:, None]
        current = per_synapse * current + w * z
        u = (per_synapse * u + w.abs() * z.abs()).detach()
        v, magnitude = current.sum(-1), u.sum(-1)
        if case.recurrent:
            recurrent = r_rec * recurrent + w_rec * s[:, None]
            u_rec = (r_rec * u_rec + w_rec.abs() * s[:, None]).detach()
            v, magnitude = v + recurrent.sum(-1), magnitude + u_rec.sum(-1)
        if case.spiking:
            reset = kappa * reset + theta * s
            adaptation = rho * adaptation + a * s
            v, magnitude = v - reset - adaptation, magnitude + (reset + adaptation).detach()
            assert forced is not None
            s = forced_spike(v - theta, theta, forced[t].double())
        potentials.append(v)
        all_spikes.append(s)
        magnitudes.append(magnitude)
    joined = (torch.stack(part) for part in (potentials, all_spikes, magnitudes))
    potential, s_all, magnitude = joined
    return Paper(potential, s_all, current, recurrent, reset, adaptation, magnitude)
