"""Random problems for the public operators and layers, and what their results must satisfy.

The same checks run on the CPU and on a GPU, on whatever serves the operators there. Truth: the loop
under autograd in float64, spikes and ds/dV given (see `truth`). Every term of V has at most
`roundings` roundings on its way, every term of a gradient at most `gradient_roundings`.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from hetsyn_triton import HetSynLIF, Normal, SpikingNetwork
from hetsyn_triton.reference import loop
from tests.support.bounds import assert_spikes_follow, assert_within
from tests.support.operators import DIFFERENTIABLE, OPERATORS, Size
from tests.support.problems import apply, as_tuple, problem, vjp
from tests.support.tensors import total
from tests.support.truth import Named, double, given_spikes, narrow

OUTPUTS = {name: tuple(OPERATORS[name].results) for name in DIFFERENTIABLE}


@dataclass(frozen=True)
class Given:
    """A surrogate that is data: ds/dV as given, whatever V is."""

    derivative: Tensor

    def __call__(self, u: Tensor, threshold: Tensor) -> Tensor:
        return self.derivative


def sizes(count: int, variants: int, work: float, seed: int) -> Iterator[list[Size]]:
    """`count` lists of sizes with the same features and feedbacks, so that a list compiles once.

    R T B I J stays below `work`.
    """
    draw = random.Random(seed)

    def features() -> int:
        special = (
            1,
            1,
            1,
            2,
            3,
            4,
            5,
            7,
            13,
            31,
            32,
            33,
            61,
            64,
            97,
            127,
            128,
            129,
            131,
            251,
            256,
            293,
        )
        span = draw.choice(((1, 16), (17, 100), (101, 300)))
        return draw.choice(special) if draw.random() < 0.4 else draw.randint(*span)

    for _ in range(count):
        I, J, K = features(), features(), draw.randint(1, 3)  # noqa: E741
        made = []
        for _ in range(variants):
            R, T, B = draw.randint(1, 3), draw.randint(1, 60), draw.randint(1, 40)
            while R * T * B * max(I, J) * J > work and R * T * B > 1:
                R, T, B = max(1, R - 1), max(1, T // 2), max(1, B * 2 // 3)
            made.append(Size(R=R, T=T, B=B, I=I, J=J, K=K))
        yield made


@dataclass(frozen=True)
class Problem:
    """Arguments of an operator by name, gradients of its outputs by name, ds/dV."""

    operator: str
    size: Size
    arguments: Named
    g: Named
    derivative: Tensor
    detach_reset: bool = False

    @property
    def roundings(self) -> int:
        s = self.size
        return 2 * s.T + s.I + s.J + s.K + 12

    @property
    def gradient_roundings(self) -> int:
        s = self.size
        recurrent = s.J if "recurrent" in self.operator else 0
        # Through the sum over neurons in every step; then summed over time and batch.
        return (s.T + 1) * (recurrent + s.K + 16) + s.T * s.B + s.I + s.J + self.roundings

    def to(self, device: torch.device) -> "Problem":
        def moved(named: Named) -> Named:
            return {n: None if t is None else t.to(device) for n, t in named.items()}

        return replace(
            self,
            arguments=moved(self.arguments),
            g=moved(self.g),
            derivative=self.derivative.to(device),
        )

    def sample(self, b: int) -> "Problem":
        """Sample b alone."""
        table = OPERATORS[self.operator]
        gradients = {f"g_{name}": letters for name, letters in table.results.items()}
        return replace(
            self,
            size=replace(self.size, B=1),
            arguments=narrow(table.arguments, self.arguments, "B", b, 1),
            g=narrow(gradients, self.g, "B", b, 1),
            derivative=self.derivative[:, :, b : b + 1],
        )


def make(
    operator: str,
    size: Size,
    seed: int,
    kind: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Problem:
    """A problem with states and gradients present or absent, as `kind` has it (default: seed).

    Equal kinds and features compile the same kernels.
    """
    draw = random.Random(seed if kind is None else kind)
    states = draw.random() < 0.6
    table = OPERATORS[operator]
    drawn = problem(operator, size, seed, states=states, dtype=dtype)
    if operator.endswith("recurrent_scan"):
        # Contracting: terms that grew from step to step would make every bound empty.
        drawn["weight"] = drawn["weight"] * (0.5 / size.J**0.5)
    made = {name: drawn.get(name) for name in table.arguments}
    generator = torch.Generator().manual_seed(seed + 1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype)

    names = OUTPUTS[operator]
    absent = {n for n in names[1:] if draw.random() < 0.3}
    g = {
        f"g_{n}": None if n in absent else normal(*size.shape(letters))
        for n, letters in table.results.items()
    }
    derivative = normal(*size.shape("RTBJ")).abs().clamp(max=1) * 0.5
    return Problem(operator, size, made, g, derivative, draw.random() < 0.2)


@dataclass
class Result:
    """Outputs by name and gradients by argument."""

    outputs: dict[str, Tensor]
    gradients: dict[str, Tensor] = field(default_factory=dict)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.outputs.items()
        yield from ((f"d_{n}", t) for n, t in self.gradients.items())


def run(given: Problem) -> Result:
    """The public operator, forward and backward."""
    leaves: Named = {
        n: None if t is None else t.detach().requires_grad_() for n, t in given.arguments.items()
    }
    options: dict[str, Any] = {}
    if OUTPUTS[given.operator][0] == "spikes":
        options = {"surrogate": Given(given.derivative), "detach_reset": given.detach_reset}
    outputs = apply(given.operator, **leaves, **options)
    wanted = {n: t for n, t in leaves.items() if t is not None}
    return _result(OUTPUTS[given.operator], outputs, given.g, wanted)


def _truth(given: Problem, spikes: Tensor | None, absolute: bool) -> Result:
    """Float64 results for these spikes; `absolute`: of absolute values, every term added."""
    leaves = {n: t.requires_grad_() for n, t in double(given.arguments, absolute).items()}
    options: dict[str, Any] = {}
    if spikes is not None:
        derivative = given.derivative.double()
        slopes = derivative.abs() if absolute else derivative
        options["spike_function"] = given_spikes(spikes.double(), slopes)
        options["detach_reset"] = given.detach_reset
    arguments = {n: leaves.get(n) for n in given.arguments}
    outputs = as_tuple(getattr(loop, given.operator)(**arguments, **options))
    return _result(OUTPUTS[given.operator], outputs, double(given.g, absolute), leaves)


def _result(
    names: tuple[str, ...], outputs: tuple[Tensor, ...], g: Named, leaves: dict[str, Tensor]
) -> Result:
    """Outputs by name, and the gradients of the leaves for the gradients g of some outputs."""
    gradients = vjp(outputs, [g.get(f"g_{name}") for name in names], leaves)
    return Result(dict(zip(names, (o.detach() for o in outputs), strict=True)), gradients)


def assert_right(given: Problem, found: Result) -> float:
    """All outputs and gradients within their bounds; returns the largest share of a bound used."""
    spikes = found.outputs.get("spikes")
    exact, large = _truth(given, spikes, False), _truth(given, spikes, True)
    share = 0.0
    for name, want in exact.outputs.items():
        if name != "spikes":
            got, bound = found.outputs[name], large.outputs[name].abs()
            share = max(share, assert_within(got, want, bound, given.roundings, name))
    if spikes is not None:
        threshold = given.arguments["threshold"]
        v = exact.outputs["potential"], large.outputs["potential"]
        assert_spikes_follow(spikes, *v, threshold, given.roundings)
    assert exact.gradients.keys() == found.gradients.keys()
    for name, want in exact.gradients.items():
        got, bound = found.gradients[name], large.gradients[name].abs()
        n = given.gradient_roundings
        share = max(share, assert_within(got, want, bound, n, f"d_{name}"))
    return share


def assert_same_bits(found: Result, wanted: Result) -> None:
    for (name, got), (_, want) in zip(found.tensors(), wanted.tensors(), strict=True):
        assert torch.equal(got.cpu(), want.cpu()), name


def assert_sample_alone(given: Problem, whole: Result, b: int) -> None:
    """Every bit of sample b is there when it is computed alone."""
    alone, table = run(given.sample(b)), OPERATORS[given.operator]
    for found, all_of_it, letters in (
        (alone.outputs, whole.outputs, table.results),
        (alone.gradients, whole.gradients, table.arguments),
    ):
        wanted = narrow(letters, all_of_it, "B", b, 1)
        for name, got in found.items():
            assert "B" not in letters[name] or torch.equal(got, wanted[name]), name


# -- layers and networks ---------------------------------------------------------------------------


@dataclass
class Trained:
    """A network's outputs, spikes of its layers, and gradients of x and the parameters by name."""

    output: Tensor
    spikes: list[Tensor]
    gradients: dict[str, Tensor]

    def tensors(self) -> list[Tensor]:
        return [self.output, *self.spikes, *self.gradients.values()]


