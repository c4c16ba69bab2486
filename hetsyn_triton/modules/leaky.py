"""The three cheaper models: one decay for all synapses of a neuron.

Their current needs no traces: c_j(t) = rho_j c_j(t-1) + (W z(t))_j (+ (W_rec s(t-1))_j) is a matrix
product and an elementwise scan.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from hetsyn_triton import validation as check
from hetsyn_triton.initializers import Uniform
from hetsyn_triton.ops import (
    full_precision,
    leaky_current,
    leaky_recurrent_scan,
    spike_scan,
)
from hetsyn_triton.ops.neuron import last, state_after
from hetsyn_triton.states import LeakyReadoutState, LeakyState
from hetsyn_triton.timeconstants import TimeConstant

from .base import SequenceLayer, SpikingLayer
from .options import LayerOptions, SpikingOptions


def _drive(layer: SequenceLayer, x: Tensor) -> Tensor:
    """W z(t) for all steps; autocast would round it, and a threshold follows."""
    check.check_finite("weight", layer.weight)
    with full_precision(x.device):
        return nn.functional.linear(x, layer.weight)


def _one_tau(tau: object) -> float:
    if not check.is_number(tau):
        raise TypeError(
            "tau: expected one number for a homogeneous layer, "
            f"got {type(tau).__name__}; HetNeuLIF has a time constant per neuron"
        )
    return check.check_positive_number("tau", tau)


class _LeakyLIF(SpikingLayer):
    """Neurons with one decay each; without `reset_decay` the reset current has that decay too."""

    state_type = LeakyState

    def _state_axes(self) -> dict[str, str | None]:
        return {"current": "J", **self._neuron_axes()}

    def _run(self, x: Tensor, state: LeakyState | None) -> tuple[Tensor, LeakyState]:
        decay = self._decays("decay")
        reset_decay = decay.squeeze(0) if self.reset_decay is None else self.reset_decay
        neuron = self._neuron(reset_decay, state, x)
        recurrent_weight = self._recurrent_weight_in_use() if self.recurrent else None
        drive = _drive(self, x)
        before = neuron.spike.new_zeros(neuron.spike.shape) if state is None else state.current
        if recurrent_weight is not None:
            spikes, _, feedback, currents = leaky_recurrent_scan.run(
                drive, recurrent_weight, decay, before, neuron, *self._scan
            )
        else:
            currents = leaky_current.run(drive, decay, before, self.backend)
            spikes, _, feedback = spike_scan.run(currents, neuron, *self._scan)
        after = state_after(neuron, spikes, feedback)
        return spikes, LeakyState(last(currents, before), *after)


class HomNeuLIF(_LeakyLIF):
    """Plain LIF neurons: one fixed decay for all synapses.

    Args:
        tau: time constant of every synapse, one number, fixed (default 20).
        tau_reset: time constant of the reset current, or "tied": that of the neuron (default 20).
        self_connections: default False, as in HetSyn's experiments with homogeneous models.

    Further arguments with the meaning, defaults and errors of `HetSynLIF`: `recurrent`,
    `weight_init`, `recurrent_weight_init`, `threshold`, `learn_threshold`, `dt`, `adaptation`,
    `tau_adaptation`, `surrogate`, `detach_reset`, `batch_first`, `backend`, `generator`, `device`,
    `dtype`. Attributes: `weight` [J, I], `recurrent_weight` [J, J] or None, `decay()` -> [J].
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        tau: float = 20.0,
        tau_reset: float | str = 20.0,
        self_connections: bool = False,
        adaptation: float | None = None,
        tau_adaptation: float | None = None,
        generator: torch.Generator | None = None,
        **options: Unpack[SpikingOptions],
    ) -> None:
        super().__init__(
            in_features,
            out_features,
            tau_reset=tau_reset,
            self_connections=self_connections,
            adaptation=adaptation,
            tau_adaptation=tau_adaptation,
            generator=generator,
            **options,
        )
        self.decay = self._made_decay("tau", _one_tau(tau), (out_features,), generator=generator)


class HomNeuALIF(HomNeuLIF):
    """`HomNeuLIF` with an adaptation current J_a(t) = rho_a J_a(t-1) + a s(t-1), V = c - J - J_a.

    Args:
        adaptation: strength a; default 0.05 (HetSyn's value for SHD).
        tau_adaptation: time constant in the unit of `dt`; default 100.

    Further arguments as in `HomNeuLIF`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        tau: float = 20.0,
        tau_reset: float | str = 20.0,
        self_connections: bool = False,
        adaptation: float = 0.05,
        tau_adaptation: float = 100.0,
        generator: torch.Generator | None = None,
        **options: Unpack[SpikingOptions],
    ) -> None:
        super().__init__(
            in_features,
            out_features,
            tau=tau,
            tau_reset=tau_reset,
            self_connections=self_connections,
            adaptation=adaptation,
            tau_adaptation=tau_adaptation,
            generator=generator,
            **options,
        )


class HetNeuLIF(_LeakyLIF):
    """LIF neurons with one learnable decay per neuron, shared by its input and recurrent synapses.

    Args:
        tau: time constants of the neurons: a number, a distribution or a tensor [J]; default
            U(5, 20).
        tau_reset: time constant of the reset current (default 20), or "tied": the neuron's own
            decay, which then learns through the reset too.

    Further arguments as in `HetSynLIF` (without `tau_recurrent`). Attributes: `weight` [J, I],
    `recurrent_weight` [J, J] or None, `decay()` -> [J].
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        tau: TimeConstant = Uniform(5.0, 20.0),  # noqa: B008 - frozen
        tau_reset: float | str = 20.0,
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
            tau_reset=tau_reset,
            self_connections=self_connections,
            adaptation=adaptation,
            tau_adaptation=tau_adaptation,
            generator=generator,
            **options,
        )
        self.decay = self._made_decay(
            "tau",
            tau,
            (out_features,),
            learn_decay=learn_decay,
            frozen_fraction=frozen_fraction,
            decay_parametrization=decay_parametrization,
            generator=generator,
        )


class _LeakyReadout(SequenceLayer):
    """Non-spiking readout: the output is the leaky current c(t) itself."""

    state_type = LeakyReadoutState

    def _state_axes(self) -> dict[str, str | None]:
        return {"current": "J"}

    def _run(self, x: Tensor, state: LeakyReadoutState | None) -> tuple[Tensor, LeakyReadoutState]:
        decay = self._decays("decay")
        drive = _drive(self, x)
        zeros = drive.new_zeros(1, drive.shape[2], self.out_features)
        before = zeros if state is None else state.current
        currents = leaky_current.run(drive, decay, before, self.backend)
        return currents, LeakyReadoutState(last(currents, before))


class HomNeuReadout(_LeakyReadout):
    """Readout of `HomNeuLIF` and `HomNeuALIF` networks: one fixed time constant `tau` (default 20).

    Further arguments as in `HetSynReadout`. Attributes: `weight` [J, I], `decay()` -> [J].
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        tau: float = 20.0,
        generator: torch.Generator | None = None,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(in_features, out_features, generator=generator, **options)
        self.decay = self._made_decay("tau", _one_tau(tau), (out_features,), generator=generator)


class HetNeuReadout(_LeakyReadout):
    """Readout of `HetNeuLIF` networks: one learnable decay per output; `tau` as in `HetNeuLIF`.

    Further arguments as in `HetSynReadout`. Attributes: `weight` [J, I], `decay()` -> [J].
    """

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
            (out_features,),
            learn_decay=learn_decay,
            frozen_fraction=frozen_fraction,
            decay_parametrization=decay_parametrization,
            generator=generator,
        )
