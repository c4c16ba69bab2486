"""The operators and all their gradients in closed form: in-place PyTorch, no tape, memory O(T B (I
+ J)).

Shapes: R replicas, T steps, B samples, I inputs, J neurons, K feedback currents; time is axis 1.
Gradients of the loss are called g (of outputs) and d (of inputs). Inside a loop over time the
states of synapses lie as [R*J, B, I], so that each step is one fused multiply-add and one batched
product. The factors of that product are made contiguous first: for other strides PyTorch loops over
the batch, several times slower.

The identities, with x the trace of a synapse:

* dL/dz is the synaptic current of g, run backwards in time with w and r transposed:
  lambda(t) = g(t) + r lambda(t+1), dz_i(t) = sum_j w_ji lambda_ji(t).
* With y(t) = r y(t-1) + x(t-1), y = 0 at the start: dL/dw = sum g x and dL/dr = w sum g y. Nothing
  is divided by r, which may be 0.
* A feedback current is a synaptic current of s(t-1) with weight -strength, so its parameters follow
  from the same sums.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .steps import SpikeFunction, heaviside


def _rows(matrix: Tensor) -> Tensor:
    """[R, J, I] -> [R*J, 1, I]: one synaptic matrix row per neuron, broadcast over samples."""
    return matrix.contiguous().flatten(0, 1).unsqueeze(1)


def _lanes(steps: Tensor) -> Tensor:
    """[R, T, B, J] -> [T, R*J, 1, B]: what multiplies the traces of every neuron, sample by
    sample."""
    return steps.permute(1, 0, 3, 2).flatten(1, 2).unsqueeze(2).contiguous()


class _Traces:
    """Traces of every synapse, advanced in place: x [R*J, B, I], the natural layout [R, B, J, I]
    outside."""

    def __init__(self, trace: Tensor | None, decay: Tensor, batch: int) -> None:
        self._replicas, self._outputs, self._inputs = decay.shape
        if trace is None:
            self.x = decay.new_zeros(self._replicas * self._outputs, batch, self._inputs)
        else:
            # A copy: the caller's initial state is never written to.
            self.x = (
                trace.transpose(1, 2).clone(memory_format=torch.contiguous_format).flatten(0, 1)
            )
        # Every neuron of a replica sees the same input.
        self._by_replica = self.x.view(self._replicas, self._outputs, batch, self._inputs)
        self._decay_by_replica = decay.contiguous().unsqueeze(2)

    def advance(self, z: Tensor) -> None:
        """x <- r x + z, z [R, B, I]."""
        torch.addcmul(
            z.unsqueeze(1), self._decay_by_replica, self._by_replica, out=self._by_replica
        )

    def natural(self) -> Tensor:
        return self._by_replica.transpose(1, 2).contiguous()

    def weighted_sum(self, weight_rows: Tensor) -> Tensor:
        """sum_i w_ji x_ji, weight_rows [R*J, 1, I] -> [R, B, J]."""
        # Row times matrix: more than twice as fast as matrix times column.
        summed = torch.bmm(weight_rows, self.x.mT)
        return summed.view(self._replicas, self._outputs, -1).transpose(1, 2)


@torch.no_grad()
def synaptic_current(
    z: Tensor, weight: Tensor, decay: Tensor, trace: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """z [R, T, B, I], weight and decay [R, J, I], trace [R, B, J, I] -> current [R, T, B, J], final
    trace [R, B, J, I]."""
    replicas, steps, batch, _ = z.shape
    state = _Traces(trace, decay, batch)
    weight_rows = _rows(weight)
    current = z.new_empty(replicas, steps, batch, weight.shape[1])
    for t in range(steps):
        state.advance(z[:, t])
        current[:, t] = state.weighted_sum(weight_rows)
    return current, state.natural()


@torch.no_grad()
def synaptic_current_backward(
    g: Tensor, g_trace: Tensor | None, weight: Tensor, decay: Tensor
) -> tuple[Tensor, Tensor]:
    """g [R, T, B, J], g_trace [R, B, J, I] (of the final trace) -> dz [R, T, B, I], d_trace [R, B,
    J, I] (of the initial one)."""
    reversed_dz, final = synaptic_current(g.flip(1), weight.mT, decay.mT)
    dz = reversed_dz.flip(1)
    d_trace = (weight * decay).unsqueeze(1) * final.mT
    if g_trace is not None:
        carried = g_trace.clone()
        for t in reversed(range(g.shape[1])):
            dz[:, t] += carried.sum(2)
            carried *= decay.unsqueeze(1)
        d_trace += carried
    return dz, d_trace


def _add_product(total: Tensor, g: Tensor, states: Tensor) -> None:
    """total [R*J, 1, I] += g [R*J, 1, B] @ states [R*J, B, I]."""
    if g.shape[-1] == 1:  # the same without the fixed cost of a batched product
        total.addcmul_(g, states)
    else:
        total.baddbmm_(g, states)


@torch.no_grad()
def synaptic_parameter_gradient(
    z: Tensor,
    g: Tensor,
    g_trace: Tensor | None,
    weight: Tensor,
    decay: Tensor,
    trace: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """One forward sweep: z [R, T, B, I], g [R, T, B, J] and the states of `synaptic_current` -> dw,
    dr [R, J, I]."""
    state = _Traces(trace, decay, z.shape[2])
    rows = _rows(decay)
    y = torch.zeros_like(state.x)
    dw = torch.zeros_like(rows)
    dr = torch.zeros_like(rows)
    for t, g_t in enumerate(_lanes(g)):
        torch.addcmul(state.x, rows, y, out=y)
        state.advance(z[:, t])
        _add_product(dw, g_t, state.x)
        _add_product(dr, g_t, y)
    dw, dr = dw.view_as(weight), weight * dr.view_as(weight)
    if g_trace is not None:
        dr += (g_trace * y.view(*weight.shape[:2], *y.shape[1:]).transpose(1, 2)).sum(1)
    return dw, dr


@torch.no_grad()
def leaky_current(drive: Tensor, decay: Tensor, current: Tensor) -> Tensor:
    """c(t) = rho c(t-1) + u(t): drive [R, T, B, J], decay [R, J], current [R, B, J] -> [R, T, B,
    J]."""
    result = torch.empty_like(drive, memory_format=torch.contiguous_format)
    decay = decay.unsqueeze(1)
    for t in range(drive.shape[1]):
        current = torch.addcmul(drive[:, t], decay, current)
        result[:, t] = current
    return result


def _previous(steps: Tensor, initial: Tensor) -> Tensor:
    """What each step saw of the step before: [R, T, B, J] shifted by one, the initial value
    first."""
    return torch.cat([initial.unsqueeze(1), steps], dim=1)[:, : steps.shape[1]]


@torch.no_grad()
def leaky_current_backward(
    g: Tensor, result: Tensor, decay: Tensor, current: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """g and result [R, T, B, J] -> d_drive [R, T, B, J], d_decay [R, J], d_current [R, B, J]."""
    d_drive = leaky_current(g.flip(1), decay, torch.zeros_like(current)).flip(1)
    d_decay = (d_drive * _previous(result, current)).sum((1, 2))
    d_current = decay.unsqueeze(1) * d_drive[:, 0] if g.shape[1] else torch.zeros_like(current)
    return d_drive, d_decay, d_current


def _scan(
    current_at: Callable[[int, Tensor], Tensor],
    shape: torch.Size,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    spike_function: SpikeFunction,
) -> tuple[Tensor, Tensor, Tensor]:
    """Threshold and feedback over `current_at(t, s(t-1))` -> spikes, V, final feedback."""
    spikes, potentials = spike.new_empty(shape), spike.new_empty(shape)
    threshold = threshold.unsqueeze(1)
    decay, strength = feedback_decay.unsqueeze(2), feedback_strength.unsqueeze(2)
    for t in range(shape[1]):
        feedback = torch.addcmul(strength * spike.unsqueeze(1), decay, feedback)
        v = current_at(t, spike) - feedback.sum(1)
        spike = spike_function(v - threshold, threshold)
        spikes[:, t] = spike
        potentials[:, t] = v
    return spikes, potentials, feedback.clone()


def _feedback_parameter_gradient(
    g: Tensor,
    g_feedback: Tensor | None,
    spikes_before: Tensor,
    decay: Tensor,
    strength: Tensor,
    feedback: Tensor,
) -> tuple[Tensor, Tensor]:
    """g = dL/dV [R, T, B, J], s(t-1) [R, T, B, J], initial feedback [R, K, B, J] -> d_decay,
    d_strength [R, K, J]."""
    decay, strength = decay.unsqueeze(2), strength.unsqueeze(2)
    to_strength, to_decay = torch.zeros_like(feedback), torch.zeros_like(feedback)
    d_strength, d_decay = torch.zeros_like(feedback), torch.zeros_like(feedback)
    for t in range(g.shape[1]):
        s = spikes_before[:, t].unsqueeze(1)
        to_decay = torch.addcmul(feedback, decay, to_decay)
        to_strength = torch.addcmul(s, decay, to_strength)
        feedback = torch.addcmul(strength * s, decay, feedback)
        g_t = g[:, t].unsqueeze(1)
        d_strength.addcmul_(g_t, to_strength, value=-1)
        d_decay.addcmul_(g_t, to_decay, value=-1)
    if g_feedback is not None:
        d_strength += g_feedback * to_strength
        d_decay += g_feedback * to_decay
    return d_decay.sum(2), d_strength.sum(2)


def _reverse_scan(
    through_current: Callable[[int, Tensor], Tensor | None],
    g_spikes: Tensor | None,
    g_potential: Tensor | None,
    g_feedback: Tensor | None,
    derivative: Tensor,
    spikes: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    detach_reset: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Reverse of `_scan`.

    `derivative` is ds/dV [R, T, B, J]. `through_current(t, dL/dV(t))` returns what the current
    sends back to s(t-1), or None. Returns dL/dV [R, T, B, J], d_threshold [R, J] (by way of the
    spike alone: the strength of the reset has its own gradient), d_feedback_decay and
    d_feedback_strength [R, K, J], d_feedback [R, K, B, J], d_spike [R, B, J].
    """
    g_v = torch.empty_like(derivative, memory_format=torch.contiguous_format)
    d_threshold = torch.zeros_like(spike)
    d_feedback = torch.zeros_like(feedback) if g_feedback is None else g_feedback.clone()
    d_spike = torch.zeros_like(spike)
    decay, strength = feedback_decay.unsqueeze(2), feedback_strength.unsqueeze(2)
    for t in reversed(range(spikes.shape[1])):
        if g_spikes is not None:
            d_spike = d_spike + g_spikes[:, t]
        g = derivative[:, t] * d_spike
        d_threshold -= g
        if g_potential is not None:
            g = g + g_potential[:, t]
        g_v[:, t] = g
        at_step = d_feedback - g.unsqueeze(1)
        d_feedback = decay * at_step
        d_spike = torch.zeros_like(spike) if detach_reset else (strength * at_step).sum(1)
        recurrent = through_current(t, g)
        if recurrent is not None:
            d_spike = d_spike + recurrent
    d_decay, d_strength = _feedback_parameter_gradient(
        g_v, g_feedback, _previous(spikes, spike), feedback_decay, feedback_strength, feedback
    )
    return g_v, d_threshold.sum(1), d_decay, d_strength, d_feedback, d_spike


