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
from functools import cache, partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from bench import plain_lif, registry, replicas, rivals, timing, workloads
from bench.operators import Sizes
from bench.registry import LOOP, OURS, REFERENCE, Work
from bench.rivals import Weights
from hetsyn_triton import HetSynLIF, HetSynReadout
from hetsyn_triton.ops import dispatch, recurrent_scan
from hetsyn_triton.ops.neuron import Neuron
from hetsyn_triton.surrogates import Triangular


@dataclass(frozen=True)
class Made:
    """A contender that is ready to run."""

    run: Callable[[], Any]
    """The call that is timed."""
    forward: Callable[[], Tensor]
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
    """Spikes at a tenth of all places, weights and decays of a new layer; recurrent synapses are
    given a current instead. With `exact` weights and decays of few bits: sums of few steps are then
    the same in any order. `seed` is the input's."""
    generator = torch.Generator().manual_seed(0)
    recurrent = work.recurrent and work.kind == "layer"
    layer = HetSynLIF(work.I, work.J, recurrent=recurrent, generator=generator)
    weights = workloads.weights_of(layer)
    if exact:
        pairs = [_few_bits(t.shape, generator) for t in weights.tensors[::2]]
        weights = Weights(*pairs[0], pairs[1] if recurrent else None)
    x = workloads.spikes(work.T, work.B, work.I, seed=seed)
    g = torch.randn(work.T, work.B, work.J, generator=generator)
    if work.kind == "synapses":
        x = (8 * g).round() / 8 if exact else g
    return Problem(work, x.to(device), weights.changed(lambda t: t.to(device)), g.to(device))


