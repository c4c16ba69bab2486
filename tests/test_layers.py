"""Every layer against the paper's equations: states, potentials, spikes and gradients.

A spike is a discontinuity, so the equations are teacher-forced: s(t-1) is the layer's own spike.
Each spike must then be what the potential says, except within the rounding bound of the threshold;
the tests print the smallest margin.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hetsyn_triton import HetNeuLIF, HetSynLIF, HomNeuLIF
from hetsyn_triton.ops.dispatch import seconds_compiling
from hetsyn_triton.reference import synaptic_current
from hetsyn_triton.surrogates import SURROGATES, surrogate_by_name
from tests.support import bounds
from tests.support.layer_cases import (
    ADAPTIVE,
    ALL,
    READOUTS,
    SPIKING,
    I,
    J,
    Paper,
    normal_like,
    paper,
    spikes as random_spikes,
)
from tests.support.tensors import total

T, B = 40, 3


def roundings(steps: int) -> Tensor:
    """Operations that a term of V(t) has gone through: decays and additions over time, the sum over
    synapses, the feedback currents. [T, 1, 1]"""
    return 2 * torch.arange(1, steps + 1).view(-1, 1, 1) + I + J + 8


def states_of(layer: Any, x: Tensor) -> tuple[Tensor, list[Any]]:
    """Outputs and the state after every step."""
    outputs, states, state = [], [], None
    for x_t in x:
        output, state = layer.step(x_t, state)
        outputs.append(output)
        states.append(state)
    return torch.stack(outputs), states


def potential_in(layer: Any, state: Any) -> Tensor:
    """V [B, J] in float64, put together from a state."""
    state = type(state)(*(None if t is None else t.double() for t in state))
    if hasattr(state, "trace"):
        v = (layer.weight.double() * state.trace).sum(-1)
        if state.recurrent_trace is not None:
            v = v + (layer._recurrent_weight_in_use().double() * state.recurrent_trace).sum(-1)
    else:
        v = state.current
    potential: Tensor = v - state.reset
    return potential if state.adaptation is None else potential - state.adaptation


def assert_spikes_follow(name: str, spikes: Tensor, expected: Paper, theta: Tensor) -> None:
    """s = 1 where V > theta, except where V is within the rounding bound of theta."""
    margin = (expected.potential - theta.double()).abs()
    flipped = (spikes > 0) != (expected.potential > theta)
    print(f"{name}: smallest |V - theta| {margin.min():.1e}, flips {int(flipped.sum())}")
    given = spikes, expected.potential, expected.magnitude, theta
    found, potential, magnitude, thresholds = (t.unsqueeze(0) for t in given)
    bounds.assert_spikes_follow(found, potential, magnitude, thresholds, roundings(len(spikes)))
    assert 0.05 < spikes.mean() < 0.8, "a neuron that never rests or never fires tests nothing"


@pytest.mark.parametrize("name", SPIKING)
def test_spikes_and_states_are_the_papers(name: str) -> None:
    """float64, every step: potential to 1e-12; at the end every current by itself."""
    case = SPIKING[name]
    layer, x = case.make(), random_spikes(T, B, I)
    with torch.no_grad():
        spikes, states = states_of(layer, x)
        expected = paper(case, layer, x, spikes)
    assert_spikes_follow(name, spikes, expected, layer.threshold.detach())
    for t, state in enumerate(states):
        v = potential_in(layer, state)
        torch.testing.assert_close(v, expected.potential[t], rtol=0, atol=1e-12)
        assert torch.equal(state.spike, spikes[t])
    last = states[-1]
    if hasattr(last, "trace"):
        torch.testing.assert_close(layer.weight * last.trace, expected.current, rtol=0, atol=1e-12)
    torch.testing.assert_close(last.reset, expected.reset, rtol=0, atol=1e-12)
    if last.adaptation is None:
        assert not ADAPTIVE.keys() & case.options.keys()
    else:
        torch.testing.assert_close(last.adaptation, expected.adaptation, rtol=0, atol=1e-12)


@pytest.mark.parametrize("analog", [False, True], ids=["spikes", "analog"])
@pytest.mark.parametrize("name", READOUTS)
def test_readouts_are_the_papers(name: str, analog: bool) -> None:
    case = READOUTS[name]
    layer, x = case.make(), random_spikes(T, B, I)
    x = normal_like(x, 5) if analog else x
    output, _ = layer(x)
    torch.testing.assert_close(output, paper(case, layer, x, None).potential, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_gradients_are_the_papers(name: str) -> None:
    """float64: of the input and every parameter, through spikes and the final state, by autograd
    through the equations with the same spikes."""
    case = ALL[name]
    layer, x = case.make(), random_spikes(T, B, I).requires_grad_()
    leaves = [x, *layer.parameters()]
    output, state = layer(x)
    expected = paper(case, layer, x, output.detach())
    if case.spiking:
        found = [output, state.reset]
        wanted = [expected.spikes, expected.reset]
    else:
        found, wanted = [output], [expected.potential]

    def gradients(outputs: list[Tensor]) -> tuple[Tensor, ...]:
        loss = total((o * normal_like(o, seed)).sum() for seed, o in enumerate(outputs))
        return torch.autograd.grad(loss, leaves)

    names = ["x", *(n for n, _ in layer.named_parameters())]
    for what, got, want in zip(names, gradients(found), gradients(wanted), strict=True):
        assert got.abs().max() > 1e-6, what
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11, msg=lambda m: f"{what}: {m}")  # noqa: B023


@pytest.mark.parametrize("name", ALL)
def test_float32_stays_within_its_bound(name: str) -> None:
    """|error of V| <= gamma_n sum|terms| at every step, against float64 with the float32 decays."""
    case = ALL[name]
    layer, x = case.make(dtype=torch.float32), normal_like(torch.empty(T, B, I), 3)
    with torch.no_grad():
        if case.spiking:
            output, states = states_of(layer, x)
            assert torch.equal(layer(x)[0], output) or "Hom" in name or "HetNeu" in name
            expected = paper(case, layer, x, output)
            potential = torch.stack([potential_in(layer, state) for state in states])
            assert_spikes_follow(name, output, expected, layer.threshold)
        else:
            output, _ = layer(x)
            expected, potential = paper(case, layer, x, None), output.double()
    ratio = (potential - expected.potential).abs() / (
        bounds.gamma(roundings(T)) * expected.magnitude
    )
    print(f"{name}: largest error / bound {ratio.max():.3f}")
    assert 0 < ratio.max() <= 1


@pytest.mark.parametrize("name", ALL)
def test_the_reference_backend_agrees(name: str) -> None:
    """Outputs, states and all gradients of backend="reference" and "auto", float64."""
    case = ALL[name]
    found = []
    for backend in ("auto", "reference"):
        layer, x = case.make(backend=backend), random_spikes(T, B, I).requires_grad_()
        output, state = layer(x)
        outputs = [output, *(t for t in state if t is not None)]
        loss = total((o * normal_like(o, seed)).sum() for seed, o in enumerate(outputs))
        leaves = [x, *layer.parameters()]
        found.append((outputs, torch.autograd.grad(loss, leaves)))
    assert not case.spiking or torch.equal(found[0][0][0], found[1][0][0])
    for got, want in zip([*found[0][0], *found[0][1]], [*found[1][0], *found[1][1]], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


def test_the_reference_backend_is_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison above compares two implementations: "reference" runs the loop, "auto" not."""

    def forbidden(*args: Any, **options: Any) -> Any:
        raise AssertionError("the loop ran")

    monkeypatch.setattr(synaptic_current, "loop", forbidden)
    x = torch.zeros(2, 1, 3)
    HetSynLIF(3, 2)(x)
    with pytest.raises(AssertionError, match="the loop ran"):
        HetSynLIF(3, 2, backend="reference")(x)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("cls", [HetSynLIF, HomNeuLIF, HetNeuLIF])
