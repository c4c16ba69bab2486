"""The operators as functions: checked arguments, named states, gradients of everything.

Shapes are [T, B, N] with parameters [J, I] or [J]. With a leading replica axis everywhere,
[R, T, B, N] and [R, J, I] or [R, J], one call runs R independent networks. T or B may be 0: nothing
happens, and the state comes back as it was.

Inputs may be bool, uint8, int8, float16, bfloat16 or the parameters' dtype. Parameters and states
are float32 or float64. ValueError is raised for shapes, devices and values, TypeError for types.
Parameter values are checked on the CPU only, see `hetsyn_triton.validation`. Autocast has no effect
inside: states and sums keep the parameters' dtype.
"""

from .ops.feedforward_scan import feedforward_scan
from .ops.leaky_current import leaky_current
from .ops.leaky_recurrent_scan import leaky_recurrent_scan
from .ops.recurrent_scan import recurrent_scan
from .ops.spike_scan import spike_scan
from .ops.synaptic_current import synaptic_current

__all__ = [
    "feedforward_scan",
    "leaky_current",
    "leaky_recurrent_scan",
    "recurrent_scan",
    "spike_scan",
    "synaptic_current",
]
