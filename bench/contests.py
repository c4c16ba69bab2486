"""The contenders of a work, on any device: a contender's name -> its call.

Backends: `hetsyn_triton`, the kernels that the dispatcher chooses for the device; `closed forms`,
the same layer without kernels; `reference loop`, the same layer with backend="reference". Rivals:
the loop of `rivals.py` in its variants, plain LIF layers of other libraries (`plain_lif.py`),
nn.LSTM and nn.GRU. All contenders get the same input and output gradient; backends and loops also
the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from bench import plain_lif, replicas, rivals, timing, workloads
from bench.operators import Sizes
from bench.registry import (
    CAPTURED,
    CHECKPOINTED,
    CLOSED,
    COMPILED,
    COMPILED_GRAPH,
    FEWER,
    GRAPH,
    GRU,
    LOOP,
    LSTM,
    OURS,
    OURS_GRAPH,
    PLAIN,
    REFERENCE,
    Work,
)
from bench.rivals import Weights
from hetsyn_triton import HetSynLIF, HetSynReadout, SpikingNetwork
from hetsyn_triton.ops import dispatch, recurrent_scan
from hetsyn_triton.ops.neuron import Neuron
from hetsyn_triton.surrogates import Triangular

Forward = Callable[[], Tensor]


@dataclass(frozen=True)
class Made:
    """A contender that is ready to run."""

    run: Callable[[], Any]
    """The call that is timed."""
    forward: Forward
    """The forward pass alone, and the tensors it begins with: for what autograd keeps."""
    given: Sequence[Tensor]
    moved: int = 0
    """Bytes of all arguments and results of an operator; of others not counted."""


@dataclass(frozen=True)
class Problem:
    """What a layer is given: all contenders of a work the same."""

    work: Work
    x: Tensor
    weights: Weights
    g: Tensor


def problem(work: Work, device: torch.device, exact: bool = False, seed: int = 0) -> Problem:
    """Spikes at a tenth of all places, weights and decays of a new layer. With `exact` weights and
    decays of few bits: sums of few steps are then the same in any order. `seed` is the input's."""
    generator = torch.Generator().manual_seed(0)
    layer = HetSynLIF(work.I, work.J, recurrent=work.recurrent, generator=generator)
    weights = workloads.weights_of(layer, learn=False)
    if exact:
        pairs = [_few_bits(t.shape, generator) for t in weights.tensors[::2]]
        weights = Weights(*pairs[0], pairs[1] if work.recurrent else None)
    x = workloads.spikes(work.T, work.B, work.I, seed=seed).to(device)
    g = torch.randn(work.T, work.B, work.J, generator=generator).to(device)
    back = weights.recurrent and tuple(t.to(device) for t in weights.recurrent)
    moved = Weights(weights.w.to(device), weights.r.to(device), back)  # type: ignore[arg-type]
    return Problem(work, x, moved, g)


