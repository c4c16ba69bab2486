"""Every setting that shapes task, network or optimizer arrives there, and there alone."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from hetsyn_triton.experiments.tasks import Task
from hetsyn_triton.experiments.training import TrainConfig, default_config
from hetsyn_triton.experiments.training.build import build_network, build_optimizer, build_task
from hetsyn_triton.experiments.training.config import FIELDS
from hetsyn_triton.modules import SpikingNetwork

Louder = Callable[..., TrainConfig]


class Built(NamedTuple):
    task: Task
    network: SpikingNetwork
    optimizer: torch.optim.Optimizer


def build(config: TrainConfig) -> Built:
    task = build_task(config)
    network = build_network(config, task)
    return Built(task, network, build_optimizer(config, network))


def numbers(values: torch.Tensor) -> list[float]:
    return sorted({round(value, 5) for value in values.detach().flatten().tolist()})


def first(built: Built) -> Any:
    return built.network.layers[0]


def last(built: Built) -> Any:
    return built.network.readout


def groups(built: Built, name: str) -> list[float]:
    return [group[name] for group in built.optimizer.param_groups]


def decay(tau: float, dt: float = 1.0) -> float:
    return round(math.exp(-dt / tau), 5)


class Row(NamedTuple):
    """Under `given`, `probe` reads `expected` where `field` is `value`, and not at its default."""

    field: str
    value: Any
    probe: Callable[[Built], Any]
    expected: Any
    given: dict[str, Any] = {}  # noqa: RUF012 - never changed


ADAPTIVE = {"model": "homneu-adaptive", "tau": 10.0}
ROWS = [
    Row("model", "hetneu", lambda b: type(first(b)).__name__, "HetNeuLIF"),
    Row("model", "homneu", lambda b: type(last(b)).__name__, "HomNeuReadout"),
    Row("hidden", (5, 3), lambda b: [layer.out_features for layer in b.network.layers], [5, 3]),
    Row("recurrent", False, lambda b: first(b).recurrent_weight is None, True),
    Row("tau", 9.0, lambda b: numbers(first(b).decay()), [decay(9)]),
    Row("tau", 9.0, lambda b: numbers(first(b).recurrent_decay()), [decay(9)]),
    Row("tau", 9.0, lambda b: numbers(last(b).decay()), [decay(9)]),
    Row("tau", "uniform(30,40)", lambda b: first(b).decay().min().item() > decay(30), True),
    Row("tau_readout", 40.0, lambda b: numbers(last(b).decay()), [decay(40)]),
    Row(
        "tau_readout",
        40.0,
        lambda b: [numbers(part.decay()) for part in (first(b), last(b))],
        [[decay(9)], [decay(40)]],
        {"tau": 9.0},
    ),
    Row("tau_reset", 33.0, lambda b: numbers(first(b).reset_decay), [decay(33)]),
    Row("adaptation", 0.25, lambda b: numbers(first(b).adaptation_strength), [0.25], ADAPTIVE),
    Row(
        "tau_adaptation", 50.0, lambda b: numbers(first(b).adaptation_decay), [decay(50)], ADAPTIVE
    ),
    Row("threshold", 2.5, lambda b: numbers(first(b).threshold), [2.5]),
    Row("dt", 0.5, lambda b: numbers(first(b).decay()), [decay(9, 0.5)], {"tau": 9.0}),
    Row("dt", 0.5, lambda b: numbers(last(b).decay()), [decay(9, 0.5)], {"tau": 9.0}),
    Row("surrogate", "atan", lambda b: type(first(b).surrogate).__name__, "ATan"),
    Row("learn_decay", False, lambda b: [g["name"] for g in b.optimizer.param_groups], ["weights"]),
    Row("frozen_fraction", 0.5, lambda b: int(first(b).decay.frozen.sum()), 12),
    Row("frozen_fraction", 0.5, lambda b: int(last(b).decay.frozen.sum()), 12),
    Row("decay_parametrization", "sigmoid", lambda b: hasattr(first(b).decay, "logit"), True),
    Row("decay_parametrization", "sigmoid", lambda b: hasattr(last(b).decay, "logit"), True),
    Row("dropout", 0.3, lambda b: b.network.dropout.p, 0.3),
    Row("optimizer", "adam", lambda b: type(b.optimizer).__name__, "Adam"),
    Row("lr", 0.5, lambda b: groups(b, "lr"), [0.5, 1.0]),
    Row("decay_lr", 0.7, lambda b: groups(b, "lr"), [0.01, 0.7]),
    Row("weight_decay", 0.1, lambda b: groups(b, "weight_decay"), [0.1, 0.1]),
    Row("decay_weight_decay", 0.2, lambda b: groups(b, "weight_decay"), [0.0, 0.2]),
    Row(
        "decay_weight_decay",
        0.0,
        lambda b: groups(b, "weight_decay"),
        [0.1, 0.0],
        {"weight_decay": 0.1},
    ),
    Row(
        "backend",
        "reference",
        lambda b: [part.backend for part in (first(b), last(b))],
        ["reference"] * 2,
    ),
    Row("batch_size", 3, lambda b: next(b.task.batches("train")).target.shape[0], 3),
    Row("seed", 7, lambda b: b.task.seed, 7),
    Row("options", {"batches": 2}, lambda b: b.task.steps_per_epoch, 2),
]
ELSEWHERE = {
    "task": "test_task_and_data",
    "data_dir": "test_task_and_data",
    "device": "test_device",
    "readout": "test_training_readouts.py",
    **dict.fromkeys(("epochs", "schedule", "warmup", "step_every", "step_factor"), "the rate"),
    **dict.fromkeys(("schedule_unit", "horizon"), "the rate"),
    **dict.fromkeys(("threads", "clip", "test_every"), "the run"),
}


def probed(built: Built, row: Row) -> Any:
    try:
        return row.probe(built)
    except AttributeError:  # nothing of the kind is there
        return None


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.field}={row.value}")
def test_setting_arrives(louder: Louder, row: Row) -> None:
    given = {"hidden": (12,), **row.given}
    assert probed(build(louder(**given)), row) != row.expected
    assert probed(build(louder(**{**given, row.field: row.value})), row) == row.expected


def test_every_field_is_in_the_table() -> None:
    assert {row.field for row in ROWS} | set(ELSEWHERE) == set(FIELDS)


def test_seed_draws_the_network(louder: Louder) -> None:
    weights = [build(louder(seed=seed)).network.state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    for name in ("layers.0.weight", "layers.0.decay.raw", "readout.weight"):
        assert not torch.equal(weights[0][name], weights[2][name])


def test_task_and_data(louder: Louder, mnist_dir: Path) -> None:
    assert build_task(louder()).name == "louder"
    task = build_task(default_config("smnist", data_dir=str(mnist_dir), batch_size=4))
    assert task.name == "smnist"
    assert next(task.batches("train")).input.shape[1:] == (4, 1)


@pytest.mark.gpu
def test_device(louder: Louder) -> None:
    built = build(louder(device="cuda"))
    assert {value.device.type for value in built.network.state_dict().values()} == {"cuda"}
