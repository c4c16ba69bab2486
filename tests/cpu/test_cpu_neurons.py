"""What holds alike for every operator with one value per neuron: the spike scan, the leaky
operators and their reverses as CPU kernels."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.support.neuron_cases import (
    DTYPES,
    LEAKY_CURRENT,
    LEAKY_CURRENT_BACKWARD,
    LEAKY_SCAN_BACKWARD,
    OPERATORS,
    SAMPLES,
    SPIKE_SCAN,
    SPIKE_SCAN_BACKWARD,
    Operator,
    arguments,
    as_tuple,
    cut,
    each,
)
from tests.support.problems import Size
from tests.support.tensors import LAYOUTS, same, strided

pytestmark = pytest.mark.usefixtures("poisoned")


def params(*operators: Operator) -> list[object]:
    """With their names."""
    return [pytest.param(o, id=name) for name, o in OPERATORS.items() if o in operators]


ALL = params(*OPERATORS.values())
REVERSES = params(SPIKE_SCAN_BACKWARD, LEAKY_CURRENT_BACKWARD, LEAKY_SCAN_BACKWARD)
WITHOUT_SYNAPSES = params(SPIKE_SCAN, SPIKE_SCAN_BACKWARD, LEAKY_CURRENT, LEAKY_CURRENT_BACKWARD)


@pytest.mark.parametrize("empty", ["R", "T", "B", "J"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("operator", ALL)
def test_empty_sizes(operator: Operator, dtype: torch.dtype, empty: str) -> None:
    """No steps leave states as they were and make zero gradients; nothing else is left to do."""
    size = {"R": 2, "T": 3, "B": 2, "J": 5, empty: 0}
    # The random problem needs a neuron.
    given = arguments(operator, Size(**size | {"J": max(size["J"], 1)}), dtype)
    if empty == "J":
        given = each(given, lambda n, t: t[:, :0, :0] if n == "weight" else t[..., :0])
    wanted = as_tuple(operator.truth(**given))
    for got, want, what in zip(operator(given), wanted, operator.results, strict=True):
        assert got.shape == want.shape, what
        assert got.dtype == dtype, what
        assert torch.equal(got, want), what


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("operator", ALL)
def test_strides_change_nothing(operator: Operator, kind: str) -> None:
    given = arguments(operator, Size(R=2, T=6, B=3, J=18, K=2))
    moved = each(given, lambda n, t: strided(t, kind))
    assert same(operator(moved), operator(given))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("operator", ALL)
def test_repeats_and_threads_change_no_bit(
    operator: Operator, dtype: torch.dtype, on_threads: Callable[[int], None]
) -> None:
    for size in (Size(R=2, T=6, B=5, J=37, K=2), Size(R=1, T=5, B=1, J=150, K=1)):
        given = arguments(operator, size, dtype)
        on_threads(1)
        wanted = operator(given)
        for count in (1, 2, 3, 7, 7):
            on_threads(count)
            assert same(operator(given), wanted), count


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("operator", ALL)
def test_a_sample_does_not_depend_on_its_batch(operator: Operator, dtype: torch.dtype) -> None:
    given = arguments(operator, Size(R=2, T=7, B=7, J=37, K=2), dtype)
    whole = operator(given)
    for start, length in ((0, 1), (2, 2), (3, 4), (6, 1)):
        part = operator(cut(operator, given, SAMPLES, start, length))
        for got, all_of_it, at in zip(part, whole, operator.samples, strict=True):
            assert at is None or torch.equal(got, all_of_it.narrow(at, start, length))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("operator", REVERSES)
def test_gradients_of_samples_add_in_their_order(operator: Operator, dtype: torch.dtype) -> None:
    """From nothing, ascending: the sums of the batch are those of its samples, bit by bit."""
    size = Size(R=2, T=9, B=6, J=21, K=2)
    given = arguments(operator, size, dtype)
    summed = [k for k, at in enumerate(operator.samples) if at is None]
    whole = operator(given)
    total = {k: torch.zeros_like(whole[k]) for k in summed}
    for b in range(size.B):
        one = operator(cut(operator, given, SAMPLES, b, 1))
        total = {k: total[k] + one[k] for k in summed}
    for k in summed:
        assert torch.equal(total[k], whole[k]), operator.results[k]


@pytest.mark.parametrize("operator", ALL)
def test_replicas_do_not_meet(operator: Operator) -> None:
    given = arguments(operator, Size(R=3, T=5, B=3, J=19, K=2))
    whole = operator(given)
    alone = operator(each(given, lambda n, t: t[1:2]))
    assert same(alone, tuple(t[1:2] for t in whole))


@pytest.mark.parametrize("operator", WITHOUT_SYNAPSES)
def test_neurons_without_synapses_do_not_meet(operator: Operator) -> None:
    """Without synapses among them neurons are alone: in any block and lane the same bits."""
    size = Size(R=2, T=5, B=3, J=150, K=2)
    given = arguments(operator, size)
    whole = operator(given)
    for start, length in ((0, 1), (15, 2), (37, 100), (149, 1)):
        narrow = {
            n: t.narrow(-1, start, length) if isinstance(t, Tensor) else t for n, t in given.items()
        }
        part = operator(narrow)
        assert same(part, tuple(t.narrow(-1, start, length) for t in whole))


@pytest.mark.parametrize("operator", REVERSES)
def test_expanded_gradient(operator: Operator) -> None:
    """What autograd hands on for a sum: one number, seen everywhere."""
    given = arguments(operator, Size(T=3, B=3, J=19))
    one = torch.ones(()).expand(1, 3, 3, 19)
    for name in {"g", "g_spikes", "g_potential", "g_currents"} & set(operator.arguments):
        wanted = operator(given | {name: one.contiguous()})
        assert same(operator(given | {name: one}), wanted)