@pytest.mark.parametrize("recurrent", [False, True])
def test_detach_reset(cls: Any, recurrent: bool, backend: str) -> None:
    """The forward stays, and exactly the way through the feedback currents is cut: the gradient is
    that of the same layer with strengths of zero in the backward alone. Here: T = 2 by hand."""
    made = [
        cls(
            1, 1, recurrent=recurrent, detach_reset=d, tau=5.0, dtype=torch.float64, backend=backend
        )
        for d in (False, True)
    ]
    for layer in made:
        with torch.no_grad():
            layer.weight.fill_(1.2)
            if recurrent:
                layer.recurrent_weight.fill_(0.3)
    x = torch.ones(2, 1, 1, dtype=torch.float64)
    gradients = []
    for layer in made:
        inputs = x.clone().requires_grad_()
        spikes, _ = layer(inputs)
        (dx,) = torch.autograd.grad(spikes[1].sum(), inputs)
        gradients.append((spikes.detach(), dx.flatten()))
    assert torch.equal(gradients[0][0], gradients[1][0])
    rho = torch.exp(torch.tensor(-1 / 5, dtype=torch.float64))
    # V(1) = 1.2, V(2) = 1.2 + 1.2 rho - 1 (+ 0.3); sigma' = 1 - |V - 1|.
    self_weight = 0.3 if recurrent and cls is not HomNeuLIF else 0.0
    slope1, v2 = 0.8, 1.2 + 1.2 * rho - 1 + self_weight
    slope2 = (1 - (v2 - 1).abs()).clamp(min=0)
    for (_, dx), strength in zip(gradients, (1.0, 0.0), strict=True):
        through_spike = slope1 * 1.2 * (self_weight - strength)
        torch.testing.assert_close(dx[1], slope2 * 1.2)
        torch.testing.assert_close(dx[0], slope2 * (1.2 * rho + through_spike))


