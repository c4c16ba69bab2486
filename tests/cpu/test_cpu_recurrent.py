"""The recurrent scan and its reverse as CPU kernels, against float64 with every spike given."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from hetsyn_triton.kernels.cpu import recurrent_scan as module
from hetsyn_triton.kernels.cpu.recurrent_scan import recurrent_scan, recurrent_scan_backward
from hetsyn_triton.kernels.cpu.synaptic_current import synaptic_current
from hetsyn_triton.reference.lib.steps import previous_steps
from tests.support.problems import Size
from tests.support.recurrent_cases import (
    GIVEN,
    OUTPUTS,
    RESULTS,
    Arguments,
    assert_backward,
    assert_forward,
    backward_arguments,
    forward_arguments,
)
from tests.support.tensors import same

pytestmark = pytest.mark.usefixtures("poisoned")

# Where the samples stand in what has any.
SAMPLES = {
    "current": 2, "trace": 1, "feedback": 2, "spike": 1, "g_spikes": 2, "g_potential": 2,
    "g_feedback": 2, "g_trace": 1, "derivative": 2, "spikes": 2, "V": 2, "d_current": 2,
    "d_feedback": 2, "d_spike": 1, "d_trace": 1,
}  # fmt: skip
STEPS = ("derivative", "spikes", "g_spikes", "g_potential")

DTYPES = [torch.float32, torch.float64]
SIZES = [
    Size(R=1, T=1, B=1, J=1, K=1),
    Size(R=3, T=7, B=2, J=5, K=2),
    Size(R=1, T=7, B=5, J=15, K=1),
    Size(R=2, T=7, B=4, J=16, K=0),
    Size(R=3, T=7, B=3, J=17, K=3),
    Size(R=1, T=7, B=9, J=33, K=2),
    Size(R=1, T=40, B=7, J=8, K=1),
    Size(R=1, T=7, B=6, J=64, K=1),
    Size(R=1, T=7, B=5, J=65, K=1),
    Size(R=2, T=4, B=2, J=130, K=2),
    Size(R=1, T=3, B=4, J=200, K=1),
]
GROUPS = [1, 2, 4]


def unchanged(call: Callable[..., tuple[Tensor, ...]], arguments: Arguments) -> tuple[Tensor, ...]:
    """`call(**arguments)`, which leaves them as they were and returns contiguous tensors."""
    before: Arguments = {n: None if t is None else t.clone() for n, t in arguments.items()}
    found = call(**arguments)
    for name, tensor in arguments.items():
        assert tensor is None or torch.equal(tensor, before[name]), name
    assert all(t.is_contiguous() for t in found)
    return found


def check_forward(arguments: Arguments) -> None:
    assert_forward(arguments, unchanged(recurrent_scan, arguments))


def check_backward(arguments: Arguments, detach_reset: bool = False) -> None:
    call = partial(recurrent_scan_backward, detach_reset=detach_reset)
    assert_backward(arguments, unchanged(call, arguments), detach_reset)


backward = partial(recurrent_scan_backward, detach_reset=False)


@pytest.fixture
def in_groups(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets how many samples share a pass over w and r."""

    def choose(size: int) -> None:
        monkeypatch.setattr(module, "group_size", lambda *_: size)

    return choose


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_forward(size: Size, dtype: torch.dtype) -> None:
    check_forward(forward_arguments(size, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_backward(size: Size, dtype: torch.dtype) -> None:
    check_backward(backward_arguments(size, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_states(dtype: torch.dtype) -> None:
    check_forward(forward_arguments(Size(R=2, T=9, B=6, J=19, K=1), dtype=dtype, states=False))


@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("given", [(), *([name] for name in GIVEN), GIVEN[:2], GIVEN[2:]])
def test_every_gradient_may_be_absent(given: tuple[str, ...], detach_reset: bool) -> None:
    size = Size(R=2, T=6, B=5, J=18, K=2)
    check_backward(backward_arguments(size, given=tuple(given)), detach_reset)
    check_backward(backward_arguments(size, dtype=torch.float64, given=tuple(given)), detach_reset)


@pytest.mark.parametrize("size", [Size(T=0), Size(B=0), Size(R=0)], ids=str)
def test_nothing_to_do(size: Size) -> None:
    """Without steps states come back as they were; without samples gradients are zero."""
    arguments = forward_arguments(size)
    spikes, potential, feedback, trace = recurrent_scan(**arguments)
    assert spikes.shape == potential.shape == arguments["current"].shape
    assert same((feedback, trace), (arguments["feedback"], arguments["trace"]))
    assert not recurrent_scan(**arguments | {"trace": None})[3].any()
    for given in (GIVEN, ()):
        arguments = backward_arguments(size, given=given)
        found = backward(**arguments)
        assert not any(bool(d.any()) for d in (*found[1:4], found[5]))
        for d, last in ((found[4], arguments["g_feedback"]), (found[6], arguments["g_trace"])):
            assert torch.equal(d, torch.zeros_like(d) if last is None else last)


def stretched(tensor: Tensor) -> Tensor:
    """The same values with every stride unusual, NaN between."""
    room = torch.full((*[2 * n + 1 for n in tensor.shape[::-1]],), torch.nan, dtype=tensor.dtype)
    view = room.permute(*reversed(range(tensor.dim())))[(slice(1, None, 2),) * tensor.dim()]
    return view.copy_(tensor)


@pytest.mark.parametrize("operator", ["forward", "backward"])
def test_any_strides(operator: str) -> None:
    size = Size(R=2, T=3, B=3, J=6, K=2)
    operators: dict[str, tuple[Callable[..., tuple[Tensor, ...]], Arguments]] = {
        "forward": (recurrent_scan, forward_arguments(size)),
        "backward": (backward, backward_arguments(size)),
    }
    call, plain = operators[operator]
    wanted = call(**plain)
    for name, tensor in plain.items():  # The strides of one must not serve another.
        assert same(unchanged(call, plain | {name: stretched(tensor)}), wanted), name
    assert same(call(**{n: stretched(t) for n, t in plain.items()}), wanted)


def chosen(arguments: Arguments, samples: slice) -> Arguments:
    return {
        n: t if t is None or n not in SAMPLES else t[(slice(None),) * SAMPLES[n] + (samples,)]
        for n, t in arguments.items()
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("neurons", [7, 80])
def test_a_sample_does_not_see_its_batch(
    neurons: int, dtype: torch.dtype, in_groups: Callable[[int], None]
) -> None:
    """Not in which group it stands, of which size, in what place of the batch."""
    size = Size(R=2, T=5, B=7, J=neurons, K=2)
    ahead, back = forward_arguments(size, dtype=dtype), backward_arguments(size, dtype=dtype)
    whole = dict(zip(OUTPUTS, recurrent_scan(**ahead), strict=True))
    reverse = dict(zip(RESULTS, backward(**back), strict=True))
    for group in GROUPS:
        in_groups(group)
        assert same(recurrent_scan(**ahead), tuple(whole.values()))
        assert same(backward(**back), tuple(reverse.values()))
        for part in (slice(0, 1), slice(1, 7), slice(2, 5), slice(5, 7)):
            found = recurrent_scan(**chosen(ahead, part))
            assert same(found, tuple(chosen(whole, part).values()))
            gradients = backward(**chosen(back, part))
            for d, (name, wanted) in zip(gradients, chosen(reverse, part).items(), strict=True):
                assert name not in SAMPLES or torch.equal(d, wanted), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cut", [0, 1, 4, 9])
def test_a_sequence_may_be_cut(cut: int, dtype: torch.dtype) -> None:
    size = Size(R=2, T=9, B=5, J=21, K=2)
    arguments = forward_arguments(size, dtype=dtype)
    spikes, potential, feedback, trace = recurrent_scan(**arguments)
    current = arguments["current"]
    first = recurrent_scan(**arguments | {"current": current[:, :cut]})
    states = {"feedback": first[2], "trace": first[3]}
    if cut:
        states["spike"] = first[0][:, -1]
    second = recurrent_scan(**arguments | states | {"current": current[:, cut:]})
    assert torch.equal(torch.cat([first[0], second[0]], 1), spikes)
    assert torch.equal(torch.cat([first[1], second[1]], 1), potential)
    assert same(second[2:], (feedback, trace))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sequence_may_be_cut_in_reverse(dtype: torch.dtype) -> None:
    """The gradient of the trace between two parts is all that the earlier one needs."""
    size, cut = Size(R=2, T=9, B=5, J=21, K=2), 4
    arguments = backward_arguments(size, dtype=dtype)
    whole = backward(**arguments)
    late = backward(**arguments | {n: arguments[n][:, cut:] for n in STEPS})
    early = {n: arguments[n][:, :cut].clone() for n in STEPS}
    early["g_spikes"][:, -1] += late[5]
    found = backward(**arguments | early | {"g_feedback": late[4], "g_trace": late[6]})
    assert torch.equal(torch.cat([found[0], late[0]], 1), whole[0])
    assert same(found[4:], whole[4:])


def test_traces_are_those_of_the_synaptic_current() -> None:
    """Driven by s(t-1): its parameter gradient then sees the same numbers as the scan."""
    arguments = forward_arguments(Size(R=2, T=30, B=3, J=37, K=1))
    found = recurrent_scan(**arguments)
    z = previous_steps(found[0], arguments["spike"])
    synapses = [arguments[name] for name in ("weight", "decay", "trace")]
    assert torch.equal(synaptic_current(z, *synapses)[1], found[3])


@pytest.mark.parametrize("batch", [1, 2, 3, 6, 9])
def test_threads_change_nothing(batch: int, on_threads: Callable[[int], None]) -> None:
    size = Size(R=2, T=4, B=batch, J=18, K=2)
    ahead, back = forward_arguments(size), backward_arguments(size)
    on_threads(1)
    wanted = recurrent_scan(**ahead), backward(**back)
    for threads in (2, 3, 7):
        on_threads(threads)
        assert same(recurrent_scan(**ahead), wanted[0])
        assert same(backward(**back), wanted[1])


@pytest.mark.parametrize("threads", [1, 2, 5, 100])
@pytest.mark.parametrize("batch", range(12))
def test_groups_hold_every_sample_once(
    batch: int, threads: int, on_threads: Callable[[int], None]
) -> None:
    on_threads(threads)
    for replicas in (1, 3):
        size = module.group_size(replicas, batch)
        groups = [
            module.group.py_func(number, batch, size)
            for number in range(module.groups_of(batch, size))
        ]
        assert {n for _, n in groups} <= {1, 2, 4}
        samples = [first + k for first, n in groups for k in range(n)]
        assert samples == list(range(batch))
        assert replicas * len(groups) >= min(threads, replicas * batch)


def test_not_a_number_stays_where_it_is() -> None:
    """In its own sample, and it never becomes a spike."""
    arguments = forward_arguments(Size(R=1, T=6, B=4, J=18, K=1))
    plain = recurrent_scan(**arguments)
    current = arguments["current"].clone()
    current[0, 2, 1, 3] = torch.nan
    found = recurrent_scan(**arguments | {"current": current})
    others = torch.tensor([0, 2, 3])
    assert torch.equal(found[1][:, :, others], plain[1][:, :, others])
    assert found[1][0, 2, 1, 3].isnan()
    assert found[0][0, 2, 1, 3] == 0
    assert torch.equal(found[1][0, :2], plain[1][0, :2])
