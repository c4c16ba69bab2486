"""The plain loop over time under autograd: slow, and true.

Shapes as in `lib/steps.py`: R replicas, T steps, B samples, I inputs, J neurons, K feedback
currents; time is axis 1.
"""

from .feedforward_scan import loop as feedforward_scan
from .leaky_current import loop as leaky_current
from .leaky_recurrent_scan import loop as leaky_recurrent_scan
from .recurrent_scan import loop as recurrent_scan
from .spike_scan import loop as spike_scan
from .synaptic_current import loop as synaptic_current

__all__ = [
    "feedforward_scan",
    "leaky_current",
    "leaky_recurrent_scan",
    "recurrent_scan",
    "spike_scan",
    "synaptic_current",
]
