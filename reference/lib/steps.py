"""The equations of one time step, as in the paper.

Every tensor carries a leading replica axis R (independent networks); B samples, I inputs, J
neurons, K feedback currents.

Synapses (HetSyn, NeurIPS 2025, eq. for I_ji and V_j):

    I_ji(t) = r_ji I_ji(t-1) + w_ji z_i(t)          decay, then add: a spike acts in its own step
    V_j(t)  = sum_i I_ji(t) - J_j(t)
    J_j(t)  = kappa J_j(t-1) + theta s_j(t-1)
    s_j(t)  = 1 if V_j(t) > theta else 0

The state kept for a synapse is its trace x, x(t) = r x(t-1) + z(t), with I = w x: the same current
while w does not change, one multiplication less per step, and still defined where w = 0.

The reset current and the adaptation current obey one law, F(t) = decay F(t-1) + strength s(t-1):
the reset has strength theta, the adaptation its own. They are stacked along K and called feedback
currents.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

SpikeFunction = Callable[[Tensor, Tensor], Tensor]
"""Maps (V - theta, theta) to the spike; differentiable where gradients are wanted."""


def trace_step(trace: Tensor, z: Tensor, decay: Tensor) -> Tensor:
    """x(t) = r x(t-1) + z(t). Shapes: trace [R, B, J, I], z [R, B, I], decay [R, J, I]."""
    return decay.unsqueeze(1) * trace + z.unsqueeze(2)


def synaptic_sum(trace: Tensor, weight: Tensor) -> Tensor:
    """sum_i I_ji = sum_i w_ji x_ji. Shapes: trace [R, B, J, I], weight [R, J, I] -> [R, B, J]."""
    return (weight.unsqueeze(1) * trace).sum(-1)


def leaky_step(current: Tensor, drive: Tensor, decay: Tensor) -> Tensor:
    """c(t) = rho c(t-1) + u(t), one decay per neuron. Shapes: current, drive [R, B, J], decay [R,
    J]."""
    return decay.unsqueeze(1) * current + drive


def feedback_step(feedback: Tensor, spike: Tensor, decay: Tensor, strength: Tensor) -> Tensor:
    """F(t) = decay F(t-1) + strength s(t-1). Shapes: feedback [R, K, B, J], spike [R, B, J], decay
    and strength [R, K, J]."""
    return decay.unsqueeze(2) * feedback + strength.unsqueeze(2) * spike.unsqueeze(1)


def membrane_potential(current: Tensor, feedback: Tensor) -> Tensor:
    """V(t) = c(t) - sum_k F_k(t). Shapes: current [R, B, J], feedback [R, K, B, J]."""
    return current - feedback.sum(1)


def previous_steps(steps: Tensor, initial: Tensor) -> Tensor:
    """What each step saw of the step before: [R, T, B, J] shifted by one, the initial value
    first."""
    return torch.cat([initial.unsqueeze(1), steps], dim=1)[:, : steps.shape[1]]


def heaviside(distance: Tensor, threshold: Tensor) -> Tensor:
    """s = 1 if V - theta > 0 else 0 (strict), in the dtype of V; no gradient."""
    return (distance > 0).to(distance.dtype)


def spike_derivative(surrogate: SpikeFunction, distance: Tensor, threshold: Tensor) -> Tensor:
    """ds/dV by a surrogate, in the shape of V - theta; ValueError where it has another."""
    derivative = surrogate(distance, threshold)
    if derivative.shape != distance.shape or derivative.dtype != distance.dtype:
        raise ValueError(
            f"surrogate: expected a tensor like V - threshold, {tuple(distance.shape)} of "
            f"{distance.dtype}, got {tuple(derivative.shape)} of {derivative.dtype}"
        )
    return derivative


class _SurrogateSpike(torch.autograd.Function):
    """Heaviside forward; backward multiplies by the surrogate's derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(distance: Tensor, threshold: Tensor, derivative: SpikeFunction) -> Tensor:
        return heaviside(distance, threshold)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        distance, threshold, ctx.derivative = inputs
        ctx.save_for_backward(distance, threshold)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        distance, threshold = ctx.saved_tensors
        return grad * spike_derivative(ctx.derivative, distance, threshold), None, None


def surrogate_spike(derivative: SpikeFunction) -> SpikeFunction:
    """A Heaviside spike whose gradient with respect to V - theta is `derivative(V - theta,
    theta)`."""

    def spike(distance: Tensor, threshold: Tensor) -> Tensor:
        spikes = _SurrogateSpike.apply(distance, threshold, derivative)  # type: ignore[no-untyped-call]
        return cast(Tensor, spikes)

    return spike


def stack_steps(steps: list[Tensor], like: Tensor) -> Tensor:
    """Join steps along time; no steps give a tensor shaped as `like` with T = 0."""
    return torch.stack(steps, dim=1) if steps else like.unsqueeze(1)[:, :0]
