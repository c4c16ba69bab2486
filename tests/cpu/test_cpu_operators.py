"""What the CPU kernels promise of every operator beyond the contract of tests/operators."""

from collections.abc import Callable

import pytest
import torch

from tests.support.implementations import CLOSED_FORM, NUMBA
from tests.support.operators import OPERATORS, Size
from tests.support.tensors import narrow, same
from tests.support.truth import by_loop, check, double

pytestmark = pytest.mark.usefixtures("poisoned")

ALL = sorted(NUMBA.operators - {"surrogate"})
SUMMING = [n for n in ALL if OPERATORS[n].backward and n != "synaptic_current_backward"]
WITHOUT_SYNAPSES = [n for n in ALL if n.startswith(("spike_scan", "leaky_current"))]


@pytest.mark.parametrize("dtype", NUMBA.dtypes, ids=str)
@pytest.mark.parametrize("operator", ALL)
def test_threads_change_no_bit(
    operator: str, dtype: torch.dtype, on_threads: Callable[[int], None]
) -> None:
    for size in (Size(R=2, T=6, B=9, I=150, J=37), Size(R=1, T=5, B=1, I=20, J=150, K=1)):
        given = NUMBA.given(operator, size, dtype)
        on_threads(1)
        wanted = NUMBA(operator, given)
        for count in (1, 2, 3, 7, 7):
            on_threads(count)
            assert same(NUMBA(operator, given), wanted), count


@pytest.mark.parametrize("dtype", NUMBA.dtypes, ids=str)
@pytest.mark.parametrize("operator", SUMMING)
def test_gradients_of_samples_add_in_their_order(operator: str, dtype: torch.dtype) -> None:
    """From nothing, ascending: the sums of the batch are those of its samples, bit by bit."""
    table = OPERATORS[operator]
    size = Size(R=2, T=9, B=6, I=21, J=18)
    given = NUMBA.given(operator, size, dtype)
    if operator == "synaptic_parameter_gradient":
        given |= {"g_trace": None, "weight": torch.ones(2, 18, 21, dtype=dtype)}  # after the sum
    whole = NUMBA(operator, given)
    total = [torch.zeros_like(t) for t in whole]
    for b in range(size.B):
        one = NUMBA(operator, narrow(table.arguments, given, "B", b, 1))
        total = [t if t.shape != o.shape else t + o for t, o in zip(total, one, strict=True)]
    for found, want, letters in zip(total, whole, table.results.values(), strict=True):
        assert "B" in letters or torch.equal(found, want)


@pytest.mark.parametrize("operator", WITHOUT_SYNAPSES)
def test_neurons_without_synapses_do_not_meet(operator: str) -> None:
    """Without synapses among them neurons are alone: in any block and lane the same bits."""
    table = OPERATORS[operator]
    given = NUMBA.given(operator, Size(R=2, T=5, B=3, J=150))
    whole = NUMBA(operator, given)
    for start, length in ((0, 1), (15, 2), (37, 100), (149, 1)):
        part = NUMBA(operator, narrow(table.arguments, given, "J", start, length))
        assert same(part, tuple(t.narrow(-1, start, length) for t in whole))


@pytest.mark.parametrize("steps", range(10))
@pytest.mark.parametrize("operator", ALL)
def test_any_number_of_steps(operator: str, steps: int) -> None:
    """Several steps run in one pass over the synapses, what is left over one by one."""
    for B in (1, 3, 9):
        given = NUMBA.given(operator, Size(R=1, T=steps, B=B, I=66, J=18))
        check(operator, given, NUMBA(operator, given))


@pytest.mark.parametrize("operator", [n for n in ALL if "scan" in n])
def test_no_feedback_at_all(operator: str) -> None:
    given = NUMBA.given(operator, Size(R=1, T=4, B=2, I=20, J=17, K=0))
    check(operator, given, NUMBA(operator, given))


@pytest.mark.slow
@pytest.mark.parametrize("operator", ALL)
def test_errors_are_those_of_float32(operator: str) -> None:
    """On average at most twice those of the closed form in float32, for equal spikes."""
    table = OPERATORS[operator]
    sizes = [Size(R=1, T=250, B=8, I=140, J=32), Size(R=1, T=100, B=4, I=700, J=24)]
    if "recurrent" in operator:
        sizes = [Size(R=1, T=60, B=8, J=50)]
    for size in sizes:
        given = NUMBA.given(operator, size)
        for name in ("derivative", "feedback_decay", "feedback_strength"):
            if name in given and table.backward:
                given[name] = 0.5 * given[name]  # else gradients explode
        found, plain = NUMBA(operator, given), CLOSED_FORM(operator, given)
        if table.spiking:
            assert torch.equal(found[0], plain[0])
        spikes = {"spikes": found[0]} if table.spiking else {}
        exact = by_loop(operator, double(given | spikes)).values()
        for what, got, other, want in zip(table.results, found, plain, exact, strict=True):
            error, usual = ((t.double() - want).square().mean().sqrt() for t in (got, other))
            assert error <= 2 * usual, f"{what}: {error / usual:.2f} times the closed form's"
