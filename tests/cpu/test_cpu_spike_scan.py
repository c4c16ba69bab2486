"""The spike scan and its reverse as CPU kernels, against float64 with every spike given.

A feedback current after T steps has at most 2 T roundings on the way of any term, V another K + 2;
the reverse at most (K + 5) T, the sweep for the feedback's parameters 2 T more, sums over samples
B.
"""

import pytest
import torch
from torch import Tensor

from hetsyn_triton.kernels.cpu.lib.neurons_reverse import feedback_gradients
from hetsyn_triton.kernels.cpu.lib.sums import sum_in_order
from hetsyn_triton.kernels.cpu.spike_scan import spike_scan
from tests.support.neuron_cases import (
    DTYPES,
    GRADIENTS,
    SPIKE_SCAN,
    SPIKE_SCAN_BACKWARD,
    TIME,
    arguments,
    assert_errors_are_those_of_float32,
    check,
    cut,
)
from tests.support.problems import SIZES as SMALL, Size
from tests.support.tensors import same

pytestmark = pytest.mark.usefixtures("poisoned")

SIZES = [
    *SMALL,
    Size(R=1, T=1, B=1, J=1, K=1),
    Size(R=3, T=5, B=2, J=15, K=2),
    Size(R=1, T=6, B=3, J=16, K=3),
    Size(R=2, T=9, B=3, J=17, K=1),
    Size(R=1, T=35, B=7, J=33, K=2),
    Size(R=3, T=3, B=1, J=150, K=1),
    Size(R=1, T=4, B=2, J=7, K=0),
]
GIVEN = [
    (),
    ("g_spikes",),
    ("g_potential",),
    ("g_feedback",),
    ("g_spikes", "g_feedback"),
    GRADIENTS,
]


