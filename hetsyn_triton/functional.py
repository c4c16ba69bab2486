"""The operators as functions: checked arguments, named states, gradients of everything.

Shapes are [T, B, N] with parameters [J, I] or [J]; with a leading replica axis everywhere,
[R, T, B, N] and [R, J, I] or [R, J], one call runs R independent networks. T or B may be 0: nothing
happens, and the state comes back as it was.

Inputs may be bool, uint8, int8, float16, bfloat16 or the parameters' dtype; parameters and states
are float32 or float64. Errors: ValueError for shapes, devices and values, TypeError for types.
Parameter values are checked on the CPU only, see `hetsyn_triton.validation`. Autocast does not
reach inside: states and sums keep the parameters' dtype.
"""

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor

from . import ops
from . import validation as check
from .states import NeuronState
from .surrogates import Surrogate, Triangular

__all__ = [
    "feedforward_scan",
    "leaky_current",
    "leaky_recurrent_scan",
    "recurrent_scan",
    "spike_scan",
    "synaptic_current",
]


def synaptic_current(
    z: Tensor, weight: Tensor, decay: Tensor, trace: Tensor | None = None, *, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Summed synaptic current, one decay per synapse: x(t) = r x(t-1) + z(t), c(t) = sum_i w x(t).

    z [T, B, I], weight and decay [J, I], trace [B, J, I] (None: zeros)
    -> current [T, B, J], final trace [B, J, I]. HetSyn, the equation of I_ji.
    """
    replicated = _check_synapses(z, weight, decay, trace)
    z = check.as_input("z", z, weight.dtype)
    operator = partial(ops.synaptic_current, backend=backend)
    current, trace = _run(operator, replicated, z, weight, decay, trace)
    return current, trace


def leaky_current(
    drive: Tensor, decay: Tensor | float, current: Tensor | None = None, *, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Leaky integration, one decay per neuron: c(t) = rho c(t-1) + u(t).

    drive u [T, B, J], decay rho a number or [J], current [B, J] (None: zeros)
    -> current [T, B, J], the last of them [B, J].
    """
    replicated = _check_steps("drive", drive)
    check.check_parameter_dtype("drive", drive.dtype)
    decay = _per_neuron("decay", decay, drive)
    current = _initial("current", current, drive)
    check.check_unit_interval("decay", decay)
    operator = partial(ops.leaky_current, backend=backend)
    (currents,) = _run(operator, replicated, drive, decay, current)
    return currents, _last(currents, current)


def spike_scan(
    current: Tensor,
    threshold: Tensor | float,
    reset_decay: Tensor | float,
    state: NeuronState | None = None,
    *,
    adaptation_decay: Tensor | float | None = None,
    adaptation_strength: Tensor | float | None = None,
    surrogate: Surrogate = Triangular(),  # noqa: B008 - frozen
    detach_reset: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, NeuronState]:
    """Threshold and reset over given currents: V = c - J - J_a, s = 1 if V > threshold else 0.

    J(t) = kappa J(t-1) + threshold s(t-1); with adaptation, J_a(t) = rho_a J_a(t-1) + a s(t-1).

    current c [T, B, J]; threshold, reset_decay kappa, adaptation_decay rho_a and
    adaptation_strength a: numbers or [J]; state: None for zeros
    -> spikes [T, B, J], V [T, B, J], state. `surrogate(V - threshold, threshold)` stands for ds/dV;
    `detach_reset` stops the gradient from J and J_a to the spikes that drive them.
    """
    replicated = _check_steps("current", current)
    check.check_parameter_dtype("current", current.dtype)
    neuron = _Neuron(
        current, threshold, reset_decay, adaptation_decay, adaptation_strength, state, surrogate
    )
    spikes, potential, feedback = _run(
        partial(ops.spike_scan, surrogate=surrogate, detach_reset=detach_reset, backend=backend),
        replicated,
        current,
        *neuron.tensors,
    )
    return spikes, potential, neuron.state_after(spikes, feedback)


def feedforward_scan(
    z: Tensor,
    weight: Tensor,
    decay: Tensor,
    threshold: Tensor | float,
    reset_decay: Tensor | float,
    trace: Tensor | None = None,
    state: NeuronState | None = None,
    *,
    adaptation_decay: Tensor | float | None = None,
    adaptation_strength: Tensor | float | None = None,
    surrogate: Surrogate = Triangular(),  # noqa: B008 - frozen
    detach_reset: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor, NeuronState]:
    """A feedforward layer: `synaptic_current`, then `spike_scan` of it, as one operator.

    z [T, B, I], weight and decay [J, I], trace [B, J, I] (None: zeros); the rest as in
    `spike_scan` -> spikes [T, B, J], V [T, B, J], final trace, state. The same numbers as the two
    one after the other, to rounding.
    """
    replicated = _check_synapses(z, weight, decay, trace)
    z = check.as_input("z", z, weight.dtype)
    # As the current would be: neither its values nor its memory are needed here.
    current = z.new_empty(1).expand(*z.shape[:-1], weight.shape[-2])
    neuron = _Neuron(
        current, threshold, reset_decay, adaptation_decay, adaptation_strength, state, surrogate
    )
    spikes, potential, feedback, trace = _run(
        partial(
            ops.feedforward_scan, surrogate=surrogate, detach_reset=detach_reset, backend=backend
        ),
        replicated,
        z,
        weight,
        decay,
        trace,
        *neuron.tensors,
    )
    return spikes, potential, trace, neuron.state_after(spikes, feedback)


def recurrent_scan(
    current: Tensor,
    weight: Tensor,
    decay: Tensor,
    threshold: Tensor | float,
    reset_decay: Tensor | float,
    trace: Tensor | None = None,
    state: NeuronState | None = None,
    *,
    adaptation_decay: Tensor | float | None = None,
    adaptation_strength: Tensor | float | None = None,
    surrogate: Surrogate = Triangular(),  # noqa: B008 - frozen
    detach_reset: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor, NeuronState]:
    """`spike_scan` with recurrent synapses driven by s(t-1), one decay per synapse.

    current [T, B, J] from outside; weight and decay [J, J], postsynaptic neuron first;
    trace [B, J, J] (None: zeros) -> spikes, V, final trace, state.
    """
    replicated = _check_steps("current", current)
    check.check_parameter_dtype("current", current.dtype)
    check.check_like("weight", weight, "current", current)
    check.check_like("decay", decay, "current", current)
    square = (*current.shape[:-3], current.shape[-1], current.shape[-1])
    check.check_shape("weight", weight, square, _axes("J, J", current))
    check.check_shape("decay", decay, square, _axes("J, J", current))
    if trace is not None:
        check.check_like("trace", trace, "current", current)
        shape = (*current.shape[:-3], current.shape[-2], *square[-2:])
        check.check_shape("trace", trace, shape, _axes("B, J, J", current))
    neuron = _Neuron(
        current, threshold, reset_decay, adaptation_decay, adaptation_strength, state, surrogate
    )
    check.check_finite("weight", weight)
    check.check_unit_interval("decay", decay)
    spikes, potential, feedback, trace = _run(
        partial(
            ops.recurrent_scan, surrogate=surrogate, detach_reset=detach_reset, backend=backend
        ),
        replicated,
        current,
        weight,
        decay,
        trace,
        *neuron.tensors,
    )
    return spikes, potential, trace, neuron.state_after(spikes, feedback)


def leaky_recurrent_scan(
    drive: Tensor,
    weight: Tensor,
    decay: Tensor | float,
    threshold: Tensor | float,
    reset_decay: Tensor | float,
    current: Tensor | None = None,
    state: NeuronState | None = None,
    *,
    adaptation_decay: Tensor | float | None = None,
    adaptation_strength: Tensor | float | None = None,
    surrogate: Surrogate = Triangular(),  # noqa: B008 - frozen
    detach_reset: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor, NeuronState]:
    """Recurrent neurons with one decay each: c(t) = rho c(t-1) + u(t) + W s(t-1), then threshold.

    drive u [T, B, J], weight W [J, J], decay rho a number or [J], current [B, J] (None: zeros)
    -> spikes, V, final current [B, J], state. The rest as in `spike_scan`.
    """
    replicated = _check_steps("drive", drive)
    check.check_parameter_dtype("drive", drive.dtype)
    check.check_like("weight", weight, "drive", drive)
    square = (*drive.shape[:-3], drive.shape[-1], drive.shape[-1])
    check.check_shape("weight", weight, square, _axes("J, J", drive))
    decay = _per_neuron("decay", decay, drive)
    current = _initial("current", current, drive)
    neuron = _Neuron(
        drive, threshold, reset_decay, adaptation_decay, adaptation_strength, state, surrogate
    )
    check.check_finite("weight", weight)
    check.check_unit_interval("decay", decay)
    spikes, potential, feedback, currents = _run(
        partial(
            ops.leaky_recurrent_scan,
            surrogate=surrogate,
            detach_reset=detach_reset,
            backend=backend,
        ),
        replicated,
        drive,
        weight,
        decay,
        current,
        *neuron.tensors,
    )
    return spikes, potential, _last(currents, current), neuron.state_after(spikes, feedback)


class _Neuron:
    """Threshold, feedback currents and state, checked and stacked as the operators want them."""

    def __init__(
        self,
        steps: Tensor,
        threshold: Tensor | float,
        reset_decay: Tensor | float,
        adaptation_decay: Tensor | float | None,
        adaptation_strength: Tensor | float | None,
        state: NeuronState | None,
        surrogate: Surrogate,
    ) -> None:
        check.check_surrogate(surrogate)
        if (adaptation_decay is None) != (adaptation_strength is None):
            raise ValueError(
                "adaptation_decay and adaptation_strength: expected both or neither, got only "
                f"{'adaptation_strength' if adaptation_decay is None else 'adaptation_decay'}"
            )
        theta = _per_neuron("threshold", threshold, steps)
        kappa = _per_neuron("reset_decay", reset_decay, steps)
        decays, strengths = [kappa], [theta]
        check.check_positive("threshold", theta)
        check.check_unit_interval("reset_decay", kappa)
        self.adapts = adaptation_decay is not None and adaptation_strength is not None
        if adaptation_decay is not None and adaptation_strength is not None:
            decays.append(_per_neuron("adaptation_decay", adaptation_decay, steps))
            strengths.append(_per_neuron("adaptation_strength", adaptation_strength, steps))
            check.check_unit_interval("adaptation_decay", decays[1])
            check.check_finite("adaptation_strength", strengths[1])
        if state is not None and not isinstance(state, NeuronState):
            raise TypeError(f"state: expected NeuronState, got {type(state).__name__}")
        if state is not None and (state.adaptation is None) == self.adapts:
            raise ValueError(
                f"state.adaptation: expected {'a tensor' if self.adapts else 'None'}, "
                f"got {'None' if self.adapts else 'a tensor'}"
            )
        reset = _initial("state.reset", state and state.reset, steps)
        feedback = [reset]
        if self.adapts:
            feedback.append(_initial("state.adaptation", state and state.adaptation, steps))
        self.spike = _initial("state.spike", state and state.spike, steps)
        self.tensors = (
            theta,
            torch.stack(decays, dim=-2),
            torch.stack(strengths, dim=-2),
            torch.stack(feedback, dim=-3),
            self.spike,
        )

    def state_after(self, spikes: Tensor, feedback: Tensor) -> NeuronState:
        reset, *adaptation = feedback.unbind(-3)
        return NeuronState(reset, adaptation[0] if self.adapts else None, _last(spikes, self.spike))


def _run(
    operator: Callable[..., Tensor | tuple[Tensor, ...]], replicated: bool, *tensors: Tensor | None
) -> tuple[Tensor, ...]:
    """Calls an operator with the replica axis added where the caller has none, autocast off."""
    device = next(t.device for t in tensors if t is not None)
    if not replicated:
        tensors = tuple(None if t is None else t.unsqueeze(0) for t in tensors)
    with ops.full_precision(device):
        result = operator(*tensors)
    outputs = (result,) if isinstance(result, Tensor) else result
    return outputs if replicated else tuple(output.squeeze(0) for output in outputs)


def _check_synapses(z: Tensor, weight: Tensor, decay: Tensor, trace: Tensor | None) -> bool:
    """Whether z has a replica axis; an error naming the argument unless all four fit together."""
    replicated = _check_steps("z", z)
    _check_matrix("weight", weight, z.shape[-1], replicated, "I")
    check.check_like("decay", decay, "weight", weight)
    check.check_shape("decay", decay, weight.shape, "as weight")
    check.check_device("z", z, "weight", weight)
    if replicated:
        _check_replicas("weight", weight, z)
    if trace is not None:
        check.check_like("trace", trace, "weight", weight)
        shape = (*z.shape[:-3], z.shape[-2], *weight.shape[-2:])
        check.check_shape("trace", trace, shape, _axes("B, J, I", z))
    check.check_finite("weight", weight)
    check.check_unit_interval("decay", decay)
    return replicated


def _check_steps(name: str, value: Tensor) -> bool:
    """Whether `value` has a replica axis; ValueError unless it is [T, B, N] or [R, T, B, N]."""
    check.check_tensor(name, value)
    if value.dim() not in (3, 4):
        raise ValueError(
            f"{name}: expected [T, B, N] or [R, T, B, N], got shape {tuple(value.shape)}"
        )
    return value.dim() == 4


def _axes(axes: str, steps: Tensor) -> str:
    """Names of axes as errors show them, R in front where `steps` has replicas."""
    return f"[{'R, ' * (steps.dim() == 4)}{axes}]"


def _check_matrix(name: str, value: Tensor, inputs: int, replicated: bool, axis: str) -> None:
    check.check_tensor(name, value)
    check.check_parameter_dtype(name, value.dtype)
    expected = f"[{'R, ' * replicated}J, {axis}]"
    if value.dim() != 2 + replicated or value.shape[-1] != inputs:
        raise ValueError(
            f"{name}: expected {expected} with {axis} = {inputs}, got shape {tuple(value.shape)}"
        )


def _check_replicas(name: str, value: Tensor, steps: Tensor) -> None:
    if value.shape[0] != steps.shape[0]:
        raise ValueError(
            f"{name}: expected R = {steps.shape[0]} replicas as the input has, got {value.shape[0]}"
        )


def _per_neuron(name: str, value: Tensor | float, steps: Tensor) -> Tensor:
    """A number or [J] tensor as a tensor [J], or [R, J] where `steps` has replicas."""
    shape = (*steps.shape[:-3], steps.shape[-1])
    if check.is_number(value):
        return torch.full(shape, float(value), dtype=steps.dtype, device=steps.device)
    value = cast(Tensor, value)
    check.check_like(name, value, "the input", steps)
    if value.dim() == 0:
        return value.expand(shape)
    check.check_shape(name, value, shape, _axes("J", steps))
    return value


def _initial(name: str, value: Tensor | None, steps: Tensor) -> Tensor:
    """A state [B, J], zeros where None is given."""
    shape = (*steps.shape[:-3], *steps.shape[-2:])
    if value is None:
        return steps.new_zeros(shape)
    check.check_like(name, value, "the input", steps)
    check.check_shape(name, value, shape, _axes("B, J", steps))
    return value


def _last(steps: Tensor, before: Tensor) -> Tensor:
    """The last time step, without any the state before: a copy, which keeps no sequence alive."""
    return (steps.select(-3, -1) if steps.shape[-3] else before).clone()
