"""Surrogates in one pass on the CPU: within rounding, and what is computed so at all."""

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from hetsyn_triton import HetSynLIF
from hetsyn_triton.kernels.cpu import surrogate as kernel
from hetsyn_triton.kernels.cpu.exponential import exp
from hetsyn_triton.kernels.cpu.vectors import lanes, load, store
from hetsyn_triton.kernels.surrogate_kinds import KINDS
from hetsyn_triton.ops import between, in_one_pass
from hetsyn_triton.surrogates import SURROGATES, MultiGaussian, Triangular
from surrogate_proofs import BUILT_IN, potentials, rounding

DTYPES = [torch.float32, torch.float64]
CPU = torch.device("cpu")


@numba.njit
def _exp(x, out):
    for n in range(0, x.size, lanes(x)):
        store(out, n, exp(load(x, n)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_exponential(dtype: Any) -> None:
    """Within a unit in the last place of all normal results, against one with more digits."""
    limits = np.finfo(dtype)
    low, high = (limits.minexp * math.log(2), limits.maxexp * math.log(2))
    draw = np.random.default_rng(0)
    x = np.concatenate(
        [draw.uniform(low, high, 1 << 18), draw.uniform(-1, 1, 1 << 18), [0.0, -0.0] * 8]
    ).astype(dtype)
    x = np.clip(x, np.nextafter(dtype(low), dtype(0)), np.nextafter(dtype(high), dtype(0)))
    found = np.empty_like(x)
    _exp(x, found)
    if dtype is np.float32:
        exact = np.exp(x.astype(np.float64))
    elif np.finfo(np.longdouble).nmant > limits.nmant:
        exact = np.exp(x.astype(np.longdouble))
    else:
        pytest.skip("this machine has no longer number to compare with")
    assert float(np.max(np.abs(found - exact) / np.spacing(exact.astype(dtype)))) < 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_where_exponentials_end(dtype: Any) -> None:
    limits = np.finfo(dtype)
    least, most = math.log(limits.tiny), math.log(limits.max)
    beyond = [-math.inf, -1e30, least * (1 + 1e-6), math.nan, most * (1 + 1e-6), 1e30, math.inf, 0]
    x = np.array([*beyond, *beyond], dtype)
    found = np.empty_like(x)
    _exp(x, found)
    expected = np.array([0, 0, 0, math.nan, math.inf, math.inf, math.inf, 1] * 2, dtype)
    assert np.array_equal(found, expected, equal_nan=True)


SHAPES = [(1, 3, 2, 5), (2, 7, 5, 12), (3, 1, 1, 1), (1, 40, 3, 64), (2, 90, 11, 17), (2, 1, 1, 40)]
"""Rows shorter and longer than a vector; the fifth has two tasks a replica, both of them partial
vectors at their ends."""


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("surrogate", BUILT_IN, ids=str)
def test_within_rounding(
    surrogate: Any,
    shape: tuple[int, int, int, int],
    dtype: torch.dtype,
    on_threads: Callable[[int], None],
) -> None:
    """Of float32 against float64; of that against PyTorch's, which rounds too. Threads change no
    bit."""
    potential, threshold = potentials(*shape, CPU, dtype)
    given = in_one_pass.numbers_of(surrogate, dtype)
    assert given is not None
    made = []
    for threads in (1, 2, 3):
        on_threads(threads)
        made.append(kernel.derivative(*given, potential, threshold))
    found = made[0]
    assert found.shape == potential.shape
    assert found.dtype == dtype
    assert all(torch.equal(found, other) for other in made)
    theta = threshold[:, None, None]
    u, theta = (potential - theta).double(), theta.double()
    exact = surrogate(u, theta)
    assert bool(exact.any())
    both = 2 if dtype == torch.float64 else 1
    bound = both * rounding(surrogate, u, theta, exact, dtype)
    assert bool(((found - exact).abs() <= bound).all())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("surrogate", BUILT_IN, ids=str)
def test_what_is_not_finite(surrogate: Any, dtype: torch.dtype) -> None:
    """As in PyTorch: NaN stays NaN; infinitely far away the derivative is 0 but for its least."""
    potential = torch.tensor([math.nan, math.inf, -math.inf, 1.0], dtype=dtype).view(1, 1, 1, 4)
    threshold = torch.ones(1, 4, dtype=dtype)
    given = in_one_pass.numbers_of(surrogate, dtype)
    assert given is not None
    found = kernel.derivative(*given, potential, threshold).flatten()
    theirs = surrogate(potential - 1, torch.ones(4, dtype=dtype)).flatten()
    assert found.isnan().tolist() == theirs.isnan().tolist() == [True, False, False, False]
    assert torch.allclose(found, theirs, rtol=1e-5, atol=1e-32, equal_nan=True)


def test_no_elements_and_strides() -> None:
    given = in_one_pass.numbers_of(Triangular(), torch.float32)
    assert given is not None
    for shape in ((2, 0, 3, 5), (2, 4, 3, 0), (0, 4, 3, 5)):
        none = kernel.derivative(*given, torch.zeros(shape), torch.ones(shape[0], shape[3]))
        assert none.shape == shape
    potential, threshold = potentials(2, 6, 4, 8, CPU)
    plain = kernel.derivative(*given, potential, threshold)
    strided = potential.transpose(1, 2).contiguous().transpose(1, 2)
    wide = threshold.repeat_interleave(2, 1)[:, ::2]
    assert torch.equal(kernel.derivative(*given, strided, wide), plain)


def test_numbers_beyond_the_dtype_are_pytorchs() -> None:
    for width in (1e-25, 1e-200):
        assert in_one_pass.numbers_of(MultiGaussian(width=width), torch.float32) is None
    assert in_one_pass.numbers_of(MultiGaussian(width=1e-25), torch.float64) is not None
    assert in_one_pass.numbers_of(MultiGaussian(width=1e-200), torch.float64) is None
    assert in_one_pass.numbers_of(Triangular(height=1e39), torch.float32) is None
    small = MultiGaussian(scale=1e-300, height=1e-300)
    assert all(in_one_pass.numbers_of(small, dtype) is not None for dtype in DTYPES)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1e-15, 1e15, 1e22])
