"""Configurations: protocol defaults, JSON there and back, every bad field named."""

import json
import math
import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hetsyn_triton.experiments.tasks import TASKS
from hetsyn_triton.experiments.training import ConfigError, TrainConfig, default_config
from hetsyn_triton.experiments.training.build import build_network, build_task
from hetsyn_triton.experiments.training.distributions import parse_distribution
from hetsyn_triton.experiments.training.schedule import lr_scale
from hetsyn_triton.initializers import Constant, LogUniform, Normal, Uniform


@pytest.mark.parametrize("task", list(TASKS))
def test_json_round_trip(task: str, tmp_path: Path) -> None:
    config = default_config(task, seed=7, hidden=[3, 4])
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.to_json()))
    assert TrainConfig.load(path) == config
    assert TrainConfig.load(path, seed=8) == config.changed(seed=8)


def test_protocol_defaults() -> None:
    smnist = default_config("smnist")
    assert (smnist.hidden, smnist.epochs, smnist.batch_size) == ((64, 64), 150, 256)
    assert (smnist.optimizer, smnist.lr, smnist.decay_lr) == ("adamw", 1e-3, 2e-3)
    assert (smnist.weight_decay, smnist.decay_weight_decay, smnist.dropout) == (0.0, None, 0.0)
    assert (smnist.schedule, smnist.schedule_unit, smnist.warmup) == ("cosine", "batch", 0.05)
    assert (smnist.horizon, smnist.clip, smnist.recurrent) == (None, None, True)
    assert (smnist.readout, smnist.surrogate) == ("spike-count", "multi-gaussian")
    assert (smnist.dt, smnist.tau, smnist.tau_reset) == (1.0, "uniform(5,20)", 20.0)
    assert (smnist.threshold, smnist.options["validation"]) == (1.0, 0)
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
        ("readout", "first", "mean, last, summed-softmax, spike-count"),
        ("optimizer", "sgd", "adam, adamw"),
        ("schedule", "linear", "constant, cosine, step"),
        ("decay_parametrization", "exp", "clamp, sigmoid"),
        ("seed", -1, "integer from 0"),
        ("hidden", (), "1 to 1000 positive integers"),
        ("hidden", (64, 0), "1 to 1000 positive integers"),
        ("hidden", 64, "1 to 1000 positive integers"),
        ("recurrent", "yes", "true or false"),
        ("learn_decay", 1, "true or false"),
        ("tau", "uniform(0,20)", "positive time constants"),
        ("tau", "gamma(1,2)", "positive time constants"),
        ("tau", -3.0, "positive time constants"),
        ("tau", True, "positive time constants"),
        ("tau", 10**400, "positive time constants"),
        ("tau_readout", "20 steps", "positive time constants"),
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
        ("decay_lr", -1.0, "a positive number, or null"),
        ("weight_decay", -1e-3, "at least 0"),
        ("decay_weight_decay", True, "at least 0, or null"),
        ("warmup", 1, "from 0 to below 1"),
        ("schedule_unit", "step", "batch, epoch"),
        ("horizon", 0, "a positive integer below 2^31, or null"),
        ("clip", 0.0, "a positive number, or null"),
        ("test_every", -1, "an integer from 0 to below 2^31"),
        ("step_every", 0, "a positive integer"),
        ("step_factor", 0, "above 0, at most 1"),
        ("device", "abacus", "expected cpu"),
        ("device", "cuda:99", "expected cpu"),
        ("device", 2**63, "expected cpu"),
        ("tau", "uniform(5,2)", "LOW <= HIGH"),
        ("epochs", 10**400, "a positive integer below 2^31"),
        ("lr", 10**400, "a positive number"),
        ("lr", np.float64(0.1), "a positive number"),
        ("threads", 0, "an integer from 1 to 1024, or null"),
        ("data_dir", 3, "a folder's name"),
        ("data_dir", "", "a folder's name"),
        ("data_dir", "mnist", "no value because digits reads no files"),
        ("options", [], "an object"),
    ],
)
def test_bad_field(field: str, value: Any, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        default_config("digits", **{field: value})
    message = str(caught.value)
    assert message.startswith(f"{field}: expected ")
    assert allowed in message
    assert message.endswith(f"got {value!r}")


def test_the_first_wrong_field_is_named() -> None:
    """Names come first, then the other fields in their order, whatever the order of the call."""
    with pytest.raises(ConfigError, match=r"^backend: .*got 'fast'$"):
        default_config(options=[], lr=-1, seed=-1, backend="fast")
    with pytest.raises(ConfigError, match=r"^seed: .*got -1$"):
        default_config(options=[], lr=-1, seed=-1)


def test_values_stay_as_they_are_given() -> None:
    config = default_config(lr=1, tau=20, clip=2**70, options={"shift": 1})
    stored = json.loads(json.dumps(config.to_json()))
    for value in (config.lr, config.tau, config.clip, stored["lr"], stored["options"]["shift"]):
        assert type(value) is int
    assert pickle.loads(pickle.dumps(config)) == config
    assert TrainConfig.model_validate(config.to_json()) == config
    with pytest.raises(ValueError, match="frozen"):
        config.lr = 2


def test_unknown_names_list_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"task: expected one of digits, smnist, .*got 'cifar'"):
        default_config("cifar")
    with pytest.raises(
        ConfigError, match=r"settings: expected one of task, model.*got learning_rate"
    ):
        default_config("digits", learning_rate=1)
    with pytest.raises(
        ConfigError, match=r"options: expected one of hold, .* for digits, got 'noise_hz'"
    ):
        default_config("digits", options={"noise_hz": 3.0})