@torch.no_grad()
def spike_scan(
    current: Tensor,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    spike_function: SpikeFunction = heaviside,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `loop.spike_scan`: -> spikes, V [R, T, B, J], final feedback [R, K, B, J]."""
    return _scan(
        lambda t, _: current[:, t],
        current.shape,
        threshold,
        feedback_decay,
        feedback_strength,
        feedback,
        spike,
        spike_function,
    )


@torch.no_grad()
def spike_scan_backward(
    g_spikes: Tensor | None,
    g_potential: Tensor | None,
    g_feedback: Tensor | None,
    derivative: Tensor,
    spikes: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    detach_reset: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """-> d_current, d_threshold, d_feedback_decay, d_feedback_strength, d_feedback, d_spike
    (shapes: `_reverse_scan`)."""
    return _reverse_scan(
        lambda t, g: None,
        g_spikes,
        g_potential,
        g_feedback,
        derivative,
        spikes,
        feedback_decay,
        feedback_strength,
        feedback,
        spike,
        detach_reset,
    )


@torch.no_grad()
def recurrent_scan(
    current: Tensor,
    weight: Tensor,
    decay: Tensor,
    trace: Tensor | None,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    spike_function: SpikeFunction = heaviside,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `loop.recurrent_scan`: -> spikes, V, final feedback, final recurrent trace [R, B, J,
    J]."""
    state = _Traces(trace, decay, current.shape[2])
    weight_rows = _rows(weight)

    def current_at(t: int, spike: Tensor) -> Tensor:
        state.advance(spike)
        return current[:, t] + state.weighted_sum(weight_rows)

    spikes, potentials, feedback = _scan(
        current_at,
        current.shape,
        threshold,
        feedback_decay,
        feedback_strength,
        feedback,
        spike,
        spike_function,
    )
    return spikes, potentials, feedback, state.natural()


@torch.no_grad()
def recurrent_scan_backward(
    g_spikes: Tensor | None,
    g_potential: Tensor | None,
    g_feedback: Tensor | None,
    g_trace: Tensor | None,
    derivative: Tensor,
    spikes: Tensor,
    weight: Tensor,
    decay: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    detach_reset: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """-> the six of `spike_scan_backward` and d_trace [R, B, J, J].

    The gradients of weight and decay are `synaptic_parameter_gradient` with z = s(t-1) and g =
    d_current.
    """
    state = _Traces(None, decay.mT, spikes.shape[2])
    weight_rows = _rows(weight.mT)
    carried = None if g_trace is None else g_trace.clone()

    def through_current(t: int, g: Tensor) -> Tensor:
        state.advance(g)
        back = state.weighted_sum(weight_rows)
        if carried is not None:
            back = back + carried.sum(2)
            carried.mul_(decay.unsqueeze(1))
        return back

    gradients = _reverse_scan(
        through_current,
        g_spikes,
        g_potential,
        g_feedback,
        derivative,
        spikes,
        feedback_decay,
        feedback_strength,
        feedback,
        spike,
        detach_reset,
    )
    d_trace = (weight * decay).unsqueeze(1) * state.natural().mT
    return *gradients, d_trace if carried is None else d_trace + carried


@torch.no_grad()
def leaky_recurrent_scan(
    drive: Tensor,
    weight: Tensor,
    decay: Tensor,
    current: Tensor,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    spike_function: SpikeFunction = heaviside,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `loop.leaky_recurrent_scan`: -> spikes, V, final feedback, current c [R, T, B, J]."""
    currents = torch.empty_like(drive, memory_format=torch.contiguous_format)
    decay = decay.unsqueeze(1)

    def current_at(t: int, spike: Tensor) -> Tensor:
        before = currents[:, t - 1] if t else current
        currents[:, t] = torch.addcmul(torch.baddbmm(drive[:, t], spike, weight.mT), decay, before)
        return currents[:, t]

    spikes, potentials, feedback = _scan(
        current_at,
        drive.shape,
        threshold,
        feedback_decay,
        feedback_strength,
        feedback,
        spike,
        spike_function,
    )
    return spikes, potentials, feedback, currents


@torch.no_grad()
def leaky_recurrent_scan_backward(
    g_spikes: Tensor | None,
    g_potential: Tensor | None,
    g_feedback: Tensor | None,
    g_currents: Tensor | None,
    derivative: Tensor,
    spikes: Tensor,
    currents: Tensor,
    weight: Tensor,
    decay: Tensor,
    current: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    detach_reset: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """-> d_drive [R, T, B, J], d_weight [R, J, J], d_decay [R, J], d_current [R, B, J],
    d_threshold, d_feedback_decay, d_feedback_strength, d_feedback, d_spike."""
    d_drive = torch.empty_like(derivative, memory_format=torch.contiguous_format)
    d_current = torch.zeros_like(current)
    row_decay = decay.unsqueeze(1)

    def through_current(t: int, g: Tensor) -> Tensor:
        nonlocal d_current
        at_step = g + d_current if g_currents is None else g + d_current + g_currents[:, t]
        d_drive[:, t] = at_step
        d_current = row_decay * at_step
        return torch.bmm(at_step, weight)

    _, d_threshold, d_feedback_decay, d_feedback_strength, d_feedback, d_spike = _reverse_scan(
        through_current,
        g_spikes,
        g_potential,
        g_feedback,
        derivative,
        spikes,
        feedback_decay,
        feedback_strength,
        feedback,
        spike,
        detach_reset,
    )
    d_weight = torch.bmm(d_drive.flatten(1, 2).mT, _previous(spikes, spike).flatten(1, 2))
    d_decay = (d_drive * _previous(currents, current)).sum((1, 2))
    return (
        d_drive,
        d_weight,
        d_decay,
        d_current,
        d_threshold,
        d_feedback_decay,
        d_feedback_strength,
        d_feedback,
        d_spike,
    )
