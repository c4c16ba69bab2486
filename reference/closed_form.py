"""The operators and all their gradients in closed form.

In-place PyTorch without a tape: memory is O(T B (I + J)) beside one trace per synapse and sample.

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

from .feedforward_scan import feedforward_scan
from .leaky_current import leaky_current, leaky_current_backward
from .leaky_recurrent_scan import leaky_recurrent_scan, leaky_recurrent_scan_backward
from .recurrent_scan import recurrent_scan, recurrent_scan_backward
from .spike_scan import spike_scan, spike_scan_backward
from .surrogate import surrogate
from .synaptic_current import (
    synaptic_current,
    synaptic_current_backward,
    synaptic_parameter_gradient,
)

__all__ = [
    "feedforward_scan",
    "leaky_current",
    "leaky_current_backward",
    "leaky_recurrent_scan",
    "leaky_recurrent_scan_backward",
    "recurrent_scan",
    "recurrent_scan_backward",
    "spike_scan",
    "spike_scan_backward",
    "surrogate",
    "synaptic_current",
    "synaptic_current_backward",
    "synaptic_parameter_gradient",
]
