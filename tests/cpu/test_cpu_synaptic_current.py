"""The synaptic current, both directions, and its parameter gradients against float64.

A trace after T steps has at most T roundings on the way of any term; a sum over S features has 64
of them in a partial sum, one more for each of those. A parameter gradient adds T steps and B
samples to the trace's own roundings. The magnitude is the operator on absolute values.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hetsyn_triton.kernels.cpu.lib import parameter_gradient
from hetsyn_triton.kernels.cpu.lib.parameter_gradient import synaptic_parameter_gradient
from hetsyn_triton.kernels.cpu.synaptic_current import synaptic_current, synaptic_current_backward
from hetsyn_triton.reference import closed_form
from tests.support.bounds import assert_within
from tests.support.problems import Size, problem
from tests.support.tensors import LAYOUTS, cut, same, strided

pytestmark = pytest.mark.usefixtures("poisoned")

Arguments = dict[str, Any]
Operator = Callable[..., tuple[Tensor, ...]]

OPERATORS: dict[str, tuple[Operator, Operator, tuple[str, ...], tuple[str, ...]]] = {
    "forward": (
        synaptic_current,
        closed_form.synaptic_current,
        ("z", "weight", "decay", "trace"),
        ("current", "trace"),
    ),
    "backward": (
        synaptic_current_backward,
        closed_form.synaptic_current_backward,
        ("g", "g_trace", "weight", "decay"),
        ("dz", "d_trace"),
    ),
    "parameters": (
        synaptic_parameter_gradient,
        closed_form.synaptic_parameter_gradient,
        ("z", "g", "g_trace", "weight", "decay", "trace"),
        ("dw", "dr"),
    ),
}
STATES = [(True, True), (True, False), (False, True), (False, False)]
DTYPES = [torch.float32, torch.float64]
SIZES = [
    Size(R=1, T=1, B=1, I=1, J=1),
    Size(R=3, T=5, B=2, I=3, J=2),
    Size(R=1, T=7, B=3, I=17, J=13),
    Size(R=2, T=9, B=9, I=67, J=5),
    Size(R=1, T=8, B=1, I=64, J=16),
    Size(R=1, T=4, B=3, I=63, J=15),
    Size(R=3, T=3, B=3, I=65, J=33),
    Size(R=1, T=6, B=2, I=16, J=130),
    Size(R=1, T=3, B=1, I=129, J=127),
    Size(R=1, T=6, B=1, I=700, J=1),
    Size(R=1, T=5, B=3, I=1, J=128),
    Size(R=1, T=3, B=2, I=700, J=128),
    Size(R=1, T=250, B=3, I=37, J=19),
]


def arguments(
    name: str,
    size: Size,
    dtype: torch.dtype = torch.float32,
    *,
    states: tuple[bool, bool] = (True, True),
    seed: int = 0,
    analog: bool = True,
) -> Arguments:
    """By name; `states`: whether the initial trace is there, and the gradient of the final one."""
    trace, g_trace = states
    made: Arguments = {
        "trace": None,
        "g_trace": None,
        **problem("synaptic_current", size, seed, analog=analog, states=trace, dtype=dtype),
    }
    generator = torch.Generator().manual_seed(seed + 1)
    made["g"] = torch.randn(size.R, size.T, size.B, size.J, generator=generator, dtype=dtype)
    if g_trace:
        shape = (size.R, size.B, size.J, size.I)
        made["g_trace"] = torch.randn(shape, generator=generator, dtype=dtype)
    return {n: made[n] for n in OPERATORS[name][2]}


def doubled(given: Arguments, absolute: bool = False) -> Arguments:
    one = (lambda t: t.double().abs()) if absolute else Tensor.double
    return {n: None if t is None else one(t) for n, t in given.items()}


def roundings(name: str, size: Size) -> int:
    """Of any term of any result."""
    if name == "parameters":
        return 2 * size.T + size.B + 4
    summed = size.I if name == "forward" else size.J
    # Of a carried gradient the sum over neurons in the last step is PyTorch's, in any order.
    carried = 0 if name == "forward" else size.J
    return size.T + min(summed, 64) + -(-summed // 64) + carried + 4


def check(name: str, size: Size, given: Arguments) -> tuple[Tensor, ...]:
    """Runs the kernel and holds it to the bounds."""
    kernel, truth, _, results = OPERATORS[name]
    before: Arguments = {n: None if t is None else t.clone() for n, t in given.items()}
    found = kernel(**given)
    wanted, magnitudes = truth(**doubled(given)), truth(**doubled(given, absolute=True))
    for got, want, magnitude, what in zip(found, wanted, magnitudes, results, strict=True):
        assert got.dtype == given["weight"].dtype
        assert got.is_contiguous()
        assert_within(got, want, magnitude, roundings(name, size), what)
    for n, t in given.items():
        assert t is None or torch.equal(t, before[n]), f"{n} was written to"
    return found


@pytest.mark.parametrize("states", STATES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", OPERATORS)
def test_within_rounding_of_the_closed_form(
    name: str, size: Size, dtype: torch.dtype, states: tuple[bool, bool]
) -> None:
    check(name, size, arguments(name, size, dtype, states=states, analog=states[0]))


@pytest.mark.parametrize("steps", range(10))
@pytest.mark.parametrize("name", OPERATORS)
def test_any_number_of_steps(name: str, steps: int) -> None:
    """Several steps run in one pass, what is left over one by one; no step leaves states alone."""
    for B in (1, 3, 9):
        size = Size(R=1, T=steps, B=B, I=66, J=18)
        found = check(name, size, arguments(name, size))
        if steps == 0 and name != "parameters":
            state = "trace" if name == "forward" else "g_trace"
            assert torch.equal(found[1], arguments(name, size)[state])


@pytest.mark.parametrize("steps", [127, 128, 129, 257])
def test_parameter_gradient_in_spans_of_time(steps: int) -> None:
    size = Size(R=1, T=steps, B=2, I=5, J=17)
    check("parameters", size, arguments("parameters", size))


@pytest.mark.parametrize("others", [63, 64, 65, 129])
@pytest.mark.parametrize("along_inputs", [True, False])
def test_parameter_gradient_in_parts(others: int, along_inputs: bool) -> None:
    """More features across the lanes than a task takes, either way round."""
    I, J = (16, others) if along_inputs else (others, 16)  # noqa: E741
    size = Size(R=2, T=5, B=2, I=I, J=J)
    check("parameters", size, arguments("parameters", size))


@pytest.mark.parametrize("empty", ["R", "T", "B", "I", "J"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPERATORS)
def test_empty_sizes(name: str, dtype: torch.dtype, empty: str) -> None:
    """Nothing is summed; without steps a state comes back as it was."""
    size = Size(**{"R": 2, "T": 3, "B": 2, "I": 3, "J": 5, empty: 0})
    R, T, B, I, J = size.R, size.T, size.B, size.I, size.J  # noqa: E741
    steps = (R, T, B, J if name == "forward" else I)
    shapes = [(R, J, I), (R, J, I)] if name == "parameters" else [steps, (R, B, J, I)]
    for states in STATES:
        given = arguments(name, size, dtype, states=states)
        found = OPERATORS[name][0](**given)
        assert [t.shape for t in found] == [torch.Size(shape) for shape in shapes]
        state = {"forward": "trace", "backward": "g_trace"}.get(name)
        if empty == "T" and state is not None and given[state] is not None:
            assert torch.equal(found[1], given[state])
        else:
            assert not any(t.any() for t in found)


@pytest.mark.parametrize("name", OPERATORS)
def test_every_feature_stands_in_its_place(name: str) -> None:
    """One weight, one number at the start: exactly one number comes out, where it belongs."""
    size = Size(R=2, T=6, B=3, I=83, J=37)
    for j, i in ((0, 0), (15, 63), (16, 64), (36, 82), (1, 66)):
        given = {n: torch.zeros_like(t) for n, t in arguments(name, size).items()}
        given["weight"][1, j, i], given["decay"][1, j, i] = 3.0, 0.5
        if name in ("forward", "parameters"):
            given["z"][1, 1, 2, i] = 2.0
        if name in ("backward", "parameters"):
            given["g"][1, 4, 2, j] = 2.0
        first, second = OPERATORS[name][0](**given)
        if name == "forward":
            assert first.count_nonzero() == 5
            assert torch.equal(first[1, 1:, 2, j], 6 * 0.5 ** torch.arange(5.0))
            assert second.nonzero().tolist() == [[1, 2, j, i]]
            assert second[1, 2, j, i] == 2 * 0.5**4
        elif name == "backward":
            assert first.count_nonzero() == 5
            assert torch.equal(first[1, :5, 2, i], 6 * 0.5 ** torch.arange(4.0, -1, -1))
            assert second.nonzero().tolist() == [[1, 2, j, i]]
            assert second[1, 2, j, i] == 6 * 0.5**5
        else:
            assert first.nonzero().tolist() == second.nonzero().tolist() == [[1, j, i]]
            assert first[1, j, i] == 4 * 0.5**3
            assert second[1, j, i] == 3 * 4 * 3 * 0.5**2


RMS = [Size(R=1, T=250, B=8, I=140, J=32), Size(R=1, T=100, B=4, I=700, J=24)]


@pytest.mark.parametrize("size", RMS, ids=str)
@pytest.mark.parametrize("name", OPERATORS)
def test_errors_are_those_of_float32(name: str, size: Size) -> None:
    """On average at most twice those of the closed form in float32."""
    kernel, truth, _, results = OPERATORS[name]
    given = arguments(name, size, analog=False)
    exact = truth(**doubled(given))
    for got, plain, want, what in zip(kernel(**given), truth(**given), exact, results, strict=True):
        error, usual = ((t.double() - want).square().mean().sqrt() for t in (got, plain))
        assert error <= 2 * usual, f"{what}: {error / usual:.2f} times the closed form's"


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("name", OPERATORS)
def test_strides_change_nothing(name: str, kind: str) -> None:
    given = arguments(name, Size(R=2, T=6, B=3, I=67, J=18))
    wanted = OPERATORS[name][0](**given)
    moved = {n: strided(t, kind) for n, t in given.items() if t is not None}
    assert same(OPERATORS[name][0](**moved), wanted)


@pytest.mark.parametrize("name", ["backward", "parameters"])
def test_expanded_gradient(name: str) -> None:
    """What autograd hands on for a sum: one number, seen everywhere."""
    given = arguments(name, Size(T=3, B=3, I=9, J=6))
    one = torch.ones(()).expand(1, 3, 3, 6)
    wanted = OPERATORS[name][0](**(given | {"g": one.contiguous()}))
    assert same(OPERATORS[name][0](**(given | {"g": one})), wanted)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPERATORS)
def test_repeats_and_threads_change_no_bit(
    name: str, dtype: torch.dtype, on_threads: Callable[[int], None]
) -> None:
    for size in (Size(R=2, T=6, B=3, I=150, J=37), Size(R=1, T=5, B=1, I=20, J=150)):
        given = arguments(name, size, dtype)
        on_threads(1)
        wanted = OPERATORS[name][0](**given)
        for count in (1, 2, 3, 7, 7):
            on_threads(count)
            assert same(OPERATORS[name][0](**given), wanted), count


BATCH = {"z": 2, "g": 2, "trace": 1, "g_trace": 1}
REPLICA = dict.fromkeys(("z", "g", "trace", "g_trace", "weight", "decay"), 0)
NEURON = {"g": 3, "trace": 2, "g_trace": 2, "weight": 1, "decay": 1}
INPUT = {"z": 3, "trace": 3, "g_trace": 3, "weight": 2, "decay": 2}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["forward", "backward"])
def test_a_sample_does_not_depend_on_its_batch(name: str, dtype: torch.dtype) -> None:
    given = arguments(name, Size(R=2, T=7, B=5, I=75, J=37), dtype)
    whole = OPERATORS[name][0](**given)
    for start, length in ((0, 1), (3, 2), (4, 1)):
        steps, trace = OPERATORS[name][0](**cut(given, BATCH, start, length))
        assert torch.equal(steps, whole[0][:, :, start : start + length])
        assert torch.equal(trace, whole[1][:, start : start + length])


@pytest.mark.parametrize("name", OPERATORS)
def test_replicas_do_not_meet(name: str) -> None:
    given = arguments(name, Size(R=3, T=5, B=3, I=21, J=37))
    whole = OPERATORS[name][0](**given)
    alone = OPERATORS[name][0](**cut(given, REPLICA, 1, 1))
    assert same(alone, tuple(t[1:2] for t in whole))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_sequence_in_pieces(dtype: torch.dtype) -> None:
    """The trace carried on: the same bits as in one call, wherever it is cut."""
    given = arguments("forward", Size(R=2, T=11, B=2, I=75, J=37), dtype)
    whole = synaptic_current(**given)
    for at in (0, 1, 4, 6, 11):
        first, between = synaptic_current(**cut(given, {"z": 1}, 0, at))
        rest = cut(given, {"z": 1}, at, 11 - at)
        second, last = synaptic_current(**(rest | {"trace": between}))
        assert same((torch.cat([first, second], 1), last), whole)


@pytest.mark.parametrize("name", ["forward", "backward"])
def test_silence_before_the_first_spike(name: str) -> None:
    """Steps before a chunk's first number other than zero are passed over: no bit changes."""
    for silent in range(10):
        for B in (1, 2):
            size = Size(R=1, T=9, B=B, I=70, J=70)
            given = arguments(name, size, states=(False, False), seed=silent)
            steps = given["z"] if name == "forward" else given["g"].flip(1)
            steps[:, :silent, :, 64:] = 0.0
            steps[:, : max(0, silent - 3), :, :64] = -0.0
            if name == "backward":
                given["g"] = steps.flip(1)
            found = check(name, size, given)
            if name == "forward":  # with a trace nothing is passed over
                zeros = torch.zeros(1, B, 70, 70)
                assert same(synaptic_current(**(given | {"trace": zeros})), found)