@pytest.mark.parametrize("states", [True, False], ids=["states", "zero"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_forward(size: Size, dtype: torch.dtype, states: bool) -> None:
    spikes = check(SPIKE_SCAN, size, arguments(SPIKE_SCAN, size, dtype, states=states))[0]
    assert size.T * size.B * size.J < 50 or 0 < spikes.mean() < 1


@pytest.mark.parametrize("detach_reset", [False, True], ids=["reset", "detached"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_backward(size: Size, dtype: torch.dtype, detach_reset: bool) -> None:
    for given in GIVEN:
        for states in (True, False):
            check(
                SPIKE_SCAN_BACKWARD,
                size,
                arguments(
                    SPIKE_SCAN_BACKWARD,
                    size,
                    dtype,
                    states=states,
                    given=given,
                    detach_reset=detach_reset,
                ),
            )


def test_detach_reset_matters() -> None:
    size = Size(R=1, T=5, B=2, J=4, K=1)
    through, detached = (
        SPIKE_SCAN_BACKWARD(arguments(SPIKE_SCAN_BACKWARD, size, detach_reset=d))
        for d in (False, True)
    )
    assert not torch.equal(through[0], detached[0])
    assert through[5].any()
    assert not detached[5].any()


def test_no_gradient_at_all() -> None:
    given = arguments(SPIKE_SCAN_BACKWARD, Size(R=2, T=5, B=3, J=18), given=())
    assert not any(found.any() for found in SPIKE_SCAN_BACKWARD(given))


def test_threshold_is_strict() -> None:
    one = torch.ones(1, 1, 1, 17)
    zero = torch.zeros_like(one)
    spikes, potential, _ = spike_scan(one, one[0, 0], zero[0], zero[0], zero, zero[0])
    assert torch.equal(potential, one)
    assert not spikes.any()
    above = torch.nextafter(one, 2 * one)
    assert spike_scan(above, one[0, 0], zero[0], zero[0], zero, zero[0])[0].all()


def test_what_is_not_a_number_is_no_spike() -> None:
    given = arguments(SPIKE_SCAN, Size(R=1, T=4, B=2, J=17, K=1), states=False)
    given["current"][0, 1, 0, 3] = torch.nan
    spikes, potential, _ = SPIKE_SCAN(given)
    assert potential.isnan().nonzero().tolist() == [[0, 1, 0, 3]]
    assert spikes[0, 1, 0, 3] == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_sequence_in_pieces(dtype: torch.dtype) -> None:
    """States carried on: the same bits as in one call, wherever it is cut."""
    given = arguments(SPIKE_SCAN, Size(R=2, T=11, B=2, J=37, K=2), dtype)
    whole = SPIKE_SCAN(given)
    for at in (0, 1, 4, 11):
        first = SPIKE_SCAN(cut(SPIKE_SCAN, given, TIME, 0, at))
        rest = cut(SPIKE_SCAN, given, TIME, at, 11 - at) | {"feedback": first[2]}
        if at:
            rest["spike"] = first[0][:, -1]
        second = SPIKE_SCAN(rest)
        joined = (torch.cat([first[k], second[k]], 1) for k in (0, 1))
        assert same((*joined, second[2]), whole)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_reverse_in_pieces(dtype: torch.dtype) -> None:
    """Gradients of states carried on: the same bits as in one call."""
    given = arguments(SPIKE_SCAN_BACKWARD, Size(R=2, T=11, B=2, J=37, K=2), dtype)
    whole = SPIKE_SCAN_BACKWARD(given)
    for at in (1, 4, 10):
        late = cut(SPIKE_SCAN_BACKWARD, given, TIME, at, 11 - at)
        second = SPIKE_SCAN_BACKWARD(late | {"spike": given["spikes"][:, at - 1]})
        early = cut(SPIKE_SCAN_BACKWARD, given, TIME, 0, at)
        early["g_spikes"] = early["g_spikes"].clone()
        early["g_spikes"][:, -1] += second[5]
        first = SPIKE_SCAN_BACKWARD(early | {"g_feedback": second[4]})
        assert torch.equal(torch.cat([first[0], second[0]], 1), whole[0])
        assert same(first[4:], whole[4:])


def test_errors_are_those_of_float32() -> None:
    """On average at most twice those of the closed form in float32."""
    given = arguments(SPIKE_SCAN_BACKWARD, Size(R=1, T=250, B=8, J=50, K=2))
    for name in ("derivative", "feedback_decay", "feedback_strength"):
        given[name] *= 0.5  # else gradients explode
    assert_errors_are_those_of_float32(SPIKE_SCAN_BACKWARD, given)


def test_a_sum_ascends() -> None:
    parts = torch.tensor([1.0, 2.0**24, 1.0, -(2.0**24)]).view(1, 4, 1)
    assert sum_in_order(parts).item() == 0.0  # 2 descending, 1 in pairs
    assert torch.equal(sum_in_order(torch.ones(3, 0, 5)), torch.zeros(3, 5))
    wide = torch.randn(2, 9, 33, generator=torch.Generator().manual_seed(0))
    total = torch.zeros(2, 33)
    for part in wide.unbind(1):
        total = total + part
    assert torch.equal(sum_in_order(wide.mT.contiguous().mT), total)


def test_gradients_of_the_feedback_on_paper() -> None:
    """F(2) = r (r F + k s0) + k s1; g at step 2 alone, with F subtracted in V."""
    r, k, start, s0, s1 = 0.5, 3.0, 7.0, -0.25, 1.0

    def of(number: float, *shape: int) -> Tensor:
        return torch.full(shape, number)

    g = torch.tensor([0.0, 2.0]).view(1, 2, 1, 1)
    spikes = torch.tensor([s1, 1.0]).view(1, 2, 1, 1)
    d_decay, d_strength = feedback_gradients(
        g, None, spikes, of(r, 1, 1, 1), of(k, 1, 1, 1), of(start, 1, 1, 1, 1), of(s0, 1, 1, 1)
    )
    assert d_decay.item() == -2 * (2 * r * start + k * s0)
    assert d_strength.item() == -2 * (r * s0 + s1)
