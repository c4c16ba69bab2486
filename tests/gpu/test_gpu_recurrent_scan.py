"""The recurrent scan and its reverse by the Triton kernels, against the closed form in float64."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hetsyn_triton.kernels.gpu import recurrent_scan as module
from hetsyn_triton.kernels.gpu.lib.launch import recording
from hetsyn_triton.kernels.gpu.recurrent_scan import recurrent_scan, recurrent_scan_backward
from tests.support.bounds import sparse
from tests.support.problems import Size
from tests.support.recurrent_cases import (
    GIVEN,
    Arguments,
    assert_backward,
    assert_forward,
    backward_arguments,
    forward_arguments,
)

pytestmark = pytest.mark.usefixtures("poisoned")

SMALL = [
    pytest.param(Size(R=3, T=5, B=2, J=5, K=2), id="usual"),
    pytest.param(Size(R=1, T=3, B=3, J=1, K=1), id="one neuron"),
    pytest.param(Size(R=1, T=1, B=1, J=4, K=1), id="one step"),
    pytest.param(Size(R=2, T=4, B=1, J=16, K=3), id="full tile"),
]
LARGE = [
    pytest.param(Size(R=1, T=3, B=2, J=19, K=1), id="32"),
    pytest.param(Size(R=2, T=3, B=1, J=37, K=2), id="64"),
    pytest.param(Size(R=1, T=3, B=1, J=64, K=1), id="full 64"),
    pytest.param(Size(R=1, T=3, B=1, J=101, K=1), id="128"),
]
STEPS = [
    pytest.param(Size(R=2, T=3, B=2, J=7, K=2), id="part of a block"),
    pytest.param(Size(R=1, T=2, B=1, J=135, K=1), id="several blocks"),
]


@pytest.fixture
def by_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every size takes one launch per step."""
    monkeypatch.setattr(module, "path", lambda *_: None)


def untouched(arguments: Arguments) -> Arguments:
    return {n: None if t is None else t.clone() for n, t in arguments.items()}


