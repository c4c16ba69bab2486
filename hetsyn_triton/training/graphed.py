"""Training passes of a network replayed from CUDA graphs: two launches a step, not one a kernel."""

import warnings
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from hetsyn_triton.modules import SpikingNetwork

from .measure import Run, run_network
from .parallel import Ranks


def passes(device: torch.device, ranks: Ranks, sample: Callable[[], Tensor]) -> Run:
    """How training runs a network: on a GPU by graphs, unless several `ranks` meet between passes,
    for which graphs have no place."""
    graphed = device.type == "cuda" and ranks.size == 1
    return GraphedNetwork(sample) if graphed else run_network


class GraphedNetwork:
    """`run_network` in training on a GPU: captured when first called, and replayed.

    The same kernels on the same numbers: the results are those of `run_network`, bit for bit.
    Captured are the passes of the network, in training, of an input like `sample()`,
    [T, B, in_features]. What is not like it, as the last batch of an epoch, is run as it is.
    Outputs and gradients are the graphs' own memory, overwritten by the next replay. Beside what a
    training step takes they keep an input and a gradient of each output, 4 T B (I + J of all
    layers) bytes; their memory serves nothing else.
    """

    def __init__(self, sample: Callable[[], Tensor]) -> None:
        self._sample = sample
        self._of: tuple[Any, ...] | None = None
        self._replay: Callable[[Tensor], tuple[Tensor, ...]] | None = None

    def __call__(self, network: SpikingNetwork, values: Tensor) -> tuple[Tensor, list[Tensor]]:
        if self._replay is None:
            # Before any backward: a tape that somebody keeps would tie its stream to the capture.
            sample = self._sample().to(values.device, copy=True)
            self._of, self._replay = _kind(network, sample), _captured(network, sample)
        if _kind(network, values) != self._of:
            return run_network(network, values)
        output, *spikes = self._replay(values)
        return output, spikes


def _kind(network: SpikingNetwork, values: Tensor) -> tuple[Any, ...]:
    """What a replay stands for."""
    return id(network), network.training, values.shape, values.dtype


class _Flat(nn.Module):
    """Output and spikes of a network as one tuple, with its parameters, as captures want them."""

    def __init__(self, network: SpikingNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, values: Tensor) -> tuple[Tensor, ...]:
        output, spikes = run_network(self.network, values)
        return output, *spikes


def _captured(network: SpikingNetwork, sample: Tensor) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """`sample` becomes the graphs' own input."""
    with torch.random.fork_rng([sample.device]), warnings.catch_warnings():  # trials draw dropout
        # PyTorch's own trials and capture are on streams of their own.
        warnings.filterwarnings("ignore", "The AccumulateGrad node's stream does not match")
        replay = torch.cuda.make_graphed_callables(
            _Flat(network), (sample,), allow_unused_input=True
        )
    return cast(Callable[[Tensor], tuple[Tensor, ...]], replay)
