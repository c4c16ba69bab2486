"""How class scores [B, classes] are made from the output [T, B, classes], by name."""

from collections.abc import Callable

from torch import Tensor


def mean(output: Tensor) -> Tensor:
    """The mean over steps."""
    return output.mean(0)


def last(output: Tensor) -> Tensor:
    """The last step."""
    return output[-1]


def summed_softmax(output: Tensor) -> Tensor:
    """The sum over steps of the softmax over classes (arXiv 2508.11644).

    The cross-entropy is taken on this sum, as if it were logits: each step gives a class at most 1.
    """
    return output.softmax(2).sum(0)


def spike_count(output: Tensor) -> Tensor:
    """The number of spikes of each output neuron; `output` is that of a spiking layer."""
    return output.sum(0)


READOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": mean,
    "last": last,
    "summed-softmax": summed_softmax,
    "spike-count": spike_count,
}
SPIKING = ("spike-count",)  # what reads the spikes of a last spiking layer, and no leaky readout