def test_a_name_that_is_nearly_right() -> None:
    for changes, near in (
        ({"model": "hetsin"}, "got 'hetsin' (did you mean hetsyn?)"),
        ({"task": "smnst"}, "got 'smnst' (did you mean smnist?)"),
        ({"holdd": 3, "lrr": 1}, "got holdd (did you mean hold?), lrr (did you mean lr?)"),
        ({"options": {"holdd": 3}}, "got 'holdd' (did you mean hold?)"),
    ):
        with pytest.raises(ConfigError) as caught:
            default_config(**changes)
        assert str(caught.value).endswith(near)


def test_devices_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"expected cpu because PyTorch finds no GPU, got 'cuda'"):
        default_config("digits", device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"expected cpu, cuda, cuda:0, cuda:1, got 'cuda:2'"):
        default_config("digits", device="cuda:2")


BAD_OPTIONS: dict[tuple[str, str], tuple[str, tuple[Any, ...]]] = {
    ("digits", "hold"): ("an integer from 1 to 1000", (0, -1, 1001, 2.5, True, "3", None)),
    ("digits", "shift"): ("a number from 0 to 1", (-0.1, 5, float("nan"), True, "0.5", None)),
    ("digits", "validation"): (
        "0 or a number from 0.01 to 0.7",
        (0.8, 0.9, 1, -0.1, 1e-9, float("inf"), False, "0.1", None),
    ),
    ("smnist", "validation"): ("an integer from 0 to 59999", (-1, 60_000, 0.1, True, None)),
    ("smnist", "limit"): ("an integer from 0 to 60000", (-5, 60_001, 1.0, False, "all", None)),
    ("psmnist", "validation"): ("an integer from 0 to 59999", (-1, 60_000, 0.1, True, None)),
    ("psmnist", "limit"): ("an integer from 0 to 60000", (-5, 60_001, 1.0, False, "all", None)),
    ("idx", "classes"): ("an integer from 2 to 256", (1, 257, 10.0, True, "10", None)),
    ("idx", "permuted"): ("true or false", (1, 0.0, "true", None)),
    ("idx", "validation"): ("an integer from 0 to 100000000", (-1, 10**9, 0.1, True, None)),
    ("idx", "limit"): ("an integer from 0 to 100000000", (-5, 10**9, 1.0, False, "all", None)),
    ("multi-timescale-xor", "iterations"): (
        "an integer from 1 to 1000000",
        (0, -1, 10**7, 2.0, True, None),
    ),
    ("multi-timescale-xor", "noise"): (
        "a number from 0 to 1",
        (-0.1, 1.5, float("nan"), True, "0.1", None),
    ),
    ("delayed-match", "delay"): (
        "a multiple of 5 from 0 to 20000",
        (-5, 3, 20_005, 800.0, float("nan"), True, "800", None),
    ),
    ("delayed-match", "noise_hz"): (
        "a number from 0 to 200",
        (-1, 200.5, 10**400, float("nan"), True, "10", None),
    ),
    ("delayed-match", "cue_hz"): (
        "a number from 0 to 200",
        (-1, 200.5, 10**400, float("nan"), True, "40", None),
    ),
    ("delayed-match", "iterations"): (
        "an integer from 1 to 1000000",
        (0, -1, 10**7, 2.0, True, None),
    ),
    ("shd", "binning"): ("one of plain, official", ("counts", 1, True, None, ["plain"])),
    ("shd", "validation"): (
        '0 or a number from 0.01 to 0.7, or "speakers"',
        (0.8, 1, -0.1, float("inf"), False, "speaker", ["speakers"], None),
    ),
    ("pattern-generation", "noise_hz"): (
        "a number from 0 to 1000",
        (-3, 1000.5, 10**400, float("nan"), True, "2", None),
    ),
    ("pattern-generation", "iterations"): (
        "an integer from 1 to 1000000",
        (0, -1, 10**7, 2.0, True, None),
    ),
    ("pattern-generation", "curves"): ("an integer from 1 to 1000", (0, -1, 1001, 1.0, True, None)),
}
SPEECH: dict[str, tuple[str, tuple[Any, ...]]] = {
    "hop_ms": ("a number from 1 to 1000", (0.5, 1001, float("nan"), True, "10", None)),
    "steps": ("an integer from 12 to 100000", (11, 100_001, 100.0, True, "100", None)),
    "normalization": ("one of utterance, band, none", ("peak", 1, True, None)),
    "scale": ("one of log, linear", ("db", 1, True, None)),
    "range_db": ("a number from 1 to 1000", (0.5, 1001, float("inf"), True, "50", None)),
    "validation": ("0 or a number from 0.01 to 0.7", (0.8, 1, -0.1, False, "0.1", None)),
}
BAD_OPTIONS |= {
    (task, name): row for task in ("fsdd", "tidigits", "ti46") for name, row in SPEECH.items()
}
BAD_OPTIONS["fsdd", "speaker"] = ("a speaker's name or number, or null", (1.5, True, ["theo"]))


