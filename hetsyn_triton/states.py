"""What a layer carries from one call to the next: NamedTuples of tensors, zeros where None is
given.

B is the batch; an unbatched call has states without it. Gradients flow through states.
"""

from typing import NamedTuple

from torch import Tensor


class NeuronState(NamedTuple):
    """Feedback currents and last spike of a neuron, each [B, J]."""

    reset: Tensor
    """Reset current J."""
    adaptation: Tensor | None
    """Adaptation current; None for neurons without adaptation."""
    spike: Tensor
    """Spike of the last step."""


class HetSynState(NamedTuple):
    """State of `HetSynLIF`.

    The traces, not the currents, are the state: a current is weight * trace. So a weight that
    changes between two chunks of one sequence weighs old spikes anew.
    """

    trace: Tensor
    """Trace of every input synapse, [B, J, I]."""
    recurrent_trace: Tensor | None
    """Trace of every recurrent synapse, [B, J, J]; None for a feedforward layer."""
    reset: Tensor
    """Reset current, [B, J]."""
    adaptation: Tensor | None
    """Adaptation current, [B, J]; None without adaptation."""
    spike: Tensor
    """Spike of the last step, [B, J]."""


class LeakyState(NamedTuple):
    """State of `HomNeuLIF`, `HomNeuALIF` and `HetNeuLIF`."""

    current: Tensor
    """Summed synaptic current, [B, J]."""
    reset: Tensor
    """Reset current, [B, J]."""
    adaptation: Tensor | None
    """Adaptation current, [B, J]; None without adaptation."""
    spike: Tensor
    """Spike of the last step, [B, J]."""


class HetSynReadoutState(NamedTuple):
    """State of `HetSynReadout`."""

    trace: Tensor
    """Trace of every synapse, [B, J, I]."""


class LeakyReadoutState(NamedTuple):
    """State of `HomNeuReadout` and `HetNeuReadout`."""

    current: Tensor
    """Summed synaptic current, [B, J]."""
