"""Random problems for the public operators and layers, and what their results must satisfy.

The same checks run on the CPU and on a GPU, on whatever serves the operators there. Truth: the
closed forms in float64, spikes and ds/dV given. Every term of V has at most `roundings` roundings
on its way, every term of a gradient at most `gradient_roundings` (see `bounds`).
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from hetsyn_triton import HetSynLIF, Normal, SpikingNetwork
from hetsyn_triton.reference import closed_form
from hetsyn_triton.reference.lib.steps import previous_steps
from tests.support import unchecked
from tests.support.bounds import assert_spikes_follow, assert_within
from tests.support.problems import Size, problem
from tests.support.tensors import total

Named = dict[str, Any]
"""Tensors by name; None where an optional one is absent."""

OUTPUTS = {
    "synaptic_current": ("current", "trace"),
    "leaky_current": ("currents",),
    "spike_scan": ("spikes", "potential", "feedback"),
    "feedforward_scan": ("spikes", "potential", "feedback", "trace"),
    "recurrent_scan": ("spikes", "potential", "feedback", "trace"),
    "leaky_recurrent_scan": ("spikes", "potential", "feedback", "currents"),
}
NEURON = ("feedback_decay", "feedback_strength", "feedback", "spike")
NEGATIVE = ("feedback", "feedback_strength", "g_feedback")
"""Subtracted in V: made negative where all terms shall add up."""


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
        axes: dict[str, int | None] = {"trace": 1, "spike": 1}
        axes |= dict.fromkeys(("weight", "decay", "threshold"))
        axes |= dict.fromkeys(("feedback_decay", "feedback_strength"))
        if self.operator.startswith("leaky"):
            axes["current"] = 1

        def cut(named: Named) -> Named:
            return {
                n: t if t is None or axes.get(n, 2) is None else t.narrow(axes.get(n, 2), b, 1)
                for n, t in named.items()
            }

        g = {"g_trace": 1}
        gradients = {n: t if t is None else t.narrow(g.get(n, 2), b, 1) for n, t in self.g.items()}
        return replace(
            self,
            size=replace(self.size, B=1),
            arguments=cut(self.arguments),
            g=gradients,
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
    made: Named = dict(problem(operator, size, seed, states=states, dtype=dtype))
    if operator in ("synaptic_current", "feedforward_scan", "recurrent_scan"):
        made.setdefault("trace", None)
    if operator == "feedforward_scan":
        made["weight"] = made["weight"] * (2 / size.I**0.5)
    if operator.endswith("recurrent_scan"):
        # Contracting: terms that grew from step to step would make every bound empty.
        made["weight"] = made["weight"] * (0.5 / size.J**0.5)
    generator = torch.Generator().manual_seed(seed + 1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype)

    R, T, B, J = size.R, size.T, size.B, size.J
    shapes = {
        "feedback": (R, size.K, B, J),
        "trace": (R, B, J, J if operator == "recurrent_scan" else size.I),
    }
    names = OUTPUTS[operator]
    absent = {n for n in names[1:] if draw.random() < 0.3}
    g = {f"g_{n}": None if n in absent else normal(*shapes.get(n, (R, T, B, J))) for n in names}
    derivative = normal(R, T, B, J).abs().clamp(max=1) * 0.5
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
    leaves = {
        n: None if t is None else t.detach().requires_grad_() for n, t in given.arguments.items()
    }
    options: dict[str, Any] = {}
    if OUTPUTS[given.operator][0] == "spikes":
        options = {"surrogate": Given(given.derivative), "detach_reset": given.detach_reset}
    outputs = getattr(unchecked, given.operator)(**leaves, **options)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    pairs = [(o, g) for o, g in zip(outputs, given.g.values(), strict=True) if g is not None]
    wanted = {n: t for n, t in leaves.items() if t is not None}
    found = torch.autograd.grad(
        [o for o, _ in pairs], list(wanted.values()), [g for _, g in pairs], allow_unused=True
    )
    gradients = {
        n: torch.zeros_like(t) if d is None else d
        for (n, t), d in zip(wanted.items(), found, strict=True)
    }
    named = zip(OUTPUTS[given.operator], (o.detach() for o in outputs), strict=True)
    return Result(dict(named), gradients)


def _exact(named: Named, absolute: bool) -> Named:
    def one(name: str, t: Tensor | None) -> Tensor | None:
        if t is None or not absolute:
            return None if t is None else t.double()
        return -t.double().abs() if name in NEGATIVE else t.double().abs()

    return {n: one(n, t) for n, t in named.items()}


def _truth(given: Problem, spikes: Tensor | None, absolute: bool) -> Result:
    """Float64 results for these spikes; `absolute`: of absolute values, every term added."""
    operator, a, g = given.operator, _exact(given.arguments, absolute), _exact(given.g, absolute)
    outputs = _forward(operator, a, spikes)
    result = Result(dict(zip(OUTPUTS[operator], outputs, strict=True)))
    derivative = given.derivative.double().abs() if absolute else given.derivative.double()
    if operator == "synaptic_current":
        found = _synapses(a["z"], g["g_current"], g["g_trace"], a)
    elif operator == "leaky_current":
        names = ("drive", "decay", "current")
        found = dict(
            zip(
                names,
                closed_form.leaky_current_backward(
                    g["g_currents"], outputs[0], a["decay"], a["current"]
                ),
                strict=True,
            )
        )
    else:
        assert spikes is not None
        found = _scan_gradients(given, a, g, derivative, spikes.double(), result.outputs)
    result.gradients = found
    return result


def _forward(operator: str, a: Named, spikes: Tensor | None) -> tuple[Tensor, ...]:
    options: dict[str, Any] = {}
    if spikes is not None:
        steps = iter(spikes.double().unbind(1))
        options = {"spike_function": lambda *_: next(steps)}
    function = getattr(closed_form, operator)
    if operator == "feedforward_scan":
        names = ("z", "weight", "decay", "trace")
        current, trace = closed_form.synaptic_current(*(a[n] for n in names))
        neuron = {n: t for n, t in a.items() if n not in names}
        return *closed_form.spike_scan(current, **neuron, **options), trace
    outputs = function(**a, **options)
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _synapses(z: Tensor, g: Tensor | None, g_trace: Tensor | None, a: Named) -> dict[str, Tensor]:
    if g is None:
        g = z.new_zeros(*z.shape[:3], a["weight"].shape[1])
    dz, d_trace = closed_form.synaptic_current_backward(g, g_trace, a["weight"], a["decay"])
    dw, dr = closed_form.synaptic_parameter_gradient(
        z, g, g_trace, a["weight"], a["decay"], a["trace"]
    )
    found = {"z": dz, "weight": dw, "decay": dr}
    return found if a["trace"] is None else found | {"trace": d_trace}


def _scan_gradients(
    given: Problem,
    a: Named,
    g: Named,
    derivative: Tensor,
    spikes: Tensor,
    outputs: dict[str, Tensor],
) -> dict[str, Tensor]:
    operator, detach = given.operator, given.detach_reset
    neuron = {n: a[n] for n in NEURON}
    swept: Sequence[Tensor]
    names = ("threshold", *NEURON)
    arriving = (g["g_spikes"], g["g_potential"], g["g_feedback"])
    if operator == "leaky_recurrent_scan":
        own = (outputs["currents"], a["weight"], a["decay"], a["current"])
        swept = closed_form.leaky_recurrent_scan_backward(
            *arriving, g["g_currents"], derivative, spikes, *own, **neuron, detach_reset=detach
        )
        return dict(zip(("drive", "weight", "decay", "current", *names), swept, strict=True))
    if operator == "recurrent_scan":
        *swept, d_trace = closed_form.recurrent_scan_backward(
            *arriving,
            g["g_trace"],
            derivative,
            spikes,
            a["weight"],
            a["decay"],
            **neuron,
            detach_reset=detach,
        )
        before = previous_steps(spikes, a["spike"])
        found = _synapses(before, swept[0], g["g_trace"], a)
        found = {n: found[n] for n in ("weight", "decay")}
        found |= {} if a["trace"] is None else {"trace": d_trace}
        return found | dict(zip(("current", *names), swept, strict=True))
    swept = closed_form.spike_scan_backward(
        *arriving, derivative, spikes, **neuron, detach_reset=detach
    )
    found = dict(zip(("current", *names), swept, strict=True))
    if operator == "feedforward_scan":
        found |= _synapses(a["z"], found.pop("current"), g["g_trace"], a)
    return found


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


PER_SAMPLE = {"trace": 1, "spike": 1, "z": 2, "drive": 2, "feedback": 2, "current": 2}


def assert_sample_alone(given: Problem, whole: Result, b: int) -> None:
    """Every bit of sample b is there when it is computed alone."""
    alone = run(given.sample(b))
    for name, got in alone.outputs.items():
        want = whole.outputs[name].narrow(1 if name == "trace" else 2, b, 1)
        assert torch.equal(got, want), name
    for name, got in alone.gradients.items():
        if name in PER_SAMPLE:
            # Of the leaky operators `current` is a state, else it has steps.
            state = name == "current" and given.operator.startswith("leaky")
            want = whole.gradients[name].narrow(1 if state else PER_SAMPLE[name], b, 1)
            assert torch.equal(got, want), f"d_{name}"


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

    def one(t: Tensor, negative: bool = False) -> Tensor:
        t = t.detach().double().unsqueeze(0)
        return (-t.abs() if negative else t.abs()) if absolute else t

    potentials, parts, z = [], [], one(x)
    for layer, s in zip(_layers(network), spikes, strict=True):
        a: Named = {"weight": one(layer.weight), "decay": one(layer.decay()), "trace": None}
        current, _ = closed_form.synaptic_current(z, **a)
        assert layer.reset_decay is not None
        theta = one(layer.threshold)
        B, J = x.shape[1], layer.out_features
        zeros = theta.new_zeros(1, B, J)
        neuron = {
            "threshold": theta,
            "feedback_decay": one(layer.reset_decay).unsqueeze(1),
            "feedback_strength": one(layer.threshold, True).unsqueeze(1),
            "feedback": zeros.unsqueeze(1),
            "spike": zeros,
        }
        operator = "recurrent_scan" if layer.recurrent else "spike_scan"
        arguments: Named = {"current": current} | neuron
        if layer.recurrent:
            assert layer.recurrent_weight is not None
            assert layer.recurrent_decay is not None
            arguments |= {"weight": one(layer.recurrent_weight), "trace": None}
            arguments["decay"] = one(layer.recurrent_decay())
        outputs = _forward(operator, arguments, s.unsqueeze(0))
        potentials.append(outputs[1][0])
        parts.append((operator, z, a, arguments))
        z = s.detach().double().unsqueeze(0)
    gradients: dict[str, Tensor] = {}
    g_z, output = one(g), z
    if network.readout is not None:
        last = network.readout
        a = {"weight": one(last.weight), "decay": one(last.decay()), "trace": None}
        output, _ = closed_form.synaptic_current(z, **a)
        found = _synapses(z, g_z, None, a)
        g_z = found["z"]
        gradients |= {"readout.weight": found["weight"], "readout.decay.raw": found["decay"]}
    for index in reversed(range(len(parts))):
        layer, (operator, z, a, arguments) = _layers(network)[index], parts[index]
        size = Size(R=1, T=x.shape[0], B=x.shape[1], I=layer.in_features, J=layer.out_features)
        assert isinstance(layer.surrogate, Given)
        given = Problem(operator, size, arguments, {}, layer.surrogate.derivative)
        arriving: Named = {
            "g_spikes": g_z,
            "g_potential": None,
            "g_feedback": None,
            "g_trace": None,
        }
        s = spikes[index].double().unsqueeze(0)
        swept = _scan_gradients(given, arguments, arriving, given.derivative.double(), s, {})
        own = _synapses(z, swept["current"], None, a)
        g_z = own["z"]
        # The strength of the reset is the threshold: where magnitudes are wanted both add up.
        strength = swept["feedback_strength"][:, 0]
        parts_of_theta = (swept["threshold"], strength)
        threshold = total(p.abs() if absolute else p for p in parts_of_theta)
        name = f"layers.{index}."
        gradients[name + "weight"] = own["weight"]
        gradients[name + "decay.raw"] = own["decay"]
        gradients[name + "threshold"] = threshold
        if layer.recurrent:
            gradients[name + "recurrent_weight"] = swept["weight"]
            gradients[name + "recurrent_decay.raw"] = swept["decay"]
    gradients["x"] = g_z
    return potentials, output[0], {n: t[0] for n, t in gradients.items()}


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
        assert T * B < 20 or bool(s.any()), "a silent layer proves little"
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
