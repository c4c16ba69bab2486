"""The gradients of weights and decays by the Triton kernels, against the closed form in float64."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from hetsyn_triton.kernels.gpu.lib import parameter_gradient
from hetsyn_triton.kernels.gpu.lib.launch import Launch, recording
from hetsyn_triton.kernels.gpu.lib.parameter_gradient import (
    cost,
    depth,
    synaptic_parameter_gradient,
)
from hetsyn_triton.reference import closed_form
from tests.support.bounds import assert_within
from tests.support.problems import Size, problem

NAMES = ("z", "g", "g_trace", "weight", "decay", "trace")
Arguments = dict[str, Any]


def arguments(
    size: Size,
    device: torch.device,
    *,
    seed: int = 0,
    states: bool = True,
    g_trace: bool = True,
    analog: bool = True,
) -> Arguments:
    """float32 arguments of the operator; z, weight, decay and the trace are those of a forward."""
    made = problem("synaptic_current", size, seed, analog=analog, states=states)
    generator = torch.Generator().manual_seed(seed + 1)
    made["g"] = torch.randn(size.R, size.T, size.B, size.J, generator=generator)
    if g_trace:
        made["g_trace"] = torch.randn(size.R, size.B, size.J, size.I, generator=generator)
    return {name: made[name].to(device, torch.float32) if name in made else None for name in NAMES}


def exact(given: Arguments, *, magnitude: bool = False) -> tuple[Tensor, Tensor]:
    """The closed form in float64, of the absolute values if asked."""
    double: Arguments = {name: None if t is None else t.double() for name, t in given.items()}
    if magnitude:
        double = {name: None if t is None else t.abs() for name, t in double.items()}
    return closed_form.synaptic_parameter_gradient(**double)


def roundings(given: Arguments) -> int:
    """Of any term: both recurrences, a row's sum, four rows, all programs or groups, the end."""
    z, weight = given["z"], given["weight"]
    assert isinstance(z, Tensor)
    assert isinstance(weight, Tensor)
    _, steps, batch, _ = z.shape
    groups = -(-batch // 4)
    return 2 * steps + steps * depth(batch, *weight.shape[1:]) + 2 + groups + 4


def check(given: Arguments) -> tuple[Tensor, Tensor]:
    """Runs the kernels and holds them to the rounding bound."""
    found = synaptic_parameter_gradient(**given)
    bound = roundings(given)
    pairs = zip(("dw", "dr"), found, exact(given), exact(given, magnitude=True), strict=True)
    for what, got, want, magnitude in pairs:
        assert got.dtype == torch.float32
        assert got.is_contiguous()
        assert_within(got, want, magnitude, bound, what)
    return found


def same(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """New memory is NaN, so that what a kernel leaves unwritten shows."""
    plain: Callable[..., Tensor] = torch.empty

    def poisoned(*args: object, **options: object) -> Tensor:
        made = plain(*args, **options)
        return made.fill_(float("nan")) if made.is_floating_point() else made

    monkeypatch.setattr(torch, "empty", poisoned)


@pytest.fixture
def deep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few partial sums, so that a program takes several groups of samples of a small problem."""
    monkeypatch.setattr(parameter_gradient, "PARTIALS", 1)


SIZES = [
    Size(R=1, T=1, B=1, I=1, J=1),
    Size(R=3, T=2, B=2, I=3, J=2),
    Size(R=1, T=7, B=4, I=8, J=32),
    Size(R=2, T=5, B=5, I=13, J=37),
    Size(R=1, T=9, B=11, I=20, J=64),
    Size(R=3, T=4, B=3, I=5, J=131),
    Size(R=1, T=3, B=17, I=31, J=20),
    Size(R=1, T=6, B=2, I=17, J=128),
    Size(R=1, T=13, B=1, I=1, J=7),
]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("states", [True, False])
def test_is_within_rounding_of_the_closed_form(
    size: Size, states: bool, device: torch.device
) -> None:
    check(arguments(size, device, states=states, g_trace=states, analog=states))


@pytest.mark.parametrize("size", [SIZES[1], SIZES[3], SIZES[6]], ids=str)
@pytest.mark.parametrize(("states", "g_trace"), [(True, False), (False, True), (True, True)])
@pytest.mark.usefixtures("deep")
def test_a_program_may_take_several_groups(
    size: Size, states: bool, g_trace: bool, device: torch.device
) -> None:
    assert depth(size.B, size.I, size.J) == -(-size.B // 4)
    check(arguments(size, device, states=states, g_trace=g_trace))


def test_the_last_program_may_have_fewer_groups(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = Size(R=2, T=3, B=18, I=6, J=9)
    monkeypatch.setattr(parameter_gradient, "PARTIALS", 3 * size.I * size.J)
    assert depth(size.B, size.I, size.J) == 2  # of five groups: 2, 2 and 1
    check(arguments(size, device))


def test_every_input_and_neuron_stands_in_its_place(device: torch.device) -> None:
    """One spike of one input, one error of one neuron: exactly one synapse learns."""
    size = Size(R=2, T=3, B=6, I=19, J=35)
    given = arguments(size, device, states=False, g_trace=False)
    for i, j in ((0, 0), (8, 31), (15, 32), (16, 1), (18, 34)):
        z, g = torch.zeros_like(given["z"]), torch.zeros_like(given["g"])
        z[1, 0, 5, i] = 2.0
        g[1, 2, 5, j] = 3.0
        dw, dr = synaptic_parameter_gradient(**{**given, "z": z, "g": g})
        r, w = given["decay"][1, j, i], given["weight"][1, j, i]
        assert dw.nonzero().tolist() in ([[1, j, i]], [])
        torch.testing.assert_close(dw[1, j, i], 6 * r * r)
        torch.testing.assert_close(dr[1, j, i], 12 * w * r)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy's, under the interpreter
def test_a_missing_row_leaves_nothing_behind(device: torch.device) -> None:
    """Rows beyond the batch repeat its last sample: they must not count, even if it overflows."""
    for B in (1, 2, 3, 5):
        given = arguments(Size(R=1, T=2, B=B, I=4, J=4), device, states=False, g_trace=False)
        given["g"][:, :, -1] = 0.0
        given["g"][:, 1, -1, 2] = 1.0
        given["z"][:, :, -1, 1] = float("inf")
        dw, dr = synaptic_parameter_gradient(**given)
        truth = exact(given)
        for found, wanted in zip((dw, dr), truth, strict=True):
            assert torch.equal(found.isnan(), wanted.isnan())
            assert torch.equal(found.isposinf(), wanted.isposinf())
            assert torch.equal(found.isneginf(), wanted.isneginf())


@pytest.mark.parametrize("empty", ["R", "T", "B", "I", "J"])
def test_empty_sizes(empty: str, device: torch.device) -> None:
    given = arguments(Size(**{"R": 2, "T": 3, "B": 2, "I": 3, "J": 5, empty: 0}), device)
    for found, wanted in zip(synaptic_parameter_gradient(**given), exact(given), strict=True):
        assert torch.equal(found.double(), wanted)


@pytest.mark.parametrize("kind", [torch.uint8, torch.bool, torch.float16, torch.bfloat16])
def test_types_of_spikes(kind: torch.dtype, device: torch.device) -> None:
    given = arguments(Size(T=3, B=3, I=9, J=6), device, analog=False)
    typed = {**given, "z": given["z"].to(kind)}
    assert same(synaptic_parameter_gradient(**typed), synaptic_parameter_gradient(**given))


def test_types_of_everything(device: torch.device) -> None:
    """Other types mean their float32 values."""
    given = arguments(Size(T=3, B=3, I=9, J=6), device)
    halves = {name: t.to(torch.bfloat16) for name, t in given.items()}
    floats = {name: t.float() for name, t in halves.items()}
    assert same(synaptic_parameter_gradient(**halves), synaptic_parameter_gradient(**floats))


def strided(tensor: Tensor) -> Tensor:
    """The same values with features far apart."""
    spread = torch.full((*tensor.shape, 3), float("nan"), device=tensor.device)
    spread[..., 1] = tensor
    return spread[..., 1]


def batch_major(tensor: Tensor) -> Tensor:
    """The same values with samples before time in memory, in the middle of a larger tensor."""
    R, T, B, N = tensor.shape
    spread = torch.full((R, B, T + 2, N + 4), float("nan"), device=tensor.device)
    spread[:, :, 1:-1, 4:] = tensor.transpose(1, 2)
    return spread[:, :, 1:-1, 4:].transpose(1, 2)


@pytest.mark.parametrize("features", [(8, 32), (9, 6)])
def test_strides_change_nothing(features: tuple[int, int], device: torch.device) -> None:
    given = arguments(Size(R=2, T=4, B=5, I=features[0], J=features[1]), device)
    wanted = check(given)
    views = {name: strided(t) for name, t in given.items()}
    assert same(synaptic_parameter_gradient(**views), wanted)
    views = {**given, "z": batch_major(given["z"]), "g": batch_major(given["g"])}
    assert same(synaptic_parameter_gradient(**views), wanted)
    turned: Arguments = {
        name: None if t is None else t.mT.contiguous().mT if name not in ("z", "g") else t
        for name, t in given.items()
    }
    assert same(synaptic_parameter_gradient(**turned), wanted)


def test_expanded_gradient(device: torch.device) -> None:
    """What autograd hands on for a sum: one number, seen everywhere."""
    given = arguments(Size(T=3, B=3, I=9, J=6), device)
    one = torch.ones((), device=device).expand(1, 3, 3, 6)
    given["g"] = one.contiguous()
    assert same(
        synaptic_parameter_gradient(**{**given, "g": one}), synaptic_parameter_gradient(**given)
    )


@pytest.mark.parametrize(
    ("axis", "stride", "size"),
    [
        (0, 2**31 + 4, Size(R=2, T=2, B=1, I=8, J=8)),
        (1, 2**31 + 4, Size(R=1, T=2, B=6, I=8, J=8)),
        (2, 2**31 + 4, Size(R=1, T=2, B=2, I=8, J=8)),  # copied
        (2, 2**29 - 4, Size(R=1, T=2, B=4, I=8, J=8)),  # the farthest that is not
        (2, 2**28, Size(R=1, T=2, B=9, I=8, J=8)),  # the third group lies beyond
    ],
)
def test_offsets_beyond_32_bits(axis: int, stride: int, size: Size, device: torch.device) -> None:
    """A lazily allocated tensor: only the pages of the values are touched."""
    if device.type != "cpu":
        pytest.skip("needs memory that is allocated when it is touched")
    given = arguments(size, device, g_trace=False, states=False)
    wanted = synaptic_parameter_gradient(**given)
    shape = given["z"].shape
    far = [shape[1] * shape[2] * 8, shape[2] * 8, 8, 1]
    far[axis] = stride
    span = sum((n - 1) * s for n, s in zip(shape, far, strict=True)) + 1
    for name in ("z", "g"):
        memory = torch.UntypedStorage(4 * span)
        view = torch.tensor([], dtype=torch.float32).set_(memory, 0, shape, far)
        view.copy_(given[name])
        assert same(synaptic_parameter_gradient(**{**given, name: view}), wanted)


def test_inputs_stay_as_they_were(device: torch.device) -> None:
    given = arguments(SIZES[3], device)
    before = {name: t.clone() for name, t in given.items()}
    synaptic_parameter_gradient(**given)
    assert all(torch.equal(given[name], before[name]) for name in NAMES)


@pytest.mark.usefixtures("deep")
def test_repeats_replicas_and_blocks_do_not_change_a_bit(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = arguments(Size(R=3, T=5, B=7, I=13, J=37), device)
    wanted = synaptic_parameter_gradient(**given)
    assert same(synaptic_parameter_gradient(**given), wanted)
    alone = {name: t[1:2] for name, t in given.items()}
    assert same(synaptic_parameter_gradient(**alone), tuple(t[1:2] for t in wanted))
    neurons = {name: t[..., 3:20] if name == "g" else t for name, t in given.items()}
    for name in ("weight", "decay"):
        neurons[name] = given[name][:, 3:20]
    for name in ("trace", "g_trace"):
        neurons[name] = given[name][:, :, 3:20]
    assert same(synaptic_parameter_gradient(**neurons), tuple(t[:, 3:20] for t in wanted))
    monkeypatch.setattr(parameter_gradient, "block", lambda *_: (4, 64))
    assert same(synaptic_parameter_gradient(**given), wanted)
    monkeypatch.setattr(parameter_gradient, "UNROLL", 1)
    assert same(synaptic_parameter_gradient(**given), wanted)


def recorded(steps: int, batch: int) -> list[Launch]:
    """The launches of a call without values."""
    meta = partial(torch.zeros, device="meta")
    weight = meta(1, 128, 700)
    with recording() as calls:
        synaptic_parameter_gradient(
            meta(1, steps, batch, 700), meta(1, steps, batch, 128), None, weight, weight, None
        )
    return calls


def test_steps_and_samples_compile_nothing_anew() -> None:
    long, short = recorded(250, 256), recorded(1, 1)
    assert len(long) == 2
    for one, other in zip(long, short, strict=True):
        assert (one.kernel, one.constants) == (other.kernel, other.constants)


def test_partial_sums_stay_few() -> None:
    """Of small layers one per group; of any layer no more than the constant, or one."""
    assert depth(256, 128, 128) == 1
    assert depth(256, 700, 128) == 2
    assert depth(256, 2048, 2048) == 64
    assert depth(1, 10**4, 10**4) == 1


def test_cost_of_the_layer_of_the_paper() -> None:
    """The arithmetic decides, not the memory, and little of it is wasted."""
    spent = cost(R=1, T=250, B=256, I=700, J=128)
    assert spent.fma == 4 * 250 * 256 * 700 * 128
    assert spent.fma / spent.executed > 0.99
    assert spent.hbm / 4.3e12 < 0.1 * spent.fma / 33.45e12
    assert spent.l2 / 7e12 < 0.7 * spent.fma / 33.45e12