def test_every_option_of_every_task_is_in_the_table() -> None:
    known = {(task.name, option) for task in TASKS.values() for option in task.options}
    assert known == set(BAD_OPTIONS)


@pytest.mark.parametrize(("task", "option"), BAD_OPTIONS)
def test_bad_option(task: str, option: str) -> None:
    """Refused by configurations, new and changed, and by the task itself; the default is not."""
    expected, values = BAD_OPTIONS[task, option]
    config = default_config(task)
    assert TASKS[task].options[option].allows(config.options[option])
    for value in values:
        message = re.escape(f"options.{option}: expected {expected}, got {value!r}")
        with pytest.raises(ConfigError, match=message):
            default_config(task, options={option: value})
        with pytest.raises(ConfigError, match=message):
            config.changed(options={**config.options, option: value})
        with pytest.raises(ValueError, match=message):
            TASKS[task](**{option: value})


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("digits", {"hold": 1, "shift": 0, "validation": 0}),
        ("digits", {"hold": 1, "shift": 1, "validation": 0.7}),
        ("digits", {"hold": 1, "validation": 0.01}),
        ("pattern-generation", {"noise_hz": 0, "iterations": 1, "curves": 1}),
        ("pattern-generation", {"noise_hz": 1000.0, "iterations": 1, "curves": 2}),
        ("delayed-match", {"delay": 0, "noise_hz": 0, "cue_hz": 0, "iterations": 1}),
        ("delayed-match", {"delay": 5, "noise_hz": 200.0, "cue_hz": 200, "iterations": 1}),
    ],
)
def test_allowed_limits_give_batches(task: str, options: dict[str, Any]) -> None:
    built = build_task(default_config(task, options=options))
    classes = 1 if task == "pattern-generation" else built.out_features
    for split in ("train", "validation", "test"):
        targets = [batch.target.flatten() for batch in built.batches(split)]
        assert bool(targets) == (split != "validation" or options.get("validation") != 0)
        assert not targets or len(torch.cat(targets).unique()) >= classes


