"""The contenders of the benchmark compute the same as the layers; others are as documented."""

import gc
import re
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench import (
    baseline_loop,
    benchmark_runner,
    contenders,
    plain_lif,
    registry,
    replica_steps,
    workloads,
)
from bench.registry import Entry, Work
from hetsyn_triton import HetSynLIF
from hetsyn_triton.surrogates import FastSigmoid, Triangular
from tests.support.random_arguments import apply

CPU = torch.device("cpu")
TINY = Work("layer", 4, 2, 5, 4)
# torch.compile looks at the gradient of every tensor that it is given.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")


def test_entries_have_names_of_their_own() -> None:
    for device in ("cpu", "cuda"):
        sets = [registry.entries(full, device) for full in (False, True)]
        for chosen in (*sets, registry.rehearsed()):
            ids = [entry.id for entry in chosen]
            assert len(set(ids)) == len(ids)
            assert all(re.fullmatch(r"[\w-]+", name) for name in ids)
        quick, full = map(set, sets)
        assert quick - full <= {e for e in quick if e.work.kind == "replicas"}
        assert registry.published(device) <= {e.group for e in full}
        parts = {e.work.part for e in full if e.work.kind == "layer"}
        assert parts == set(registry.PARTS)


def test_a_rehearsal_has_every_kind_and_contender() -> None:
    rehearsed = registry.rehearsed()
    for device in ("cpu", "cuda"):
        for entry in registry.entries(True, device):
            kind = entry.work.kind, entry.work.operator, entry.contender
            assert kind in {(e.work.kind, e.work.operator, e.contender) for e in rehearsed}


