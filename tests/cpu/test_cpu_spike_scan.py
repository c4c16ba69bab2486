"""The spike scan and its reverse as CPU kernels, against float64 with every spike given.

A feedback current after T steps has at most 2 T roundings on the way of any term, V another K + 2;
the reverse at most (K + 5) T, the sweep for the feedback's parameters 2 T more, sums over samples
B.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hetsyn_triton.kernels.cpu.neurons_reverse import feedback_gradients
from hetsyn_triton.kernels.cpu.spike_scan import spike_scan, spike_scan_backward
from hetsyn_triton.kernels.cpu.sums import sum_over_samples
from hetsyn_triton.reference import closed_form
from neuron_cases import (
    DTYPES,
    TIME,
    Operator,
    arguments,
    assert_empty,
    assert_errors_are_those_of_float32,
    assert_no_neuron_sees_another,
    assert_no_sample_sees_its_batch,
    assert_replicas_do_not_meet,
    assert_samples_add_in_their_order,
    assert_strides_change_nothing,
    assert_threads_change_no_bit,
    check,
    cut,
    same,
)
from problems import SIZES as SMALL
from problems import Size

pytestmark = pytest.mark.usefixtures("poisoned")

GRADIENTS = ("g_spikes", "g_potential", "g_feedback")
FORWARD = Operator(
    spike_scan,
    closed_form.spike_scan,
    "spike_scan",
    ("current", "threshold", "feedback_decay", "feedback_strength", "feedback", "spike"),
    ("spikes", "V", "feedback"),
    lambda size: 2 * size.T + size.K + 2,
    samples=(2, 2, 2),
    spiking=True,
)
BACKWARD = Operator(
    spike_scan_backward,
    closed_form.spike_scan_backward,
    "spike_scan",
    (
        *GRADIENTS, "derivative", "spikes", "feedback_decay", "feedback_strength", "feedback",
        "spike", "detach_reset",
    ),
    ("d_current", "d_threshold", "d_decay", "d_strength", "d_feedback", "d_spike"),
    lambda size: (size.K + 7) * size.T + size.B + 4,
    optional=GRADIENTS,
    samples=(2, None, None, None, 2, 1),
)  # fmt: skip
OPERATORS = [pytest.param(FORWARD, id="forward"), pytest.param(BACKWARD, id="backward")]
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
    spikes = check(FORWARD, size, arguments(FORWARD, size, dtype, states=states))[0]
    assert size.T * size.B * size.J < 50 or 0 < spikes.mean() < 1


@pytest.mark.parametrize("detach_reset", [False, True], ids=["reset", "detached"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_backward(size: Size, dtype: torch.dtype, detach_reset: bool) -> None:
    for given in GIVEN:
        for states in (True, False):
            check(
                BACKWARD,
                size,
                arguments(
                    BACKWARD, size, dtype, states=states, given=given, detach_reset=detach_reset
                ),
            )


def test_detach_reset_matters() -> None:
    size = Size(R=1, T=5, B=2, J=4, K=1)
    through, detached = (BACKWARD(arguments(BACKWARD, size, detach_reset=d)) for d in (False, True))
    assert not torch.equal(through[0], detached[0])
    assert through[5].any()
    assert not detached[5].any()


def test_no_gradient_at_all() -> None:
    given = arguments(BACKWARD, Size(R=2, T=5, B=3, J=18), given=())
    assert not any(found.any() for found in BACKWARD(given))


def test_threshold_is_strict() -> None:
    one = torch.ones(1, 1, 1, 17)
    zero = torch.zeros_like(one)
    spikes, potential, _ = spike_scan(one, one[0, 0], zero[0], zero[0], zero, zero[0])
    assert torch.equal(potential, one)
    assert not spikes.any()
    above = torch.nextafter(one, 2 * one)
    assert spike_scan(above, one[0, 0], zero[0], zero[0], zero, zero[0])[0].all()


def test_what_is_not_a_number_is_no_spike() -> None:
    given = arguments(FORWARD, Size(R=1, T=4, B=2, J=17, K=1), states=False)
    given["current"][0, 1, 0, 3] = torch.nan
    spikes, potential, _ = FORWARD(given)
    assert potential.isnan().nonzero().tolist() == [[0, 1, 0, 3]]
    assert spikes[0, 1, 0, 3] == 0


@pytest.mark.parametrize("empty", ["R", "T", "B", "J"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("operator", OPERATORS)
def test_empty_sizes(operator: Operator, dtype: torch.dtype, empty: str) -> None:
    assert_empty(operator, Size(**{"R": 2, "T": 3, "B": 2, "J": 5, empty: 0}), dtype)


@pytest.mark.parametrize("kind", ["reversed", "gaps", "offset"])
@pytest.mark.parametrize("operator", OPERATORS)
def test_strides_change_nothing(operator: Operator, kind: str) -> None:
    assert_strides_change_nothing(operator, kind)


def test_expanded_gradient() -> None:
    """What autograd hands on for a sum: one number, seen everywhere."""
    given = arguments(BACKWARD, Size(T=3, B=3, J=19))
    one = torch.ones(()).expand(1, 3, 3, 19)
    for name in ("g_spikes", "g_potential"):
        wanted = BACKWARD(given | {name: one.contiguous()})
        assert same(BACKWARD(given | {name: one}), wanted)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("operator", OPERATORS)
def test_repeats_and_threads_change_no_bit(
    operator: Operator, dtype: torch.dtype, on_threads: Callable[[int], None]
) -> None:
    assert_threads_change_no_bit(operator, dtype, on_threads)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_sample_does_not_depend_on_its_batch(operator: Operator, dtype: torch.dtype) -> None:
    assert_no_sample_sees_its_batch(operator, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_of_samples_add_in_their_order(dtype: torch.dtype) -> None:
    assert_samples_add_in_their_order(BACKWARD, dtype)


@pytest.mark.parametrize("operator", OPERATORS)
def test_replicas_do_not_meet(operator: Operator) -> None:
    assert_replicas_do_not_meet(operator)


@pytest.mark.parametrize("operator", OPERATORS)
def test_neurons_do_not_meet(operator: Operator) -> None:
    assert_no_neuron_sees_another(operator)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_sequence_in_pieces(dtype: torch.dtype) -> None:
    """States carried on: the same bits as in one call, wherever it is cut."""
    given = arguments(FORWARD, Size(R=2, T=11, B=2, J=37, K=2), dtype)
    whole = FORWARD(given)
    for at in (0, 1, 4, 11):
        first = FORWARD(cut(FORWARD, given, TIME, 0, at))
        rest = cut(FORWARD, given, TIME, at, 11 - at) | {"feedback": first[2]}
        if at:
            rest["spike"] = first[0][:, -1]
        second = FORWARD(rest)
        joined = (torch.cat([first[k], second[k]], 1) for k in (0, 1))
        assert same((*joined, second[2]), whole)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_reverse_in_pieces(dtype: torch.dtype) -> None:
    """Gradients of states carried on: the same bits as in one call."""
    given = arguments(BACKWARD, Size(R=2, T=11, B=2, J=37, K=2), dtype)
    whole = BACKWARD(given)
    for at in (1, 4, 10):
        late = cut(BACKWARD, given, TIME, at, 11 - at)
        second = BACKWARD(late | {"spike": given["spikes"][:, at - 1]})
        early = cut(BACKWARD, given, TIME, 0, at)
        early["g_spikes"] = early["g_spikes"].clone()
        early["g_spikes"][:, -1] += second[5]
        first = BACKWARD(early | {"g_feedback": second[4]})
        assert torch.equal(torch.cat([first[0], second[0]], 1), whole[0])
        assert same(first[4:], whole[4:])


def test_errors_are_those_of_float32() -> None:
    """On average at most twice those of the closed form in float32."""
    given = arguments(BACKWARD, Size(R=1, T=250, B=8, J=50, K=2))
    for name in ("derivative", "feedback_decay", "feedback_strength"):
        given[name] *= 0.5  # else gradients explode
    assert_errors_are_those_of_float32(BACKWARD, given)


def test_a_sum_over_samples_ascends() -> None:
    parts = torch.tensor([1.0, 2.0**24, 1.0, -(2.0**24)]).view(1, 4, 1)
    assert sum_over_samples(parts).item() == 0.0  # 2 descending, 1 in pairs
    assert torch.equal(sum_over_samples(torch.ones(3, 0, 5)), torch.zeros(3, 5))
    wide = torch.randn(2, 9, 33, generator=torch.Generator().manual_seed(0))
    total = torch.zeros(2, 33)
    for part in wide.unbind(1):
        total = total + part
    assert torch.equal(sum_over_samples(wide.mT.contiguous().mT), total)


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
