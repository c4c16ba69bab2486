"""What a layer carries from one call to the next: NamedTuples of tensors, zeros where None is
given.

B is the batch; an unbatched call has states without it. Gradients flow through states.
"""

from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import _register_namedtuple

State = TypeVar("State")


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


for _state in (NeuronState, HetSynState, LeakyState, HetSynReadoutState, LeakyReadoutState):
    # For `torch.load`, which refuses unknown classes, and for `torch.export.save`.
    torch.serialization.add_safe_globals([_state])
    _register_namedtuple(_state, serialized_type_name=f"{__name__}.{_state.__name__}")


def detach_state(state: State) -> State:
    """Copy a state without its history, for the next chunk of a sequence.

    No gradient then flows back through it (truncated backpropagation through time). The copy also
    outlives the replay of a CUDA graph, which overwrites the tensors of the one before.

    Args:
        state: State of a layer, or the states of a network.

    Returns:
        The same structure with detached copies of all tensors.

    Raises:
        TypeError: If `state` holds something other than tensors and None.

    Example:
        >>> layer, x, state = HetSynLIF(8, 4), torch.ones(20, 2, 8), None
        >>> for chunk in x.split(10):
        ...     spikes, state = layer(chunk, state)
        ...     spikes.sum().backward()
        ...     state = detach_state(state)
    """
    copied: Any = _copied(state)
    found: State = copied
    return found


def _copied(state: Any) -> Any:
    if state is None:
        return None
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, tuple) and hasattr(state, "_fields"):
        return type(state)(*map(_copied, state))
    if isinstance(state, list | tuple):
        return type(state)(map(_copied, state))
    raise TypeError(f"state: expected tensors and None, got {type(state).__name__}")