def lif(inputs: int, neurons: int, recurrent: bool, generator: torch.Generator) -> HetSynLIF:
    """A layer that spikes, and whose gradients do not grow from step to step."""
    more: dict[str, Any] = (
        {"recurrent_weight_init": Normal(0.0, 0.5 / neurons)} if recurrent else {}
    )
    return HetSynLIF(
        inputs,
        neurons,
        recurrent=recurrent,
        weight_init=Normal(0.3 / inputs, 1 / inputs**0.5),
        learn_threshold=True,
        generator=generator,
        **more,
    )


def _layers(network: SpikingNetwork) -> list[HetSynLIF]:
    return cast(list[HetSynLIF], list(network.layers))


def with_derivatives(network: SpikingNetwork, T: int, B: int, device: torch.device) -> None:
    """Gives every layer its own ds/dV as data."""
    generator = torch.Generator().manual_seed(5)
    for layer in _layers(network):
        values = torch.rand(1, T, B, layer.out_features, generator=generator) * 0.5
        layer.surrogate = Given(values.to(device))


def train(network: SpikingNetwork, x: Tensor, g: Tensor) -> Trained:
    x = x.detach().requires_grad_()
    output, _, spikes = network(x, return_spikes=True)
    parameters = dict(network.named_parameters())
    dx, *found = torch.autograd.grad(output, [x, *parameters.values()], g)
    gradients = {"x": dx} | dict(zip(parameters, found, strict=True))
    return Trained(output.detach(), [s.detach() for s in spikes], gradients)


