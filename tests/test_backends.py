"""`backend_info` tells what the dispatcher runs; an explicit backend runs or raises."""

import importlib
import importlib.util
from dataclasses import replace
from typing import Any

import pytest
import torch

from hetsyn_triton import ops, trial_kernels
from hetsyn_triton.kernels import trial
from hetsyn_triton.ops import (
    BACKENDS,
    BackendUnavailableError,
    OperatorInfo,
    backend_info,
    dispatch,
)
from hetsyn_triton.ops.dispatch import has_kernel, resolve
from hetsyn_triton.reference import closed_form
from tests.support.operators import DIFFERENTIABLE, Size
from tests.support.random_arguments import (
    MODULES,
    RAW,
    assert_same,
    call,
    gradients,
    is_raw,
    problem,
)

SIZE = Size(R=2, T=5)
KERNELS = {"cpu": ("CPU", "Numba kernel"), "cuda": ("CUDA", "Triton kernel")}


def info_of(operator: str, device: str = "cpu") -> OperatorInfo:
    (found,) = (i for i in backend_info(device).operators if i.operator == operator)
    return found


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1", "meta"])
def test_info_names_every_operator_once(device: str) -> None:
    info = backend_info(device)
    assert info.device == device
    assert tuple(i.operator for i in info.operators) == ops.OPERATORS
    for operator in info.operators:
        assert operator.chosen not in operator.others
        assert all(operator.others.values())
        # What is not chosen is explained: four implementations in all.
        assert len(operator.others) >= 2


@pytest.mark.parametrize("device", KERNELS)
@pytest.mark.parametrize("operator", ops.OPERATORS)
def test_info_agrees_with_the_dispatcher(operator: str, device: str) -> None:
    key, kernel = KERNELS[device]
    info = info_of(operator, device)
    assert has_kernel(operator, key)
    if device == "cuda" and operator in dispatch.TRITON.trial:
        assert info.chosen == "closed form (PyTorch)"
        assert "trial_kernels()" in info.others[kernel]
    else:
        assert info.chosen == kernel


def test_variants_on_trial_are_named() -> None:
    def said(operator: str) -> str:
        return info_of(operator, "cuda").others["variants on trial"]

    assert said("recurrent_scan_backward").startswith("run inside trial_kernels(): with more than")
    with trial_kernels():
        assert said("recurrent_scan_backward").startswith("run now: with more than 128 neurons")
        assert "the scan computes the surrogate" in said("spike_scan_backward")
    assert "shorter launches" in said("synaptic_current")
    assert "variants on trial" not in info_of("leaky_current", "cuda").others


def test_the_switch_holds_until_all_blocks_have_ended() -> None:
    first, second = trial_kernels(), trial_kernels()
    assert not trial.allowed()
    first.__enter__()
    second.__enter__()  # in another thread, say
    first.__exit__(None, None, None)
    assert trial.allowed()
    second.__exit__(None, None, None)
    assert not trial.allowed()


@pytest.mark.parametrize("device", ["cpu", "cuda", "meta"])
def test_the_summary_is_readable(device: str) -> None:
    lines = str(backend_info(device)).splitlines()
    assert lines[0] == f"device {device}"
    assert len(lines) == 1 + len(ops.OPERATORS)
    for line, info in zip(lines[1:], backend_info(device).operators, strict=True):
        assert info.operator in line
        assert info.chosen in line
        assert all(reason in line for reason in info.others.values())


def test_the_dispatchers_kernel_is_what_runs() -> None:
    """What stands under the dispatch key serves `auto` and `cpu`, not `reference`."""
    operator = "leaky_current"
    tensors = problem(operator, SIZE)
    (expected,) = call(operator)(**tensors)
    calls = []

    def kernel(drive: torch.Tensor, decay: torch.Tensor, current: torch.Tensor) -> torch.Tensor:
        calls.append(drive.shape)
        return torch.full_like(drive, 7.0)

    with torch.library._scoped_library("hetsyn_triton", "IMPL") as library:
        library.impl(operator, kernel, "CPU", allow_override=True)
        for backend in ("auto", "cpu"):
            (result,) = call(operator, backend)(**tensors)
            assert (result == 7.0).all()
        assert len(calls) == 2
        # The reference loop goes past the dispatcher.
        assert not (call(operator, "reference")(**tensors)[0] == 7.0).any()
        assert len(calls) == 2
    assert torch.equal(call(operator)(**tensors)[0], expected)


def test_numba_serves_the_cpu() -> None:
    for info in backend_info("cpu").operators:
        assert info.chosen == "Numba kernel"
        assert info.others["closed form (PyTorch)"] == "the Numba kernel is preferred"
    for info in backend_info("cpu", torch.float16).operators:
        assert info.chosen == "closed form (PyTorch)"
        reason = "Numba kernels compute in float32 and float64, the parameters are float16"
        assert info.others["Numba kernel"] == reason


