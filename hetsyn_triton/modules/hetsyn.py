"""HetSyn layers: one decay per synapse (HetSyn, NeurIPS 2025)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from hetsyn_triton import validation as check
from hetsyn_triton.initializers import Uniform
from hetsyn_triton.ops import feedforward_scan, recurrent_scan, synaptic_current
from hetsyn_triton.ops.neuron import state_after
from hetsyn_triton.states import HetSynReadoutState, HetSynState
from hetsyn_triton.timeconstants import TimeConstant

from .base import SequenceLayer, SpikingLayer
from .decay import Decay
from .options import LayerOptions, SpikingOptions


class HetSynLIF(SpikingLayer):
    """Leaky integrate-and-fire neurons with one decay per synapse.

        I_ji(t) = r_ji I_ji(t-1) + w_ji z_i(t)
        V_j(t)  = sum_i I_ji(t) - J_j(t),    J_j(t) = kappa J_j(t-1) + theta s_j(t-1)
        s_j(t)  = 1 if V_j(t) > theta else 0

    with a second set of synapses driven by s(t-1) if `recurrent`. Equal decays give the plain LIF,
    decays equal within a neuron the per-neuron heterogeneous LIF.

    Args:
        in_features: presynaptic inputs I.
        out_features: neurons J.
        recurrent: adds recurrent synapses J -> J, each with its own decay (default False).
        self_connections: whether a neuron of a recurrent layer may feed itself (default True).
        tau: time constants of the input synapses in the unit of `dt`: a number, a distribution
            (`Constant`, `Uniform`, `Normal`, `LogUniform`) or a tensor [J, I]. Default U(5, 20).
        tau_recurrent: the same for the recurrent synapses; None: as `tau`, drawn anew.
        weight_init: distribution of the weights; default N(0, 1/fan_in).
        recurrent_weight_init: the same for the recurrent ones; None: as `weight_init`.
        threshold: theta, positive (default 1); `learn_threshold` makes it a parameter per neuron,
            which an optimizer must leave positive: a call with one that is not raises.
        dt: length of a step; 1 (default) means that time constants count steps. With another dt
            give every time constant in its unit: the defaults here are numbers of steps.
        tau_reset: time constant of the reset current J, common to all neurons (default 20).
        adaptation, tau_adaptation: strength and time constant of an adaptation current
            J_a(t) = rho_a J_a(t-1) + a s(t-1), subtracted from V; None (default): no such current.
        learn_decay: whether decays learn (default True); `frozen_fraction` (default 0) of them,
            drawn at random, do not.
        decay_parametrization: "clamp" (default: call `clamp_decays_` after each optimizer step) or
            "sigmoid".
        surrogate: ds/dV for the backward pass, see `hetsyn_triton.surrogates`; default
            `Triangular()`.
        detach_reset: stop the gradient from the reset and adaptation currents to the spikes.
        batch_first: inputs and outputs are [B, T, N] instead of [T, B, N]; states do not change.
        backend: "auto" (default), "triton", "cpu" or "reference", see `backend_info`.
        generator: draws weights and time constants, on the CPU: the same on every device.
        device, dtype: of the parameters; float32 or float64.

    Attributes: `weight` [J, I], `decay()` -> [J, I], `recurrent_weight` [J, J] and
    `recurrent_decay()` -> [J, J] (or None), `threshold` [J], `reset_decay` [J].

    Raises ValueError or TypeError, naming the argument, for a value that is not allowed.
    """

    state_type = HetSynState
    recurrent_decay: Decay | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        tau: TimeConstant = Uniform(5.0, 20.0),  # noqa: B008 - frozen
        tau_recurrent: TimeConstant | None = None,
        tau_reset: float = 20.0,
        self_connections: bool = True,
        adaptation: float | None = None,
        tau_adaptation: float | None = None,
        learn_decay: bool = True,
        frozen_fraction: float = 0.0,
        decay_parametrization: str = "clamp",
        generator: torch.Generator | None = None,
        **options: Unpack[SpikingOptions],
    ) -> None:
        super().__init__(
            in_features,
            out_features,
            # A neuron has no single decay that its reset could be tied to.
            tau_reset=check.check_positive_number("tau_reset", tau_reset),
            self_connections=self_connections,
            adaptation=adaptation,
            tau_adaptation=tau_adaptation,
            generator=generator,
            **options,
        )
        learning: dict[str, Any] = {
            "learn_decay": learn_decay,
            "frozen_fraction": frozen_fraction,
            "decay_parametrization": decay_parametrization,
            "generator": generator,
        }
        self.decay = self._made_decay("tau", tau, (out_features, in_features), **learning)
        recurrent_decay = None
        if tau_recurrent is not None and not self.recurrent:
            raise ValueError("tau_recurrent: expected None for a feedforward layer")
        if self.recurrent:
            name, tau = ("tau", tau) if tau_recurrent is None else ("tau_recurrent", tau_recurrent)
            square = (out_features, out_features)
            recurrent_decay = self._made_decay(name, tau, square, **learning)
        self.register_module("recurrent_decay", recurrent_decay)

    def _state_axes(self) -> dict[str, str | None]:
        recurrent = "J, J" if self.recurrent else None
        return {"trace": "J, I", "recurrent_trace": recurrent, **self._neuron_axes()}

    def _run(self, x: Tensor, state: HetSynState | None) -> tuple[Tensor, HetSynState]:
        trace, recurrent_trace = (None, None) if state is None else state[:2]
        assert self.reset_decay is not None
        neuron = self._neuron(self.reset_decay, state, x)
        weight, decay = self._synapses()
        if not self.recurrent:
            spikes, _, feedback, trace = feedforward_scan.run(
                x, weight, decay, trace, neuron, *self._scan
            )
        else:
            recurrent_weight = self._recurrent_weight_in_use()
            recurrent_decay = self._decays("recurrent_decay")
            current, trace = synaptic_current.run(x, weight, decay, trace, self.backend)
            spikes, _, feedback, recurrent_trace = recurrent_scan.run(
                current, recurrent_weight, recurrent_decay, recurrent_trace, neuron, *self._scan
            )
        after = state_after(neuron, spikes, feedback)
        return spikes, HetSynState(trace, recurrent_trace, *after)


class HetSynReadout(SequenceLayer):
    """Non-spiking readout with one decay per synapse: the output is sum_i I_ji(t), no threshold.

    Takes `tau`, `weight_init`, `dt`, `learn_decay`, `frozen_fraction`, `decay_parametrization`,
    `batch_first`, `backend`, `generator`, `device` and `dtype`, with the meaning, defaults and
    errors of `HetSynLIF`. Attributes: `weight` [J, I], `decay()` -> [J, I].
    """

    state_type = HetSynReadoutState

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        tau: TimeConstant = Uniform(5.0, 20.0),  # noqa: B008 - frozen
        learn_decay: bool = True,
        frozen_fraction: float = 0.0,
        decay_parametrization: str = "clamp",
        generator: torch.Generator | None = None,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(in_features, out_features, generator=generator, **options)
        self.decay = self._made_decay(
            "tau",
            tau,
            (out_features, in_features),
            learn_decay=learn_decay,
            frozen_fraction=frozen_fraction,
            decay_parametrization=decay_parametrization,
            generator=generator,
        )

    def _state_axes(self) -> dict[str, str | None]:
        return {"trace": "J, I"}

    def _run(
        self, x: Tensor, state: HetSynReadoutState | None
    ) -> tuple[Tensor, HetSynReadoutState]:
        trace = None if state is None else state.trace
        current, trace = synaptic_current.run(x, *self._synapses(), trace, self.backend)
        return current, HetSynReadoutState(trace)
