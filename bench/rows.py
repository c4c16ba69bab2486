"""What `gpu.py` times: a row is an operator, layer or network at one size, and its rivals.

Rows of kernels are the cases of `cases.py`, by launcher. Rows of layers go through the public API,
autograd included. Parts: `forward` without a tape, `backward` on a tape that is kept, `both` as in
training; `step` is a training step with its optimizer.

Multiply-adds needed for a synapse, sample and step: 2 forward, 2 for dz, 4 for dw and dr.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bench import registry, rivals, workloads
from bench.cases import BENCHMARK, Case
from bench.rivals import Weights
from bench.timing import Call, size_of
from bench.workloads import spikes, weights_of
from hetsyn_triton import HetSynLIF
from hetsyn_triton.ops import recurrent_scan
from hetsyn_triton.ops.neuron import Neuron
from hetsyn_triton.surrogates import Triangular

Make = Callable[[torch.device, int], Call]
"""A call with inputs of its own, from a device and a seed."""
MakeRival = Callable[[torch.device, rivals.Compile], Call]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    part: str
    T: int
    B: int
    I: int  # noqa: E741 - the field's letter
    J: int
    fma: int
    """Multiply-adds the mathematics needs; 0 where bytes are the floor."""
    ours: Make
    rival: MakeRival | None = None
    kinds: tuple[str, ...] = ()
    """Which of `rivals.RIVALS` it is compared with."""
    tape_bytes: int = 0
    """What a rival keeps for its backward."""
    no_rival: str = ""
    """Why there is none."""
    case: Case | None = field(default=None, compare=False)
    group: str = "layer"


def shrunk(case: Case) -> Case:
    """The same case in tiny, for rehearsals."""
    J = min(case.J, 3)
    I = J if "recurrent" in case.operator else min(case.I, 4)  # noqa: E741
    name = f"{case.operator} {I}->{J} T2 B1"
    return Case(name, case.operator, case.R, 2, 1, I, J, case.K, case.states, case.detach)


# -- kernels by themselves -------------------------------------------------------------------------

_FMA = {
    "synaptic_current": 2,
    "synaptic_current_backward": 2,
    "synaptic_parameter_gradient": 4,
    "feedforward_scan_fused": 2,
    "feedforward_scan_split": 2,
    "recurrent_scan": 2,
    "recurrent_scan_backward": 2,
}
_NO_RIVAL = {
    "feedforward_scan_fused": "see the layer's forward",
    "feedforward_scan_split": "see the layer's forward",
    "recurrent_scan_backward": "the loop has no sweep without parameter gradients: see `both`",
    "spike_scan": "elementwise, part of every layer",
    "spike_scan_backward": "elementwise, part of every layer",
}


def _leaves(case: Case, device: torch.device) -> tuple[Tensor, Weights]:
    """z or the given current, weights and decays of a case, for a loop."""
    generator = torch.Generator(device).manual_seed(0)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, device=device, generator=generator)

    x = (uniform(case.T, case.B, case.I) < 0.1).float()
    w = (uniform(case.J, case.I) - 0.5) * 2 * case.I**-0.5
    return x, Weights(w, torch.exp(-1 / (5 + 15 * uniform(case.J, case.I))))


def _on_a_tape(outputs: Tensor, leaves: Sequence[Tensor]) -> Callable[[], Any]:
    """The backward alone, again and again over one tape."""
    g = torch.randn_like(outputs)
    return lambda: torch.autograd.grad(outputs, leaves, g, retain_graph=True)


def _case_rival(case: Case) -> MakeRival | None:
    def make(device: torch.device, compile: rivals.Compile) -> Call:
        x, layer = _leaves(case, device)
        if case.operator == "synaptic_current":
            return Call(_without_tape(lambda: rivals.current_loop(x, layer, compile)))
        if case.operator == "recurrent_scan":
            return Call(_without_tape(lambda: rivals.recurrent_loop(x, layer, compile)))
        leaves = [x] if case.operator == "synaptic_current_backward" else layer.tensors
        for leaf in leaves:
            leaf.requires_grad_()
        return Call(_on_a_tape(rivals.current_loop(x, layer, compile), leaves))

    return None if case.operator in _NO_RIVAL else make


def _without_tape(run: Callable[[], Any]) -> Callable[[], Any]:
    def bare() -> Any:
        with torch.no_grad():
            return run()

    return bare


def kernel_rows(cases: Sequence[Case] = BENCHMARK) -> list[Row]:
    return [_kernel_row(case) for case in cases]


def _kernel_row(case: Case) -> Row:
    def ours(device: torch.device, seed: int) -> Call:
        arguments = case.arguments(device, seed)
        return Call(lambda: case.run(arguments), size_of(*arguments))

    alone = case.operator in ("synaptic_current_backward", "synaptic_parameter_gradient")
    # A tape is walked again and again: it is not captured by itself.
    kinds = ("loop",) if alone else ("loop", "graph")
    rival = _case_rival(case)
    synapses = case.R * case.T * case.B * case.I * case.J
    return Row(
        case.name,
        case.operator,
        case.T,
        case.B,
        case.I,
        case.J,
        _FMA.get(case.operator, 0) * synapses,
        ours,
        rival,
        kinds if rival else (),
        4 * synapses if alone else 0,
        _NO_RIVAL.get(case.operator, ""),
        case,
        "kernel",
    )


# -- layers through the public API -----------------------------------------------------------------


def _layer_row(T: int, B: int, I: int, J: int, part: str, recurrent: bool = False) -> Row:  # noqa: E741
    def layer(device: torch.device) -> HetSynLIF:
        generator = torch.Generator().manual_seed(0)
        return HetSynLIF(I, J, recurrent=recurrent, generator=generator, device=device)

    def ours(device: torch.device, seed: int) -> Call:
        module, x = layer(device), spikes(T, B, I, device=device, seed=seed)
        if part == "forward":
            return Call(_without_tape(lambda: module(x)[0]), size_of(x))
        leaves = [x.requires_grad_(), *module.parameters()]
        if part == "backward":
            return Call(_on_a_tape(module(x)[0], leaves), size_of(x) * 2)
        return Call(_both(lambda: module(x)[0], leaves), size_of(x))

    def rival(device: torch.device, compile: rivals.Compile) -> Call:
        weights = weights_of(layer(device), learn=part != "forward")
        x = spikes(T, B, I, device=device)
        if part == "forward":
            return Call(_without_tape(lambda: rivals.layer_loop(x, weights, compile)))
        leaves = [x.requires_grad_(), *weights.tensors]
        if part == "backward":
            return Call(_on_a_tape(rivals.layer_loop(x, weights, compile), leaves))
        return Call(_both(lambda: rivals.layer_loop(x, weights, compile), leaves))

    synapses = I * J + (J * J if recurrent else 0)
    need = registry.FMA[part]
    kinds = {"forward": rivals.RIVALS[:3], "backward": ("loop",), "both": rivals.RIVALS}[part]
    name = f"layer {I}->{J}{'r' if recurrent else ''} T{T} B{B}"
    tape = 0 if part == "forward" else rivals.tape_bytes(T, B, synapses)
    return Row(name, part, T, B, I, J, need * T * B * synapses, ours, rival, kinds, tape)


def _both(forward: Callable[[], Tensor], leaves: Sequence[Tensor]) -> Callable[[], Any]:
    with torch.no_grad():
        g = torch.randn_like(forward())
    return lambda: torch.autograd.grad(forward(), leaves, g)


def _recurrent_row(T: int, B: int, J: int) -> Row:
    """The recurrent synapses alone, over a given current, with all their gradients."""

    def parts(device: torch.device, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator(device).manual_seed(seed)
        c = torch.randn(T, B, J, device=device, generator=generator)
        w = torch.randn(J, J, device=device, generator=generator) * J**-0.5
        r = torch.exp(-1 / (5 + 15 * torch.rand(J, J, device=device, generator=generator)))
        return c.requires_grad_(), w.requires_grad_(), r.requires_grad_()

    def ours(device: torch.device, seed: int) -> Call:
        c, w, r = parts(device, seed)
        one, zeros = c.new_ones(1, J), c.new_zeros(1, B, J)
        neuron = Neuron(one, rivals.KAPPA * one[None], one[None], zeros[None], zeros)

        def forward() -> Tensor:
            synapses = (w[None], r[None], None)
            return recurrent_scan.run(c[None], *synapses, neuron, Triangular(), False, "auto")[0]

        return Call(_both(forward, [c, w, r]), size_of(c))

    def rival(device: torch.device, compile: rivals.Compile) -> Call:
        c, w, r = parts(device, 0)
        return Call(_both(lambda: rivals.recurrent_loop(c, Weights(w, r), compile), [c, w, r]))

    name, fma = f"recurrent synapses {J} T{T} B{B}", 8 * T * B * J * J
    tape = rivals.tape_bytes(T, B, J * J)
    return Row(name, "both", T, B, J, J, fma, ours, rival, rivals.RIVALS, tape)


# -- a training step -------------------------------------------------------------------------------


def _network_row(T: int, B: int, sizes: Sequence[int]) -> Row:
    """The whole network's step."""
    inputs, classes = sizes[0], sizes[-1]

    def ours(device: torch.device, seed: int) -> Call:
        made, x = (
            workloads.network(sizes).to(device),
            spikes(T, B, inputs, device=device, seed=seed),
        )
        return Call(workloads.our_network(made, x, classes)[0], size_of(x))

    def rival(device: torch.device, compile: rivals.Compile) -> Call:
        made, x = workloads.network(sizes).to(device), spikes(T, B, inputs, device=device)
        return Call(workloads.loop_network(made, x, classes, compile)[0])

    name = f"network {registry.network_name(sizes)} T{T} B{B}"
    fma = registry.network_fma(T, B, sizes)
    tape = rivals.tape_bytes(T, B, registry.network_synapses(sizes))
    return Row(name, "step", T, B, inputs, classes, fma, ours, rival, rivals.RIVALS, tape)


