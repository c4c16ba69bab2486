"""Distributions: moments, ranges, repetition, and what makes no distribution."""

import copy
import dataclasses
import math
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from hetsyn_triton import (
    Constant,
    FanInNormal,
    HetSynLIF,
    Initializer,
    LogUniform,
    Normal,
    Uniform,
)

SHAPE = (200, 500)
COUNT = SHAPE[0] * SHAPE[1]


def draw(initializer: Initializer, seed: int = 0, shape: Sequence[int] = SHAPE) -> Tensor:
    return initializer(shape, torch.Generator().manual_seed(seed))


# Mean, standard deviation, smallest and largest value of each.
MOMENTS: dict[Initializer, tuple[float, float, float, float]] = {
    Constant(3.5): (3.5, 0.0, 3.5, 3.5),
    Uniform(5.0, 20.0): (12.5, 15 / math.sqrt(12), 5.0, 20.0),
    Uniform(-1.0, 1.0): (0.0, 2 / math.sqrt(12), -1.0, 1.0),
    Normal(20.0, 5.0): (20.0, 5.0, -math.inf, math.inf),
    LogUniform(1.0, math.e**2): (
        (math.e**2 - 1) / 2,
        math.sqrt((math.e**4 - 1) / 4 - ((math.e**2 - 1) / 2) ** 2),
        1.0,
        math.e**2,
    ),
    FanInNormal(): (0.0, 1 / math.sqrt(500), -math.inf, math.inf),
    FanInNormal(gain=2.0): (0.0, 2 / math.sqrt(500), -math.inf, math.inf),
}


@pytest.mark.parametrize("initializer", MOMENTS, ids=str)
def test_moments_and_range(initializer: Initializer) -> None:
    mean, std, low, high = MOMENTS[initializer]
    drawn = draw(initializer)
    assert drawn.shape == SHAPE
    assert drawn.dtype == torch.float64
    # Five standard errors of the mean and of the standard deviation.
    assert drawn.mean().item() == pytest.approx(mean, abs=5 * std / math.sqrt(COUNT) + 1e-12)
    assert drawn.std().item() == pytest.approx(std, abs=5 * std / math.sqrt(COUNT) + 1e-12)
    assert low <= drawn.min()
    assert drawn.max() <= high
    if math.isfinite(high):  # the whole range, not a part of it
        assert drawn.min() < low + 0.01 * (high - low) + 1e-12
        assert drawn.max() > high - 0.01 * (high - low) - 1e-12


def test_log_uniform_is_uniform_in_the_logarithm() -> None:
    logs = draw(LogUniform(1.0, 1000.0)).log10()
    assert logs.mean().item() == pytest.approx(1.5, abs=0.02)
    assert logs.std().item() == pytest.approx(3 / math.sqrt(12), abs=0.02)


@pytest.mark.parametrize(
    "initializer",
    [Constant(3.0), Uniform(5.0, 20.0), Normal(4.0, 1.0), LogUniform(2.0, 8.0), LogUniform(3, 3)],
    ids=str,
)
def test_mean_is_the_mean_of_the_draws(initializer: Any) -> None:
    assert draw(initializer).mean().item() == pytest.approx(initializer.mean, rel=5e-3)