@pytest.mark.parametrize("installed", [False, True])
def test_without_numba_the_closed_forms_are_named(
    installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package may be absent, or there and broken."""

    def broken(name: str) -> Any:
        raise ImportError("needs another NumPy")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if installed else None)
    monkeypatch.setattr(importlib, "import_module", broken)
    reason = "cannot be imported: needs another NumPy" if installed else "is not installed"
    for info in backend_info("cpu").operators:
        assert info.chosen == "closed form (PyTorch)"
        assert info.others["Numba kernel"] == f"the package numba {reason}"


def test_a_broken_package_is_told_of_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = closed_form.synaptic_current
    run = dispatch.implementation(dispatch.NUMBA, "synaptic_current")
    tensors = tuple(problem("synaptic_current", SIZE).values())
    monkeypatch.setattr(dispatch, "unusable", lambda _: "the package numba is broken")
    dispatch.usable.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="numba is broken; the closed forms run instead"):
            found = run(*tensors)
        run(*tensors)  # said once
    finally:
        dispatch.usable.cache_clear()
    for f, e in zip(found, closed(*tensors), strict=True):
        assert torch.equal(f, e)


def test_what_stands_against_a_triton_kernel_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    operator, found = "leaky_current", importlib.util.find_spec

    def missing(name: str, *rest: Any) -> Any:
        return None if name == "triton" else found(name, *rest)

    def reason(device: str) -> str:
        return info_of(operator, device).others["Triton kernel"]

    assert "it runs inside trial_kernels()" in reason("cuda")
    with trial_kernels():
        assert info_of(operator, "cuda").chosen == "Triton kernel"
        assert "CUDA device" in reason("cpu")
        with pytest.raises(BackendUnavailableError, match="CUDA device"):
            call(operator, "triton")(**problem(operator, SIZE))
        with monkeypatch.context() as patch:
            patch.setattr(importlib.util, "find_spec", missing)
            assert info_of(operator, "cuda").chosen == "closed form (PyTorch)"
            assert "not installed" in reason("cuda")
        forward_only = replace(dispatch.TRITON, operators=frozenset({operator}))
        monkeypatch.setattr(dispatch, "TRITON", forward_only)
        monkeypatch.setattr(dispatch, "has_kernel", lambda *_: False)
        # The backward has no kernel: an explicit request must not fall back half of the way.
        refused = "cannot run leaky_current_backward on cuda: this version has no Triton kernel"
        with pytest.raises(BackendUnavailableError, match=refused):
            resolve("triton", torch.device("cuda"), operator)


@pytest.mark.parametrize("backend", ["Triton", "numba", "", "cuda", None])
@pytest.mark.parametrize("operator", DIFFERENTIABLE)
def test_unknown_backend(operator: str, backend: Any) -> None:
    with pytest.raises(ValueError, match="backend: expected one of") as error:
        call(operator, backend)(**problem(operator, SIZE))
    assert repr(backend) in str(error.value)
    assert all(name in str(error.value) for name in BACKENDS)


@pytest.mark.parametrize("operator", DIFFERENTIABLE)
def test_triton_raises_on_the_cpu(operator: str) -> None:
    """The error names backend, operator and device, says why, and what would work."""
    with pytest.raises(BackendUnavailableError) as error:
        call(operator, "triton")(**problem(operator, SIZE))
    message = str(error.value)
    assert f"'triton' cannot run {operator} on cpu: " in message
    assert "Triton kernel" in message
    assert "'auto'" in message
    assert "'reference'" in message


@pytest.mark.parametrize("operator", DIFFERENTIABLE)
def test_cpu_raises_off_the_cpu(operator: str) -> None:
    tensors = {n: t.to("meta") for n, t in problem(operator, SIZE).items()}
    with pytest.raises(BackendUnavailableError) as error:
        call(operator, "cpu")(**tensors)
    message = str(error.value)
    assert f"'cpu' cannot run {operator} on meta: " in message
    assert "not on the CPU" in message
    assert "'auto'" in message


@pytest.mark.parametrize("operator", DIFFERENTIABLE)
def test_auto_runs_off_the_cpu(operator: str) -> None:
    """As the error says: on the meta device the shapes come out."""
    tensors = problem(operator, SIZE)
    found = call(operator)(**{n: t.to("meta") for n, t in tensors.items()})
    assert all(o.is_meta for o in found)
    assert [o.shape for o in found] == [o.shape for o in call(operator)(**tensors)]


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("operator", DIFFERENTIABLE)
def test_backends_give_the_same_numbers(operator: str, backend: str) -> None:
    tensors = problem(operator, SIZE)
    expected = gradients(call(operator), tensors)
    assert_same(gradients(call(operator, backend), tensors), expected)


@pytest.mark.parametrize("operator", DIFFERENTIABLE)
def test_the_reference_does_not_call_the_operators(
    operator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is independent evidence only if it runs the loop itself."""

    def forbidden(*args: Any) -> Any:
        raise AssertionError("a raw operator was called")

    held = [(m, n) for m in MODULES for n, found in vars(m).items() if is_raw(found)]
    assert len(held) == len(RAW)
    for module, name in held:
        monkeypatch.setattr(module, name, forbidden)
    gradients(call(operator, "reference"), problem(operator, SIZE))
    with pytest.raises(AssertionError, match="raw operator"):
        call(operator, "auto")(**problem(operator, SIZE))
