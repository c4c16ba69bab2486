"""Who does a work, on any device: a contender's name -> its call.

Backends: `hetsyn_triton`, what the dispatcher has for the device (Numba kernels, Triton kernels);
`closed forms`, the same layer without kernels; `reference loop`, the same layer with
backend="reference". Rivals: the loop of `rivals.py` in its ways, and plain LIF layers of other
libraries (`plain_lif.py`). All of them get the same input, weights and output gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from bench import plain_lif, replicas, rivals, workloads
from bench.plain_lif import Missing
from bench.registry import (
    CHECKPOINTED,
    CLOSED,
    COMPILED,
    COMPILED_GRAPH,
    GRAPH,
    LOOP,
    OURS,
    PLAIN,
    REFERENCE,
    Work,
)
from bench.rivals import Weights
from hetsyn_triton import HetSynLIF, HetSynReadout, SpikingNetwork
from hetsyn_triton.ops import dispatch

Forward = Callable[[], Tensor]


@dataclass(frozen=True)
class Made:
    """A contender that is ready: the call that is timed; for what autograd keeps, the forward alone
    and what it begins with."""

    run: Callable[[], Any]
    forward: Forward
    given: Sequence[Tensor]


@dataclass(frozen=True)
class Problem:
    """What a layer is given: all contenders of a work the same."""

    work: Work
    x: Tensor
    weights: Weights
    g: Tensor


def problem(work: Work, device: torch.device, exact: bool = False) -> Problem:
    """Spikes at a tenth of all places, weights and decays of a new layer. With `exact` weights and
    decays of few bits: sums of few steps are then the same in any order."""
    generator = torch.Generator().manual_seed(0)
    layer = HetSynLIF(work.I, work.J, recurrent=work.recurrent, generator=generator)
    weights = workloads.weights_of(layer, learn=False)
    if exact:
        pairs = [_few_bits(*t.shape, generator) for t in weights.tensors[::2]]
        weights = Weights(*pairs[0], pairs[1] if work.recurrent else None)
    x = workloads.spikes(work.T, work.B, work.I).to(device)
    g = torch.randn(work.T, work.B, work.J, generator=generator).to(device)
    back = weights.recurrent and tuple(t.to(device) for t in weights.recurrent)
    moved = Weights(weights.w.to(device), weights.r.to(device), back)  # type: ignore[arg-type]
    return Problem(work, x, moved, g)


def _few_bits(outputs: int, inputs: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Weights in 16ths or so whose sums come near the threshold, decays 0, 1/2 and 1."""
    whole = torch.randint(-8, 9, (outputs, inputs), generator=generator)
    unit = 2.0 ** -round(torch.log2(torch.tensor(4.9 * (0.1 * inputs) ** 0.5)).item())
    return whole * unit, torch.randint(0, 3, (outputs, inputs), generator=generator) / 2


# -- layers ----------------------------------------------------------------------------------------


def _module(given: Problem, backend: str) -> tuple[HetSynLIF, list[Tensor]]:
    """A layer with the problem's weights, and its parameters in their order."""
    work, w = given.work, given.weights
    layer = HetSynLIF(
        work.I, work.J, recurrent=work.recurrent, backend=backend, device=given.x.device
    )
    leaves: list[Tensor] = [layer.weight, layer.decay.raw]
    if work.recurrent:
        leaves += [layer.recurrent_weight, layer.recurrent_decay.raw]
    with torch.no_grad():
        for leaf, value in zip(leaves, w.tensors, strict=True):
            leaf.copy_(value)
    return layer, leaves


def _call(given: Problem, forward: Callable[[Tensor], Tensor], leaves: Sequence[Tensor]) -> Made:
    """The part that is asked for, of a forward pass of the input."""
    x, g, part = given.x.clone(), given.g, given.work.part
    if part == "forward":

        def bare() -> Tensor:
            with torch.no_grad():
                return forward(x)

        return Made(bare, bare, [x, *leaves])
    x.requires_grad_()
    wanted = [x, *leaves]
    if part == "backward":
        out = forward(x)
        return Made(
            lambda: torch.autograd.grad(out, wanted, g, retain_graph=True),
            lambda: forward(x),
            wanted,
        )
    return Made(lambda: torch.autograd.grad(forward(x), wanted, g), lambda: forward(x), wanted)


def _ours(given: Problem) -> Made:
    layer, leaves = _module(given, "auto")
    return _call(given, lambda x: layer(x)[0], leaves)


