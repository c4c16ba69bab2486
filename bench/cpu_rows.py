"""What `cpu.py` times: layers, the network's training step, the operators, and their rivals.

A contest is one piece of work and everybody who does it. Multiply-adds needed for a synapse, sample
and step: 2 forward, 2 for dz, 4 for dw and dr.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench import plain_lif, registry, rivals, workloads
from bench.rivals import Compile
from bench.timing import size_of
from bench.workloads import Run, spikes, weights_of
from hetsyn_triton import HetSynLIF, ops
from hetsyn_triton.ops.surrogate import numbers_of
from hetsyn_triton.surrogates import MultiGaussian

Make = Callable[[], Run]

STEPS, LAYERS, SHD = registry.STEPS, registry.CPU_LAYERS, registry.CPU_NETWORK

OURS, OURS_LESS = registry.OURS, "hetsyn_triton, z and w"
LOOP, COMPILED, PLAIN = registry.LOOP, registry.COMPILED, registry.PLAIN


@dataclass(frozen=True)
class Contest:
    """One line of the results."""

    name: str
    part: str
    T: int
    B: int
    I: int  # noqa: E741 - the field's letter
    J: int
    recurrent: bool = False
    fma: int = 0
    """Multiply-adds the mathematics needs; 0 where bytes are the floor."""
    bytes: int = 0
    """Of all arguments and results."""
    runs: dict[str, Make] = field(default_factory=dict, compare=False)
    """Who takes part: what makes the call, with parameters and inputs of its own."""


# -- layers ----------------------------------------------------------------------------------------


def layer(
    I: int,  # noqa: E741
    J: int,
    recurrent: bool = False,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> HetSynLIF:
    generator = torch.Generator().manual_seed(0)
    return HetSynLIF(I, J, recurrent=recurrent, generator=generator, dtype=dtype, **options)


def _call(
    forward: Callable[[], Tensor], leaves: Sequence[Tensor], outputs: tuple[int, int, int]
) -> Run:
    """Forward [T, B, J], and the gradients of `leaves` if there are any."""
    if not leaves:

        def bare() -> Any:
            with torch.no_grad():
                return forward()

        return bare
    g = torch.randn(outputs)
    return lambda: torch.autograd.grad(forward(), leaves, g)


def our_layer(
    T: int,
    B: int,
    I: int,  # noqa: E741
    J: int,
    recurrent: bool,
    part: str = "gradients",
    **options: Any,
) -> Run:
    x, module = spikes(T, B, I), layer(I, J, recurrent, **options)
    leaves = [p for p in module.parameters() if p.requires_grad]
    wanted = [] if part == "forward" else [x.requires_grad_(), *leaves]
    return _call(lambda: module(x)[0], wanted, (T, B, J))


def layer_loop(
    T: int, B: int, I: int, J: int, recurrent: bool, part: str = "gradients",  # noqa: E741
    compile: Compile = rivals.as_it_is,
) -> Run:  # fmt: skip
    x, weights = spikes(T, B, I), weights_of(layer(I, J, recurrent))
    wanted = [] if part == "forward" else [x.requires_grad_(), *weights.tensors]
    return _call(lambda: rivals.layer_loop(x, weights, compile), wanted, (T, B, J))


def plain_layer(
    library: str,
    T: int,
    B: int,
    I: int,  # noqa: E741
    J: int,
    recurrent: bool,
    part: str = "gradients",
) -> Run:
    x = spikes(T, B, I)
    forward, weights = plain_lif.LAYERS[library](I, J, recurrent)
    wanted = [] if part == "forward" else [x.requires_grad_(), *weights]
    return _call(lambda: forward(x), wanted, (T, B, J))


def layer_contests(
    T: int = STEPS, sizes: Sequence[tuple[int, int, int]] = LAYERS, backend: str = "inductor"
) -> list[Contest]:
    return [
        _layer_contest(T, B, I, J, recurrent, part, backend)
        for recurrent in (False, True)
        for B, I, J in sizes  # noqa: E741
        for part in ("gradients", "forward")
    ]


def _layer_contest(
    T: int,
    B: int,
    I: int,  # noqa: E741
    J: int,
    recurrent: bool,
    part: str,
    backend: str,
) -> Contest:
    given = (T, B, I, J, recurrent, part)
    runs: dict[str, Make] = {
        OURS: lambda: our_layer(*given),
        LOOP: lambda: layer_loop(*given),
        **{library: partial(plain_layer, library, *given) for library in PLAIN},
    }
    if part == "gradients":
        runs[OURS_LESS] = lambda: our_layer(*given, learn_decay=False)
        runs[COMPILED] = lambda: layer_loop(*given, rivals.compiler(backend))
    synapses = I * J + (J * J if recurrent else 0)
    fma = registry.FMA["forward" if part == "forward" else "both"] * T * B * synapses
    name = f"{I}->{J}{' recurrent' if recurrent else ''}, B {B}"
    return Contest(name, part, T, B, I, J, recurrent, fma, runs=runs)


# -- a training step -------------------------------------------------------------------------------


def network_contest(
    T: int = STEPS, B: int = SHD[0], sizes: Sequence[int] = SHD[1], backend: str = "inductor"
) -> Contest:
    def step(of: Callable[..., tuple[Run, list[Tensor]]], *compile: Compile) -> Run:
        given = (workloads.network(sizes), spikes(T, B, sizes[0]), sizes[-1])
        return of(*given, *compile)[0]

    runs: dict[str, Make] = {
        OURS: lambda: step(workloads.our_network),
        LOOP: lambda: step(workloads.loop_network),
        COMPILED: lambda: step(workloads.loop_network, rivals.compiler(backend)),
    }
    name, fma = registry.network_name(sizes), registry.network_fma(T, B, sizes)
    return Contest(f"{name}, B {B}", "step", T, B, sizes[0], sizes[-1], True, fma, runs=runs)


# -- the operators ---------------------------------------------------------------------------------

FMA = {
    "synaptic_current": 2,
    "synaptic_current_backward": 2,
    "synaptic_parameter_gradient": 4,
    "feedforward_scan": 2,
    "recurrent_scan": 2,
    "recurrent_scan_backward": 2,
    "leaky_recurrent_scan": 1,
    "leaky_recurrent_scan_backward": 2,
}
"""Multiply-adds for a synapse, sample and step. A decay per neuron takes one product forward; back
in time one for the spikes and one for the weights. The others move bytes."""


def operator_arguments(operator: str, T: int, B: int, I: int, J: int) -> tuple[Any, ...]:  # noqa: E741
    """Of a raw operator, as a layer calls it: one replica, one feedback current, no initial traces,
    gradients of the spikes alone. Recurrent operators have J inputs."""
    generator = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(1, *shape, generator=generator)

    def normal(*shape: int) -> Tensor:
        return torch.randn(1, *shape, generator=generator)

    def decays(*shape: int) -> Tensor:
        return torch.exp(-1 / (5 + 15 * uniform(*shape)))

    def spiking(features: int) -> Tensor:
        return (uniform(T, B, features) < 0.1).float()

    inputs = J if "recurrent" in operator else I
    weight, decay = normal(J, inputs) * inputs**-0.5, decays(J, inputs)
    leak, current = decays(J), torch.zeros(1, B, J)
    neuron = decays(1, J), torch.ones(1, 1, J), torch.zeros(1, 1, B, J), torch.zeros(1, B, J)
    theta, g = torch.ones(1, J), normal(T, B, J)
    reverse = (uniform(T, B, J), spiking(J))
    return {
        "synaptic_current": lambda: (spiking(I), weight, decay, None),
        "synaptic_current_backward": lambda: (g, None, weight, decay),
        "synaptic_parameter_gradient": lambda: (spiking(I), g, None, weight, decay, None),
        "leaky_current": lambda: (g, leak, current),
        "leaky_current_backward": lambda: (g, normal(T, B, J), leak, current),
        "spike_scan": lambda: (g, theta, *neuron),
        "spike_scan_backward": lambda: (g, None, None, *reverse, *neuron, False),
        "feedforward_scan": lambda: (spiking(I), weight, decay, None, theta, *neuron),
        "recurrent_scan": lambda: (g, weight, decay, None, theta, *neuron),
        "recurrent_scan_backward": lambda: (
            g, None, None, None, *reverse, weight, decay, *neuron, False,
        ),
        "leaky_recurrent_scan": lambda: (g, weight, leak, current, theta, *neuron),
        "leaky_recurrent_scan_backward": lambda: (
            g, None, None, None, *reverse, normal(T, B, J), weight, leak, current, *neuron, False,
        ),
        "surrogate": lambda: (g, theta, *(numbers_of(MultiGaussian(), torch.float32) or ())),
    }[operator]()  # fmt: skip


def operator_contests(
    T: int = STEPS, sizes: Sequence[tuple[int, int, int]] = LAYERS
) -> list[Contest]:
    return [_operator_contest(name, T, *size) for name in ops.OPERATORS for size in sizes]


def _operator_contest(operator: str, T: int, B: int, I: int, J: int) -> Contest:  # noqa: E741
    arguments = operator_arguments(operator, T, B, I, J)
    function = getattr(torch.ops.hetsyn_triton, operator).default

    def run() -> Any:
        with torch.no_grad():
            return function(*arguments)

    inputs = J if "recurrent" in operator else I
    fma = FMA.get(operator, 0) * T * B * inputs * J
    found = run()
    moved = size_of(*arguments, *(found if isinstance(found, tuple) else (found,)))
    recurrent = "recurrent" in operator
    synaptic = operator in FMA
    name = f"{operator} {f'{inputs}->' if synaptic else ''}{J}, B {B}"
    return Contest(name, operator, T, B, inputs, J, recurrent, fma, moved, runs={OURS: lambda: run})
