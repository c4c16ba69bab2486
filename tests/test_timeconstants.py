"""Time constants and decays: r = exp(-dt / tau), drawn, given or helped across."""

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from hetsyn_triton import (
    Constant,
    HetNeuLIF,
    HetSynLIF,
    HetSynReadout,
    HomNeuLIF,
    LogUniform,
    Normal,
    Uniform,
    decay_to_tau,
    tau_to_decay,
)
from hetsyn_triton.timeconstants import draw_tau


def layer(tau: Any, **options: Any) -> HetSynLIF:
    generator = torch.Generator().manual_seed(0)
    return HetSynLIF(60, 50, tau=tau, generator=generator, dtype=torch.float64, **options)


# -- helpers ---------------------------------------------------------------------------------------


def test_values_by_hand() -> None:
    assert tau_to_decay(20.0).item() == pytest.approx(0.951229424500714, rel=1e-15)
    assert tau_to_decay(0.02, dt=0.001).item() == pytest.approx(0.951229424500714, rel=1e-14)
    assert tau_to_decay(math.inf).item() == 1.0
    assert tau_to_decay(1e-3).item() == 0.0
    assert decay_to_tau(math.exp(-0.25), dt=5.0).item() == pytest.approx(20.0)
    assert decay_to_tau(0.0).item() == 0.0
    assert decay_to_tau(1.0).item() == math.inf
    assert tau_to_decay(20).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("dt", [1.0, 0.004])
def test_there_and_back(dt: float, dtype: torch.dtype) -> None:
    tau = dt * torch.logspace(-0.5, 3, 30, dtype=dtype)
    back = decay_to_tau(tau_to_decay(tau, dt), dt)
    assert back.dtype == dtype
    # Near r = 1 the rounding of r is amplified by tau / dt.
    torch.testing.assert_close(back, tau, rtol=4e3 * torch.finfo(dtype).eps, atol=0)


def test_helpers_are_differentiable() -> None:
    tau = torch.linspace(2, 30, 5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: tau_to_decay(t, 0.5), (tau,))
    decay = torch.linspace(0.1, 0.9, 5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda r: decay_to_tau(r, 0.5), (decay,))


@pytest.mark.parametrize(
    ("call", "error", "start", "given"),
    [
        (lambda: tau_to_decay(-3.0), ValueError, "tau: expected positive", "-3"),
        (lambda: tau_to_decay(torch.tensor([1.0, 0.0])), ValueError, "tau: expected", "0"),
        (lambda: tau_to_decay(math.nan), ValueError, "tau: expected positive", "nan"),
        (lambda: tau_to_decay(cast(Any, "3")), TypeError, "tau: expected a number", "str"),
        (lambda: tau_to_decay(3.0, dt=0), ValueError, "dt: expected a positive", "0"),
        (lambda: decay_to_tau(1.5), ValueError, "decay: expected decays in [0, 1]", "1.5"),
        (lambda: decay_to_tau(torch.tensor(-0.1)), ValueError, "decay: expected", "-0.1"),
        (lambda: decay_to_tau(math.nan), ValueError, "decay: expected", "nan"),
        (lambda: decay_to_tau(0.5, dt=-1.0), ValueError, "dt: expected a positive", "-1.0"),
    ],
)
def test_bad_values(call: Any, error: Any, start: str, given: str) -> None:
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value).startswith(start)
    assert given in str(raised.value)


# -- drawn for a layer -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tau", "low", "high", "mean"),
    [
        (Uniform(5.0, 20.0), 5.0, 20.0, 12.5),
        (LogUniform(2.0, 200.0), 2.0, 200.0, 198 / math.log(100)),
        (Constant(7.0), 7.0, 7.0, 7.0),
        (9.0, 9.0, 9.0, 9.0),
        (np.float32(9.0), 9.0, 9.0, 9.0),
    ],
    ids=str,
)
def test_a_layer_has_the_time_constants_asked_for(
    tau: Any, low: float, high: float, mean: float
) -> None:
    found = decay_to_tau(layer(tau).decay())
    assert found.min().item() >= low - 1e-9
    assert found.max().item() <= high + 1e-9
    assert found.mean().item() == pytest.approx(mean, rel=0.05)


def test_seconds_equal_steps() -> None:
    steps, seconds = layer(Uniform(5, 20)), layer(Uniform(0.02, 0.08), dt=0.004)
    torch.testing.assert_close(steps.decay(), seconds.decay(), rtol=1e-14, atol=0)


def test_normal_is_drawn_again_until_positive() -> None:
    """A normal truncated at zero: no value that is not positive, no pile at the edge."""
    tau = draw_tau("tau", Normal(5.0, 5.0), (100_000,), torch.Generator().manual_seed(0))
    assert (tau > 0).all()
    assert len(tau.unique()) == tau.numel()
    # Mean of N(5, 5) given positive: 5 + 5 phi(1) / Phi(1); its standard error is 0.0125.
    assert tau.mean().item() == pytest.approx(5 + 5 * 0.2419707 / 0.8413447, abs=0.06)
    assert (decay_to_tau(layer(Normal(5.0, 5.0)).decay()) > 0).all()
    untouched = layer(Normal(20.0, 1.0))
    drawn = torch.randn(50, 60, generator=weights_drawn(), dtype=torch.float64)
    torch.testing.assert_close(decay_to_tau(untouched.decay()), 20 + drawn)


