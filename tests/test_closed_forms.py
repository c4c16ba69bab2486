"""The closed forms and the operators built on them equal autograd through the plain loop: 1e-12."""

from typing import Any

import pytest
import torch

from hetsyn_triton.reference import loop
from hetsyn_triton.reference.lib.steps import surrogate_spike
from hetsyn_triton.surrogates import ATan
from tests.support.operators import DIFFERENTIABLE, SPIKING, Size
from tests.support.random_arguments import SIZES, apply, as_tuple, gradients, problem


def by_loop(operator: str, **options: Any) -> Any:
    function = getattr(loop, operator)
    if operator not in SPIKING:
        return lambda **tensors: as_tuple(function(**tensors))
    extra = {"trace": None} if operator in ("feedforward_scan", "recurrent_scan") else {}
    spike_function = surrogate_spike(ATan())
    return lambda **tensors: function(**(extra | tensors), spike_function=spike_function, **options)


def by_operator(operator: str, **options: Any) -> Any:
    return lambda **tensors: apply(operator, **tensors, **options)


def assert_equal(operator: str, tensors: dict[str, torch.Tensor], **options: Any) -> None:
    outputs, found = gradients(by_operator(operator, **options), tensors)
    expected_outputs, expected = gradients(by_loop(operator, **options), tensors)
    pairs = {
        f"output {i}": pair for i, pair in enumerate(zip(outputs, expected_outputs, strict=True))
    }
    pairs |= {f"d{name}": (found[name], want) for name, want in expected.items()}
    for name, (got, want) in pairs.items():
        scale = max(1.0, want.abs().max().item()) if want.numel() else 1.0
        error = (got - want).abs().max().item() if want.numel() else 0.0
        assert got.shape == want.shape
        assert error <= 1e-12 * scale, f"{name}: error {error:.1e} at scale {scale:.1e}"


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("operator", DIFFERENTIABLE)
@pytest.mark.parametrize("states", [True, False], ids=["states", "zero"])
@pytest.mark.parametrize("analog", [False, True], ids=["spikes", "analog"])
def test_outputs_and_every_gradient(operator: str, size: Size, states: bool, analog: bool) -> None:
    assert_equal(operator, problem(operator, size, states=states, analog=analog))


@pytest.mark.parametrize("operator", SPIKING)
@pytest.mark.parametrize("size", SIZES[:3], ids=str)
def test_detached_reset(operator: str, size: Size) -> None:
    assert_equal(operator, problem(operator, size), detach_reset=True)