def _few_bits(shape: Sequence[int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Weights in 16ths or so whose sums come near the threshold, decays 0, 1/2 and 1."""
    whole = torch.randint(-8, 9, tuple(shape), generator=generator)
    unit = 2.0 ** -round(math.log2(4.9 * (0.1 * shape[1]) ** 0.5))
    return whole * unit, torch.randint(0, 3, tuple(shape), generator=generator) / 2


# -- layers ----------------------------------------------------------------------------------------


def _module(given: Problem, **options: Any) -> tuple[HetSynLIF, list[Tensor]]:
    """A layer with the problem's weights, and its parameters in their order."""
    work, w = given.work, given.weights
    layer = HetSynLIF(work.I, work.J, recurrent=work.recurrent, device=given.x.device, **options)
    leaves = workloads.layer_leaves(layer)
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


def _ours(given: Problem, **options: Any) -> Made:
    layer, leaves = _module(given, **options)
    return _call(given, lambda x: layer(x)[0], [t for t in leaves if t.requires_grad])


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


def captured(made: Made) -> Made:
    """The call in a CUDA graph; on a CPU, in rehearsals, the call itself."""
    return replace(made, run=rivals.in_a_graph(made.run))


def _plain(library: str) -> Callable[[Problem], Made]:
    def make(given: Problem) -> Made:
        work = given.work
        layer = plain_lif.LAYERS[library]
        forward, weights = layer(work.I, work.J, work.recurrent, device=given.x.device)
        return _call(given, forward, weights)

    return make


def _gated(kind: type[nn.LSTM] | type[nn.GRU]) -> Callable[[Problem], Made]:
    def make(given: Problem) -> Made:
        layer = kind(given.work.I, given.work.J, device=given.x.device)
        return _call(given, lambda x: layer(x)[0], list(layer.parameters()))

    return make


def _eager(given: Problem) -> Made:
    return _loop(given, rivals.layer_loop)


_LAYER: dict[str, Callable[[Problem], Made]] = {
    OURS: _ours,
    CLOSED: _closed_forms,
    REFERENCE: lambda given: _ours(given, backend="reference"),
    FEWER: lambda given: _ours(given, learn_decay=False),
    OURS_GRAPH: lambda given: captured(_ours(given)),
    LOOP: _eager,
    COMPILED: _compiled,
    CHECKPOINTED: lambda given: _loop(given, rivals.checkpointed_layer_loop),
    GRAPH: lambda given: captured(_eager(given)),
    COMPILED_GRAPH: lambda given: captured(_compiled(given)),
    **{library: _plain(library) for library in PLAIN},
    LSTM: _gated(nn.LSTM),
    GRU: _gated(nn.GRU),
}


# -- operators and kernels by themselves -----------------------------------------------------------


def _without_tape(run: Callable[[], Any]) -> Callable[[], Any]:
    def bare() -> Any:
        with torch.no_grad():
            return run()

    return bare


def _nothing() -> Tensor:
    return torch.empty(0)


def _operator(work: Work, device: torch.device, seed: int) -> Made:
    """An operator through the dispatcher, or a GPU kernel's launcher."""
    sizes = (work.name, work.operator, work.R, work.T, work.B, work.I, work.J)
    if work.kind == "kernel":
        from bench.cases import Case  # imports Triton

        launcher = Case(*sizes)
        arguments = launcher.arguments(device, seed)
        moved = launcher.cost().hbm
        return Made(lambda: launcher.run(arguments), _nothing, arguments, moved)
    arguments = Sizes(*sizes).arguments(device, seed)
    function = getattr(torch.ops.hetsyn_triton, work.operator).default
    run = _without_tape(lambda: function(*arguments))
    found = run()
    moved = timing.size_of(*arguments, *(found if isinstance(found, tuple) else (found,)))
    return Made(run, _nothing, arguments, moved)


def _kernel_rival(work: Work, device: torch.device) -> Made:
    """The loop over time that does the work of a kernel."""
    given = problem(replace(work, part="both"), device)
    weights = _learnt(given.weights, True)
    if work.operator == "synaptic_current":
        run = _without_tape(lambda: rivals.current_loop(given.x, weights))
        return Made(run, _nothing, [given.x])
    if work.operator == "recurrent_scan":
        run = _without_tape(lambda: rivals.recurrent_loop(given.g, weights))
        return Made(run, _nothing, [given.g])
    x = given.x.requires_grad_()
    leaves = [x] if work.operator == "synaptic_current_backward" else weights.tensors
    out = rivals.current_loop(x, weights)
    return Made(lambda: torch.autograd.grad(out, leaves, given.g, retain_graph=True), _nothing, [x])


def _synapses(
    work: Work, who: str, device: torch.device, seed: int = 0, exact: bool = False
) -> Made:
    """Recurrent synapses over a given current, with all their gradients."""
    given = problem(replace(work, recurrent=False), device, exact, seed)
    c, weights = given.g.clone(), _learnt(given.weights, True)
    if exact:
        c = (8 * c).round() / 8
    J, zeros = work.J, given.g.new_zeros(1, work.B, work.J)
    one = given.g.new_ones(1, J)
    neuron = Neuron(one, rivals.KAPPA * one[None], one[None], zeros[None], zeros)

    def ours(c: Tensor) -> Tensor:
        synapses = (weights.w[None], weights.r[None], None)
        return recurrent_scan.run(c[None], *synapses, neuron, Triangular(), False, "auto")[0][0]

    def loop(c: Tensor) -> Tensor:
        compiled = who in (COMPILED, COMPILED_GRAPH)
        return rivals.recurrent_loop(c, weights, rivals.compiler() if compiled else rivals.as_it_is)

    way = ours if who in (OURS, OURS_GRAPH) else loop
    made = _call(replace(given, x=c), way, weights.tensors)
    return captured(made) if who in CAPTURED else made


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


def _network(
    work: Work, who: str, device: torch.device, exact: bool = False, seed: int = 0
) -> Made:
    """Its `given` are the input and the parameters in the order of `workloads.leaves_of`."""
    sizes = (work.I, *work.hidden, work.J)
    x = workloads.spikes(work.T, work.B, work.I, seed=seed).to(device)
    backend = "reference" if who == REFERENCE else "auto"
    made: SpikingNetwork = workloads.network(sizes, backend=backend).to(device)
    if exact:
        _round(made)
    if who in (OURS, OURS_GRAPH, REFERENCE):
        step, parameters = workloads.our_network(made, x, work.J)
        found = Made(step, lambda: made(x)[0], [x, *parameters])
    else:
        way = rivals.checkpointed_network_loop if who == CHECKPOINTED else rivals.network_loop
        compiled = who in (COMPILED, COMPILED_GRAPH)
        compile = rivals.compiler() if compiled else rivals.as_it_is
        step, parameters = workloads.loop_network(made, x, work.J, compile, way)
        weights = [workloads.weights_of(m) for m in workloads.modules_of(made)]
        given = [x, *parameters, *(t for w in weights for t in w.tensors)]
        found = Made(step, lambda: way(x, weights, compile), given)
    return captured(found) if who in CAPTURED else found


def _round(made: SpikingNetwork) -> None:
    """Weights and decays of few bits, for all layers of a network."""
    generator, leaves = torch.Generator().manual_seed(0), workloads.leaves_of(made)
    with torch.no_grad():
        for weight, decay in zip(leaves[::2], leaves[1::2], strict=True):
            for leaf, value in zip(
                (weight, decay), _few_bits(weight.shape, generator), strict=True
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


def make(work: Work, who: str, device: torch.device, seed: int = 0) -> Made:
    """A contender of a work; Missing if its library is."""
    if work.kind == "layer":
        return _LAYER[who](problem(work, device, seed=seed))
    if work.kind == "current":
        return _current(problem(work, device, seed=seed), who)
    if work.kind == "synapses":
        return _synapses(work, who, device, seed)
    if work.kind == "network":
        return _network(work, who, device, seed=seed)
    if work.kind == "replicas":
        run, parameters = replicas.training(work, device)[who]
        return Made(run, _nothing, parameters)
    if who == OURS:
        return _operator(work, device, seed)
    made = _kernel_rival(work, device)
    return captured(made) if who in CAPTURED else made


STEPS_CHECKED = 6
"""So few that sums of numbers of few bits are exact in float32."""


@cache
def _truth(work: Work, device: torch.device) -> tuple[Tensor, ...]:
    return _results(_LAYER[REFERENCE](problem(work, device, exact=True)))


def _results(made: Made) -> tuple[Tensor, ...]:
    found = made.run()
    return found if isinstance(found, tuple) else (found,)


def checked(work: Work, who: str, device: torch.device) -> str:
    """ "equal", or how a contender differs by design; AssertionError if its result is wrong.

    A layer is compared with the loop of `reference/` at the size that is timed, for a few steps of
    weights and decays with few bits: spikes are equal, gradients to within rounding. So are
    recurrent synapses with the loop of `rivals.py`, and a network's training step: gradients, and
    parameters after it. The gate's tests compare operators and kernels.
    """
    if who in PLAIN:
        return plain_lif.DIFFERENCE
    if who in (LSTM, GRU):
        return f"another model: the gates of {who}, no spikes"
    if work.operator:
        return "equal by the tests of the gate"
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
    if work.kind == "synapses":
        found = _results(_synapses(short, who, device, exact=True))
        wanted = _results(_synapses(short, LOOP, device, exact=True))
    else:
        found = _results(_LAYER[who](problem(short, device, exact=True)))
        wanted = _truth(short, device)
    if who == FEWER:  # no gradients of decays
        wanted = tuple(g for k, g in enumerate(wanted) if k not in (2, 4))
    assert len(found) == len(wanted), f"{who}: {len(found)} results, not {len(wanted)}"
    for got, want in zip(found, wanted, strict=True):
        if work.part == "forward":
            assert torch.equal(got, want), f"{who}: other spikes"
        else:
            scale = want.abs().max().item()
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5 * scale)
    return "equal"