def test_self_connections() -> None:
    """Off by default where HetSyn's experiments have none; then the diagonal takes no gradient."""
    for cls, expected in ((HetSynLIF, True), (HetNeuLIF, True), (HomNeuLIF, False)):
        layer = cls(I, J, recurrent=True)
        assert (layer.self_mask is None) == expected
    layer = SPIKING["HetSynLIF, no self"].make()
    spikes, _ = layer(random_spikes(T, B, I))
    spikes.sum().backward()
    gradient = layer.recurrent_weight.grad
    assert (gradient.diagonal() == 0).all()
    assert (gradient != 0).sum() > J


def test_time_constants_in_seconds() -> None:
    """tau and dt share a unit: the same network in milliseconds, seconds or steps."""
    options: dict[str, Any] = {"recurrent": True, "dtype": torch.float64}
    outputs = []
    for dt in (1.0, 0.004, 4.0):
        generator = torch.Generator().manual_seed(0)
        options |= {"tau": 10 * dt, "tau_reset": 20 * dt, "tau_adaptation": 50 * dt}
        layer = HetSynLIF(I, J, dt=dt, adaptation=0.1, generator=generator, **options)
        assert layer.reset_decay is not None
        assert layer.adaptation_decay is not None
        outputs.append(layer(3 * random_spikes(T, B, I))[0])
        torch.testing.assert_close(layer.decay(), torch.full_like(layer.decay(), -0.1).exp())
        torch.testing.assert_close(layer.reset_decay[0].item(), 0.951229424500714)
        torch.testing.assert_close(layer.adaptation_decay[0].item(), 0.9801986733067553)
    assert outputs[0].sum() > 0
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


# -- what other libraries have got wrong in silence ------------------------------------------------


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("name", SPIKING)
def test_every_surrogate_lets_a_gradient_through(name: str, surrogate: str, backend: str) -> None:
    layer = SPIKING[name].make(surrogate=surrogate_by_name(surrogate), backend=backend)
    spikes, _ = layer(random_spikes(T, B, I))
    spikes.sum().backward()
    for parameter, value in layer.named_parameters():
        assert value.grad is not None
        assert value.grad.any(), parameter


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("name", SPIKING)
def test_neurons_may_differ_in_every_parameter(name: str, backend: str) -> None:
    """Each neuron is that of a layer in which all have its threshold, reset and adaptation. In a
    recurrent layer this holds until the neurons hear of each other, in the second step."""
    steps = 2 if SPIKING[name].recurrent else T
    x = random_spikes(T, B, I)[:steps]

    def outputs(values: Callable[[int], float]) -> Tensor:
        layer = SPIKING[name].make(backend=backend)
        with torch.no_grad():
            for neuron in range(J):
                at = values(neuron)
                layer.threshold[neuron] = 0.2 + 0.3 * at
                if layer.reset_decay is not None:
                    layer.reset_decay[neuron] = 0.9 - 0.2 * at
                if layer.adaptation_decay is not None:
                    layer.adaptation_decay[neuron] = 0.5 + 0.1 * at
                    layer.adaptation_strength[neuron] = 0.1 * at
        found: Tensor = layer(x)[1].reset if steps == T else layer(x)[0][:1]
        return found

    differing = outputs(float)
    for neuron in range(J):
        alike = outputs(lambda _: float(neuron))  # noqa: B023
        assert torch.equal(differing[..., neuron], alike[..., neuron])
    assert not torch.equal(differing, outputs(lambda _: 0.0))


@pytest.mark.parametrize("name", ALL)
def test_another_batch_compiles_nothing(name: str) -> None:
    """Nor another number of steps, in the same process."""
    layer = ALL[name].make()

    def train(steps: int, samples: int) -> None:
        output, state = layer(random_spikes(steps, samples, I))
        (output.sum() + layer(random_spikes(steps, samples, I), state)[0].sum()).backward()

    train(2, 1)
    before = seconds_compiling()
    for steps, samples in ((1, 1), (3, 2), (16, 16), (17, 33)):
        train(steps, samples)
    assert seconds_compiling() == before
