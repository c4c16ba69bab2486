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
from .layer_options import LayerOptions, SpikingOptions


class HetSynLIF(SpikingLayer):
    """Leaky integrate-and-fire neurons with one decay per synapse.

        I_ji(t) = r_ji I_ji(t-1) + w_ji z_i(t)
        V_j(t)  = sum_i I_ji(t) - J_j(t),    J_j(t) = kappa J_j(t-1) + theta s_j(t-1)
        s_j(t)  = 1 if V_j(t) > theta else 0

    If `recurrent`, the spikes s(t-1) drive a second set of synapses. Equal decays give the plain
    LIF. Decays that are equal within a neuron give the per-neuron heterogeneous LIF.

    Args:
        in_features: Number of inputs I.
        out_features: Number of neurons J.
        recurrent: Whether the layer has recurrent synapses, each with its own decay. Default:
            False.
        self_connections: Whether a neuron of a recurrent layer may feed itself. Default: True.
        tau: Time constants of the input synapses in the unit of `dt`: a number, a distribution or a
            tensor [J, I]. Default: uniform from 5 to 20.
        tau_recurrent: Time constants of the recurrent synapses. Default: drawn like `tau`.
        weight_init: Distribution of the weights. Default: normal with variance 1 / I.
        recurrent_weight_init: Distribution of the recurrent weights. Default: `weight_init`.
        threshold: Spike threshold theta, positive. Default: 1.
        learn_threshold: Whether each neuron learns its threshold. It has to stay positive: a call
            with another one raises. Default: False.
        dt: Length of a step. Time constants, also the default ones, are in its unit. Default: 1, so
            time constants count steps.
        tau_reset: Time constant of the reset current J, one for all neurons. Default: 20.
        adaptation: Strength a of the adaptation current J_a(t) = rho_a J_a(t-1) + a s(t-1), which
            is subtracted from V. Default: no such current.
        tau_adaptation: Time constant of the adaptation current; required with `adaptation`.
        learn_decay: Whether decays learn. Default: True.
        frozen_fraction: Fraction of the decays, drawn at random, that does not learn. Default: 0.
        decay_parametrization: "clamp" learns the decay itself: call `clamp_decays_` after each
            optimizer step. "sigmoid" learns its logit. Default: "clamp".
        surrogate: Stands for ds/dV in the backward pass. Default: `Triangular()`.
        detach_reset: Whether no gradient passes from reset and adaptation to the spikes. Default:
            False.
        batch_first: Whether inputs and outputs are [B, T, N] instead of [T, B, N]; states are the
            same. Default: False.
        backend: "auto", "triton", "cpu" or "reference", see `backend_info`. Default: "auto".
        generator: Draws weights and time constants on the CPU, so they are the same on every
            device. Default: PyTorch's own.
        device: Device of the parameters. Default: PyTorch's default.
        dtype: float32 or float64. Default: PyTorch's default.

    Attributes:
        weight: Weights [J, I].
        decay: A `Decay`; `decay()` returns the decays [J, I].
        recurrent_weight: Weights [J, J], or None.
        recurrent_decay: A `Decay` of shape [J, J], or None.
        threshold: Thresholds [J].
        reset_decay: kappa of each neuron [J].

    Raises:
        ValueError: If a value is not allowed; the message names the argument.
        TypeError: If a type does not fit.

    Source:
        HetSyn (NeurIPS 2025), https://arxiv.org/abs/2508.11644.

    Example:
        >>> layer = HetSynLIF(8, 4, recurrent=True)
        >>> spikes, state = layer(torch.rand(20, 2, 8))
        >>> spikes.shape, state.trace.shape
        (torch.Size([20, 2, 4]), torch.Size([2, 4, 8]))
        >>> more, state = layer(torch.rand(5, 2, 8), state)  # continues the sequence
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
            spikes, potential, feedback, trace = feedforward_scan.run(
                x, weight, decay, trace, neuron, *self._scan
            )
        else:
            recurrent_weight = self._recurrent_weight_in_use()
            recurrent_decay = self._decays("recurrent_decay")
            current, trace = synaptic_current.run(x, weight, decay, trace, self.backend)
            spikes, potential, feedback, recurrent_trace = recurrent_scan.run(
                current, recurrent_weight, recurrent_decay, recurrent_trace, neuron, *self._scan
            )
        self._check_given(potential, x, state)
        after = state_after(neuron, spikes, feedback)
        return spikes, HetSynState(trace, recurrent_trace, *after)


class HetSynReadout(SequenceLayer):
    """Readout with one decay per synapse and no threshold: the output is sum_i I_ji(t).

    Args:
        in_features: Number of inputs I.
        out_features: Number of outputs J.
        tau: Time constants in the unit of `dt`: a number, a distribution or a tensor [J, I].
            Default: uniform from 5 to 20.
        learn_decay: As in `HetSynLIF`; so are `frozen_fraction`, `decay_parametrization`,
            `generator`, `weight_init`, `dt`, `batch_first`, `backend`, `device` and `dtype`.

    Attributes:
        weight: Weights [J, I].
        decay: A `Decay`; `decay()` returns the decays [J, I].

    Raises:
        ValueError: If a value is not allowed; the message names the argument.
        TypeError: If a type does not fit.

    Example:
        >>> output, state = HetSynReadout(4, 3)(torch.rand(20, 2, 4))
        >>> output.shape
        torch.Size([20, 2, 3])
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
        self._check_given(current, x, state)
        return current, HetSynReadoutState(trace)
