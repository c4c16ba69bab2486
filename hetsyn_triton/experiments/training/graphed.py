"""Replay the passes of a network from CUDA graphs: two launches per step."""

import warnings
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from hetsyn_triton.modules import SpikingNetwork

from .measure import Run, run_network
from .parallel import Ranks


def passes(device: torch.device, ranks: Ranks, sample: Callable[[], Tensor]) -> Run:
    """Return the function that runs a network in training: with CUDA graphs on a single GPU.

    Graphs cannot contain the communication of several `ranks`.
    """
    graphed = device.type == "cuda" and ranks.size == 1
    return GraphedNetwork(sample) if graphed else run_network


class GraphedNetwork:
    """Run a network on a GPU as `run_network` does, with graphs captured at the first call.

    The results are bit-identical to those of `run_network`. The graphs contain forward and
    backward pass for an input like `sample()`, [T, B, in_features]. Other inputs, such as a
    smaller last batch, run without graphs.

    Outputs and gradients are in memory of the graphs, which the next replay overwrites. In
    addition to a training step, the graphs keep an input and a gradient of each output:
    4 T B (I + J of all layers) bytes.
    """

    def __init__(self, sample: Callable[[], Tensor]) -> None:
        self._sample = sample
        self._of: tuple[Any, ...] | None = None
        self._replay: Callable[[Tensor], tuple[Tensor, ...]] | None = None

    def __call__(self, network: SpikingNetwork, values: Tensor) -> tuple[Tensor, list[Tensor]]:
        if self._replay is None:
            # Before any backward pass: a tape that is still alive would tie its stream to the
            # capture.
            sample = self._sample().to(values.device, copy=True)
            self._of, self._replay = _kind(network, sample), _captured(network, sample)
        if _kind(network, values) != self._of:
            return run_network(network, values)
        output, *spikes = self._replay(values)
        return output, spikes


def _kind(network: SpikingNetwork, values: Tensor) -> tuple[Any, ...]:
    """Return what has to match for a replay."""
    return id(network), network.training, values.shape, values.dtype


class _Flat(nn.Module):
    """Return output and spikes of a network as one tuple, which a capture needs."""

    def __init__(self, network: SpikingNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, values: Tensor) -> tuple[Tensor, ...]:
        output, spikes = run_network(self.network, values)
        return output, *spikes


def _captured(network: SpikingNetwork, sample: Tensor) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Capture the graphs; `sample` becomes their input."""
    with torch.random.fork_rng([sample.device]), warnings.catch_warnings():  # for dropout
        # PyTorch uses separate streams for warm-up and capture.
        warnings.filterwarnings("ignore", "The AccumulateGrad node's stream does not match")
        replay = torch.cuda.make_graphed_callables(
            _Flat(network), (sample,), allow_unused_input=True
        )
    return cast(Callable[[Tensor], tuple[Tensor, ...]], replay)
