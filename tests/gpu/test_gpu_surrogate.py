"""The surrogate kernel on tensors of more than 2^31 elements; surrogates inside backward scans."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hetsyn_triton import trial_kernels
from hetsyn_triton.kernels.gpu import leaky_recurrent_scan, recurrent_scan, surrogate as kernel
from hetsyn_triton.kernels.gpu.lib.launch import recording
from hetsyn_triton.ops.dispatch import COMPOSED, TRITON
from hetsyn_triton.ops.surrogate import numbers_of
from tests.support.bounds import sparse
from tests.support.operators import OPERATORS, Size
from tests.support.random_arguments import composed_arguments
from tests.support.surrogate_cases import BUILT_IN
from tests.support.truth import check


def test_offsets_beyond_32_bits(device: torch.device, tmp_path: Path) -> None:
    """More than 2^31 potentials: only the last program is run."""
    neurons = 2**29 + 4
    memory = sparse(11 * neurons, device, tmp_path)
    potential, found = memory[: 10 * neurons].view(2, 1, 1, 5, neurons)
    threshold = memory[10 * neurons :].view(1, neurons)
    potential[0, 0, -1, -4:] = torch.tensor([1.0, 2.0, 4.0, 0.5], device=device)
    threshold[0, -4:] = 1.0
    programs = -(-5 * neurons // 512)
    kernel.launch_surrogate("fast_sigmoid", (1.0,), potential, threshold, found, first=programs - 1)
    exact = torch.tensor([1.0, 1 / 4, 1 / 16, 4 / 9], device=device)
    assert torch.allclose(found[0, 0, -1, -4:], exact, rtol=1e-6, atol=0)


def on_device(arguments: tuple[Any, ...], device: torch.device) -> list[Any]:
    return [t.to(device, torch.float32) if isinstance(t, Tensor) else t for t in arguments]


BY_STEPS = (leaky_recurrent_scan, recurrent_scan)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("surrogate", BUILT_IN[::2], ids=str)
@pytest.mark.parametrize("operator", COMPOSED)
def test_inside_a_backward_scan(operator: str, surrogate: Any, device: torch.device) -> None:
    """The scan that computes ds/dV equals the one that is given the kernel's, bit for bit, and is
    within rounding of the truth: in whole chunks of steps, what is left of them, and replicas."""
    for steps in (33, 16) if operator.startswith("spike") else (4,):
        compare(operator, surrogate, Size(R=2, T=steps, B=2, J=5, K=2), device)


@pytest.mark.parametrize("module", BY_STEPS, ids=["leaky", "one decay per synapse"])
def test_before_a_backward_by_steps(
    module: Any, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers too large for one launch per sequence get the derivative from a launch of its own."""
    monkeypatch.setattr(module, "path", lambda *_: None)
    name = str(module.__name__).rpartition(".")[2]
    compare(f"{name}_surrogate_backward", BUILT_IN[0], Size(T=3, B=1, J=5, K=1), device)


def compare(operator: str, surrogate: Any, size: Size, device: torch.device) -> None:
    *given, threshold, _, _ = on_device(composed_arguments(operator, size, surrogate), device)
    kind, numbers = numbers_of(surrogate, torch.float32) or pytest.fail("not built in")
    plain = operator.replace("_surrogate_backward", "_backward")
    place = [*OPERATORS[plain].arguments].index("derivative")
    run = TRITON.launcher(operator)
    found = run(*given, threshold, kind, numbers)
    given[place] = kernel.surrogate(given[place], threshold, kind, numbers)
    with trial_kernels():
        expected = run(*given)
    for got, want in zip(found, expected, strict=True):
        assert torch.equal(got, want)
    check(plain, dict(zip(OPERATORS[plain].arguments, given, strict=False)), found)


@pytest.mark.parametrize("operator", COMPOSED)
def test_launches_of_a_backward(operator: str) -> None:
    """One scan and the sums over samples, instead of a surrogate, a scan and a gradient."""
    arguments = on_device(
        composed_arguments(operator, Size(J=5, B=3), BUILT_IN[0]), torch.device("meta")
    )
    with recording() as calls:
        TRITON.launcher(operator)(*arguments)
    names = [call.name for call in calls]
    scan = operator.replace("_surrogate_backward", "_backward_kernel")
    assert names.count(scan) == 1
    assert not {"surrogate_kernel", "feedback_gradient_kernel"} & {*names}