def test_gradients_of_samples_add_in_their_order() -> None:
    """From nothing, ascending: the sums of the batch are those of its samples, bit by bit."""
    size = Size(R=2, T=9, B=5, I=21, J=18)
    given = arguments("parameters", size, states=(True, False))
    given["weight"] = torch.ones_like(given["weight"])  # a factor of dr, after the sum
    wanted = synaptic_parameter_gradient(**given)
    total = tuple(torch.zeros_like(t) for t in wanted)
    for b in range(size.B):
        one = synaptic_parameter_gradient(**cut(given, BATCH, b, 1))
        total = tuple(t + o for t, o in zip(total, one, strict=True))
    assert same(total, wanted)


def test_lanes_along_inputs_or_neurons_give_the_same_numbers() -> None:
    """The choice follows the sizes: pieces that choose otherwise have the bits of the whole."""
    given = arguments("parameters", Size(R=1, T=9, B=3, I=17, J=16), states=(True, False))
    whole = synaptic_parameter_gradient(**given)
    few_neurons = synaptic_parameter_gradient(**cut(given, NEURON, 2, 5))
    assert same(few_neurons, tuple(t[:, 2:7] for t in whole))
    given = arguments("parameters", Size(R=1, T=9, B=3, I=16, J=17), states=(True, False))
    whole = synaptic_parameter_gradient(**given)
    few_inputs = synaptic_parameter_gradient(**cut(given, INPUT, 2, 5))
    assert same(few_inputs, tuple(t[..., 2:7] for t in whole))