@pytest.mark.parametrize("initializer", MOMENTS, ids=str)
def test_a_generator_repeats(initializer: Initializer) -> None:
    """Same seed, same draw, and the global generator is left alone; another seed, another draw."""
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    assert torch.equal(draw(initializer, 1), draw(initializer, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    if not isinstance(initializer, Constant):
        assert not torch.equal(draw(initializer, 1), draw(initializer, 2))
    torch.manual_seed(1)
    assert torch.equal(initializer(SHAPE), draw(initializer, 1))


@pytest.mark.parametrize("initializer", MOMENTS, ids=str)
def test_values_among_values(initializer: Any) -> None:
    assert pickle.loads(pickle.dumps(initializer)) == initializer
    assert copy.deepcopy(initializer) == initializer
    name = dataclasses.fields(initializer)[0].name
    assert isinstance(initializer, Initializer)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(initializer, name, 1.0)


@pytest.mark.parametrize(
    ("make", "argument", "given"),
    [
        (lambda: Constant(math.nan), "Constant.value", "nan"),
        (lambda: Constant("3"), "Constant.value", "'3'"),  # type: ignore[arg-type]
        (lambda: Constant(True), "Constant.value", "True"),
        (lambda: Uniform(0, math.inf), "Uniform.high", "inf"),
        (lambda: Uniform(3, 2), "Uniform", "low=3, high=2"),
        (lambda: Normal(0, -1.0), "Normal.std", "-1.0"),
        (lambda: LogUniform(0.0, 2.0), "LogUniform.low", "0.0"),
        (lambda: LogUniform(3.0, 2.0), "LogUniform", "low=3.0, high=2.0"),
        (lambda: FanInNormal(None), "FanInNormal.gain", "None"),  # type: ignore[arg-type]
    ],
)
def test_bad_parameters(make: Any, argument: str, given: str) -> None:
    with pytest.raises(ValueError, match="expected") as error:
        make()
    assert str(error.value).startswith(f"{argument}: ")
    assert given in str(error.value)


# -- in a layer ------------------------------------------------------------------------------------


def layer(seed: int = 0, **options: Any) -> HetSynLIF:
    generator = torch.Generator().manual_seed(seed)
    return HetSynLIF(300, 200, recurrent=True, generator=generator, **options)


def test_default_weights_have_variance_one_over_fan_in() -> None:
    made = layer(dtype=torch.float64)
    assert made.weight.std().item() == pytest.approx(1 / math.sqrt(300), rel=0.02)
    assert made.recurrent_weight is not None
    assert made.recurrent_weight.std().item() == pytest.approx(1 / math.sqrt(200), rel=0.02)
    assert made.weight.mean().abs().item() < 5 / math.sqrt(300 * 60000)


def test_one_seed_is_one_layer_in_every_dtype() -> None:
    """float32 is float64 rounded, whatever the default device; nothing is drawn elsewhere."""
    options: dict[str, Any] = {"frozen_fraction": 0.3}
    wide, narrow = layer(dtype=torch.float64, **options), layer(dtype=torch.float32, **options)
    assert not torch.equal(wide.weight, layer(1, dtype=torch.float64, **options).weight)
    other = layer(dtype=torch.float64, **options)
    for (name, a), b, c in zip(
        wide.state_dict().items(),
        narrow.state_dict().values(),
        other.state_dict().values(),
        strict=True,
    ):
        assert torch.equal(a.to(b.dtype), b), name
        assert torch.equal(a, c), name


def test_the_default_device_is_honoured() -> None:
    """As in `torch.nn`: parameters land there; draws stay on the CPU, with a CPU generator."""
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        made = HetSynLIF(
            3, 4, recurrent=True, self_connections=False, frozen_fraction=0.5, generator=generator
        )
        sigmoid = HetSynLIF(3, 4, decay_parametrization="sigmoid", adaptation=1, tau_adaptation=2)
    for tensor in (*made.state_dict().values(), *sigmoid.state_dict().values()):
        assert tensor.device.type == "meta"
    on_cpu = HetSynLIF(3, 4, device="cpu", generator=torch.Generator().manual_seed(0))
    assert on_cpu.weight.device.type == "cpu"


def test_a_users_own_distribution() -> None:
    """Any function of (shape, generator)."""

    def checkered(shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
        return torch.arange(math.prod(shape), dtype=torch.float64).reshape(*shape) % 2

    made = layer(weight_init=checkered, recurrent_weight_init=Constant(0.5))
    assert torch.equal(made.weight[0, :4], torch.tensor([0.0, 1.0, 0.0, 1.0]))
    assert made.recurrent_weight is not None
    assert (made.recurrent_weight == 0.5).all()
    other = layer(weight_init=checkered)
    assert other.recurrent_weight is not None
    assert torch.equal(other.recurrent_weight, made.weight[:, :200])


@pytest.mark.parametrize(
    ("init", "error", "message"),
    [
        (FanInNormal, TypeError, "the class FanInNormal itself"),
        (0.1, TypeError, "got float"),
        (lambda shape, generator: torch.zeros(3), ValueError, r"\(200, 300\), got \(3,\)"),
        (lambda shape, generator: 0.5, TypeError, "expected a torch.Tensor, got float"),
        (
            lambda shape, generator: torch.full(shape, math.inf),
            ValueError,
            "expected finite values, got 60000 NaN or infinite",
        ),
    ],
)
def test_what_is_no_distribution(init: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=f"^weight_init: .*{message}"):
        layer(weight_init=init)
