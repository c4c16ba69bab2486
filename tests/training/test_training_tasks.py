"""Tasks: their data is what it says, depends on seed and epoch alone, and can be learned."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hetsyn_triton.experiments.tasks import (
    TASKS,
    Digits,
    PatternGeneration,
    SequentialMNIST,
    register,
)
from hetsyn_triton.experiments.tasks.digits import shifted
from hetsyn_triton.experiments.tasks.pattern_generation import STARTS, normalized_distance
from hetsyn_triton.experiments.tasks.rates import firing_rates, rate_penalty
from hetsyn_triton.experiments.tasks.seeds import derived_seed
from hetsyn_triton.experiments.training import TrainConfig, default_config
from tests.support.learning import assert_falls, losses


@pytest.mark.parametrize("model", ["hetsyn", "homneu", "homneu-adaptive", "hetneu"])
def test_digits_are_learned_by_every_model(model: str) -> None:
    config = default_config("digits", model=model, hidden=(16,), epochs=4, lr=1e-2, threads=1)
    assert_falls(losses(config, 60))


def test_smnist_is_learned(mnist_dir: Path) -> None:
    config = default_config(
        "smnist", data_dir=str(mnist_dir), hidden=(16,), batch_size=20, epochs=30, lr=1e-2
    )
    assert_falls(losses(config, 60))


@pytest.mark.parametrize("recurrent", [False, True])
def test_pattern_generation_is_learned(recurrent: bool) -> None:
    config = default_config(
        "pattern-generation",
        hidden=(10,),
        recurrent=recurrent,
        lr=3e-2,
        threads=1,
        options={"iterations": 3},
        epochs=3,
    )
    assert_falls(losses(config, 9))


def test_digits_split_is_fixed_stratified_and_disjoint() -> None:
    task, other = Digits(seed=0), Digits(seed=1)
    sizes = {name: len(part.labels) for name, part in task.splits.items()}
    assert sum(sizes.values()) == 1797
    assert sizes["test"] == 359
    for name, part in task.splits.items():
        assert torch.equal(part.values, other.splits[name].values)
        share = torch.bincount(part.labels, minlength=10) / len(part.labels)
        assert (share - 0.1).abs().max() < 0.01
    values = torch.cat([part.values for part in task.splits.values()])
    assert values.min() == 0
    assert values.max() == 1
    longer = Digits(validation=0.0)
    assert "validation" not in longer.splits
    assert torch.equal(longer.splits["test"].values, task.splits["test"].values)


def test_digits_are_read_row_by_row() -> None:
    task = Digits(hold=2, shift=0.0)
    image = torch.arange(64.0).view(1, 8, 8)
    shown = task.encode(image)
    assert shown.shape == (16, 1, 8)
    assert torch.equal(shown[::2, 0], image[0])
    assert torch.equal(shown[1::2, 0], image[0])


def test_digits_move_by_a_pixel_at_most() -> None:
    image = torch.zeros(1, 8, 8)
    image[0, 3, 4] = 1
    images, generator = image.expand(300, -1, -1), torch.Generator().manual_seed(0)
    assert torch.equal(shifted(images, 0.0, generator), images)
    moved = shifted(images, 0.9, generator).nonzero()
    assert len(moved) == 300
    assert moved[:, 1].unique(return_counts=True)[0].tolist() == [2, 3, 4]
    assert moved[:, 2].unique(return_counts=True)[0].tolist() == [3, 4, 5]
    corner = torch.ones(50, 8, 8)
    assert shifted(corner, 1.0, generator).sum((1, 2)).min() == 49


def test_smnist_is_read_pixel_by_pixel(mnist_dir: Path) -> None:
    task = SequentialMNIST(data_dir=mnist_dir, validation=10)
    assert {name: len(part.labels) for name, part in task.splits.items()} == {
        "train": 30,
        "validation": 10,
        "test": 20,
    }
    images = task.splits["test"].values[:3]
    shown = task.encode(images)
    assert shown.shape == (25, 3, 1)
    assert torch.equal(shown[7, 2, 0], images[2, 1, 2].float() / 255)
    assert task.logits(torch.ones(25, 3, 10)).eq(25).all()


def test_pattern_generation_follows_the_protocol() -> None:
    task = PatternGeneration(seed=3, batch_size=2)
    batch = next(task.batches("train"))
    assert batch.input.shape == (2000, 2, 100)
    assert batch.target.shape == (2, 2000, 1)
    assert STARTS == (0, 750, 1500)
    for first in STARTS:
        shown = batch.input[first : first + 500]
        assert (shown >= task.segment.unsqueeze(1)).all()
    assert task.segment.mean().item() * 1000 == pytest.approx(10, rel=0.15)
    gap = batch.input[500:750]
    assert gap.mean().item() * 1000 == pytest.approx(2, rel=0.25)
    assert not torch.equal(gap[:, 0], gap[:, 1])
    assert batch.target.min() == -1
    assert batch.target.max() == 1
    amplitude = torch.fft.rfft(batch.target[0, :, 0]).abs()
    assert amplitude[1:6].min() > 10 * amplitude[6:].max()  # 0.5 to 2.5 Hz in 2 s, no others
    other = PatternGeneration(seed=4)
    assert not torch.equal(other.segment, task.segment)
    assert PatternGeneration(curves=3).curve.shape == (2000, 3)


def test_normalized_distance_by_hand() -> None:
    target = torch.linspace(-1, 1, 2000).view(2000, 1, 1)
    assert normalized_distance(target, target).item() == pytest.approx(1)
    assert normalized_distance(target / 2, target).item() == pytest.approx(0.25)
    assert normalized_distance(torch.ones_like(target), target).item() == 0


def test_rates_by_hand() -> None:
    spikes = torch.zeros(100, 1, 2)
    spikes[:2, :, 0] = 1  # 2 spikes in 100 ms: 20 Hz, and a silent neuron
    assert firing_rates([spikes], dt_ms=1.0).tolist() == pytest.approx([20, 0])
    assert rate_penalty([spikes], dt_ms=1.0, wanted_hz=10.0).item() == pytest.approx(1)


@pytest.mark.parametrize("name", ["digits", "smnist", "pattern-generation"])
def test_batches_depend_on_seed_epoch_and_number_alone(name: str, mnist_dir: Path) -> None:
    settings: dict[str, Any] = {"batch_size": 8}
    if TASKS[name].reads_files:
        settings["data_dir"] = mnist_dir

    def first(seed: int, epoch: int) -> torch.Tensor:
        return next(TASKS[name](seed=seed, **settings).batches("train", epoch)).input

    task = TASKS[name](seed=5, **settings)
    whole = [batch.input for batch, _ in zip(task.batches("train", 2), range(4), strict=False)]
    rest = [b.input for b, _ in zip(task.batches("train", 2, start=2), range(2), strict=False)]
    for a, b in zip(whole[2:4], rest, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(first(5, 2), whole[0])
    assert not torch.equal(first(6, 2), whole[0])
    assert not torch.equal(first(5, 3), whole[0])


def test_seeds_depend_on_seed_and_purpose_alone() -> None:
    """On every machine and for ever, or runs could not be repeated."""
    assert derived_seed(3, "order", 1) == 1613809417759251653
    others = [derived_seed(*given) for given in ((4, "order", 1), (3, "other", 1), (3, "order", 2))]
    assert len({derived_seed(3, "order", 1), *others}) == 4


def test_own_task(louder: Callable[..., TrainConfig]) -> None:
    assert_falls(losses(louder(epochs=12), 60))
    with pytest.raises(ValueError, match="a name of its own, got 'digits'"):
        register(type("Other", (Digits,), {}))


@pytest.mark.skipif("HETSYN_DATA" not in os.environ, reason="needs real MNIST: set HETSYN_DATA")
def test_real_mnist() -> None:
    task = SequentialMNIST()
    assert {name: len(part.labels) for name, part in task.splits.items()} == {
        "train": 60000,
        "test": 10000,
    }
    assert task.splits["train"].labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert next(task.batches("test")).input.shape == (784, 256, 1)