def same(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def check_forward(arguments: Arguments) -> tuple[Tensor, ...]:
    before = untouched(arguments)
    found = recurrent_scan(**arguments)
    assert_forward(arguments, found)
    for name, tensor in arguments.items():
        assert tensor is None or torch.equal(tensor, before[name]), name
    return found


def check_backward(arguments: Arguments, detach_reset: bool = False) -> tuple[Tensor, ...]:
    before = untouched(arguments)
    found = recurrent_scan_backward(**arguments, detach_reset=detach_reset)
    assert_backward(arguments, found, detach_reset)
    for name, tensor in arguments.items():
        assert tensor is None or torch.equal(tensor, before[name]), name
    return found


@pytest.mark.parametrize("size", SMALL + LARGE)
def test_forward(size: Size, device: torch.device) -> None:
    check_forward(forward_arguments(size, device))


@pytest.mark.parametrize("size", SMALL + LARGE)
def test_backward(size: Size, device: torch.device) -> None:
    check_backward(backward_arguments(size, device, given=GIVEN[:1]))


def test_repeats_are_bit_identical(device: torch.device) -> None:
    size = Size(R=1, T=4, B=2, J=7, K=2)
    arguments = forward_arguments(size, device)
    assert same(recurrent_scan(**arguments), recurrent_scan(**arguments))
    arguments = backward_arguments(size, device)
    assert same(recurrent_scan_backward(**arguments), recurrent_scan_backward(**arguments))


@pytest.mark.usefixtures("by_steps")
@pytest.mark.parametrize("size", SMALL[:3] + STEPS)
def test_forward_by_steps(size: Size, device: torch.device) -> None:
    check_forward(forward_arguments(size, device))


@pytest.mark.usefixtures("by_steps")
@pytest.mark.parametrize("size", SMALL[:3] + STEPS)
def test_backward_by_steps(size: Size, device: torch.device) -> None:
    check_backward(backward_arguments(size, device))
    check_backward(backward_arguments(size, device, given=("g_potential",)), detach_reset=True)


@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("given", [GIVEN, (), GIVEN[1:2], GIVEN[2:3], GIVEN[3:]])
def test_every_gradient_may_be_absent(
    given: tuple[str, ...], detach_reset: bool, device: torch.device
) -> None:
    size = Size(R=2, T=4, B=2, J=5, K=2)
    check_backward(backward_arguments(size, device, given=given), detach_reset)


def test_a_gradient_on_the_last_trace_of_a_large_layer(device: torch.device) -> None:
    check_backward(backward_arguments(Size(R=1, T=3, B=1, J=70, K=1), device))


@pytest.mark.parametrize("path", ["registers", "steps"])
def test_without_states(path: str, device: torch.device, request: pytest.FixtureRequest) -> None:
    if path == "steps":
        request.getfixturevalue("by_steps")
    size = Size(R=2, T=5, B=3, J=6, K=1)
    check_forward(forward_arguments(size, device, states=False))


@pytest.mark.parametrize("path", ["registers", "steps"])
@pytest.mark.parametrize("size", [Size(T=0), Size(B=0), Size(R=0)])
def test_nothing_to_do(
    size: Size, path: str, device: torch.device, request: pytest.FixtureRequest
) -> None:
    """Without steps states come back as they were; without samples gradients are zero."""
    if path == "steps":
        request.getfixturevalue("by_steps")
    arguments = forward_arguments(size, device)
    _, _, feedback, trace = recurrent_scan(**arguments)
    assert torch.equal(feedback, arguments["feedback"])
    assert torch.equal(trace, arguments["trace"])
    arguments = backward_arguments(size, device)
    found = recurrent_scan_backward(**arguments)
    assert not any(bool(d.any()) for d in found[1:4])
    assert torch.equal(found[4], arguments["g_feedback"])
    assert not bool(found[5].any())
    assert torch.equal(found[6], arguments["g_trace"])


def stretched(steps: Tensor) -> Tensor:
    """The same values with every stride unusual, NaN between."""
    R, T, B, N = steps.shape
    spread = torch.full((B, R, T + 1, N, 2), torch.nan, device=steps.device)
    view = spread.permute(1, 2, 0, 3, 4)[:, 1:, :, :, 1]
    return view.copy_(steps)


def batch_major(steps: Tensor) -> Tensor:
    """The same values, adjacent features, time inside the batch."""
    return steps.transpose(1, 2).contiguous().transpose(1, 2)


@pytest.mark.parametrize("path", ["registers", "steps"])
@pytest.mark.parametrize("layout", [stretched, batch_major])
def test_any_strides(
    layout: Callable[[Tensor], Tensor],
    path: str,
    device: torch.device,
    request: pytest.FixtureRequest,
) -> None:
    if path == "steps":
        request.getfixturevalue("by_steps")
    size = Size(R=2, T=3, B=1, J=6, K=1)
    plain = forward_arguments(size, device)
    moved = plain | {"current": layout(plain["current"])}
    moved["weight"] = plain["weight"].mT.contiguous().mT
    moved["trace"] = plain["trace"].mT.contiguous().mT
    assert same(recurrent_scan(**moved), recurrent_scan(**plain))
    plain = backward_arguments(size, device)
    # Not all at once: the strides of one must not serve another.
    names = ("g_spikes", "spikes") if layout is stretched else ("derivative", "g_potential")
    moved = plain | {n: layout(plain[n]) for n in names}
    moved["decay"] = plain["decay"].mT.contiguous().mT
    moved["g_trace"] = plain["g_trace"].mT.contiguous().mT
    assert same(recurrent_scan_backward(**moved), recurrent_scan_backward(**plain))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_arguments(dtype: torch.dtype, device: torch.device) -> None:
    size = Size(R=1, T=3, B=2, J=5, K=1)
    half = {n: t.to(dtype) for n, t in forward_arguments(size, device).items()}
    whole = {n: t.float() for n, t in half.items()}
    assert same(recurrent_scan(**half), recurrent_scan(**whole))
    half = {n: t.to(dtype) for n, t in backward_arguments(size, device).items()}
    whole = {n: t.float() for n, t in half.items()}
    assert same(recurrent_scan_backward(**half), recurrent_scan_backward(**whole))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool])
def test_integer_spikes(dtype: torch.dtype, device: torch.device) -> None:
    size = Size(R=1, T=3, B=2, J=5, K=1)
    arguments = backward_arguments(size, device)
    spikes = arguments["spikes"].to(dtype)
    wanted = recurrent_scan_backward(**arguments)
    assert same(recurrent_scan_backward(**arguments | {"spikes": spikes}), wanted)