def test_the_choice_of_lanes_is_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    """That the sizes above choose differently."""
    chosen: list[bool] = []

    def record(kernel: Any, tasks: int, work: int, *rest: Any) -> None:
        chosen.append(rest[-1])

    monkeypatch.setattr(parameter_gradient, "run", record)
    for I, J in ((17, 16), (17, 5), (16, 17), (5, 17)):  # noqa: E741
        synaptic_parameter_gradient(**arguments("parameters", Size(I=I, J=J)))
    assert chosen == [False, True, True, False]


@pytest.mark.parametrize("name", OPERATORS)
def test_what_is_not_finite_stays_where_it_is(name: str) -> None:
    """A sample with an infinite input or gradient spoils no other, no neuron and no lane."""
    size = Size(R=2, T=5, B=3, I=21, J=18)
    given = arguments(name, size)
    step = "z" if name == "forward" else "g"
    if name == "parameters":
        given["g"][:] = 0.0
        given["g"][1, 1, 1, 3] = torch.inf
    else:
        given[step][1, 2, 1, 3] = torch.inf
    wanted = OPERATORS[name][1](**doubled(given))
    for got, want in zip(OPERATORS[name][0](**given), wanted, strict=True):
        finite = want.isfinite()
        assert torch.equal(got.isfinite(), finite)
        assert not finite.all()
        assert finite[0].all()