@pytest.mark.parametrize("part", registry.PARTS)
@pytest.mark.parametrize("recurrent", [False, True], ids=["feedforward", "recurrent"])
def test_contenders_compute_the_same(
    recurrent: bool, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results are exact where float32 sums are. On a CPU nothing is captured in a CUDA graph."""
    monkeypatch.setenv("BENCH_COMPILER", "eager")
    work = replace(TINY, I=40, J=12, recurrent=recurrent, part=part)
    some = registry.GPU_CONTENDERS[part] + registry.CONTENDERS[part]
    for name in dict.fromkeys(name for name in some if name not in registry.OTHERS):
        assert contenders.checked(work, name, CPU) == "equal"
    spikes = contenders.problem(replace(work, T=6, part="forward"), CPU, exact=True)
    assert 0 < baseline_loop.layer_loop(spikes.x, spikes.weights).mean() < 1


def test_wrong_results_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(given: contenders.Problem) -> contenders.Made:
        weights = replace(given.weights, r=given.weights.r * 0.9)
        return contenders._loop(replace(given, weights=weights))

    work = replace(TINY, I=40, J=12)
    monkeypatch.setitem(contenders.LAYERS, registry.LOOP, wrong)
    with pytest.raises(AssertionError):
        contenders.checked(work, registry.LOOP, CPU)
    names = (registry.LOOP, registry.OURS, registry.GRAPH, "unknown")
    group = [Entry("g", name, work, name) for name in names]
    plan = benchmark_runner.Plan("cpu", 1, 0.0, 3, timed=False)
    loop, ours, graph, unknown = benchmark_runner.measure(group, plan)
    assert loop["wrong"]
    assert benchmark_runner.line(loop, 0.0).startswith("WRONG: ")
    assert benchmark_runner.line(ours, 0.0) == "not timed; equal"
    assert graph["missing"] == "a CUDA graph needs a CUDA device"
    assert "unknown" in unknown["wrong"]


@pytest.mark.parametrize("name", [registry.OURS, registry.OURS_GRAPH, registry.COMPILED])
def test_recurrent_synapses_compute_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_COMPILER", "eager")
    work = Work("synapses", 6, 8, 40, 40, True)
    assert contenders.checked(work, name, CPU) == "equal"
    assert contenders.make(work, name, CPU, exact=True).run()[1].abs().max() > 0


@pytest.mark.parametrize("name", [registry.OURS, registry.CLOSED, registry.LOOP])
def test_the_error_of_a_current_is_within_rounding(name: str) -> None:
    work = Work("current", 12, 3, 6, 5, part="forward")
    assert contenders.checked(work, name, CPU) == "equal"
    assert contenders.errors_over_time(work, name, CPU)["steps"] == [1, 2, 4, 8]


@pytest.mark.parametrize("name", [registry.LSTM, registry.GRU])
def test_gated_layers_have_the_sizes_of_the_work(name: str) -> None:
    """Outputs are [T, B, J]; gradients have the shapes of input and parameters."""
    assert contenders.make(replace(TINY, part="forward"), name, CPU).run().shape == (4, 2, 4)
    x, w_in, w_back, *biases = contenders.make(TINY, name, CPU).run()
    gates = 4 if name == registry.LSTM else 3
    assert x.shape == (4, 2, 5)
    assert (w_in.shape, w_back.shape) == ((gates * 4, 5), (gates * 4, 4))
    assert len(biases) == 2


MULTIPLY_ADDS = {
    "synaptic_current": 2,
    "synaptic_current_backward": 2,
    "synaptic_parameter_gradient": 4,
    "feedforward_scan": 2,
    "recurrent_scan": 2,
    "recurrent_scan_backward": 2,
    "leaky_recurrent_scan": 1,
    "leaky_recurrent_scan_backward": 2,
}
"""Per synapse, sample and step, counted by hand from the equations."""


@pytest.mark.parametrize("operator", registry.CPU_OPERATORS)
def test_operators_get_all_arguments(operator: str) -> None:
    """All sizes differ, so a mix-up of two would fail."""
    work = registry._operator("operator", operator, 5, 2, 3, 4)
    made = contenders.make(work, registry.OURS, CPU)
    made.run()
    per_step = 2 * 4 * (4 if "recurrent" in operator else 3)
    assert work.fma == 5 * per_step * MULTIPLY_ADDS.get(operator, 0)
    assert made.moved > 0


@pytest.mark.parametrize("operator", registry.KERNEL_BASELINES)
def test_the_loop_does_the_work_of_a_kernel(operator: str) -> None:
    """Results have the shapes of those of the operator."""
    work = registry._operator("kernel", operator, 5, 2, 3, 4)
    ours = contenders.make(replace(work, kind="operator"), registry.OURS, CPU).run()
    loop = contenders._results(contenders.make(work, registry.LOOP, CPU).run())
    ours = contenders._results(ours)
    assert [t.shape for t in loop] == [t.shape[1:] for t in ours[: len(loop)]]


def _other_decays(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = baseline_loop.network_loop

    def wrong(x: Tensor, weights: Any, compile: Any, way: Any) -> Tensor:
        return loop(x, [replace(w, r=w.r * 0.9) for w in weights], compile, way)

    monkeypatch.setattr(baseline_loop, "network_loop", wrong)


def _no_clamp(monkeypatch: pytest.MonkeyPatch) -> None:
    step: Any = workloads.TrainingStep
    monkeypatch.setattr(workloads, "TrainingStep", lambda *given: step(*given[:-1], lambda: None))


@pytest.mark.parametrize("spoil", [None, _other_decays, _no_clamp], ids=["right", "r", "clamp"])
def test_a_network_is_checked_by_its_training_step(
    monkeypatch: pytest.MonkeyPatch, spoil: Callable[[pytest.MonkeyPatch], None] | None
) -> None:
    work = Work("network", 4, 2, 40, 3, part="step", hidden=(12, 8))
    monkeypatch.setenv("BENCH_COMPILER", "eager")
    for name in dict.fromkeys(registry.GPU_CONTENDERS["step"] + registry.CONTENDERS["step"]):
        assert contenders.checked(work, name, CPU) == "equal"
    if spoil is not None:
        spoil(monkeypatch)
        with pytest.raises(AssertionError):
            contenders.checked(work, registry.LOOP, CPU)


def test_a_captured_training_step_is_checked_from_its_initial_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Capturing runs two steps on a GPU; so does this substitute."""

    def in_a_graph(run: Callable[[], Any]) -> Callable[[], Any]:
        run()
        run()
        return run

    monkeypatch.setattr(baseline_loop, "in_a_graph", in_a_graph)
    work = Work("network", 4, 2, 40, 3, part="step", hidden=(12, 8))
    for name in (registry.OURS_GRAPH, registry.GRAPH):
        assert contenders.checked(work, name, CPU) == "equal"


def test_closed_forms_are_closed_forms() -> None:
    """No kernel is called, in either direction."""
    called: list[str] = []
    from hetsyn_triton.ops import dispatch

    launcher = dispatch.Kernels.launcher
    made = contenders.make(TINY, registry.CLOSED, CPU)

    def counted(kernels: dispatch.Kernels, name: str) -> Any:
        called.append(name)
        return launcher(kernels, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch.Kernels, "launcher", counted)
        made.run()
        assert called == []
        contenders.make(TINY, registry.OURS, CPU).run()
        assert called


def test_small_networks_train_the_same_together() -> None:
    replica_steps.check(replace(registry.REPLICAS[0], R=2, T=40, B=3), CPU)


@pytest.mark.parametrize("way", [baseline_loop.layer_loop, baseline_loop.checkpointed_layer_loop])
def test_the_loop_takes_the_same_training_step(way: Callable[..., Tensor]) -> None:
    """Network, loss, optimizer and clamp give the same parameters after two steps in float64."""
    sizes = (40, 12, 8, 3)  # enough inputs for every layer to spike
    x = workloads.spikes(40, 4, sizes[0], dtype=torch.float64)
    made = workloads.network(sizes, torch.float64)
    loop, _, (_, *theirs) = workloads.loop_network(made, x, sizes[-1], way=way)
    step, _, (_, *ours) = workloads.our_network(made, x, sizes[-1])
    begin = [p.detach().clone() for p in theirs]
    for _ in range(2):
        step()
        loop()
    for before, got, want in zip(begin, theirs, ours, strict=True):
        assert not torch.equal(before, got)
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


@pytest.mark.gpu
def test_a_captured_call_keeps_what_it_reads() -> None:
    """A graph has addresses, not tensors: reading freed inputs is an illegal access."""
    x = torch.ones(1000, device="cuda")
    kept = weakref.ref(x)
    replay = baseline_loop.in_a_graph(partial(torch.add, x, 1))
    del x
    gc.collect()
    assert kept() is not None
    assert bool((replay() == 2).all())


def test_a_captured_call_keeps_what_it_reads_without_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same with substitutes for capture and replay."""

    class Graph:
        def replay(self) -> None:
            pass

    cuda = torch.cuda
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "Stream", lambda: SimpleNamespace(wait_stream=lambda other: None))
    monkeypatch.setattr(cuda, "current_stream", cuda.Stream)
    monkeypatch.setattr(cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(cuda, "graph", lambda graph: nullcontext())
    x = torch.ones(3)
    kept = weakref.ref(x)
    replay = baseline_loop.in_a_graph(partial(torch.add, x, 1))
    del x
    gc.collect()
    assert kept() is not None
    assert replay().tolist() == [2, 2, 2]


# -- plain LIF layers ------------------------------------------------------------------------------


@pytest.mark.parametrize("recurrent", [False, True], ids=["feedforward", "recurrent"])
def test_the_plain_lif_is_the_layer_with_one_time_constant(recurrent: bool) -> None:
    """SpikingJelly's neuron equals ours with equal decays and a reset of strength rho theta."""
    reason = plain_lif.missing("spikingjelly")
    if reason:
        pytest.skip(f"SpikingJelly: {reason}")
    torch.manual_seed(0)
    forward, weights = plain_lif.layer("spikingjelly", 6, 5, recurrent, torch.float64)
    with torch.no_grad():
        for w in weights:
            w *= 3.0
        if recurrent:
            weights[1][:, :5] = torch.eye(5)
    z = (torch.rand(30, 2, 6) < 0.4).double().requires_grad_()
    found = forward(z)
    rho = torch.full((1, 1, 5), plain_lif.RHO, dtype=torch.float64)
    one, zeros = torch.ones(1, 5, dtype=torch.float64), torch.zeros(1, 2, 5, dtype=torch.float64)
    neuron = (one, rho, rho, zeros[None], zeros)
    synapses = weights[0][None], torch.full((1, 5, 6), plain_lif.RHO, dtype=torch.float64), None
    if recurrent:
        current, _ = apply("synaptic_current", z[None], *synapses)
        square = torch.full((1, 5, 5), plain_lif.RHO, dtype=torch.float64)
        fed_back = weights[1][:, 5:][None], square, None
        spikes, *_ = apply("recurrent_scan", current, *fed_back, *neuron, surrogate=Triangular())
    else:
        spikes, *_ = apply("feedforward_scan", z[None], *synapses, *neuron, surrogate=Triangular())
    assert found.any()
    assert torch.equal(found, spikes[0])
    g = torch.randn(found.shape, dtype=torch.float64)
    leaves = [z, weights[0]]
    theirs = torch.autograd.grad(found, leaves, g, retain_graph=True)
    expected = torch.autograd.grad(spikes[0], leaves, g)
    for got, want in zip(theirs, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def _compared(library: str, recurrent: bool) -> tuple[torch.Tensor, Any, Any]:
    """Return the spikes and weights of a library, and the input."""
    reason = plain_lif.missing(library)
    if reason:
        pytest.skip(f"{library}: {reason}")
    torch.manual_seed(0)
    forward, weights = plain_lif.layer(library, 6, 5, recurrent)
    with torch.no_grad():
        weights[0] *= 3.0
    z = (torch.rand(30, 2, 6) < 0.4).float().requires_grad_()
    return forward(z), weights, z


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("recurrent", [False, True], ids=["feedforward", "recurrent"])
def test_snntorch_is_the_layer_with_one_time_constant(recurrent: bool) -> None:
    """The surrogate is the library's, and the reset has no gradient."""
    found, weights, z = _compared("snntorch", recurrent)
    layer = HetSynLIF(
        6, 5, recurrent=recurrent, tau_reset=20.0, detach_reset=True,
        surrogate=FastSigmoid(plain_lif.SLOPE),
    )  # fmt: skip
    with torch.no_grad():
        layer.weight.copy_(weights[0])
        layer.decay.raw.fill_(plain_lif.RHO)
        if recurrent:
            assert layer.recurrent_weight is not None
            assert layer.recurrent_decay is not None
            layer.recurrent_weight.copy_(weights[1])
            layer.recurrent_decay.raw.fill_(plain_lif.RHO)
    spikes, _ = layer(z)
    assert found.any()
    assert torch.equal(found, spikes)
    g = torch.randn(found.shape)
    theirs = torch.autograd.grad(found, [z, weights[0]], g)
    expected = torch.autograd.grad(spikes, [z, layer.weight], g)
    for got, want in zip(theirs, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("recurrent", [False, True], ids=["feedforward", "recurrent"])
def test_norse_is_the_neuron_of_its_docstring(recurrent: bool) -> None:
    """Its potential is 1 - rho times ours: spikes and gradient follow from the equations."""
    found, weights, z = _compared("norse", recurrent)
    u, s, spikes = torch.zeros(2, 5), torch.zeros(2, 5), []
    for z_t in z:
        current = z_t @ weights[0].T + (s @ weights[1].T if recurrent else 0.0)
        h = plain_lif.RHO * u + current
        s = (h > 1).float()
        u = h - s
        spikes.append(s)
    assert found.any()
    assert torch.equal(found, torch.stack(spikes))
    (gradient,) = torch.autograd.grad(found.sum(), [weights[0]])
    assert gradient.abs().sum() > 0