def test_widths_at_the_ends(width: float, dtype: torch.dtype) -> None:
    potential, threshold = potentials(1, 2, 2, 3, CPU, dtype)
    surrogate = MultiGaussian(width=width)
    given = in_one_pass.numbers_of(surrogate, dtype)
    assert given is not None
    found = kernel.derivative(*given, potential, threshold)
    theta = threshold[:, None, None]
    theirs = surrogate(potential - theta, theta)
    assert bool(found.isfinite().all())
    assert torch.allclose(found, theirs, rtol=1e-3, atol=1e-34)


class Steeper(Triangular):
    """Another function than the one it is derived from."""

    def __call__(self, u: Tensor, threshold: Tensor) -> Tensor:
        return 2 * super().__call__(u, threshold)


@pytest.fixture
def one_pass(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds that the kernel was asked for."""
    asked = []
    compute = kernel.derivative

    def noted(kind: str, *arguments: Any) -> Tensor:
        asked.append(kind)
        return compute(kind, *arguments)

    monkeypatch.setattr(kernel, "derivative", noted)
    return asked


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_built_in_one(dtype: torch.dtype, one_pass: list[str]) -> None:
    potential, threshold = potentials(1, 2, 2, 3, CPU, dtype)
    for make in SURROGATES.values():
        between.derivative(make(), potential, threshold)
    assert set(one_pass) == set(KINDS)
    assert len(one_pass) == len(SURROGATES)


@pytest.mark.parametrize(
    ("surrogate", "dtype"),
    [
        (lambda u, threshold: (u.abs() < 1).to(u.dtype), torch.float32),
        (Steeper(), torch.float32),
        (Triangular(), torch.bfloat16),
    ],
    ids=["one's own", "derived", "bfloat16"],
)
def test_what_pytorch_computes(
    surrogate: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype, one_pass: list[str]
) -> None:
    potential, threshold = (t.to(dtype) for t in potentials(2, 3, 2, 5, CPU))
    found = between.derivative(surrogate, potential, threshold)
    theta = threshold[:, None, None]
    assert one_pass == []
    assert torch.equal(found, surrogate(potential - theta, theta))


@pytest.mark.parametrize("recurrent", [False, True])
def test_gradients_of_a_layer(
    recurrent: bool, one_pass: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the kernel and without, to rounding."""
    generator = torch.Generator().manual_seed(1)
    layer = HetSynLIF(
        6,
        5,
        recurrent=recurrent,
        surrogate=MultiGaussian(),
        generator=generator,
        dtype=torch.float64,
    )
    x = (torch.rand(9, 3, 6, generator=generator) < 0.5).double()

    def gradients() -> list[Tensor]:
        return list(torch.autograd.grad(layer(x)[0].sum(), list(layer.parameters())))

    found = gradients()
    assert one_pass == ["multi_gaussian"]
    monkeypatch.setattr(in_one_pass, "derivative", lambda *given: None)
    for a, b in zip(found, gradients(), strict=True):
        assert bool(b.any())
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-13 * float(b.abs().max()))


class Marked(Tensor):
    """A subclass sees PyTorch's operations, not what a kernel does."""


def test_nothing_of_it_under_a_trace_or_a_transform(
    one_pass: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    potential, threshold = potentials(1, 2, 2, 3, CPU)
    traced = make_fx(lambda v, t: between.derivative(MultiGaussian(), v, t))(potential, threshold)
    assert "exp" in traced.code
    for v, t in (
        (potential.as_subclass(Marked), threshold),
        (potential, threshold.as_subclass(Marked)),
    ):
        assert in_one_pass.derivative(MultiGaussian(), v, t) is None
    mapped = torch.func.vmap(lambda v: between.derivative(MultiGaussian(), v[None], threshold)[0])
    assert torch.allclose(mapped(potential), MultiGaussian()(potential - threshold, threshold))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert in_one_pass.derivative(MultiGaussian(), potential, threshold) is None
    assert one_pass == []


@pytest.mark.parametrize("what", ["missing", "broken"])
def test_pytorch_where_numba_is_not(
    what: str, one_pass: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    potential, threshold = potentials(1, 2, 2, 3, CPU)
    if what == "missing":
        monkeypatch.setattr(in_one_pass.importlib.util, "find_spec", lambda name: None)
        monkeypatch.setattr(in_one_pass, "usable", lambda kernels: pytest.fail("warns"))
    else:
        monkeypatch.setattr(in_one_pass, "usable", lambda kernels: False)
    assert in_one_pass.derivative(MultiGaussian(), potential, threshold) is None
    assert one_pass == []
