"""Functions that turn the output [T, B, classes] into class scores [B, classes], by name."""

from collections.abc import Callable

from torch import Tensor


def mean(output: Tensor) -> Tensor:
    """Return the mean over steps."""
    return output.mean(0)


def last(output: Tensor) -> Tensor:
    """Return the last step."""
    return output[-1]


def summed_softmax(output: Tensor) -> Tensor:
    """Return the sum over steps of the softmax over classes (arXiv 2508.11644).

    The cross-entropy uses this sum as logits, so each step adds at most 1 to a class.
    """
    return output.softmax(2).sum(0)


def spike_count(output: Tensor) -> Tensor:
    """Return the number of spikes of each output neuron of a spiking layer."""
    return output.sum(0)


READOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": mean,
    "last": last,
    "summed-softmax": summed_softmax,
    "spike-count": spike_count,
}
SPIKING = ("spike-count",)  # readouts of a last spiking layer instead of a leaky readout
