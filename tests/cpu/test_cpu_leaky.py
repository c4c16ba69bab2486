"""The leaky current, the leaky recurrent scan and their reverses as CPU kernels, against float64
with every spike given.

Roundings on the way of any term: one for each step of the current's recurrence and one for each
neuron in a sum over neurons; in a reverse the sum over neurons is passed in every step.
"""

from collections.abc import Callable

import pytest
import torch

from hetsyn_triton.kernels.cpu.lib.weight_gradient import weight_gradient
from hetsyn_triton.reference.lib.steps import previous_steps
from tests.support.neuron_cases import (
    DTYPES,
    LEAKY_CURRENT,
    LEAKY_CURRENT_BACKWARD,
    LEAKY_GRADIENTS,
    LEAKY_SCAN,
    LEAKY_SCAN_BACKWARD,
    TIME,
    Operator,
    arguments,
    assert_errors_are_those_of_float32,
    check,
    cut,
)
from tests.support.problems import SIZES as SMALL, Size

pytestmark = pytest.mark.usefixtures("poisoned")

ALL = [
    pytest.param(LEAKY_CURRENT, id="current"),
    pytest.param(LEAKY_CURRENT_BACKWARD, id="current backward"),
    pytest.param(LEAKY_SCAN, id="scan"),
    pytest.param(LEAKY_SCAN_BACKWARD, id="scan backward"),
]
FORWARDS, SUMMING = [ALL[0], ALL[2]], [ALL[1], ALL[3]]
SIZES = [
    *SMALL,
    Size(R=1, T=1, B=1, J=1, K=1),
    Size(R=3, T=5, B=2, J=15, K=2),
    Size(R=1, T=6, B=3, J=16, K=3),
    Size(R=2, T=9, B=6, J=17, K=1),
    Size(R=1, T=35, B=9, J=33, K=2),
    Size(R=1, T=33, B=4, J=64, K=1),
    Size(R=1, T=7, B=5, J=65, K=1),
    Size(R=3, T=3, B=2, J=130, K=1),
    Size(R=1, T=4, B=7, J=7, K=0),
]
GIVEN = [(), *((name,) for name in LEAKY_GRADIENTS), ("g_potential", "g_currents"), LEAKY_GRADIENTS]


@pytest.mark.parametrize("states", [True, False], ids=["states", "zero"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("operator", ALL[:3])
def test_within_rounding_of_the_closed_form(
    operator: Operator, size: Size, dtype: torch.dtype, states: bool
) -> None:
    found = check(operator, size, arguments(operator, size, dtype, states=states))
    assert not operator.spiking or size.T * size.B * size.J < 50 or 0 < found[0].mean() < 1


@pytest.mark.parametrize("detach_reset", [False, True], ids=["reset", "detached"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_recurrent_reverse(size: Size, dtype: torch.dtype, detach_reset: bool) -> None:
    for given in GIVEN:
        made = arguments(
            LEAKY_SCAN_BACKWARD,
            size,
            dtype,
            states=given != LEAKY_GRADIENTS[:1],
            given=given,
            detach_reset=detach_reset,
        )
        check(LEAKY_SCAN_BACKWARD, size, made)


def test_no_gradient_at_all() -> None:
    given = arguments(LEAKY_SCAN_BACKWARD, Size(R=2, T=5, B=3, J=18), given=())
    assert not any(found.any() for found in LEAKY_SCAN_BACKWARD(given))


@pytest.mark.parametrize("steps", [1, 31, 32, 33, 65])
@pytest.mark.parametrize("neurons", [1, 4, 15, 16, 63, 64, 65, 130])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_weight_gradient_in_parts_and_spans(
    neurons: int, steps: int, dtype: torch.dtype, on_threads: Callable[[int], None]
) -> None:
    """Every way of sharing what is read makes the same sums; whole numbers make them exact."""
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randint(-3, 4, shape, generator=generator).to(dtype)

    du, s = numbers(2, steps, 3, neurons), numbers(2, steps, 3, neurons)
    spike = numbers(2, 3, neurons)
    wanted = torch.einsum("rtbj,rtbi->rji", du, previous_steps(s, spike))
    for count in (1, 3, 7, 100):
        on_threads(count)
        found = weight_gradient(du, s, spike)
        assert found.is_contiguous()
        assert torch.equal(found, wanted), count


def test_spikes_arrive_where_they_belong() -> None:
    """One weight and one spike before the first step: one current, that decays."""
    size = Size(R=2, T=4, B=3, J=83, K=1)
    for j, i in ((0, 0), (15, 16), (16, 15), (63, 64), (64, 82), (82, 1)):
        given = {n: torch.zeros_like(t) for n, t in arguments(LEAKY_SCAN, size).items()}
        given["threshold"] += 100.0
        given["weight"][1, j, i], given["decay"][1, j], given["spike"][1, 2, i] = 3.0, 0.5, -2.0
        currents = LEAKY_SCAN(given)[3]
        assert currents.count_nonzero() == 4
        assert torch.equal(currents[1, :, 2, j], -6 * 0.5 ** torch.arange(4.0))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("operator", FORWARDS)
def test_a_sequence_in_pieces(operator: Operator, dtype: torch.dtype) -> None:
    """States carried on: the same bits as in one call, wherever it is cut."""
    given = arguments(operator, Size(R=2, T=11, B=2, J=37, K=2), dtype)
    whole = operator(given)
    for at in (0, 1, 4, 11):
        first = operator(cut(operator, given, TIME, 0, at))
        rest = cut(operator, given, TIME, at, 11 - at)
        if operator is LEAKY_SCAN:
            rest["feedback"] = first[2]
        if at:
            rest["current"] = first[-1][:, -1]
            if operator is LEAKY_SCAN:
                rest["spike"] = first[0][:, -1]
        second = operator(rest)
        for k, all_of_it in enumerate(whole):
            piece = (
                second[k]
                if operator.results[k] == "feedback"
                else torch.cat([first[k], second[k]], 1)
            )
            assert torch.equal(piece, all_of_it), operator.results[k]


@pytest.mark.parametrize("operator", SUMMING)
def test_errors_are_those_of_float32(operator: Operator) -> None:
    given = arguments(operator, Size(R=1, T=250, B=8, J=50, K=2))
    for name in {"derivative", "decay", "feedback_decay", "feedback_strength"} & set(given):
        given[name] *= 0.5  # else gradients explode
    assert_errors_are_those_of_float32(operator, given)
