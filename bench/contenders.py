"""Make the calls of the contenders of a work, on any device.

- Backends: `hetsyn_triton`, the kernels that the dispatcher chooses for the device; `closed forms`,
  the same layer without kernels; `reference loop`, the same layer with backend="reference".
- Baselines: the loop of `baseline_loop.py` in its variants, plain LIF layers of other libraries
  (`plain_lif.py`), nn.LSTM and nn.GRU.

All contenders get the same input and output gradient; backends and loops also the same weights.
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

from bench import baseline_loop, plain_lif, registry, replica_steps, timing, workloads
from bench.baseline_loop import Weights
from bench.operator_arguments import Sizes
from bench.registry import LOOP, OURS, REFERENCE, Work
from hetsyn_triton import HetSynLIF, HetSynReadout
from hetsyn_triton.ops import dispatch, recurrent_scan
from hetsyn_triton.ops.neuron import Neuron
from hetsyn_triton.surrogates import Triangular


@dataclass(frozen=True)
class Made:
    """A contender's calls, ready to run."""

    run: Callable[[], Any]
    """The call that is timed."""
    forward: Callable[[], Tensor]
    """The forward pass alone, to measure what autograd saves; `given` are its input tensors."""
    given: Sequence[Tensor]
    moved: int = 0
    """Bytes of all arguments and results of an operator; 0 for other works."""


@dataclass(frozen=True)
class Problem:
    """Input, weights and output gradient, the same for all contenders of a work."""

    work: Work
    x: Tensor
    weights: Weights
    g: Tensor


def problem(work: Work, device: torch.device, exact: bool = False, seed: int = 0) -> Problem:
    """Make random spikes (10 %) and the weights of a new layer; recurrent synapses get a current.

    With `exact`, weights and decays have few bits, so float32 sums of few steps are exact. `seed`
    is that of the input.
    """
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
    """Return weights of few bits whose sums come near the threshold, and decays 0, 1/2 and 1."""
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
    """Make the work's part of a layer: forward pass `way`, its chosen gradients, or both."""
    x, g, part = given.x.clone(), given.g, given.work.part
    begin = [x, *leaves]
    inputs = begin[chosen]
    if part == "forward":
        run = torch.no_grad()(lambda: way(x))
        return Made(run, run, begin)
    x.requires_grad_()
    out = way(x) if part == "backward" else None

    def gradients() -> Any:
        found = way(x) if out is None else out
        return torch.autograd.grad(found, inputs, g, retain_graph=out is not None)

    return Made(gradients, lambda: way(x), begin)


def _ours(given: Problem, **options: Any) -> Made:
    """Make this library's layer with the problem's weights; a readout returns its current."""
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
    """Make recurrent synapses over a given current, with all gradients."""
    weights, zeros = given.weights.learned(), given.g.new_zeros(1, given.work.B, given.work.J)
    one = given.g.new_ones(1, given.work.J)
    neuron = Neuron(one, baseline_loop.KAPPA * one[None], one[None], zeros[None], zeros)

    def way(c: Tensor) -> Tensor:
        synapses = (weights.w[None], weights.r[None], None)
        return recurrent_scan.run(c[None], *synapses, neuron, Triangular(), False, "auto")[0][0]

    return _call(given, way, weights.tensors)


def _unusable(*_: Any) -> bool:
    return False


def _closed_forms(given: Problem) -> Made:
    """Make the layer without usable kernels, as if Numba and Triton were missing."""
    no_kernels: Any = mock.patch.object(dispatch, "usable", new=_unusable)
    made = no_kernels(_ours)(given)
    return Made(no_kernels(made.run), no_kernels(made.forward), made.given)


_LOOPS = {
    "layer": baseline_loop.layer_loop,
    "current": baseline_loop.current_loop,
    "synapses": baseline_loop.recurrent_loop,
}


def _loop(
    given: Problem,
    compiled: bool = False,
    chosen: slice = slice(None),
    way: Callable[..., Tensor] | None = None,
) -> Made:
    way, weights, compile = way or _LOOPS[given.work.kind], given.weights.learned(), _of(compiled)
    return _call(given, lambda x: way(x, weights, compile), weights.tensors, chosen)


