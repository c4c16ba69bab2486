"""Surrogates: formulas at points worked by hand, behavior as values, use in the operators."""

import copy
import dataclasses
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hetsyn_triton.surrogates import (
    SURROGATES,
    ATan,
    FastSigmoid,
    MultiGaussian,
    Sigmoid,
    SuperSpike,
    Surrogate,
    Triangular,
    surrogate_by_name,
)
from tests.support.operators import SPIKING, Size
from tests.support.random_arguments import apply, call, problem

ALL = [Triangular, MultiGaussian, ATan, FastSigmoid, Sigmoid]
SIZE = Size(R=2, T=5)


def at(surrogate: Surrogate, u: float, threshold: float = 1.0) -> float:
    double = torch.float64
    return float(
        surrogate(torch.tensor([u], dtype=double), torch.tensor([threshold], dtype=double))
    )


# N(0; 0, 0.5) = 0.797884561, N(0; +-0.5, 3) = 0.132980760 exp(-1/72) = 0.131146571
PEAK = 0.5 * (1.15 * 0.7978845608 - 2 * 0.15 * 0.1311465718)


@pytest.mark.parametrize(
    ("surrogate", "u", "threshold", "expected"),
    [
        (Triangular(), 0.0, 1.0, 1.0),
        (Triangular(), 0.25, 1.0, 0.75),
        (Triangular(), -0.25, 0.5, 0.5),  # relative to the threshold
        (Triangular(), 0.3, 2.0, 0.85),
        (Triangular(), -1.0, 1.0, 0.0),
        (Triangular(), 5.0, 1.0, 0.0),
        (Triangular(height=0.3, width=2.0), 0.5, 0.5, 0.15),
        (MultiGaussian(), 0.0, 1.0, PEAK),
        (MultiGaussian(), 0.0, 3.0, PEAK),  # absolute: the threshold does not enter
        (ATan(), 0.0, 1.0, 1.0),
        (ATan(), 1 / math.pi, 1.0, 0.5),
        (ATan(), -2 / math.pi, 7.0, 0.2),
        (ATan(slope=4.0), 0.5 / math.pi, 1.0, 1.0),
        (FastSigmoid(), 0.0, 1.0, 1.0),
        (FastSigmoid(), 0.1, 1.0, 0.25),
        (FastSigmoid(), -0.3, 2.0, 1 / 16),
        (FastSigmoid(slope=1.0), 1.0, 1.0, 0.25),
        (Sigmoid(), 0.0, 1.0, 1.0),
        (Sigmoid(), math.log(3.0) / 4, 1.0, 0.75),  # sigma = 3/4: 4 * 3/4 * 1/4
        (Sigmoid(slope=1.0), -math.log(3.0), 2.0, 3 / 16),
    ],
    ids=str,
)
def test_values_by_hand(surrogate: Surrogate, u: float, threshold: float, expected: float) -> None:
    assert at(surrogate, u, threshold) == pytest.approx(expected, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("x", [-4.0, -1.3, -0.5, 0.0, 0.2, 0.5, 2.0, 6.0])
def test_multi_gaussian_is_the_published_formula(x: float) -> None:
    """0.5 [1.15 N(x; 0, 0.5) - 0.15 N(x; 0.5, 3) - 0.15 N(x; -0.5, 3)]: negative in the tails."""

    def normal(mean: float, deviation: float) -> float:
        return math.exp(-0.5 * ((x - mean) / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi))

    published = 0.5 * (1.15 * normal(0, 0.5) - 0.15 * normal(0.5, 3) - 0.15 * normal(-0.5, 3))
    assert at(MultiGaussian(), x) == pytest.approx(published, rel=1e-12)
    assert (published < 0) == (abs(x) > 1)


@pytest.mark.parametrize(
    ("surrogate", "integral"),
    [(ATan(), "arctan"), (FastSigmoid(), "fast sigmoid"), (Sigmoid(), "logistic")],
    ids=str,
)
def test_derivatives_of_their_namesakes(surrogate: Surrogate, integral: str) -> None:
    """Autograd through the function each is named after gives the surrogate."""
    u = torch.linspace(-3, 3, 61, dtype=torch.float64).requires_grad_()
    functions = {
        "arctan": lambda: torch.atan(math.pi * u) / math.pi,
        "fast sigmoid": lambda: u / (1 + 10 * u.abs()),
        "logistic": lambda: torch.sigmoid(4 * u),
    }
    (derivative,) = torch.autograd.grad(functions[integral]().sum(), u)
    theta = torch.ones(1, dtype=torch.float64)
    torch.testing.assert_close(surrogate(u.detach(), theta), derivative, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("cls", ALL)
def test_shape_dtype_and_symmetry(cls: Any, dtype: torch.dtype) -> None:
    """[R, T, B, J] against a threshold [R, 1, 1, J]; the slope is even in u and largest at 0."""
    u = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0), dtype=dtype)
    theta = 0.5 + torch.rand(2, 1, 1, 4, dtype=dtype)
    slope = cls()(u, theta)
    assert slope.shape == u.shape
    assert slope.dtype == dtype
    torch.testing.assert_close(slope, cls()(-u, theta))
    assert (slope <= cls()(torch.zeros_like(u), theta)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("surrogate", [*(cls() for cls in ALL), Sigmoid(0.01)], ids=str)
def test_no_number_below_the_normal_ones(
    surrogate: Surrogate, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However far a neuron is from its threshold: there PyTorch's exponential takes up to 170 times
    as long on a Xeon. The formula is kept to less than can be told from 0: float64's own ends far
    below."""
    arguments = []

    def noting(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def noted(x: Tensor) -> Tensor:
            arguments.append(x)
            return function(x)

        return noted

    for module, name in ((torch, "exp"), (torch, "sigmoid")):
        monkeypatch.setattr(module, name, noting(getattr(module, name)))
    far = torch.linspace(2, 20_000, 40_001, dtype=dtype)  # nearer MultiGaussian crosses 0
    u = torch.cat([far, -far, torch.tensor([math.inf, -math.inf], dtype=dtype)])
    tiny = torch.finfo(dtype).tiny
    slope = surrogate(u, torch.ones(1, dtype=dtype))
    assert ((slope == 0) | (slope.abs() >= tiny)).all()
    assert all(x.min() >= math.log(tiny) for x in arguments)
    if dtype == torch.float32:
        wide = surrogate(u.double(), torch.ones(1, dtype=torch.float64))
        torch.testing.assert_close(slope.double(), wide, rtol=1e-4, atol=1e-34)


PARAMETERS = [(cls, field.name) for cls in ALL for field in dataclasses.fields(cls)]


@pytest.mark.parametrize(("cls", "name"), PARAMETERS)
@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan, "1", None, [1.0]], ids=repr)
def test_parameters_are_checked(cls: Any, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match="positive") as error:
        cls(**{name: value})
    assert f"{cls.__name__}.{name}" in str(error.value)
    assert repr(value) in str(error.value)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"width": 1e-200}, "width: expected 1e-150 to .* got 1e-200"),
        ({"width": 1e160}, "width: "),
        ({"ratio": 1e-200}, r"ratio \* width: .* got 5e-201"),
        ({"width": 1e100, "ratio": 1e300}, r"ratio \* width: .* got inf"),
    ],
)
def test_a_deviation_without_a_square_is_refused(given: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=rf"MultiGaussian\.{named}"):
        MultiGaussian(**given)
    MultiGaussian(width=1e-150, ratio=1.0)
    MultiGaussian(width=1e149, ratio=1.0)


@pytest.mark.parametrize(("cls", "name"), PARAMETERS)
def test_values_among_values(cls: Any, name: str) -> None:
    """Frozen, compared and hashed by parameters, printed as written, copied and pickled."""
    made = cls(**{name: 0.7})
    assert made == cls(**{name: 0.7})
    assert made != cls(**{name: 0.8})
    assert hash(made) == hash(cls(**{name: 0.7}))
    assert pickle.loads(pickle.dumps(made)) == made
    assert copy.deepcopy(made) == made
    assert f"{name}=0.7" in repr(made)
    assert eval(repr(made), {cls.__name__: cls}) == made
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, name, 0.9)


def test_names() -> None:
    assert {type(surrogate_by_name(name)) for name in SURROGATES} == set(ALL)
    assert SuperSpike is FastSigmoid
    assert surrogate_by_name("multi-gaussian") == MultiGaussian()
    with pytest.raises(ValueError, match="surrogate: expected one of") as error:
        surrogate_by_name("Triangle")
    assert "'Triangle'" in str(error.value)
    assert all(name in str(error.value) for name in SURROGATES)


# -- in the operators ------------------------------------------------------------------------------


def run(operator: str, surrogate: Surrogate, backend: str = "auto") -> tuple[Tensor, ...]:
    """Gradients of the summed spikes with respect to every argument."""
    leaves: dict[str, Any] = {n: t.requires_grad_() for n, t in problem(operator, SIZE).items()}
    spikes, *_ = apply(operator, **leaves, surrogate=surrogate, backend=backend)
    return torch.autograd.grad(spikes.sum(), list(leaves.values()))


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("operator", SPIKING)
def test_every_surrogate_is_really_used(operator: str, backend: str) -> None:
    """No two surrogates give the same gradients, and none changes the spikes."""
    tensors: dict[str, Any] = {**problem(operator, SIZE)}
    expected = call(operator)(**tensors)[0]
    first = []
    for surrogate in (cls() for cls in ALL):
        spikes, *_ = apply(operator, **tensors, surrogate=surrogate, backend=backend)
        assert torch.equal(spikes, expected)
        first.append(run(operator, surrogate, backend)[0])
    for i, gradient in enumerate(first):
        assert gradient.abs().max() > 1e-3
        assert not any(torch.allclose(gradient, other) for other in first[:i])


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("operator", SPIKING)
def test_a_users_own_function(operator: str, backend: str) -> None:
    """One Python function of (u, threshold) is a surrogate: here `ATan`, written out."""

    def own(u: Tensor, threshold: Tensor) -> Tensor:
        return 1 / (1 + (math.pi * u) ** 2)

    for got, want in zip(run(operator, own, backend), run(operator, ATan()), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_it_is_given_u_and_the_threshold(backend: str) -> None:
    """u = V - threshold in the shape of V, the threshold in a shape that broadcasts against it."""
    tensors = problem("spike_scan", SIZE)
    seen: list[tuple[Tensor, Tensor]] = []

    def watching(u: Tensor, threshold: Tensor) -> Tensor:
        seen.append((u.detach(), (u + threshold).detach()))
        return torch.ones_like(u)

    leaves: dict[str, Any] = {n: t.requires_grad_() for n, t in tensors.items()}
    spikes, potential, _ = apply("spike_scan", **leaves, surrogate=watching, backend=backend)
    spikes.sum().backward()
    if backend == "reference":  # called from the last step to the first
        u, v = (torch.stack(part[::-1], 1) for part in zip(*seen, strict=True))
    else:
        ((u, v),) = seen
    torch.testing.assert_close(v, potential.detach())
    assert torch.equal(u > 0, spikes.detach() > 0)


BAD = {
    "a scalar": lambda u, threshold: u.sum(),
    "one step": lambda u, threshold: u[:, :1],
    "the wrong dtype": lambda u, threshold: u.float(),
}


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("operator", SPIKING)
def test_a_wrong_shape_or_dtype_is_refused(operator: str, kind: str, backend: str) -> None:
    with pytest.raises(
        ValueError, match="surrogate: expected a tensor like V - threshold"
    ) as error:
        run(operator, BAD[kind], backend)
    # The reference loop calls it step by step.
    assert ("(2, 5, 3, 5)" if backend == "auto" else "(2, 3, 5)") in str(error.value)
    assert "got" in str(error.value)