SHD = registry.SHD


def layer_rows(steps: int | None = None) -> list[Row]:
    """In the order of their weight: what is missing when time runs out is what is missed least.

    With `steps` all rows have that many.
    """
    T = steps or registry.STEPS
    pixels, samples, I, J = registry.PIXELS  # noqa: E741
    layers = [
        _layer_row(T, B, I, J, part)
        for I, J in registry.GPU_LAYERS  # noqa: E741
        for B in registry.GPU_SAMPLES
        for part in ("both", "forward", "backward")
    ]
    return [
        _network_row(T, 32, SHD),
        *layers[:6],
        *(_recurrent_row(T, B, J) for J in registry.GPU_RECURRENT for B in registry.GPU_SAMPLES),
        _layer_row(steps or pixels, samples, I, J, "both", recurrent=True),
        *layers[6:],
    ]


def tiny_rows() -> list[Row]:
    """Every kind of row once, for rehearsals."""
    kernels = {row.part: row for row in kernel_rows([shrunk(c) for c in BENCHMARK])}
    return [
        _network_row(3, 2, (7, 5, 4, 3)),
        *(_layer_row(3, 2, 6, 4, part) for part in ("both", "forward", "backward")),
        _recurrent_row(3, 2, 4),
        _layer_row(4, 2, 1, 3, "both", recurrent=True),
        *kernels.values(),
    ]
