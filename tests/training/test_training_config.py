"""Configurations: protocol defaults, JSON there and back, every bad field named."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hetsyn_triton.initializers import Constant, LogUniform, Normal, Uniform
from hetsyn_triton.tasks import TASKS
from hetsyn_triton.training import ConfigError, TrainConfig, default_config
from hetsyn_triton.training.build import build_network, build_task
from hetsyn_triton.training.distributions import parse_distribution
from hetsyn_triton.training.schedule import lr_scale


@pytest.mark.parametrize("task", list(TASKS))
def test_json_round_trip(task: str, tmp_path: Path) -> None:
    config = default_config(task, seed=7, hidden=[3, 4])
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.to_json()))
    assert TrainConfig.load(path) == config
    assert TrainConfig.load(path, seed=8) == replace(config, seed=8)


def test_protocol_defaults() -> None:
    smnist = default_config("smnist")
    assert (smnist.hidden, smnist.epochs, smnist.batch_size) == ((64, 64), 150, 256)
    assert (smnist.lr, smnist.decay_lr, smnist.weight_decay) == (1e-3, 2e-3, 0.0)
    assert (smnist.warmup, smnist.schedule, smnist.surrogate) == (0.05, "cosine", "multi-gaussian")
    pattern = default_config("pattern-generation")
    assert (pattern.hidden, pattern.batch_size, pattern.lr) == ((100,), 1, 1e-3)
    assert pattern.epochs * pattern.options["iterations"] == 1000
    assert (pattern.schedule, pattern.step_every, pattern.step_factor) == ("step", 100, 0.8)
    network = build_network(smnist, build_task(smnist))
    assert sum(p.numel() for p in network.parameters()) == 25_984


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("model", "lstm", "hetsyn, homneu, homneu-adaptive, hetneu"),
        ("backend", "fast", "auto, triton, cpu, reference"),
        ("surrogate", "step", "triangular, multi-gaussian"),
        ("optimizer", "sgd", "adam, adamw"),
        ("schedule", "linear", "constant, cosine, step"),
        ("decay_parametrization", "exp", "clamp, sigmoid"),
        ("seed", -1, "integer from 0"),
        ("hidden", (), "one or more positive integers"),
        ("hidden", (64, 0), "one or more positive integers"),
        ("hidden", 64, "one or more positive integers"),
        ("recurrent", "yes", "true or false"),
        ("learn_decay", 1, "true or false"),
        ("tau", "uniform(0,20)", "positive times"),
        ("tau", "gamma(1,2)", "positive times"),
        ("tau", -3.0, "positive times"),
        ("tau_readout", "20 steps", "positive times"),
        ("tau_reset", 0, "a positive number"),
        ("tau_adaptation", float("nan"), "a positive number"),
        ("adaptation", -0.1, "at least 0"),
        ("threshold", float("inf"), "a positive number"),
        ("dt", 0.0, "a positive number"),
        ("frozen_fraction", 1.5, "from 0 to 1"),
        ("dropout", 1.0, "from 0 to below 1"),
        ("epochs", 0, "a positive integer"),
        ("batch_size", 2.5, "a positive integer"),
        ("lr", "big", "a positive number"),
        ("decay_lr", -1.0, "a positive number, or nothing"),
        ("weight_decay", -1e-3, "at least 0"),
        ("decay_weight_decay", True, "at least 0, or nothing"),
        ("warmup", 1, "from 0 to below 1"),
        ("step_every", 0, "a positive integer"),
        ("step_factor", 0, "above 0, at most 1"),
        ("device", "abacus", "cpu or cuda"),
        ("device", "cuda:99", "cpu or cuda"),
        ("threads", 0, "a positive integer, or nothing"),
        ("data_dir", 3, "a folder's name"),
    ],
)
def test_bad_field(field: str, value: Any, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        default_config("digits", **{field: value})
    message = str(caught.value)
    assert message.startswith(f"{field}: expected ")
    assert allowed in message
    assert message.endswith(f"got {value!r}")


def test_unknown_names_list_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"task: expected one of digits, smnist, .*got 'cifar'"):
        default_config("cifar")
    with pytest.raises(ConfigError, match=r"settings: expected task, model.*got learning_rate"):
        default_config("digits", learning_rate=1)
    with pytest.raises(ConfigError, match=r"options: expected for digits hold.*got 'noise_hz'"):
        default_config("digits", options={"noise_hz": 3.0})
    with pytest.raises(ConfigError, match=r"options.hold: expected int, got 2.5"):
        default_config("digits", options={"hold": 2.5})


def test_broken_config_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(ConfigError, match="not a readable configuration"):
        TrainConfig.load(path)
    path.write_text('{"task": "digits"')
    with pytest.raises(ConfigError, match="not a readable configuration"):
        TrainConfig.load(path)
    path.write_text('{"task": "digits"}')
    with pytest.raises(ConfigError, match="missing fields model"):
        TrainConfig.load(path)
    path.write_text(json.dumps({**default_config().to_json(), "speed": 1}))
    with pytest.raises(ConfigError, match="unknown fields speed"):
        TrainConfig.load(path)


def test_distributions() -> None:
    assert parse_distribution("20") == parse_distribution(20) == Constant(20.0)
    assert parse_distribution("uniform(5, 20)") == Uniform(5.0, 20.0)
    assert parse_distribution("normal(20,5)") == Normal(20.0, 5.0)
    assert parse_distribution("log-uniform(1e0,1e2)") == LogUniform(1.0, 100.0)


def test_learning_rate_by_step() -> None:
    cosine = default_config("digits", schedule="cosine", warmup=0.1)
    scales = [lr_scale(cosine, step, 100) for step in range(100)]
    assert scales[0] == pytest.approx(0.1)
    assert scales[9] == scales[10] == pytest.approx(1)
    assert scales[55] == pytest.approx(0.5)
    assert 0 < scales[-1] < 0.001
    steps = default_config("digits", schedule="step", warmup=0.0)
    assert [lr_scale(steps, step, 1000) for step in (0, 99, 100, 250)] == pytest.approx(
        [1, 1, 0.8, 0.64]
    )
    constant = default_config("digits", schedule="constant", warmup=0.0)
    assert lr_scale(constant, 99, 100) == 1
