"""Make inputs, weights, and training steps of a network by this library and by the loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from bench import baseline_loop
from bench.baseline_loop import Compile, Weights
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
"""Learning rate of the weights; that of the decays is twice as high."""


def spikes(
    T: int,
    B: int,
    I: int,  # noqa: E741
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device = CPU,
    seed: int = 0,
) -> Tensor:
    """Make random spikes, 10 % of all elements."""
    generator = torch.Generator(device).manual_seed(seed)
    return (torch.rand(T, B, I, device=device, generator=generator) < 0.1).to(dtype)


def layer_leaves(module: HetSynLIF | HetSynReadout) -> list[Tensor]:
    """Return a layer's parameters in the order of `Weights.tensors`: w, r, recurrent w and r."""
    found: list[Tensor] = [module.weight, module.decay.raw]
    if isinstance(module, HetSynLIF) and module.recurrent:
        assert module.recurrent_weight is not None
        assert module.recurrent_decay is not None
        found += [module.recurrent_weight, module.recurrent_decay.raw]
    return found


def weights_of(module: HetSynLIF | HetSynReadout) -> Weights:
    """Return a layer's weights and decays for the loop."""
    w, r, *back = (t.detach() for t in layer_leaves(module))
    return Weights(w, r, (back[0], back[1]) if back else None, isinstance(module, HetSynLIF))


def modules_of(made: SpikingNetwork) -> list[HetSynLIF | HetSynReadout]:
    """Return the layers and the readout of a network."""
    return [m for m in made.modules() if isinstance(m, (HetSynLIF, HetSynReadout))]


# -- a network's training step ---------------------------------------------------------------------


def network(
    sizes: Sequence[int], dtype: torch.dtype = torch.float32, backend: str = "auto"
) -> SpikingNetwork:
    """Make a network of recurrent layers of sizes[1:-1] and a readout."""
    inputs, *hidden, classes = sizes
    generator = torch.Generator().manual_seed(0)
    layers = [
        HetSynLIF(a, b, recurrent=True, generator=generator, dtype=dtype, backend=backend)
        for a, b in pairwise([inputs, *hidden])
    ]
    readout = HetSynReadout(hidden[-1], classes, generator=generator, dtype=dtype, backend=backend)
    return SpikingNetwork(layers, readout)


def leaves_of(made: SpikingNetwork) -> list[Tensor]:
    """Return the parameters of all layers in the order of `loop_network`."""
    return [leaf for module in modules_of(made) for leaf in layer_leaves(module)]


class TrainingStep:
    """An AdamW step on the cross-entropy of the mean output, then a clamp of the decays."""

    def __init__(
        self, forward: Callable[[], Tensor], classes: int, x: Tensor, groups: Any, clamp: Run
    ) -> None:
        self.forward, self.clamp = forward, clamp
        self.target = torch.arange(x.shape[1], device=x.device) % classes
        # capturable, because a CUDA graph may capture the step.
        self.optimizer = torch.optim.AdamW(groups, lr=LR, capturable=x.device.type == "cuda")

    def __call__(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(self.forward().mean(0), self.target).backward()
        self.optimizer.step()
        self.clamp()

    def forget(self) -> None:
        """Reset the optimizer's state in place."""
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()


Training = tuple[TrainingStep, Callable[[], Tensor], list[Tensor]]
"""A training step, the forward pass alone, and input and parameters as in `leaves_of`."""


def our_network(made: SpikingNetwork, x: Tensor, classes: int) -> Training:
    def forward() -> Tensor:
        output: Tensor = made(x)[0]
        return output

    groups = parameter_groups(made, lr=LR)
    step = TrainingStep(forward, classes, x, groups, lambda: clamp_decays_(made))
    return step, forward, [x, *leaves_of(made)]


def loop_network(
    made: SpikingNetwork,
    x: Tensor,
    classes: int,
    compile: Compile = baseline_loop.as_it_is,
    way: Callable[..., Tensor] = baseline_loop.layer_loop,
) -> Training:
    """Make the same training step with the loop, on copies of the network's weights."""
    layers = [weights_of(module).learned() for module in modules_of(made)]
    parameters = [t for layer in layers for t in layer.tensors]
    weights, decays = parameters[::2], parameters[1::2]
    groups = [
        {"params": weights, "lr": LR, "weight_decay": 0.0},
        {"params": decays, "lr": 2 * LR, "weight_decay": 0.0},
    ]

    def forward() -> Tensor:
        return baseline_loop.network_loop(x, layers, compile, way)

    def clamp() -> None:
        with torch.no_grad():
            for decay in decays:
                decay.clamp_(0, 1)

    return TrainingStep(forward, classes, x, groups, clamp), forward, [x, *parameters]
