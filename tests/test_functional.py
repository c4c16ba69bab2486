"""The functional API: numbers or tensors, replicas, empty sizes, and errors that name the argument.

What the functions compute is tested layer by layer in test_layers.py and operator by operator.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hetsyn_triton import NeuronState, functional
from hetsyn_triton.functional import (
    feedforward_scan,
    leaky_current,
    leaky_recurrent_scan,
    recurrent_scan,
    spike_scan,
    synaptic_current,
)
from tests.support.layer_cases import normal_like
from tests.support.tensors import total

R, T, B, I, J = 3, 6, 4, 5, 7  # noqa: E741 - the field's letter
DOUBLE = torch.float64


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def neuron(*lead: int) -> dict[str, Any]:
    """Arguments of every function with a threshold, one adaptation current included."""
    return {
        "threshold": 0.5 + uniform(*lead, J, seed=10),
        "reset_decay": uniform(*lead, J, seed=11),
        "adaptation_decay": uniform(*lead, J, seed=12),
        "adaptation_strength": uniform(*lead, J, seed=13),
        "state": NeuronState(*(uniform(*lead, B, J, seed=s).round() for s in (14, 15, 16))),
    }


def arguments(name: str, *lead: int) -> dict[str, Any]:
    """All arguments of a function; `lead` is (R,) for replicas."""
    if name in ("synaptic_current", "feedforward_scan"):
        synapses = {
            "z": uniform(*lead, T, B, I).round(),
            "weight": uniform(*lead, J, I, seed=1) - 0.4,
            "decay": uniform(*lead, J, I, seed=2),
            "trace": uniform(*lead, B, J, I, seed=3),
        }
        return synapses if name == "synaptic_current" else synapses | neuron(*lead)
    if name == "leaky_current":
        return {
            "drive": uniform(*lead, T, B, J) - 0.4,
            "decay": uniform(*lead, J, seed=2),
            "current": uniform(*lead, B, J, seed=3),
        }
    if name == "spike_scan":
        return {"current": 3 * uniform(*lead, T, B, J)} | neuron(*lead)
    square = {"weight": uniform(*lead, J, J, seed=1) - 0.4}
    if name == "recurrent_scan":
        square |= {"decay": uniform(*lead, J, J, seed=2), "trace": uniform(*lead, B, J, J, seed=3)}
        return {"current": 3 * uniform(*lead, T, B, J)} | square | neuron(*lead)
    square |= {"decay": uniform(*lead, J, seed=2), "current": uniform(*lead, B, J, seed=3)}
    return {"drive": 2 * uniform(*lead, T, B, J)} | square | neuron(*lead)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(functional, name) for name in functional.__all__
}
SPIKING = ["spike_scan", "feedforward_scan", "recurrent_scan", "leaky_recurrent_scan"]


def flat(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    return [t for part in result if part is not None for t in flat(part)]


def test_the_list_is_complete() -> None:
    assert set(FUNCTIONS) == {"synaptic_current", "leaky_current", *SPIKING}


@pytest.mark.parametrize("backend", ["auto", "cpu", "reference"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_replicas_are_calls_of_their_own(name: str, backend: str) -> None:
    """[R, T, B, N] with parameters [R, ...] equals R calls, gradients included."""
    given = arguments(name, R)
    leaves = [t.requires_grad_() for t in flat(given.values())]

    def pick(value: Any, r: int) -> Any:
        return NeuronState(*(t[r] for t in value)) if isinstance(value, tuple) else value[r]

    together = flat(FUNCTIONS[name](**given, backend=backend))
    apart = [
        torch.stack(parts)
        for parts in zip(
            *(
                flat(FUNCTIONS[name](**{k: pick(v, r) for k, v in given.items()}, backend=backend))
                for r in range(R)
            ),
            strict=True,
        )
    ]
    for a, b in zip(together, apart, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    gradients = [
        torch.autograd.grad(total((o * normal_like(o, k)).sum() for k, o in enumerate(out)), leaves)
        for out in (together, apart)
    ]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("replicas", [(), (R,)], ids=["plain", "replicas"])
@pytest.mark.parametrize("name", SPIKING)
def test_a_number_is_a_tensor_of_one_value(name: str, replicas: tuple[int, ...]) -> None:
    """A float, a scalar tensor and a full tensor mean the same; a scalar takes a scalar gradient,
    the sum over neurons."""
    numbers = {
        "threshold": 0.8,
        "reset_decay": 0.9,
        "adaptation_decay": 0.7,
        "adaptation_strength": 0.1,
    }
    if name == "leaky_recurrent_scan":
        numbers["decay"] = 0.6
    shape = (*replicas, J)
    kinds: list[dict[str, Any]] = [
        dict(numbers),
        {k: torch.tensor(v, dtype=DOUBLE, requires_grad=True) for k, v in numbers.items()},
        {k: torch.full(shape, v, dtype=DOUBLE).requires_grad_() for k, v in numbers.items()},
    ]
    given = arguments(name, *replicas)
    results = [flat(FUNCTIONS[name](**(given | kind))) for kind in kinds]
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], result, strict=True))
    gradients = [
        torch.autograd.grad(
            total((o * normal_like(o, k)).sum() for k, o in enumerate(r)), [*kind.values()]
        )
        for r, kind in zip(results[1:], kinds[1:], strict=True)
    ]
    for scalar, full in zip(*gradients, strict=True):
        assert scalar.dim() == 0
        assert scalar.abs() > 1e-6
        torch.testing.assert_close(scalar, full.sum(), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_absent_states_are_zeros(name: str) -> None:
    given = arguments(name)
    states: list[str] = [k for k in ("trace", "state") if k in given]
    if name.startswith("leaky"):
        states.append("current")
    zeros = {
        k: NeuronState(*(torch.zeros_like(t) for t in given[k]))
        if k == "state"
        else torch.zeros_like(given[k])
        for k in states
    }
    expected = flat(FUNCTIONS[name](**(given | zeros)))
    found = flat(FUNCTIONS[name](**{k: v for k, v in given.items() if k not in states}))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_steps(name: str) -> None:
    """T = 0: every state comes back as it was."""
    given = arguments(name)
    first = next(iter(given))
    given[first] = given[first][:0]
    *outputs, state = FUNCTIONS[name](**given)
    if name == "synaptic_current":
        assert torch.equal(state, given["trace"])
    elif name == "leaky_current":
        assert torch.equal(state, given["current"])
    else:
        assert all(torch.equal(a, b) for a, b in zip(state, given["state"], strict=True))
        if len(outputs) == 3:
            kept = given["current"] if name.startswith("leaky") else given["trace"]
            assert torch.equal(outputs.pop(), kept)
    assert all(o.shape[0] == 0 for o in outputs)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_replicas_without_steps_or_samples(name: str) -> None:
    given = arguments(name, R)
    first = next(iter(given))
    output, *_ = FUNCTIONS[name](**(given | {first: given[first][:, :0]}))
    assert output.shape == (R, 0, B, J)
    output, *_ = FUNCTIONS[name](
        **{k: v for k, v in given.items() if k not in ("trace", "state") and k != "current"}
        | {first: given[first][:, :, :0]}
    )
    assert output.shape == (R, T, 0, J)


def test_spikes_potential_and_state_belong_together() -> None:
    given = arguments("spike_scan")
    spikes, potential, state = spike_scan(**given)
    assert torch.equal(spikes, (potential > given["threshold"]).to(DOUBLE))
    assert 0.1 < spikes.mean() < 0.9
    assert isinstance(state, NeuronState)
    assert torch.equal(state.spike, spikes[-1])
    plain = {k: v for k, v in given.items() if not k.startswith("adaptation") and k != "state"}
    assert spike_scan(**plain)[2].adaptation is None


def test_a_spike_needs_more_than_the_threshold() -> None:
    """s = 1 if V > theta, strictly."""
    one = torch.ones(1, 1, 1, dtype=DOUBLE)
    assert spike_scan(one, 1.0, 0.5)[0].item() == 0
    assert spike_scan(torch.nextafter(one, 2 * one), 1.0, 0.5)[0].item() == 1


# -- bad input -------------------------------------------------------------------------------------


def changed(name: str, *lead: int, **values: Any) -> Callable[[], Any]:
    """A call with some arguments replaced, or made from the good ones by a function."""
    given = arguments(name, *lead)
    for key, value in values.items():
        given[key] = value(given[key]) if callable(value) else value
    return lambda: FUNCTIONS[name](**given)


def nan(value: Tensor) -> Tensor:
    return value.clone().fill_(float("nan"))


BAD: dict[str, tuple[Callable[[], Any], Any, str]] = {
    "no tensor": (
        changed("synaptic_current", z=[[1.0]]),
        TypeError,
        "z: expected a torch.Tensor, got list",
    ),
    "dimensions": (
        changed("synaptic_current", z=lambda z: z[0]),
        ValueError,
        r"z: expected \[T, B, N\] or \[R, T, B, N\], got shape \(4, 5\)",
    ),
    "features": (
        changed("synaptic_current", z=lambda z: z[..., :3]),
        ValueError,
        r"weight: expected \[J, I\] with I = 3, got shape \(7, 5\)",
    ),
    "decay shape": (
        changed("synaptic_current", decay=lambda r: r[:, 0]),
        ValueError,
        r"decay: expected shape as weight = \(7, 5\), got \(7,\)",
    ),
    "trace batch": (
        changed("synaptic_current", trace=lambda x: x[:2]),
        ValueError,
        r"trace: expected shape \[B, J, I\] = \(4, 7, 5\), got \(2, 7, 5\)",
    ),
    "trace replicas": (
        changed("synaptic_current", R, trace=lambda x: x[:2]),
        ValueError,
        r"trace: expected shape \[R, B, J, I\] = \(3, 4, 7, 5\), got \(2, 4, 7, 5\)",
    ),
    "weight replicas": (
        changed("synaptic_current", R, weight=lambda w: w[:2], decay=lambda r: r[:2]),
        ValueError,
        "weight: expected R = 3 replicas as the input has, got 2",
    ),
    "weight without replicas": (
        changed("synaptic_current", R, weight=lambda w: w[0]),
        ValueError,
        r"weight: expected \[R, J, I\] with I = 5, got shape \(7, 5\)",
    ),
    "weight dtype": (
        changed("synaptic_current", weight=lambda w: w.half()),
        TypeError,
        "weight: expected dtype float32, float64, got float16",
    ),
    "input rounds": (
        changed("synaptic_current", weight=Tensor.float, decay=Tensor.float, trace=Tensor.float),
        TypeError,
        "z: expected dtype float32, bool, .* for float32 parameters, got float64",
    ),
    "decay dtype": (
        changed("synaptic_current", decay=Tensor.float),
        TypeError,
        "decay: expected dtype float64 as weight has, got float32",
    ),
    "device": (
        changed("synaptic_current", decay=lambda r: r.to("meta")),
        ValueError,
        "decay: expected device cpu as weight has, got meta",
    ),
    "input device": (
        changed("synaptic_current", z=lambda z: z.to("meta")),
        ValueError,
        "z: expected device meta as weight has, got cpu|z: expected device cpu as weight has",
    ),
    "sparse": (
        changed("synaptic_current", z=Tensor.to_sparse),
        TypeError,
        "z: expected a dense tensor, got layout torch.sparse_coo",
    ),
    "weight NaN": (
        changed("synaptic_current", weight=nan),
        ValueError,
        "weight: expected finite values, got 35 NaN or infinite of 35",
    ),
    "decay NaN": (
        changed("recurrent_scan", decay=nan),
        ValueError,
        r"decay: expected decays in \[0, 1\], got values from nan to nan",
    ),
    "decay above 1": (
        changed("leaky_current", decay=lambda r: r + 1),
        ValueError,
        r"decay: expected decays in \[0, 1\], got values from 1.* to 1",
    ),
    "decay of a synapse": (
        changed("synaptic_current", decay=lambda r: r + 1),
        ValueError,
        r"decay: expected decays in \[0, 1\], got values from 1.* to 1",
    ),
    "decay a number": (
        changed("leaky_recurrent_scan", decay=-0.5),
        ValueError,
        r"decay: expected decays in \[0, 1\], got values from -0.5 to -0.5",
    ),
    "recurrent weight": (
        changed("recurrent_scan", weight=lambda w: w[:, 1:]),
        ValueError,
        r"weight: expected shape \[J, J\] = \(7, 7\), got \(7, 6\)",
    ),
    "recurrent weight NaN": (
        changed("leaky_recurrent_scan", weight=nan),
        ValueError,
        "weight: expected finite values, got 49 NaN or infinite of 49",
    ),
    "recurrent trace": (
        changed("recurrent_scan", trace=lambda x: x[..., 0]),
        ValueError,
        r"trace: expected shape \[B, J, J\] = \(4, 7, 7\), got \(4, 7\)",
    ),
    "drive dtype": (
        changed("leaky_current", drive=Tensor.half),
        TypeError,
        "drive: expected dtype float32, float64, got float16",
    ),
    "current state": (
        changed("leaky_recurrent_scan", current=lambda c: c[:, :3]),
        ValueError,
        r"current: expected shape \[B, J\] = \(4, 7\), got \(4, 3\)",
    ),
    "threshold 0": (
        changed("spike_scan", threshold=0),
        ValueError,
        "threshold: expected positive, finite values, got values from 0 to 0",
    ),
    "threshold infinite": (
        changed("spike_scan", threshold=float("inf")),
        ValueError,
        "threshold: expected positive, finite values, got values from inf to inf",
    ),
    "threshold a word": (
        changed("spike_scan", threshold="1"),
        TypeError,
        "threshold: expected a torch.Tensor, got str",
    ),
    "threshold shape": (
        changed("spike_scan", threshold=lambda t: t[:3]),
        ValueError,
        r"threshold: expected shape \[J\] = \(7,\), got \(3,\)",
    ),
    "threshold of replicas": (
        changed("spike_scan", R, threshold=lambda t: t[0]),
        ValueError,
        r"threshold: expected shape \[R, J\] = \(3, 7\), got \(7,\)",
    ),
    "reset decay": (
        changed("recurrent_scan", reset_decay=1.01),
        ValueError,
        r"reset_decay: expected decays in \[0, 1\], got values from 1.01 to 1.01",
    ),
    "adaptation decay": (
        changed("spike_scan", adaptation_decay=2),
        ValueError,
        r"adaptation_decay: expected decays in \[0, 1\], got values from 2 to 2",
    ),
    "adaptation strength": (
        changed("spike_scan", adaptation_strength=float("nan")),
        ValueError,
        "adaptation_strength: expected finite values, got 7 NaN or infinite of 7",
    ),
    "half an adaptation": (
        changed("leaky_recurrent_scan", adaptation_strength=None),
        ValueError,
        "adaptation_decay and adaptation_strength: expected both or neither, got only "
        "adaptation_decay",
    ),
    "state type": (
        changed("spike_scan", state=lambda s: tuple(s)),
        TypeError,
        "state: expected NeuronState, got tuple",
    ),
    "state batch": (
        changed("spike_scan", state=lambda s: s._replace(reset=s.reset[:1])),
        ValueError,
        r"state.reset: expected shape \[B, J\] = \(4, 7\), got \(1, 7\)",
    ),
    "state dtype": (
        changed("recurrent_scan", state=lambda s: s._replace(spike=s.spike.bool())),
        TypeError,
        "state.spike: expected dtype float64 as the input has, got bool",
    ),
    "state device": (
        changed("spike_scan", state=lambda s: s._replace(adaptation=s.adaptation.to("meta"))),
        ValueError,
        "state.adaptation: expected device cpu as the input has, got meta",
    ),
    "state without adaptation": (
        changed("spike_scan", state=lambda s: s._replace(adaptation=None)),
        ValueError,
        "state.adaptation: expected a tensor, got None",
    ),
    "state with adaptation": (
        changed("spike_scan", adaptation_decay=None, adaptation_strength=None),
        ValueError,
        "state.adaptation: expected None, got a tensor",
    ),
    "backend": (
        changed("spike_scan", backend="gpu"),
        ValueError,
        "backend: expected one of auto, triton, cpu, reference, got 'gpu'",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input(kind: str) -> None:
    call, error, message = BAD[kind]
    with pytest.raises(error, match=f"^{message}"):
        call()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_good_arguments_are_good(name: str) -> None:
    """The cases above fail for the argument they change and for no other."""
    for lead in ((), (R,)):
        changed(name, *lead)()


def test_signatures_read_as_they_are_called() -> None:
    """Positions: what drives, the synapses, the neuron, then states; the rest by keyword."""
    given = {name: arguments(name) for name in FUNCTIONS}
    for name, function in FUNCTIONS.items():
        state = given[name].pop("state", None)
        options = {k: given[name].pop(k) for k in list(given[name]) if k.startswith("adaptation")}
        order = {
            synaptic_current: ["z", "weight", "decay", "trace"],
            leaky_current: ["drive", "decay", "current"],
            spike_scan: ["current", "threshold", "reset_decay"],
            feedforward_scan: ["z", "weight", "decay", "threshold", "reset_decay", "trace"],
            recurrent_scan: ["current", "weight", "decay", "threshold", "reset_decay", "trace"],
            leaky_recurrent_scan: [
                "drive", "weight", "decay", "threshold", "reset_decay", "current",
            ],
        }[function]  # fmt: skip
        positional = [given[name][k] for k in order] + ([] if state is None else [state])
        by_name = given[name] | ({} if state is None else {"state": state})
        found = flat(function(*positional, **options))
        expected = flat(function(**by_name, **options))
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
