"""The feedforward layer against float64, teacher-forced: V recomputed from the kernel's own spikes.

Roundings on the way of any term of V: those of the current (`test_cpu_synaptic_current`), of a
feedback current at most T + 1, of their sum and difference K + 1. A spike may differ from the exact
V > theta only where V is within rounding of theta.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hetsyn_triton.kernels.cpu.feedforward_scan import feedforward_scan
from hetsyn_triton.kernels.cpu.spike_scan import spike_scan
from hetsyn_triton.kernels.cpu.synaptic_current import synaptic_current
from hetsyn_triton.reference import closed_form
from tests.support.bounds import assert_spikes_follow, assert_within
from tests.support.problems import Size, problem
from tests.support.tensors import cut, same, strided

pytestmark = pytest.mark.usefixtures("poisoned")

Arguments = dict[str, Any]

DTYPES = [torch.float32, torch.float64]
SYNAPSES = ("z", "weight", "decay", "trace")
NEURON = ("threshold", "feedback_decay", "feedback_strength", "feedback", "spike")
RESULTS = ("spikes", "V", "feedback", "trace")
SIZES = [
    Size(R=1, T=1, B=1, I=1, J=1, K=1),
    Size(R=3, T=5, B=2, I=3, J=2, K=2),
    Size(R=1, T=7, B=3, I=17, J=13, K=3),
    Size(R=2, T=9, B=9, I=67, J=5, K=1),
    Size(R=1, T=8, B=1, I=64, J=16, K=2),
    Size(R=1, T=4, B=3, I=63, J=15, K=1),
    Size(R=3, T=3, B=3, I=65, J=33, K=2),
    Size(R=1, T=5, B=2, I=129, J=127, K=1),
    Size(R=1, T=6, B=1, I=700, J=1, K=2),
    Size(R=1, T=5, B=3, I=1, J=128, K=1),
    Size(R=1, T=3, B=2, I=700, J=128, K=1),
    Size(R=1, T=250, B=3, I=37, J=19, K=2),
    Size(R=1, T=6, B=2, I=20, J=17, K=0),
]


def arguments(
    size: Size, dtype: torch.dtype = torch.float32, *, states: bool = True, seed: int = 0
) -> Arguments:
    """With enough current for spikes; the spike before the first step may be any number."""
    made = problem("feedforward_scan", size, seed, states=states, analog=size.R == 3, dtype=dtype)
    made["weight"] *= 2 / size.I**0.5
    return {n: made.get(n) for n in (*SYNAPSES, *NEURON)}


def absolute(given: Arguments) -> Arguments:
    """With the signs under which every term of V adds up: feedback currents are subtracted."""
    negative = ("feedback", "feedback_strength")
    return {
        n: t if t is None else (-t.abs() if n in negative else t.abs()) for n, t in given.items()
    }


def forced(given: Arguments, spikes: Tensor) -> tuple[Tensor, ...]:
    """The closed form in float64 with every spike given."""
    double: Arguments = {n: None if t is None else t.double() for n, t in given.items()}
    steps = iter(spikes.double().unbind(1))
    return closed_form.feedforward_scan(**double, spike_function=lambda *_: next(steps))


def roundings(size: Size) -> int:
    return 2 * size.T + min(size.I, 64) + -(-size.I // 64) + size.K + 6


@pytest.mark.parametrize("states", [True, False], ids=["states", "zero"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_within_rounding_of_the_closed_form(size: Size, dtype: torch.dtype, states: bool) -> None:
    given = arguments(size, dtype, states=states)
    before: Arguments = {n: None if t is None else t.clone() for n, t in given.items()}
    found = feedforward_scan(**given)
    spikes = found[0]
    exact, large = forced(given, spikes), forced(absolute(given), spikes)
    n = roundings(size)
    assert_spikes_follow(spikes, exact[1], large[1], given["threshold"], n)
    for what, *tensors in zip(RESULTS, found, exact, large, strict=True):
        assert tensors[0].dtype == dtype
        assert tensors[0].is_contiguous()
        assert_within(tensors[0], tensors[1], tensors[2].abs(), n, what)
    assert size.T * size.B * size.J < 50 or 0 < spikes.mean() < 1, "a silent layer proves little"
    for name, t in given.items():
        assert t is None or torch.equal(t, before[name]), f"{name} was written to"


@pytest.mark.parametrize("steps", range(10))
def test_any_number_of_steps(steps: int) -> None:
    for B in (1, 3, 9):
        size = Size(R=1, T=steps, B=B, I=66, J=18, K=2)
        given = arguments(size)
        found = feedforward_scan(**given)
        exact, large = forced(given, found[0]), forced(absolute(given), found[0])
        for got, want, magnitude in zip(found, exact, large, strict=True):
            assert_within(got, want, magnitude.abs(), roundings(size))
        assert_spikes_follow(found[0], exact[1], large[1], given["threshold"], roundings(size))
        if steps == 0:
            assert same(found[2:], (given["feedback"], given["trace"]))


@pytest.mark.parametrize("empty", ["R", "T", "B", "I", "J", "K"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_empty_sizes(dtype: torch.dtype, empty: str) -> None:
    size = Size(**{"R": 2, "T": 3, "B": 2, "I": 3, "J": 5, "K": 2, empty: 0})
    R, T, B, I, J, K = size.R, size.T, size.B, size.I, size.J, size.K  # noqa: E741
    given = arguments(Size(**{**vars(size), "I": max(I, 1)}), dtype)
    given |= {n: given[n][..., :I] for n in SYNAPSES}
    found = feedforward_scan(**given)
    shapes = [(R, T, B, J), (R, T, B, J), (R, K, B, J), (R, B, J, I)]
    assert [t.shape for t in found] == [torch.Size(shape) for shape in shapes]
    if empty in "IK":  # what is left of a layer is a layer
        neuron = {n: given[n] for n in NEURON}
        current, trace = synaptic_current(**{n: given[n] for n in SYNAPSES})
        assert same(found, (*spike_scan(current, **neuron), trace))
        assert found[0].any()
    elif empty == "T":
        assert same(found[2:], (given["feedback"], given["trace"]))


def test_threshold_is_strict() -> None:
    one, zero = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    neuron = (one[0, 0], zero[0], zero[0], zero, zero[0])
    spikes, potential, _, _ = feedforward_scan(one, one[0], zero[0], None, *neuron)
    assert potential.item() == 1.0
    assert spikes.item() == 0.0


@pytest.mark.parametrize("states", [True, False], ids=["states", "zero"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [*SIZES, Size(R=2, T=40, B=3, I=700, J=70, K=1)], ids=str)
def test_the_layer_is_its_two_parts(size: Size, dtype: torch.dtype, states: bool) -> None:
    """Not one bit differs from the synaptic current followed by the spike scan."""
    given = arguments(size, dtype, states=states, seed=3)
    current, trace = synaptic_current(**{n: given[n] for n in SYNAPSES})
    apart = spike_scan(current, **{n: given[n] for n in NEURON})
    assert same(feedforward_scan(**given), (*apart, trace))


@pytest.mark.slow
@pytest.mark.parametrize("size", [Size(T=250, B=8, I=140, J=32, K=2), Size(T=100, B=4, I=700, J=9)])
def test_errors_are_those_of_float32(size: Size) -> None:
    """V, given the spikes: on average at most twice the errors of the closed form in float32."""
    given = arguments(size)
    spikes, potential, *_ = feedforward_scan(**given)
    exact = forced(given, spikes)[1]
    steps = iter(spikes.unbind(1))
    plain = closed_form.feedforward_scan(**given, spike_function=lambda *_: next(steps))[1]
    error, usual = ((t.double() - exact).square().mean().sqrt() for t in (potential, plain))
    assert error <= 2 * usual


@pytest.mark.parametrize("kind", ["reversed", "gaps"])
def test_strides_change_nothing(kind: str) -> None:
    given = arguments(Size(R=2, T=6, B=3, I=67, J=18, K=2))
    moved = {n: strided(t, kind) for n, t in given.items() if t is not None}
    assert same(feedforward_scan(**moved), feedforward_scan(**given))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_repeats_and_threads_change_no_bit(
    dtype: torch.dtype, on_threads: Callable[[int], None]
) -> None:
    for size in (Size(R=2, T=6, B=3, I=150, J=37), Size(R=1, T=5, B=1, I=20, J=150)):
        given = arguments(size, dtype)
        on_threads(1)
        wanted = feedforward_scan(**given)
        for count in (1, 2, 3, 7, 7):
            on_threads(count)
            assert same(feedforward_scan(**given), wanted), count


BATCH = {"z": 2, "trace": 1, "feedback": 2, "spike": 1}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_sample_does_not_depend_on_its_batch(dtype: torch.dtype) -> None:
    given = arguments(Size(R=2, T=7, B=5, I=75, J=37, K=2), dtype)
    whole = feedforward_scan(**given)
    for start, length in ((0, 1), (3, 2), (4, 1)):
        alone = feedforward_scan(**cut(given, BATCH, start, length))
        for got, all_of_them, axis in zip(alone, whole, (2, 2, 2, 1), strict=True):
            assert torch.equal(got, all_of_them.narrow(axis, start, length))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_sequence_in_pieces(dtype: torch.dtype) -> None:
    """Traces, feedback currents and the last spike carried on: the bits of one call."""
    given = arguments(Size(R=2, T=11, B=2, I=75, J=37, K=2), dtype)
    whole = feedforward_scan(**given)
    assert whole[0].any()
    for at in (0, 1, 4, 6, 11):
        first = feedforward_scan(**cut(given, {"z": 1}, 0, at))
        spike = first[0][:, -1] if at else given["spike"]
        state = {"feedback": first[2], "trace": first[3], "spike": spike}
        second = feedforward_scan(**(cut(given, {"z": 1}, at, 11 - at) | state))
        steps = tuple(torch.cat(parts, 1) for parts in zip(first[:2], second[:2], strict=True))
        assert same((*steps, *second[2:]), whole), at


def test_a_sample_that_is_not_finite_spoils_no_other() -> None:
    given = arguments(Size(R=1, T=5, B=3, I=21, J=18, K=2))
    wanted = feedforward_scan(**given)
    given["z"][:, 2, 1, 3] = torch.nan
    found = feedforward_scan(**given)
    for got, want, axis in zip(found, wanted, (2, 2, 2, 1), strict=True):
        for b in (0, 2):
            assert torch.equal(got.select(axis, b), want.select(axis, b))
    assert found[1][:, 2:, 1].isnan().any()
    # A neuron whose V is NaN is silent.
    assert not found[0][found[1].isnan()].any()
