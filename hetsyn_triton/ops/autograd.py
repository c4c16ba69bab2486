"""The operators under autograd: one autograd.Function each, around the raw forwards and backwards.

Written with `setup_context` and a vmap rule, so that `torch.compile(fullgraph=True)`,
`torch.func.grad`, `vmap(grad)` and `torch.export` pass. Every `forward` names its arguments: the
compiler counts them to tell whether it takes a context. Gradients are defined once: the gradient of
a gradient raises.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hetsyn_triton.surrogates import Surrogate

from . import between, raw
from .library import vmap_over_replicas


class _NoFurther(torch.autograd.Function):
    """Hands `count` gradients on, tied to all they were made from; their own gradient raises.

    PyTorch's `once_differentiable` returns zeros under nested `torch.func.grad`, and raises nothing
    where the incoming gradient is a constant.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(count: int, *tensors: Tensor) -> Any:
        return tuple(t.view_as(t) for t in tensors[:count])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> Any:
        raise RuntimeError(
            "the operators have first derivatives only, not the gradient of a gradient; "
            "backend='reference' has both"
        )


def _once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a backward made of raw operators: without a tape, and its gradient raises."""

    def run(ctx: Any, *g: Tensor | None) -> Any:
        with torch.no_grad():
            gradients = backward(ctx, *g)
        # A compiled backward is never differentiated again: AOTAutograd refuses by itself.
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return gradients
        found = [d for d in gradients if d is not None]
        sources = [t for t in (*g, *ctx.saved_tensors) if t is not None]
        tie: Callable[..., Any] = _NoFurther.apply
        tied = iter(tie(len(found), *found, *sources))
        return tuple(None if d is None else next(tied) for d in gradients)

    return run


def _synaptic_gradients(
    needed: Sequence[bool],
    g: Tensor,
    g_trace: Tensor | None,
    z: Tensor,
    weight: Tensor,
    decay: Tensor,
    trace: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """Gradients of (z, weight, decay, trace) where `needed`, from g = dL/dc and g_trace."""
    dz = dw = dr = d_trace = None
    need_z, need_w, need_r, need_trace = needed
    if need_z or need_trace:
        dz, d_trace = raw.synaptic_current_backward(g, g_trace, weight, decay)
    if need_w or need_r:
        dw, dr = raw.synaptic_parameter_gradient(z, g, g_trace, weight, decay, trace)
    # An absent initial trace takes no gradient.
    return dz, dw, dr, None if trace is None else d_trace


@vmap_over_replicas
class SynapticCurrent(torch.autograd.Function):
    """(z, weight, decay, trace) -> (current, final trace)."""

    @staticmethod
    def forward(z: Tensor, weight: Tensor, decay: Tensor, trace: Tensor | None) -> Any:
        return raw.synaptic_current(z, weight, decay, trace)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)

    @staticmethod
    @_once
    def backward(ctx: Any, g: Tensor | None, g_trace: Tensor | None) -> Any:
        z, weight, decay, trace = ctx.saved_tensors
        if g is None:
            g = z.new_zeros(*z.shape[:3], weight.shape[1])
        return _synaptic_gradients(ctx.needs_input_grad, g, g_trace, z, weight, decay, trace)


@vmap_over_replicas
class LeakyCurrent(torch.autograd.Function):
    """(drive, decay, current) -> current of every step."""

    @staticmethod
    def forward(drive: Tensor, decay: Tensor, current: Tensor) -> Any:
        return raw.leaky_current(drive, decay, current)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, decay, current = inputs
        ctx.save_for_backward(output, decay, current)

    @staticmethod
    @_once
    def backward(ctx: Any, g: Tensor) -> Any:
        return raw.leaky_current_backward(g, *ctx.saved_tensors)


@vmap_over_replicas
class SpikeScan(torch.autograd.Function):
    """(current, threshold, feedback decay, strength and state, spike, surrogate, detach_reset)
    -> (spikes, V, final feedback)."""

    @staticmethod
    def forward(
        current: Tensor,
        threshold: Tensor,
        feedback_decay: Tensor,
        feedback_strength: Tensor,
        feedback: Tensor,
        spike: Tensor,
        surrogate: Surrogate,
        detach_reset: bool,
    ) -> Any:
        return raw.spike_scan(
            current, threshold, feedback_decay, feedback_strength, feedback, spike
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, threshold, decay, strength, feedback, spike, ctx.surrogate, ctx.detach_reset = inputs
        spikes, potential, _ = output
        ctx.save_for_backward(spikes, potential, threshold, decay, strength, feedback, spike)
        ctx.set_materialize_grads(False)

    @staticmethod
    @_once
    def backward(ctx: Any, *g: Tensor | None) -> Any:
        spikes, potential, threshold, decay, strength, feedback, spike = ctx.saved_tensors
        derivative = between.derivative(ctx.surrogate, potential, threshold)
        gradients = raw.spike_scan_backward(
            *g, derivative, spikes, decay, strength, feedback, spike, ctx.detach_reset
        )
        return *gradients, None, None


@vmap_over_replicas
class FeedforwardScan(torch.autograd.Function):
    """(z, weight, decay, trace, then as SpikeScan) -> (spikes, V, final feedback, final trace)."""

    @staticmethod
    def forward(
        z: Tensor,
        weight: Tensor,
        decay: Tensor,
        trace: Tensor | None,
        threshold: Tensor,
        feedback_decay: Tensor,
        feedback_strength: Tensor,
        feedback: Tensor,
        spike: Tensor,
        surrogate: Surrogate,
        detach_reset: bool,
    ) -> Any:
        neuron = (threshold, feedback_decay, feedback_strength, feedback, spike)
        return raw.feedforward_scan(z, weight, decay, trace, *neuron)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *synapses, threshold, decay, strength, feedback, spike, surrogate, detach_reset = inputs
        spikes, potential, _, _ = output
        neuron = (threshold, decay, strength, feedback, spike)
        ctx.surrogate, ctx.detach_reset = surrogate, detach_reset
        ctx.save_for_backward(spikes, potential, *synapses, *neuron)
        ctx.set_materialize_grads(False)

    @staticmethod
    @_once
    def backward(ctx: Any, *g: Tensor | None) -> Any:
        spikes, potential, *synapses, threshold, decay, strength, feedback, spike = (
            ctx.saved_tensors
        )
        *g_neuron, g_trace = g
        derivative = between.derivative(ctx.surrogate, potential, threshold)
        d_current, *d_neuron = raw.spike_scan_backward(
            *g_neuron, derivative, spikes, decay, strength, feedback, spike, ctx.detach_reset
        )
        d_synapses = _synaptic_gradients(ctx.needs_input_grad[:4], d_current, g_trace, *synapses)
        return *d_synapses, *d_neuron, None, None


@vmap_over_replicas
class RecurrentScan(torch.autograd.Function):
    """(current, weight, decay, trace, then as SpikeScan) -> (spikes, V, final feedback, trace)."""

    @staticmethod
    def forward(
        current: Tensor,
        weight: Tensor,
        decay: Tensor,
        trace: Tensor | None,
        threshold: Tensor,
        feedback_decay: Tensor,
        feedback_strength: Tensor,
        feedback: Tensor,
        spike: Tensor,
        surrogate: Surrogate,
        detach_reset: bool,
    ) -> Any:
        neuron = (threshold, feedback_decay, feedback_strength, feedback, spike)
        return raw.recurrent_scan(current, weight, decay, trace, *neuron)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, weight, decay, trace, threshold, *neuron, ctx.surrogate, ctx.detach_reset = inputs
        spikes, potential, _, _ = output
        ctx.save_for_backward(spikes, potential, weight, decay, trace, threshold, *neuron)
        ctx.set_materialize_grads(False)

    @staticmethod
    @_once
    def backward(ctx: Any, *g: Tensor | None) -> Any:
        spikes, potential, weight, decay, trace, threshold, *neuron = ctx.saved_tensors
        derivative = between.derivative(ctx.surrogate, potential, threshold)
        d_current, *d_neuron, d_trace = raw.recurrent_scan_backward(
            *g, derivative, spikes, weight, decay, *neuron, ctx.detach_reset
        )
        dw = dr = None
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            *_, spike = neuron
            *_, g_trace = g
            dw, dr = raw.synaptic_parameter_gradient(
                between.previous(spikes, spike), d_current, g_trace, weight, decay, trace
            )
        return d_current, dw, dr, None if trace is None else d_trace, *d_neuron, None, None


@vmap_over_replicas
class LeakyRecurrentScan(torch.autograd.Function):
    """(drive, weight, decay, current, then as SpikeScan)
    -> (spikes, V, final feedback, current)."""

    @staticmethod
    def forward(
        drive: Tensor,
        weight: Tensor,
        decay: Tensor,
        current: Tensor,
        threshold: Tensor,
        feedback_decay: Tensor,
        feedback_strength: Tensor,
        feedback: Tensor,
        spike: Tensor,
        surrogate: Surrogate,
        detach_reset: bool,
    ) -> Any:
        neuron = (threshold, feedback_decay, feedback_strength, feedback, spike)
        return raw.leaky_recurrent_scan(drive, weight, decay, current, *neuron)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, weight, decay, current, threshold, *neuron, ctx.surrogate, ctx.detach_reset = inputs
        spikes, potential, _, currents = output
        ctx.save_for_backward(
            spikes, potential, currents, weight, decay, current, threshold, *neuron
        )
        ctx.set_materialize_grads(False)

    @staticmethod
    @_once
    def backward(ctx: Any, *g: Tensor | None) -> Any:
        spikes, potential, currents, weight, decay, current, threshold, *neuron = ctx.saved_tensors
        derivative = between.derivative(ctx.surrogate, potential, threshold)
        gradients = raw.leaky_recurrent_scan_backward(
            *g, derivative, spikes, currents, weight, decay, current, *neuron, ctx.detach_reset
        )
        return *gradients, None, None
