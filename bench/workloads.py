"""The work that is timed, on any device: inputs, the weights a loop learns, the network's training
step by this library and by a loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from bench import rivals
from bench.rivals import Compile, Weights
from hetsyn_triton import (
    HetSynLIF,
    HetSynReadout,
    SpikingNetwork,
    clamp_decays_,
    parameter_groups,
)

Run = Callable[[], Any]

CPU = torch.device("cpu")
LR = 1e-3
"""Of the weights; of the decays twice as much."""


def spikes(
    T: int,
    B: int,
    I: int,  # noqa: E741
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device = CPU,
    seed: int = 0,
) -> Tensor:
    """A tenth of all places."""
    generator = torch.Generator(device).manual_seed(seed)
    return (torch.rand(T, B, I, device=device, generator=generator) < 0.1).to(dtype)


def weights_of(module: HetSynLIF | HetSynReadout, learn: bool = True) -> Weights:
    """Copies of a layer's weights and decays, for a loop to learn."""

    def leaf(t: Tensor) -> Tensor:
        return t.detach().clone().requires_grad_(learn)

    recurrent, spiking = None, isinstance(module, HetSynLIF)
    if isinstance(module, HetSynLIF) and module.recurrent:
        assert module.recurrent_weight is not None
        assert module.recurrent_decay is not None
        recurrent = (leaf(module.recurrent_weight), leaf(module.recurrent_decay()))
    return Weights(leaf(module.weight), leaf(module.decay()), recurrent, spiking)


def layer_leaves(module: HetSynLIF | HetSynReadout) -> list[Tensor]:
    """Parameters of a layer in the order of `Weights.tensors`: w, r, recurrent w and r."""
    found: list[Tensor] = [module.weight, module.decay.raw]
    if isinstance(module, HetSynLIF) and module.recurrent:
        assert module.recurrent_weight is not None
        assert module.recurrent_decay is not None
        found += [module.recurrent_weight, module.recurrent_decay.raw]
    return found


def modules_of(made: SpikingNetwork) -> list[HetSynLIF | HetSynReadout]:
    """Layers and readout of a network made by `network`."""
    return [m for m in made.modules() if isinstance(m, (HetSynLIF, HetSynReadout))]


# -- a training step: cross-entropy of the mean output, AdamW, clamp -------------------------------


def network(
    sizes: Sequence[int], dtype: torch.dtype = torch.float32, backend: str = "auto"
) -> SpikingNetwork:
    """Recurrent layers of sizes[1:-1] and a readout."""
    inputs, *hidden, classes = sizes
    generator = torch.Generator().manual_seed(0)
    layers = [
        HetSynLIF(a, b, recurrent=True, generator=generator, dtype=dtype, backend=backend)
        for a, b in pairwise([inputs, *hidden])
    ]
    readout = HetSynReadout(hidden[-1], classes, generator=generator, dtype=dtype, backend=backend)
    return SpikingNetwork(layers, readout)


def leaves_of(made: SpikingNetwork) -> list[Tensor]:
    """Parameters in the order of `loop_network`: of each layer w, r, recurrent w and r."""
    return [leaf for module in modules_of(made) for leaf in layer_leaves(module)]


def our_network(made: SpikingNetwork, x: Tensor, classes: int) -> tuple[Run, list[Tensor]]:
    """A training step, and its parameters as in `leaves_of`."""
    groups = parameter_groups(made, lr=LR)
    step = _step(lambda: made(x)[0], classes, x, groups, lambda: clamp_decays_(made))
    return step, leaves_of(made)


def loop_network(
    made: SpikingNetwork,
    x: Tensor,
    classes: int,
    compile: Compile = rivals.as_it_is,
    loop: Callable[..., Tensor] = rivals.network_loop,
) -> tuple[Run, list[Tensor]]:
    """The same step with the loop, and its parameters: of each layer w, r, recurrent w and r."""
    weights = [weights_of(module) for module in modules_of(made)]
    pairs = [pair for w in weights for pair in ((w.w, w.r), w.recurrent) if pair]
    decays = [r for _, r in pairs]
    groups = [
        {"params": [w for w, _ in pairs], "lr": LR, "weight_decay": 0.0},
        {"params": decays, "lr": 2 * LR, "weight_decay": 0.0},
    ]

    def clamp() -> None:
        with torch.no_grad():
            for decay in decays:
                decay.clamp_(0, 1)

    step = _step(lambda: loop(x, weights, compile), classes, x, groups, clamp)
    return step, [t for w in weights for t in w.tensors]


def _step(
    output: Callable[[], Tensor], classes: int, x: Tensor, groups: Any, clamp: Callable[[], Any]
) -> Run:
    y = torch.arange(x.shape[1], device=x.device) % classes
    # capturable: the step may stand in a CUDA graph.
    optimizer = torch.optim.AdamW(groups, lr=LR, capturable=x.device.type == "cuda")

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(output().mean(0), y).backward()
        optimizer.step()
        clamp()

    return run