def weights_drawn() -> torch.Generator:
    """A generator as a layer leaves it when it has drawn its weights."""
    generator = torch.Generator().manual_seed(0)
    torch.randn(50, 60, generator=generator, dtype=torch.float64)
    return generator


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.int64], ids=str)
def test_a_tensor_of_time_constants(dtype: torch.dtype) -> None:
    tau = torch.arange(1, 7).reshape(2, 3).to(dtype)
    decay = HetSynLIF(3, 2, tau=tau, dtype=torch.float64).decay()
    torch.testing.assert_close(decay, torch.exp(-1 / tau.double()))
    decay = HetNeuLIF(3, 2, tau=torch.tensor([2.0, 4.0])).decay()
    torch.testing.assert_close(decay, torch.tensor([math.exp(-0.5), math.exp(-0.25)]))
    assert (HetSynLIF(3, 2, tau=torch.tensor(4.0)).decay() == decay[1]).all()


def test_recurrent_synapses_have_time_constants_of_their_own() -> None:
    """None: from the distribution of `tau`, drawn anew; else from `tau_recurrent`."""
    generator = torch.Generator().manual_seed(0)
    options: dict[str, Any] = {"recurrent": True, "generator": generator, "dtype": torch.float64}
    made = HetSynLIF(30, 30, tau=Uniform(5, 20), **options)
    assert made.recurrent_decay is not None
    assert not torch.equal(made.decay(), made.recurrent_decay())
    assert decay_to_tau(made.recurrent_decay()).mean().item() == pytest.approx(12.5, rel=0.05)
    made = HetSynLIF(30, 30, tau=5.0, tau_recurrent=50.0, **options)
    assert made.recurrent_decay is not None
    assert decay_to_tau(made.recurrent_decay()).mean().item() == pytest.approx(50.0)
    assert decay_to_tau(made.decay()).mean().item() == pytest.approx(5.0)


def test_tied_and_fixed_reset() -> None:
    """`tau_reset="tied"` follows the neuron's decay as it learns; a number stays."""
    tied = HetNeuLIF(3, 4, tau_reset="tied")
    assert tied.reset_decay is None
    fixed = HetNeuLIF(3, 4, tau_reset=10.0)
    torch.testing.assert_close(fixed.reset_decay, torch.full((4,), math.exp(-0.1)))
    assert "reset_decay" not in dict(fixed.named_parameters())
    default = HomNeuLIF(3, 4)
    torch.testing.assert_close(default.reset_decay, torch.full((4,), math.exp(-0.05)))
    torch.testing.assert_close(default.decay(), torch.full((4,), math.exp(-0.05)))


def own(shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
    return torch.linspace(-1, 3, math.prod(shape), dtype=torch.float64).reshape(*shape)


@pytest.mark.parametrize(
    ("tau", "error", "message"),
    [
        (0.0, ValueError, "a positive, finite number, got 0.0"),
        (-5, ValueError, "a positive, finite number, got -5"),
        (math.inf, ValueError, "a positive, finite number, got inf"),
        (math.nan, ValueError, "a positive, finite number, got nan"),
        (True, TypeError, "a number, a distribution or a tensor, got bool"),
        ("20", TypeError, "a number, a distribution or a tensor, got str"),
        (None, TypeError, "a number, a distribution or a tensor, got NoneType"),
        ([5.0, 6.0], TypeError, "a number, a distribution or a tensor, got list"),
        (Uniform, TypeError, "a distribution such as .*, got the class Uniform itself"),
        (Constant(0.0), ValueError, "positive, finite values, got values from 0 to 0"),
        (Uniform(-50.0, 1.0), ValueError, "positive, finite values, got values from -"),
        (own, ValueError, "positive, finite values, got values from -1 to 3"),
        (Normal(0.0, 1.0), ValueError, "a normal distribution of positive mean, got Normal"),
        (torch.ones(3), ValueError, r"shape .* = \(4, 3\), got \(3,\)"),
        (torch.full((4, 3), -1.0), ValueError, "positive, finite values, got values from -1"),
        (torch.full((4, 3), math.nan), ValueError, "positive, finite values, got values from nan"),
    ],
    ids=lambda v: v if isinstance(v, str) else None,
)
def test_bad_time_constants(tau: Any, error: Any, message: str) -> None:
    for cls in (HetSynLIF, HetSynReadout):
        with pytest.raises(error, match=f"^tau: expected {message}"):
            cls(3, 4, tau=tau)


@pytest.mark.parametrize("tau", [Uniform(5, 20), torch.tensor(5.0), "5", None])
def test_a_homogeneous_layer_has_one(tau: Any) -> None:
    with pytest.raises(TypeError, match=r"^tau: expected one number for a homogeneous layer, got"):
        HomNeuLIF(3, 4, tau=tau)