def _of(compiled: bool) -> baseline_loop.Compile:
    return baseline_loop.compiler() if compiled else baseline_loop.as_it_is


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
    registry.CHECKPOINTED: lambda given: _loop(given, way=baseline_loop.checkpointed_layer_loop),
    **{library: partial(_plain, library) for library in registry.PLAIN},
    registry.LSTM: partial(_gated, nn.LSTM),
    registry.GRU: partial(_gated, nn.GRU),
}


def errors_over_time(work: Work, name: str, device: torch.device) -> dict[str, list[Any]]:
    """Return the relative error (rms) of a contender's current against the loop in float64.

    Each window of time is twice as long as the one before; `steps` are their ends.
    """
    given = problem(work, device)
    found = LAYERS[name](given).run().double()
    with torch.no_grad():
        truth = baseline_loop.current_loop(given.x.double(), given.weights.changed(Tensor.double))
    steps = [2**k for k in range(work.T.bit_length())]
    errors = []
    for end in steps:
        window = slice(end // 2, end)
        error, scale = (found - truth)[window], truth[window]
        errors.append((error.square().mean() / scale.square().mean()).sqrt().item())
    return {"steps": steps, "errors": errors}


# -- single operators and kernels ------------------------------------------------------------------


def _nothing() -> Tensor:
    return torch.empty(0)


def _operator(work: Work, device: torch.device, seed: int) -> Made:
    """Make a call of an operator through the dispatcher, or of a GPU kernel's launcher."""
    sizes: Any = (work.name, work.operator, work.R, work.T, work.B, work.I, work.J)
    arguments = Sizes(*sizes).arguments(device, seed)
    function: Callable[..., Any]
    if work.kind == "kernel":
        from bench.cases import OPERATORS  # imports Triton

        function = OPERATORS[work.operator]
    else:
        function = getattr(torch.ops.hetsyn_triton, work.operator).default
    run: Callable[[], Any] = torch.no_grad()(lambda: function(*arguments))
    moved = timing.size_of(*arguments, *_results(run()))
    return Made(run, _nothing, arguments, moved)


_KERNELS = {
    "synaptic_current": ("current", "forward", slice(None)),
    "synaptic_current_backward": ("current", "backward", slice(1)),
    "synaptic_parameter_gradient": ("current", "backward", slice(1, None)),
    "recurrent_scan": ("synapses", "forward", slice(None)),
}
"""The loop that does the work of a kernel: kind, part and chosen gradients."""


def _kernel_loop(work: Work, device: torch.device, seed: int) -> Made:
    kind, part, chosen = _KERNELS[work.operator]
    given = problem(replace(work, kind=kind, part=part), device, seed=seed)
    return _loop(given, chosen=chosen)


# -- a network's training step ---------------------------------------------------------------------


def _network(work: Work, name: str, device: torch.device, exact: bool, seed: int) -> Made:
    """Make a training step; `given`: the input, then parameters as in `workloads.leaves_of`."""
    x = workloads.spikes(work.T, work.B, work.I, seed=seed).to(device)
    backend = "reference" if name == REFERENCE else "auto"
    made = workloads.network((work.I, *work.hidden, work.J), backend=backend).to(device)
    if exact:
        generator, leaves = torch.Generator().manual_seed(0), workloads.leaves_of(made)
        pairs = [_few_bits(weight.shape, generator) for weight in leaves[::2]]
        with torch.no_grad():
            for leaf, value in zip(leaves, (t for pair in pairs for t in pair), strict=True):
                leaf.copy_(value)
    if name in (OURS, REFERENCE):
        return Made(*workloads.our_network(made, x, work.J))
    compile = _of(name == registry.COMPILED)
    checkpointed = name == registry.CHECKPOINTED
    way = baseline_loop.checkpointed_layer_loop if checkpointed else baseline_loop.layer_loop
    return Made(*workloads.loop_network(made, x, work.J, compile, way))


def _trained(work: Work, name: str, device: torch.device) -> tuple[list[Tensor], list[Tensor]]:
    """Return the gradients of the first training step, and the parameters after it."""
    made = make(work, registry.CAPTURED.get(name, name), device, exact=True)
    step: workloads.TrainingStep = made.run  # type: ignore[assignment]
    run: Callable[[], Any] = step
    if name in registry.CAPTURED:  # capturing runs steps, which are undone here
        begin = [p.detach().clone() for p in made.given[1:]]
        run = baseline_loop.in_a_graph(step)
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


def _check_network(work: Work, name: str, device: torch.device) -> None:
    """Raise AssertionError if a training step has wrong gradients or wrong parameters after it."""
    gradients, after = _trained(work, name, device)
    expected, expected_after = _trained_truth(work, device)
    for got, want, p, q in zip(gradients, expected, after, expected_after, strict=True):
        scale = want.abs().max().item()
        assert scale > 0, "nothing to compare: a layer has no gradient"
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5 * scale)
        # AdamW's first step is about lr times the gradient's sign, which rounding may change.
        clear = want.abs() > 1e-3 * scale
        torch.testing.assert_close(p[clear], q[clear], rtol=0, atol=0.05 * workloads.LR)