@pytest.mark.parametrize("path", ["registers", "steps"])
def test_strides_beyond_32_bits(
    path: str, device: torch.device, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if path == "steps":
        request.getfixturevalue("by_steps")
    size = Size(R=1, T=3, B=1, J=5, K=1)
    stride = 2**31 + 4
    memory = sparse(2 * stride + 8, device, tmp_path)
    plain = forward_arguments(size, device)
    far = memory.as_strided((1, 3, 1, 5), (8, stride, 8, 1)).copy_(plain["current"])
    wanted = recurrent_scan(**plain)
    assert same(recurrent_scan(**plain | {"current": far}), wanted)
    plain = backward_arguments(size, device)
    for name in ("derivative", "g_spikes", "g_potential"):
        gradients = recurrent_scan_backward(**plain)
        far.copy_(plain[name])
        assert same(recurrent_scan_backward(**plain | {name: far}), gradients)


def samples(arguments: Arguments, chosen: slice) -> Arguments:
    """Some samples of every argument that has any."""
    axis = {
        "feedback": 2, "g_feedback": 2, "spike": 1, "trace": 1, "g_trace": 1, "current": 2,
        "derivative": 2, "spikes": 2, "g_spikes": 2, "g_potential": 2,
    }  # fmt: skip
    return {
        n: t if t is None or n not in axis else t[(slice(None),) * axis[n] + (chosen,)]
        for n, t in arguments.items()
    }


@pytest.mark.parametrize("path", ["registers", "steps"])
def test_a_sample_does_not_see_its_batch(
    path: str, device: torch.device, request: pytest.FixtureRequest
) -> None:
    if path == "steps":
        request.getfixturevalue("by_steps")
    size = Size(R=1, T=4, B=4, J=7, K=2)
    arguments = forward_arguments(size, device)
    spikes, potentials, _, trace = recurrent_scan(**arguments)
    part = recurrent_scan(**samples(arguments, slice(2, 4)))
    assert torch.equal(part[0], spikes[:, :, 2:])
    assert torch.equal(part[1], potentials[:, :, 2:])
    assert torch.equal(part[3], trace[:, 2:])
    arguments = backward_arguments(size, device)
    whole = recurrent_scan_backward(**arguments)
    part_of = recurrent_scan_backward(**samples(arguments, slice(2, 4)))
    assert torch.equal(part_of[0], whole[0][:, :, 2:])
    assert torch.equal(part_of[4], whole[4][:, :, 2:])
    assert torch.equal(part_of[5], whole[5][:, 2:])
    assert torch.equal(part_of[6], whole[6][:, 2:])


@pytest.mark.parametrize("path", ["registers", "steps"])
def test_a_sequence_may_be_cut(
    path: str, device: torch.device, request: pytest.FixtureRequest
) -> None:
    if path == "steps":
        request.getfixturevalue("by_steps")
    size = Size(R=1, T=5, B=2, J=7, K=2)
    cut = 3
    arguments = forward_arguments(size, device)
    spikes, potentials, feedback, trace = recurrent_scan(**arguments)
    current = arguments["current"]
    first = recurrent_scan(**arguments | {"current": current[:, :cut]})
    states = {"feedback": first[2], "trace": first[3], "spike": first[0][:, -1]}
    second = recurrent_scan(**arguments | states | {"current": current[:, cut:]})
    assert torch.equal(torch.cat([first[0], second[0]], 1), spikes)
    assert torch.equal(torch.cat([first[1], second[1]], 1), potentials)
    assert torch.equal(second[2], feedback)
    assert torch.equal(second[3], trace)

    arguments = backward_arguments(size, device)
    whole = recurrent_scan_backward(**arguments)
    steps = ("derivative", "spikes", "g_spikes", "g_potential")
    late = recurrent_scan_backward(**arguments | {n: arguments[n][:, cut:] for n in steps})
    early = {n: arguments[n][:, :cut].clone() for n in steps}
    early["g_spikes"][:, -1] += late[5]
    early |= {"g_feedback": late[4], "g_trace": late[6]}
    found = recurrent_scan_backward(**arguments | early)
    assert torch.equal(torch.cat([found[0], late[0]], 1), whole[0])
    assert same(found[4:], whole[4:])


def meta(arguments: Arguments) -> Arguments:
    return {n: None if t is None else t.to("meta") for n, t in arguments.items()}


def test_what_is_launched() -> None:
    """One launch for a sequence, as many as steps above 1024 neurons."""
    cpu = torch.device("cpu")
    for neurons, programs in ((100, 1), (300, 10), (1025, 0)):
        size = Size(R=1, T=3, B=50, J=1, K=1)
        arguments = meta(forward_arguments(size, cpu))
        for name, tensor in arguments.items():
            square = name in ("weight", "decay", "trace")
            shape = (*tensor.shape[: -2 if square else -1], *[neurons] * (1 + square))
            arguments[name] = torch.empty(shape, device="meta")
        with recording() as calls:
            recurrent_scan(**arguments)
        if programs:
            (call,) = calls
            assert call.constants["PROGRAMS"] == programs
            assert call.grid == (programs * (50 if programs == 1 else 132 // programs),)
            assert call.options == ({"launch_cooperative_grid": True} if programs > 1 else {})
        else:
            assert len(calls) == 3