def _no_kernels() -> Any:
    """While this is entered no kernel can be used, as where its package is missing."""
    return mock.patch.object(dispatch, "usable", return_value=False)


def _without_kernels(made: Made) -> Made:
    """Every operator then takes its closed form, in both directions."""

    def run() -> Any:
        with _no_kernels():
            return made.run()

    def forward() -> Tensor:
        with _no_kernels():
            return made.forward()

    return Made(run, forward, made.given)


def _closed_forms(given: Problem) -> Made:
    with _no_kernels():
        made = _ours(given)
    return _without_kernels(made)


def _reference(given: Problem) -> Made:
    layer, leaves = _module(given, "reference")
    return _call(given, lambda x: layer(x)[0], leaves)


def _learnt(weights: Weights, learn: bool) -> Weights:
    def leaf(t: Tensor) -> Tensor:
        return t.detach().clone().requires_grad_(learn)

    back = weights.recurrent
    return Weights(leaf(weights.w), leaf(weights.r), back and (leaf(back[0]), leaf(back[1])))


def _loop(given: Problem, way: Callable[[Tensor, Weights], Tensor]) -> Made:
    weights = _learnt(given.weights, given.work.part != "forward")
    return _call(given, lambda x: way(x, weights), weights.tensors)


def _compiled(given: Problem) -> Made:
    return _loop(given, lambda x, w: rivals.layer_loop(x, w, rivals.compiler()))


def _captured(given: Problem, make: Callable[[Problem], Made]) -> Made:
    if given.x.device.type != "cuda":
        raise Missing("a CUDA graph needs a CUDA device")
    made = make(given)
    return Made(rivals.in_a_graph(made.run), made.forward, made.given)


def _plain(library: str) -> Callable[[Problem], Made]:
    def make(given: Problem) -> Made:
        work = given.work
        layer = plain_lif.LAYERS[library]
        forward, weights = layer(work.I, work.J, work.recurrent, device=given.x.device)
        return _call(given, forward, weights)

    return make


def _eager(given: Problem) -> Made:
    return _loop(given, rivals.layer_loop)


_LAYER: dict[str, Callable[[Problem], Made]] = {
    OURS: _ours,
    CLOSED: _closed_forms,
    REFERENCE: _reference,
    LOOP: _eager,
    COMPILED: _compiled,
    CHECKPOINTED: lambda given: _loop(given, rivals.checkpointed_layer_loop),
    GRAPH: lambda given: _captured(given, _eager),
    COMPILED_GRAPH: lambda given: _captured(given, _compiled),
    **{library: _plain(library) for library in PLAIN},
}


# -- the synaptic current alone --------------------------------------------------------------------


def _current(given: Problem, who: str) -> Made:
    """A readout, whose output is the current itself."""
    work = given.work
    if who == LOOP:
        return _loop(given, rivals.current_loop)
    readout = HetSynReadout(work.I, work.J, device=given.x.device)
    leaves = [readout.weight, readout.decay.raw]
    with torch.no_grad():
        for leaf, value in zip(leaves, given.weights.tensors, strict=True):
            leaf.copy_(value)
    made = _call(given, lambda x: readout(x)[0], leaves)
    return _without_kernels(made) if who == CLOSED else made