def _few_bits(shape: Sequence[int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Weights in 16ths or so whose sums come near the threshold, decays 0, 1/2 and 1."""
    whole = torch.randint(-8, 9, tuple(shape), generator=generator)
    unit = 2.0 ** -round(math.log2(4.9 * (0.1 * shape[1]) ** 0.5))
    return whole * unit, torch.randint(0, 3, tuple(shape), generator=generator) / 2


# -- layers, the synaptic current alone, recurrent synapses alone ----------------------------------


def _call(
    given: Problem,
    way: Callable[[Tensor], Tensor],
    leaves: Sequence[Tensor],
    chosen: slice = slice(None),
) -> Made:
    """The part that is asked for, of a forward pass; of the gradients those that are chosen."""
    x, g, part = given.x.clone(), given.g, given.work.part
    begin = [x, *leaves]
    wanted = begin[chosen]
    if part == "forward":
        run = _without_tape(lambda: way(x))
        return Made(run, run, begin)
    x.requires_grad_()
    out = way(x) if part == "backward" else None

    def gradients() -> Any:
        found = way(x) if out is None else out
        return torch.autograd.grad(found, wanted, g, retain_graph=out is not None)

    return Made(gradients, lambda: way(x), begin)


def _without_tape(run: Callable[[], Any]) -> Callable[[], Any]:
    def bare() -> Any:
        with torch.no_grad():
            return run()

    return bare


def _ours(given: Problem, **options: Any) -> Made:
    """This library's layer with the problem's weights; a readout's output is the current."""
    work, device = given.work, given.x.device
    if work.kind == "synapses":
        return _our_synapses(given)
    module: HetSynLIF | HetSynReadout
    if work.kind == "current":
        module = HetSynReadout(work.I, work.J, device=device, **options)
    else:
        module = HetSynLIF(work.I, work.J, recurrent=work.recurrent, device=device, **options)
    leaves = workloads.layer_leaves(module)
    with torch.no_grad():
        for leaf, value in zip(leaves, given.weights.tensors, strict=True):
            leaf.copy_(value)
    return _call(given, lambda x: module(x)[0], [t for t in leaves if t.requires_grad])


def _our_synapses(given: Problem) -> Made:
    """Recurrent synapses over a given current, with all their gradients."""
    weights, zeros = given.weights.learned(), given.g.new_zeros(1, given.work.B, given.work.J)
    one = given.g.new_ones(1, given.work.J)
    neuron = Neuron(one, rivals.KAPPA * one[None], one[None], zeros[None], zeros)

    def way(c: Tensor) -> Tensor:
        synapses = (weights.w[None], weights.r[None], None)
        return recurrent_scan.run(c[None], *synapses, neuron, Triangular(), False, "auto")[0][0]

    return _call(given, way, weights.tensors)


def _unusable(*_: Any) -> bool:
    return False


def _closed_forms(given: Problem) -> Made:
    """No kernel can be used, as where its package is missing: operators take their closed forms."""
    no_kernels: Any = mock.patch.object(dispatch, "usable", new=_unusable)
    made = no_kernels(_ours)(given)
    return Made(no_kernels(made.run), no_kernels(made.forward), made.given)


_LOOPS = {
    "layer": rivals.layer_loop,
    "current": rivals.current_loop,
    "synapses": rivals.recurrent_loop,
}


def _loop(
    given: Problem,
    compiled: bool = False,
    chosen: slice = slice(None),
    way: Callable[..., Tensor] | None = None,
) -> Made:
    way, weights, compile = way or _LOOPS[given.work.kind], given.weights.learned(), _of(compiled)
    return _call(given, lambda x: way(x, weights, compile), weights.tensors, chosen)


def _of(compiled: bool) -> rivals.Compile:
    return rivals.compiler() if compiled else rivals.as_it_is


def _plain(library: str, given: Problem) -> Made:
    work, device = given.work, given.x.device
    return _call(given, *plain_lif.layer(library, work.I, work.J, work.recurrent, device=device))


def _gated(kind: type[nn.LSTM] | type[nn.GRU], given: Problem) -> Made:
    layer = kind(given.work.I, given.work.J, device=given.x.device)
    return _call(given, lambda x: layer(x)[0], list(layer.parameters()))


LAYERS: dict[str, Callable[[Problem], Made]] = {
    OURS: _ours,
    registry.CLOSED: _closed_forms,
    REFERENCE: lambda given: _ours(given, backend="reference"),
    registry.FEWER: lambda given: _ours(given, learn_decay=False),
    LOOP: _loop,
    registry.COMPILED: lambda given: _loop(given, compiled=True),
    registry.CHECKPOINTED: lambda given: _loop(given, way=rivals.checkpointed_layer_loop),
    **{library: partial(_plain, library) for library in registry.PLAIN},
    registry.LSTM: partial(_gated, nn.LSTM),
    registry.GRU: partial(_gated, nn.GRU),
}


def errors_over_time(work: Work, who: str, device: torch.device) -> dict[str, list[Any]]:
    """Root mean square of a contender's current minus that of the loop in float64 with the same
    weights and decays, over that of the current, in windows of time that double: `steps` has their
    ends."""
    given = problem(work, device)
    found = LAYERS[who](given).run().double()
    with torch.no_grad():
        wanted = rivals.current_loop(given.x.double(), given.weights.changed(Tensor.double))
    steps = [2**k for k in range(work.T.bit_length())]
    errors = []
    for end in steps:
        window = slice(end // 2, end)
        error, scale = (found - wanted)[window], wanted[window]
        errors.append((error.square().mean() / scale.square().mean()).sqrt().item())
    return {"steps": steps, "errors": errors}


# -- operators and kernels by themselves -----------------------------------------------------------


def _nothing() -> Tensor:
    return torch.empty(0)


def _operator(work: Work, device: torch.device, seed: int) -> Made:
    """An operator through the dispatcher, or a GPU kernel's launcher."""
    sizes: Any = (work.name, work.operator, work.R, work.T, work.B, work.I, work.J)
    arguments = Sizes(*sizes).arguments(device, seed)
    function: Callable[..., Any]
    if work.kind == "kernel":
        from bench.cases import OPERATORS  # imports Triton

        function = OPERATORS[work.operator]
    else:
        function = getattr(torch.ops.hetsyn_triton, work.operator).default
    run = _without_tape(lambda: function(*arguments))
    moved = timing.size_of(*arguments, *_results(run()))
    return Made(run, _nothing, arguments, moved)


_KERNELS = {
    "synaptic_current": ("current", "forward", slice(None)),
    "synaptic_current_backward": ("current", "backward", slice(1)),
    "synaptic_parameter_gradient": ("current", "backward", slice(1, None)),
    "recurrent_scan": ("synapses", "forward", slice(None)),
}
"""The loop that does the work of a kernel: its kind, part, and gradients."""


def _kernel_loop(work: Work, device: torch.device, seed: int) -> Made:
    kind, part, chosen = _KERNELS[work.operator]
    given = problem(replace(work, kind=kind, part=part), device, seed=seed)
    return _loop(given, chosen=chosen)


# -- a network's training step ---------------------------------------------------------------------


def _network(work: Work, who: str, device: torch.device, exact: bool, seed: int) -> Made:
    """Its `given` are the input and the parameters in the order of `workloads.leaves_of`."""
    x = workloads.spikes(work.T, work.B, work.I, seed=seed).to(device)
    backend = "reference" if who == REFERENCE else "auto"
    made = workloads.network((work.I, *work.hidden, work.J), backend=backend).to(device)
    if exact:
        generator, leaves = torch.Generator().manual_seed(0), workloads.leaves_of(made)
        pairs = [_few_bits(weight.shape, generator) for weight in leaves[::2]]
        with torch.no_grad():
            for leaf, value in zip(leaves, (t for pair in pairs for t in pair), strict=True):
                leaf.copy_(value)
    if who in (OURS, REFERENCE):
        return Made(*workloads.our_network(made, x, work.J))
    compile = _of(who == registry.COMPILED)
    checkpointed = who == registry.CHECKPOINTED
    way = rivals.checkpointed_layer_loop if checkpointed else rivals.layer_loop
    return Made(*workloads.loop_network(made, x, work.J, compile, way))


def _trained(work: Work, who: str, device: torch.device) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients of a training step at the beginning, and the parameters after it."""
    made = make(work, registry.CAPTURED.get(who, who), device, exact=True)
    step: workloads.TrainingStep = made.run  # type: ignore[assignment]
    run: Callable[[], Any] = step
    if who in registry.CAPTURED:  # capturing takes steps, which are undone
        begin = [p.detach().clone() for p in made.given[1:]]
        run = rivals.in_a_graph(step)
        with torch.no_grad():
            for parameter, value in zip(made.given[1:], begin, strict=True):
                parameter.copy_(value)
        step.forget()
    run()
    gradients = [p.grad.clone() for p in made.given[1:] if p.grad is not None]
    return gradients, [p.detach() for p in made.given[1:]]


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


def make(work: Work, who: str, device: torch.device, seed: int = 0, exact: bool = False) -> Made:
    """A contender of a work; raises Missing if its library is."""
    if who in registry.CAPTURED:  # on a CPU, in rehearsals, the call itself
        made = make(work, registry.CAPTURED[who], device, seed, exact)
        return replace(made, run=rivals.in_a_graph(made.run))
    if work.kind == "network":
        return _network(work, who, device, exact, seed)
    if work.kind == "replicas":
        run, parameters = replicas.training(work, who, device)
        return Made(run, _nothing, parameters)
    if work.operator:
        return (_operator if who == OURS else _kernel_loop)(work, device, seed)
    return LAYERS[who](problem(work, device, exact, seed))


STEPS_CHECKED = 6
"""So few that sums of numbers of few bits are exact in float32."""


def _results(found: Any) -> tuple[Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)


@cache
def _truth(work: Work, device: torch.device) -> tuple[Tensor, ...]:
    """The loop of `reference/`; of recurrent synapses alone that of `rivals.py`."""
    who = REFERENCE if work.kind == "layer" else LOOP
    return _results(make(work, who, device, exact=True).run())


def checked(work: Work, who: str, device: torch.device) -> str:
    """ "equal", or how a contender differs by design; AssertionError if its result is wrong.

    A layer is compared with the loop of `reference/` at the size that is timed, for a few steps of
    weights and decays with few bits: spikes are equal, gradients to within rounding. So are
    recurrent synapses with the loop of `rivals.py`, and a network's training step: gradients, and
    parameters after it. The gate's tests compare operators and kernels.
    """
    if who in registry.PLAIN:
        return plain_lif.DIFFERENCE
    if who in registry.OTHERS:
        return f"another model: the gates of {who}, no spikes"
    if work.operator:
        return "equal by the tests of the gate"
    short = replace(work, T=STEPS_CHECKED)
    if work.kind == "current":
        worst = max(errors_over_time(work, who, device)["errors"])
        assert worst < 1e-5, f"{who}: relative error {worst:.1e} against float64"
    elif work.kind == "replicas":
        replicas.check(work, device)
    elif work.kind == "network":
        _check_network(short, who, device)
    else:
        _check_layer(short, who, device)
    return "equal"


def _check_layer(work: Work, who: str, device: torch.device) -> None:
    """AssertionError where spikes or gradients of a layer, or of recurrent synapses, differ."""
    found, wanted = _results(make(work, who, device, exact=True).run()), _truth(work, device)
    if who == registry.FEWER:  # no gradients of decays
        wanted = tuple(g for k, g in enumerate(wanted) if k not in (2, 4))
    assert len(found) == len(wanted), f"{who}: {len(found)} results, not {len(wanted)}"
    for got, want in zip(found, wanted, strict=True):
        if work.part == "forward":
            assert torch.equal(got, want), f"{who}: other spikes"
        else:
            scale = want.abs().max().item()
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5 * scale)
