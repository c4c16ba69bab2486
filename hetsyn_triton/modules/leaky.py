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
from .layer_options import LayerOptions, SpikingOptions


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
            spikes, potential, feedback, currents = leaky_recurrent_scan.run(
                drive, recurrent_weight, decay, before, neuron, *self._scan
            )
        else:
            currents = leaky_current.run(drive, decay, before, self.backend)
            spikes, potential, feedback = spike_scan.run(currents, neuron, *self._scan)
        self._check_given(potential, x, state)
        after = state_after(neuron, spikes, feedback)
        return spikes, LeakyState(last(currents, before), *after)


class HomNeuLIF(_LeakyLIF):
    """Plain LIF neurons: one fixed decay for all synapses.

    Args:
        in_features: Number of inputs I.
        out_features: Number of neurons J.
        tau: Time constant of every synapse, a number. Default: 20.
        tau_reset: Time constant of the reset current, or "tied" for that of the synapses. Default:
            20.
        self_connections: Whether a neuron of a recurrent layer may feed itself. Default: False, as
            in the experiments of the HetSyn paper.
        adaptation: As in `HetSynLIF`; so are `tau_adaptation`, `generator`, `recurrent`,
            `weight_init`, `recurrent_weight_init`, `threshold`, `learn_threshold`, `dt`,
            `surrogate`, `detach_reset`, `batch_first`, `backend`, `device` and `dtype`.

    Attributes:
        weight: Weights [J, I].
        recurrent_weight: Weights [J, J], or None.
        decay: A `Decay`; `decay()` returns the decay of each neuron [J].

    Raises:
        ValueError: If a value is not allowed; the message names the argument.
        TypeError: If a type does not fit.

    Example:
        >>> spikes, state = HomNeuLIF(8, 4, tau=10.0)(torch.rand(20, 2, 8))
        >>> spikes.shape, state.current.shape
        (torch.Size([20, 2, 4]), torch.Size([2, 4]))
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
    """Adaptive LIF neurons: `HomNeuLIF` with an adaptation current.

        J_a(t) = rho_a J_a(t-1) + a s(t-1),    V(t) = c(t) - J(t) - J_a(t)

    Args:
        in_features: Number of inputs I.
        out_features: Number of neurons J.
        adaptation: Strength a. Default: 0.05, the value of the HetSyn paper for SHD.
        tau_adaptation: Time constant in the unit of `dt`. Default: 100.
        tau: As in `HomNeuLIF`; so are all other arguments.

    Raises:
        ValueError: If a value is not allowed; the message names the argument.
        TypeError: If a type does not fit.

    Example:
        >>> spikes, state = HomNeuALIF(8, 4)(torch.rand(20, 2, 8))
        >>> state.adaptation.shape
        torch.Size([2, 4])
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
    """LIF neurons with one learned decay per neuron, shared by its input and recurrent synapses.

    Args:
        in_features: Number of inputs I.
        out_features: Number of neurons J.
        tau: Time constants in the unit of `dt`: a number, a distribution or a tensor [J]. Default:
            uniform from 5 to 20.
        tau_reset: Time constant of the reset current. "tied" takes the neuron's own decay, which
            then learns through the reset too. Default: 20.
        self_connections: As in `HetSynLIF`; so are all other arguments. There is no
            `tau_recurrent`.

    Attributes:
        weight: Weights [J, I].
        recurrent_weight: Weights [J, J], or None.
        decay: A `Decay`; `decay()` returns the decay of each neuron [J].

    Raises:
        ValueError: If a value is not allowed; the message names the argument.
        TypeError: If a type does not fit.

    Example:
        >>> layer = HetNeuLIF(8, 4, tau=Uniform(2.0, 50.0))
        >>> layer.decay().shape
        torch.Size([4])
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
        self._check_given(currents, x, state)
        return currents, LeakyReadoutState(last(currents, before))


class HomNeuReadout(_LeakyReadout):
    """Readout without threshold for `HomNeuLIF` and `HomNeuALIF`: one fixed decay.

    Args:
        in_features: Number of inputs I.
        out_features: Number of outputs J.
        tau: Time constant in the unit of `dt`, a number. Default: 20.
        generator: As in `HetSynReadout`; so are `weight_init`, `dt`, `batch_first`, `backend`,
            `device` and `dtype`.

    Attributes:
        weight: Weights [J, I].
        decay: A `Decay`; `decay()` returns the decay of each output [J].

    Raises:
        ValueError: If a value is not allowed; the message names the argument.
        TypeError: If a type does not fit.

    Example:
        >>> output, state = HomNeuReadout(4, 3)(torch.rand(20, 2, 4))
        >>> output.shape
        torch.Size([20, 2, 3])
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
    """Readout without threshold for `HetNeuLIF`: one learned decay per output.

    Args:
        in_features: Number of inputs I.
        out_features: Number of outputs J.
        tau: Time constants in the unit of `dt`: a number, a distribution or a tensor [J]. Default:
            uniform from 5 to 20.
        learn_decay: As in `HetSynReadout`; so are all other arguments.

    Attributes:
        weight: Weights [J, I].
        decay: A `Decay`; `decay()` returns the decay of each output [J].

    Raises:
        ValueError: If a value is not allowed; the message names the argument.
        TypeError: If a type does not fit.

    Example:
        >>> HetNeuReadout(4, 3).decay().shape
        torch.Size([3])
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