def errors_over_time(work: Work, who: str, device: torch.device) -> dict[str, list[float]]:
    """Root mean square of a contender's current minus that of the loop in float64 with the same
    weights and decays, over that of the current, in windows of time that double: `steps` has their
    ends."""
    given = problem(work, device)
    found = _current(given, who).run().double()
    x, w, r = (t.double() for t in (given.x, given.weights.w, given.weights.r))
    with torch.no_grad():
        wanted = rivals.current_loop(x, Weights(w, r))
    steps, errors, end = [], [], 1
    while end <= work.T:
        window = slice(end // 2, end)
        error = (found[window] - wanted[window]).square().mean().sqrt()
        scale = wanted[window].square().mean().sqrt()
        steps.append(end)
        errors.append((error / scale).item())
        end *= 2
    return {"steps": steps, "errors": errors}


# -- a network's training step ---------------------------------------------------------------------


def _network(work: Work, who: str, device: torch.device, exact: bool = False) -> Made:
    """Whose `given` are the input and the parameters in the order of `workloads.leaves_of`."""
    sizes = (work.I, *work.hidden, work.J)
    x = workloads.spikes(work.T, work.B, work.I).to(device)
    backend = "reference" if who == REFERENCE else "auto"
    made: SpikingNetwork = workloads.network(sizes, backend=backend).to(device)
    if exact:
        _round(made)
    if who in (OURS, REFERENCE):
        step, parameters = workloads.our_network(made, x, work.J)
        return Made(step, lambda: made(x)[0], [x, *parameters])
    way = rivals.network_loop if who == LOOP else rivals.checkpointed_network_loop
    step, parameters = workloads.loop_network(made, x, work.J, loop=way)
    weights = [workloads.weights_of(m) for m in [*made.layers, made.readout]]
    given = [x, *parameters, *(t for w in weights for t in w.tensors)]
    return Made(step, lambda: way(x, weights), given)


def _round(made: SpikingNetwork) -> None:
    """Weights and decays of few bits, for all layers of a network."""
    generator, leaves = torch.Generator().manual_seed(0), workloads.leaves_of(made)
    with torch.no_grad():
        for weight, decay in zip(leaves[::2], leaves[1::2], strict=True):
            for leaf, value in zip(
                (weight, decay), _few_bits(*weight.shape, generator), strict=True
            ):
                leaf.copy_(value)


def _trained(work: Work, who: str, device: torch.device) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients of a training step at the beginning, and the parameters after it."""
    made = _network(replace(work, T=STEPS_CHECKED), who, device, exact=True)
    made.run()
    count = 4 * len(work.hidden) + 2
    parameters = [p.detach() for p in made.given[1 : 1 + count]]
    return [p.grad for p in made.given[1 : 1 + count]], parameters  # type: ignore[misc]


@cache
def _trained_truth(work: Work, device: torch.device) -> tuple[list[Tensor], list[Tensor]]:
    return _trained(work, REFERENCE, device)


def _check_network(work: Work, who: str, device: torch.device) -> None:
    """AssertionError where a training step has other gradients, or leaves other parameters."""
    gradients, after = _trained(work, who, device)
    wanted, wanted_after = _trained_truth(work, device)
    for got, want, p, q in zip(gradients, wanted, after, wanted_after, strict=True):
        scale = want.abs().max().item()
        assert scale > 0, "nothing to compare: a layer without gradient"
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5 * scale)
        # AdamW's first step is about lr times the sign of a gradient, which rounding may turn.
        clear = want.abs() > 1e-3 * scale
        torch.testing.assert_close(p[clear], q[clear], rtol=0, atol=0.05 * workloads.LR)


# -- everything ------------------------------------------------------------------------------------


def make(work: Work, who: str, device: torch.device) -> Made:
    """A contender of a work; Missing where this machine cannot."""
    if work.kind == "layer":
        return _LAYER[who](problem(work, device))
    if work.kind == "current":
        return _current(problem(work, device), who)
    if work.kind == "network":
        return _network(work, who, device)
    run, parameters = replicas.training(work, device)[who]
    return Made(run, lambda: torch.empty(0), parameters)


STEPS_CHECKED = 6
"""So few that sums of numbers of few bits are exact in float32."""


@cache
def _truth(work: Work, device: torch.device) -> tuple[Tensor, ...]:
    return _results(_reference(problem(work, device, exact=True)))


def _results(made: Made) -> tuple[Tensor, ...]:
    found = made.run()
    return found if isinstance(found, tuple) else (found,)


def checked(work: Work, who: str, device: torch.device) -> str:
    """ "equal", or in what a contender differs and by design; AssertionError where it is wrong.

    A layer is compared with the loop of `reference/` at the size that is timed, for a few steps of
    weights and decays with few bits: spikes are equal, gradients to within rounding. So is a
    network's training step: gradients, and parameters after it.
    """
    if who in PLAIN:
        return plain_lif.DIFFERENCE
    if work.kind == "current":
        worst = max(errors_over_time(work, who, device)["errors"])
        assert worst < 1e-5, f"{who}: relative error {worst:.1e} against float64"
        return "equal"
    if work.kind == "replicas":
        replicas.check(work, device)
        return "equal"
    if work.kind == "network":
        _check_network(work, who, device)
        return "equal"
    short = replace(work, T=STEPS_CHECKED)
    found, wanted = _results(_LAYER[who](problem(short, device, exact=True))), _truth(short, device)
    assert len(found) == len(wanted), f"{who}: {len(found)} results, not {len(wanted)}"
    for got, want in zip(found, wanted, strict=True):
        if work.part == "forward":
            assert torch.equal(got, want), f"{who}: other spikes"
        else:
            scale = want.abs().max().item()
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5 * scale)
    return "equal"
