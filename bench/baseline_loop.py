"""The baseline that kernels are compared with: the loop over time, from the equations.

    I_ji(t) = r_ji I_ji(t-1) + w_ji z_i(t),   V_j = sum_i I_ji - J_j,   s_j = (V_j > theta)
    J_j(t)  = kappa J_j(t-1) + theta s_j(t-1)

Each step makes a tensor of currents [B, J, I] under autograd; spikes have the triangular surrogate,
as in the paper's official programs. Variants:

- `loop`: eager; launch-bound if the tensors are small.
- `compiled`: one step under `torch.compile`, the loop in Python.
- `graph`: the eager loop, forward and backward, in one CUDA graph, which removes launch overhead.
- `compiled graph`: the compiled step in a CUDA graph; the fastest variant.
- `checkpointed` (`checkpointed_layer_loop`): eager; saves the state before every CHUNK steps and
  recomputes the steps in the backward pass. It needs less memory and more time.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

KAPPA = math.exp(-1 / 20)
"""Decay of the reset current, the layers' default."""

CHUNK = 16
"""Steps between checkpoints: about the root of 250 steps, which minimizes the saved memory."""


class _Spike(torch.autograd.Function):
    """1 where V > theta; backward: max(0, 1 - |V - theta| / theta)."""

    @staticmethod
    def forward(ctx: Any, distance: Tensor, theta: Tensor) -> Tensor:
        ctx.save_for_backward(distance, theta)
        return (distance > 0).to(distance.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        distance, theta = ctx.saved_tensors
        return g * (1 - distance.abs() / theta).clamp(min=0), None


def synapse_cell(z: Tensor, current: Tensor, w: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """z [B, I], currents [B, J, I] -> sum [B, J], currents."""
    current = r * current + w * z.unsqueeze(1)
    return current.sum(-1), current


def neuron_cell(
    v: Tensor, reset: Tensor, s: Tensor, theta: Tensor, kappa: Tensor
) -> tuple[Tensor, Tensor]:
    """Summed current, reset current and last spike [B, J] -> spike, reset current."""
    reset = kappa * reset + theta * s
    spike: Callable[[Tensor, Tensor], Tensor] = _Spike.apply
    return spike(v - reset - theta, theta), reset


def layer_cell(
    z: Tensor, current: Tensor, reset: Tensor, s: Tensor, w: Tensor, r: Tensor, theta: Tensor,
    kappa: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """A feedforward layer -> spike, currents, reset current."""
    v, current = synapse_cell(z, current, w, r)
    s, reset = neuron_cell(v, reset, s, theta, kappa)
    return s, current, reset


def recurrent_cell(
    c: Tensor, current: Tensor, reset: Tensor, s: Tensor, w: Tensor, r: Tensor, theta: Tensor,
    kappa: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Recurrent synapses [J, J] over a given current c [B, J] -> spike, currents, reset current."""
    v, current = synapse_cell(s, current, w, r)
    s, reset = neuron_cell(c + v, reset, s, theta, kappa)
    return s, current, reset


def full_cell(
    z: Tensor, current: Tensor, recurrent: Tensor, reset: Tensor, s: Tensor, w: Tensor, r: Tensor,
    w_rec: Tensor, r_rec: Tensor, theta: Tensor, kappa: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """A recurrent layer -> spike, both currents, reset current."""
    v, current = synapse_cell(z, current, w, r)
    fed_back, recurrent = synapse_cell(s, recurrent, w_rec, r_rec)
    s, reset = neuron_cell(v + fed_back, reset, s, theta, kappa)
    return s, current, recurrent, reset


@dataclass(frozen=True)
class Weights:
    """Weights and decays of a layer; `recurrent` has those of recurrent synapses, if any."""

    w: Tensor
    r: Tensor
    recurrent: tuple[Tensor, Tensor] | None = None
    spiking: bool = True

    @property
    def tensors(self) -> list[Tensor]:
        return [self.w, self.r, *(self.recurrent or ())]

    def changed(self, change: Callable[[Tensor], Tensor]) -> Weights:
        back = self.recurrent and (change(self.recurrent[0]), change(self.recurrent[1]))
        return replace(self, w=change(self.w), r=change(self.r), recurrent=back)

    def learned(self) -> Weights:
        """Return copies that require gradients."""
        return self.changed(lambda t: t.detach().clone().requires_grad_())


Compile = Callable[[Callable[..., Any]], Callable[..., Any]]


def as_it_is(cell: Callable[..., Any]) -> Callable[..., Any]:
    return cell


_COMPILED: dict[tuple[str, Callable[..., Any]], Callable[..., Any]] = {}


def compiler() -> Compile:
    """Return `torch.compile` with a cache of cells; a rehearsal's backend compiles nothing."""
    backend = os.environ.get("BENCH_COMPILER", "inductor")

    def compiled(cell: Callable[..., Any]) -> Callable[..., Any]:
        key = (backend, cell)
        if key not in _COMPILED:
            # Compile each size separately: dynamic sizes make slower code.
            torch._dynamo.config.cache_size_limit = 256
            _COMPILED[key] = torch.compile(cell, backend=backend, dynamic=False, fullgraph=True)
        return _COMPILED[key]

    return compiled


def _zeros(like: Tensor, *shape: int) -> Tensor:
    """Make an initial state that requires gradients as later states do, to compile cells once."""
    return like.new_zeros(shape).requires_grad_(torch.is_grad_enabled())


def current_loop(x: Tensor, layer: Weights, compile: Compile = as_it_is) -> Tensor:
    """x [T, B, I] -> summed current [T, B, J]."""
    cell, out = compile(synapse_cell), []
    current = _zeros(x, x.shape[1], *layer.w.shape)
    for z in x.unbind(0):
        v, current = cell(z, current, layer.w, layer.r)
        out.append(v)
    return torch.stack(out)


def layer_loop(x: Tensor, layer: Weights, compile: Compile = as_it_is) -> Tensor:
    """x [T, B, I] -> spikes [T, B, J]; recurrent if the layer is."""
    return _layer_steps(x, layer, _layer_states(x, layer), compile)[0]


def checkpointed_layer_loop(x: Tensor, layer: Weights, compile: Compile = as_it_is) -> Tensor:
    """Compute the same with a checkpoint before every `CHUNK` steps."""
    states, out = _layer_states(x, layer), []
    options: Any = {"use_reentrant": False, "preserve_rng_state": False}  # nothing here is random
    for part in x.split(CHUNK):
        spikes, states = checkpoint(_layer_steps, part, layer, states, compile, **options)
        out.append(spikes)
    return torch.cat(out)


def _layer_states(x: Tensor, layer: Weights) -> tuple[Tensor, ...]:
    """Return initial currents, recurrent currents if any, reset current and spike."""
    (J, I), B = layer.w.shape, x.shape[1]  # noqa: E741
    back = () if layer.recurrent is None else (_zeros(x, B, J, J),)
    return _zeros(x, B, J, I), *back, _zeros(x, B, J), _zeros(x, B, J)


def _layer_steps(
    x: Tensor,
    layer: Weights,
    states: tuple[Tensor, ...],
    compile: Compile = as_it_is,
    cell: Callable[..., Any] | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Steps [T, B, I] from given states -> spikes [T, B, J], final states."""
    *currents, reset, s = states
    theta, kappa = reset.new_ones(reset.shape[1]), reset.new_full((reset.shape[1],), KAPPA)
    weights = (layer.w, layer.r, *(layer.recurrent or ()), theta, kappa)
    step = compile(cell or (layer_cell if layer.recurrent is None else full_cell))
    out = []
    for z in x.unbind(0):
        s, *currents, reset = step(z, *currents, reset, s, *weights)
        out.append(s)
    return torch.stack(out), (*currents, reset, s)


def recurrent_loop(c: Tensor, layer: Weights, compile: Compile = as_it_is) -> Tensor:
    """Given current c [T, B, J] -> spikes; only the recurrent synapses (w, r) are the layer's."""
    return _layer_steps(c, layer, _layer_states(c, layer), compile, recurrent_cell)[0]


def network_loop(
    x: Tensor,
    layers: Sequence[Weights],
    compile: Compile = as_it_is,
    way: Callable[..., Tensor] = layer_loop,
) -> Tensor:
    """Compute layers in sequence with this loop; non-spiking layers return their current."""
    for layer in layers:
        x = (way if layer.spiking else current_loop)(x, layer, compile)
    return x


def tape_bytes(T: int, B: int, synapses: int) -> int:
    """Return the bytes that autograd saves for a loop: the currents of every step."""
    return 4 * T * B * synapses


def in_a_graph(run: Callable[[], Any]) -> Callable[[], Any]:
    """Capture `run` in a CUDA graph, whose result is a static tensor; on a CPU return `run`.

    The returned function refers to `run`, because the graph does not own the memory that it reads.
    """
    if not torch.cuda.is_available():
        return run
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()

    def replay(held: Callable[[], Any] = run) -> Any:
        graph.replay()
        return result

    return replay
