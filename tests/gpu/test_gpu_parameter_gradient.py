"""How the Triton kernels of the parameter gradient share samples among programs."""

from typing import Any

import pytest
import torch

from hetsyn_triton.kernels.gpu.lib import parameter_gradient
from hetsyn_triton.kernels.gpu.lib.launch import Launch, recording
from hetsyn_triton.kernels.gpu.lib.parameter_gradient import depth
from tests.support.implementations import CLOSED_FORM, TRITON
from tests.support.operators import OPERATORS, Size
from tests.support.tensors import narrow, same
from tests.support.truth import check, double

pytestmark = pytest.mark.usefixtures("poisoned")

OPERATOR = "synaptic_parameter_gradient"


def without_states(size: Size) -> Any:
    """Arguments with neither an initial trace nor the gradient of the last one."""
    return TRITON.given(OPERATOR, size) | {"trace": None, "g_trace": None}


@pytest.fixture
def deep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few partial sums, so that a program takes several groups of samples of a small problem."""
    monkeypatch.setattr(parameter_gradient, "PARTIALS", 1)


@pytest.mark.parametrize(
    "size",
    [
        Size(R=3, T=2, B=2, I=3, J=2),
        Size(R=2, T=5, B=5, I=13, J=37),
        Size(R=1, T=3, B=17, I=31, J=20),
    ],
    ids=str,
)
@pytest.mark.parametrize("absent", [{"g_trace"}, {"trace"}, set()], ids=str)
@pytest.mark.usefixtures("deep")
def test_a_program_may_take_several_groups(size: Size, absent: set[str]) -> None:
    assert depth(size.B, size.I, size.J) == -(-size.B // 4)
    given = TRITON.given(OPERATOR, size) | dict.fromkeys(absent)
    check(OPERATOR, given, TRITON(OPERATOR, given))


def test_the_last_program_may_have_fewer_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    size = Size(R=2, T=3, B=18, I=6, J=9)
    monkeypatch.setattr(parameter_gradient, "PARTIALS", 3 * size.I * size.J)
    assert depth(size.B, size.I, size.J) == 2  # of five groups: 2, 2 and 1
    given = TRITON.given(OPERATOR, size)
    check(OPERATOR, given, TRITON(OPERATOR, given))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy's, under the interpreter
def test_a_missing_row_leaves_nothing_behind() -> None:
    """Rows beyond the batch repeat its last sample: they must not count, even if it overflows."""
    for B in (1, 2, 3, 5):
        given: Any = without_states(Size(R=1, T=2, B=B, I=4, J=4))
        given["g"][:, :, -1] = 0.0
        given["g"][:, 1, -1, 2] = 1.0
        given["z"][:, :, -1, 1] = float("inf")
        truth = CLOSED_FORM(OPERATOR, double(given))
        for found, wanted in zip(TRITON(OPERATOR, given), truth, strict=True):
            assert torch.equal(found.isnan(), wanted.isnan())
            assert torch.equal(found.isposinf(), wanted.isposinf())
            assert torch.equal(found.isneginf(), wanted.isneginf())


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
    given = without_states(size)
    wanted = TRITON(OPERATOR, given)
    shape = given["z"].shape
    far = [shape[1] * shape[2] * 8, shape[2] * 8, 8, 1]
    far[axis] = stride
    span = sum((n - 1) * s for n, s in zip(shape, far, strict=True)) + 1
    for name in ("z", "g"):
        memory = torch.UntypedStorage(4 * span)
        view = torch.tensor([], dtype=torch.float32).set_(memory, 0, shape, far)
        view.copy_(given[name])
        assert same(TRITON(OPERATOR, given | {name: view}), wanted)


@pytest.mark.usefixtures("deep")
def test_neurons_and_blocks_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    given = TRITON.given(OPERATOR, Size(R=3, T=5, B=7, I=13, J=37))
    wanted = TRITON(OPERATOR, given)
    some = narrow(OPERATORS[OPERATOR].arguments, given, "J", 3, 17)
    assert same(TRITON(OPERATOR, some), tuple(t[:, 3:20] for t in wanted))
    monkeypatch.setattr(parameter_gradient, "block", lambda *_: (4, 64))
    assert same(TRITON(OPERATOR, given), wanted)
    monkeypatch.setattr(parameter_gradient, "UNROLL", 1)
    assert same(TRITON(OPERATOR, given), wanted)


def recorded(steps: int, batch: int) -> list[Launch]:
    """The launches of a call without values."""
    size = Size(T=steps, B=batch, I=700, J=128)
    table = OPERATORS[OPERATOR]
    given = {
        n: torch.empty(size.shape(letters), device="meta") for n, letters in table.arguments.items()
    }
    with recording() as calls:
        TRITON(OPERATOR, given | {"trace": None, "g_trace": None})
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