def test_options_are_complete() -> None:
    with pytest.raises(
        ConfigError, match="options: expected all settings of digits, got no hold, validation"
    ):
        default_config().changed(options={"shift": 0.5})


def test_threads_of_this_machine_and_of_another() -> None:
    cpus = os.cpu_count() or 1
    assert default_config(threads=cpus).threads == cpus
    with pytest.raises(
        ConfigError, match=rf"threads: expected at most {cpus}, the number of CPUs, got"
    ):
        default_config(threads=cpus + 1)
    assert default_config().changed(threads=cpus + 1).threads == cpus + 1  # as loaded from a file


def test_broken_config_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(ConfigError, match="not a readable configuration"):
        TrainConfig.load(path)
    path.write_text('{"task": "digits"')
    with pytest.raises(ConfigError, match="not a readable configuration"):
        TrainConfig.load(path)
    path.write_text('{"task": "digits"}')
    with pytest.raises(ConfigError, match=r"config.json: expected task, .*, got no model, seed"):
        TrainConfig.load(path)
    path.write_text(json.dumps({**default_config().to_json(), "speed": 1}))
    with pytest.raises(
        ConfigError, match=r"config.json: expected task, .*, got unknown fields speed"
    ):
        TrainConfig.load(path)


def test_distributions() -> None:
    assert parse_distribution("20") == parse_distribution(20) == Constant(20.0)
    assert parse_distribution("uniform(5, 20)") == Uniform(5.0, 20.0)
    assert parse_distribution("normal(20,5)") == Normal(20.0, 5.0)
    assert parse_distribution("log-uniform(1e0,1e2)") == LogUniform(1.0, 100.0)


def test_learning_rate_by_step() -> None:
    cosine = default_config("digits", schedule="cosine", warmup=0.1, epochs=5)
    scales = [lr_scale(cosine, step, 20) for step in range(100)]
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


def test_learning_rate_past_the_horizon() -> None:
    """A cosine of 40 epochs in a run of 100, as in the paper's SHD: the last rate stays."""
    short = default_config("digits", epochs=100, horizon=40, warmup=0.05)
    whole = default_config("digits", epochs=40, warmup=0.05)
    steps = 7
    for step in range(40 * steps):
        assert lr_scale(short, step, steps) == lr_scale(whole, step, steps)
    stays = lr_scale(whole, 40 * steps - 1, steps)
    assert {lr_scale(short, step, steps) for step in range(40 * steps, 100 * steps)} == {stays}
    longer = default_config("digits", epochs=10, horizon=40, warmup=0.05)
    assert lr_scale(longer, 69, steps) == lr_scale(whole, 69, steps)


def test_learning_rate_by_epoch() -> None:
    config = default_config("digits", epochs=100, horizon=40, warmup=0.05, schedule_unit="epoch")
    scales = [lr_scale(config, step, 7) for step in range(700)]
    assert scales[:7] == [0.5] * 7
    assert scales[7:21] == [1.0] * 14
    assert scales[-1] == scales[39 * 7] == pytest.approx(0.5 * (1 + math.cos(math.pi * 37 / 38)))
    assert scales[21:] == sorted(scales[21:], reverse=True)
    steps = default_config("digits", schedule="step", warmup=0.0, schedule_unit="epoch")
    assert lr_scale(steps, 29 * 7, 7) == 1  # the 30th epoch, of steps of 100 epochs