# -- all works -------------------------------------------------------------------------------------


def make(work: Work, name: str, device: torch.device, seed: int = 0, exact: bool = False) -> Made:
    """Make a contender of a work; raise Missing if its library is not installed."""
    if name in registry.CAPTURED:  # on a CPU (rehearsals) without a graph
        made = make(work, registry.CAPTURED[name], device, seed, exact)
        return replace(made, run=baseline_loop.in_a_graph(made.run))
    if work.kind == "network":
        return _network(work, name, device, exact, seed)
    if work.kind == "replicas":
        run, parameters = replica_steps.training(work, name, device)
        return Made(run, _nothing, parameters)
    if work.operator:
        return (_operator if name == OURS else _kernel_loop)(work, device, seed)
    return LAYERS[name](problem(work, device, exact, seed))


STEPS_CHECKED = 6
"""Few enough for sums of numbers of few bits to be exact in float32."""


def _results(found: Any) -> tuple[Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)


@cache
def _truth(work: Work, device: torch.device) -> tuple[Tensor, ...]:
    """Return the result of the loop in `reference/`; for synapses, of `baseline_loop.py`."""
    name = REFERENCE if work.kind == "layer" else LOOP
    return _results(make(work, name, device, exact=True).run())


def checked(work: Work, name: str, device: torch.device) -> str:
    """Check a contender; return "equal", or how it differs by design.

    A layer is compared with the loop in `reference/` at its timed size, for a few steps with
    weights and decays of few bits: spikes must be equal, gradients equal to within rounding. A
    network's training step must have equal gradients and parameters too. Recurrent synapses are
    compared with the loop in `baseline_loop.py`. Operators and kernels are tested by `tests/`.

    Raises:
        AssertionError: If the result is wrong.
    """
    if name in registry.PLAIN:
        return plain_lif.DIFFERENCE
    if name in registry.OTHERS:
        return f"another model: the gates of {name}, no spikes"
    if work.operator:
        return "equal by the tests of the kernels"
    short = replace(work, T=STEPS_CHECKED)
    if work.kind == "current":
        worst = max(errors_over_time(work, name, device)["errors"])
        assert worst < 1e-5, f"{name}: relative error {worst:.1e} against float64"
    elif work.kind == "replicas":
        replica_steps.check(work, device)
    elif work.kind == "network":
        _check_network(short, name, device)
    else:
        _check_layer(short, name, device)
    return "equal"


def _check_layer(work: Work, name: str, device: torch.device) -> None:
    """Raise AssertionError if spikes or gradients of a layer, or of synapses, differ."""
    found, truth = _results(make(work, name, device, exact=True).run()), _truth(work, device)
    if name == registry.FEWER:  # no gradients of decays
        truth = tuple(g for k, g in enumerate(truth) if k not in (2, 4))
    assert len(found) == len(truth), f"{name}: {len(found)} results, not {len(truth)}"
    for got, want in zip(found, truth, strict=True):
        if work.part == "forward":
            assert torch.equal(got, want), f"{name}: other spikes"
        else:
            scale = want.abs().max().item()
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5 * scale)