def _network_truth(
    network: SpikingNetwork, x: Tensor, g: Tensor, spikes: list[Tensor], absolute: bool
) -> tuple[list[Tensor], Tensor, dict[str, Tensor]]:
    """-> V of every layer, output, gradients by parameter name."""
    leaves: dict[str, Tensor] = {}

    def leaf(name: str, t: Tensor, negative: bool = False) -> Tensor:
        t = t.detach().double().unsqueeze(0)
        sign = -1 if negative else 1
        leaves[name] = (sign * t.abs() if absolute else t).clone().requires_grad_()
        return leaves[name]

    potentials, z = [], leaf("x", x)
    for index, (layer, s) in enumerate(zip(_layers(network), spikes, strict=True)):
        name = f"layers.{index}."
        synapses = leaf(name + "weight", layer.weight), leaf(name + "decay.raw", layer.decay())
        current, _ = loop.synaptic_current(z, *synapses, None)
        assert layer.reset_decay is not None
        theta = leaf(name + "threshold", layer.threshold)
        # Of its own, since the reset is subtracted: where magnitudes are wanted both add up.
        strength = leaf(name + "strength", layer.threshold, negative=True).unsqueeze(1)
        zeros = theta.new_zeros(1, x.shape[1], layer.out_features)
        kappa = layer.reset_decay.double().unsqueeze(0).unsqueeze(1)
        neuron = (theta, kappa, strength, zeros.unsqueeze(1), zeros)
        assert isinstance(layer.surrogate, Given)
        spike = given_spikes(s.double().unsqueeze(0), layer.surrogate.derivative.double())
        if layer.recurrent:
            assert layer.recurrent_weight is not None
            assert layer.recurrent_decay is not None
            own = (
                leaf(name + "recurrent_weight", layer.recurrent_weight),
                leaf(name + "recurrent_decay.raw", layer.recurrent_decay()),
            )
            z, v, *_ = loop.recurrent_scan(current, *own, None, *neuron, spike_function=spike)
        else:
            z, v, _ = loop.spike_scan(current, *neuron, spike_function=spike)
        potentials.append(v[0].detach())
    output = z
    if network.readout is not None:
        last = network.readout
        synapses = leaf("readout.weight", last.weight), leaf("readout.decay.raw", last.decay())
        output, _ = loop.synaptic_current(z, *synapses, None)
    g = g.double().unsqueeze(0)
    found = torch.autograd.grad(output, list(leaves.values()), g.abs() if absolute else g)
    gradients = {n: d[0] for n, d in zip(leaves, found, strict=True)}
    for name in [n for n in gradients if n.endswith("strength")]:
        theta_name = name.replace("strength", "threshold")
        parts = gradients[theta_name], gradients.pop(name)
        gradients[theta_name] = total(p.abs() if absolute else p for p in parts)
    return potentials, output[0].detach(), gradients


def assert_trained(network: SpikingNetwork, x: Tensor, g: Tensor, found: Trained) -> float:
    """Every layer follows its own V, outputs and gradients are within rounding."""
    potentials, output, exact = _network_truth(network, x, g, found.spikes, False)
    large_v, large_output, large = _network_truth(network, x, g, found.spikes, True)
    T, B, _ = x.shape
    n = gradient = 0
    for layer, s, v, large_of in zip(
        _layers(network), found.spikes, potentials, large_v, strict=True
    ):
        n = 2 * T + layer.in_features + layer.out_features + 13
        recurrent = layer.out_features if layer.recurrent else 0
        gradient += (T + 1) * (recurrent + 17) + 2 * n
        given = (s, v, large_of, layer.threshold.detach())
        spikes, potential, magnitude, threshold = (t.unsqueeze(0) for t in given)
        assert_spikes_follow(spikes, potential, magnitude, threshold, n)
        assert T * B < 20 or bool(s.any()), "a silent layer tests little"
    share = 0.0
    if network.readout is not None:
        n = 2 * T + network.readout.in_features + 12
        share = assert_within(found.output, output, large_output.abs(), n, "output")
        gradient += 2 * (n + network.readout.out_features)
    gradient += T * B
    assert exact.keys() == found.gradients.keys()
    for name, want in exact.items():
        got, bound = found.gradients[name], large[name].abs()
        share = max(share, assert_within(got, want, bound, gradient, name))
    return share


def run_small(device: str = "cuda") -> None:
    """Every operator once, forward and backward, for tools that watch memory."""
    for operator in OUTPUTS:
        for size in (Size(R=2, T=5, B=3, I=37, J=21, K=2), Size(T=3, B=2, I=5, J=70, K=1)):
            given = make(operator, size, 1).to(torch.device(device))
            assert_right(given, run(given))
