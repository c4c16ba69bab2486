"""Delayed match-to-sample: trials as the protocol has them, streams of their own, learned."""

import math
from typing import Any

import pytest
import torch

from hetsyn_triton.experiments.tasks import DelayedMatch
from hetsyn_triton.experiments.tasks.rates import rate_penalty
from hetsyn_triton.experiments.training import default_config
from hetsyn_triton.experiments.training.build import build_network, build_task
from tests.support.layer_cases import first_layer
from tests.support.learning import assert_falls, losses

LEFT, RIGHT, NOISE = slice(0, 10), slice(10, 20), slice(20, 30)


def rate_hz(spikes: torch.Tensor) -> float:
    return spikes.double().mean().item() * 1000 / 5


def test_protocol() -> None:
    """30 channels, 210 steps of 5 ms; which side each cue takes says whether it is a match."""
    samples = DelayedMatch(seed=2).splits["test"]
    assert samples.values.shape == (2000, 210, 30)
    cues = (samples.values[:, 10:30], samples.values[:, 190:210])
    sides = []
    for cue in cues:
        left, right = cue[..., LEFT].any((1, 2)), cue[..., RIGHT].any((1, 2))
        assert (left ^ right).all()  # one side, and no trial without a spike
        sides.append(right)
        fired = torch.where(right[:, None, None], cue[..., RIGHT], cue[..., LEFT])
        assert rate_hz(fired) == pytest.approx(40, rel=0.02)
    assert torch.equal(samples.labels, (sides[0] == sides[1]).long())
    pairs = 2 * sides[0].long() + sides[1].long()
    assert pairs.bincount().tolist() == [500] * 4
    silent = samples.values.clone()
    silent[:, 10:30] = silent[:, 190:210] = False
    assert not silent[..., :20].any()
    assert rate_hz(samples.values[..., NOISE]) == pytest.approx(10, rel=0.02)
    for stretch in (slice(0, 10), slice(10, 30), slice(30, 190), slice(190, 210)):
        assert rate_hz(samples.values[:, stretch, NOISE]) == pytest.approx(10, rel=0.05)


def test_training_trials() -> None:
    """Drawn anew for each batch and epoch; all four pairs, equally often."""
    task = DelayedMatch(seed=1, batch_size=400, iterations=2)
    assert task.steps_per_epoch == 2
    first, second = task.batches("train")
    assert first.input.shape == (210, 400, 30)
    assert not torch.equal(first.input, second.input)
    right = [first.input[start : start + 20, :, RIGHT].any(2).any(0) for start in (10, 190)]
    assert torch.equal(first.target, (right[0] == right[1]).long())
    assert (2 * right[0].long() + right[1].long()).bincount().min() > 70  # 100 +- 9


def test_splits_share_no_trial() -> None:
    task = DelayedMatch(seed=0, batch_size=4, iterations=1)
    shown = [
        *(next(task.batches("train", epoch)).input for epoch in (0, 1)),
        *(next(task.batches(split)).input[:, :4] for split in ("validation", "test")),
        next(DelayedMatch(seed=1).batches("test")).input[:, :4],
    ]
    for number, one in enumerate(shown):
        assert not any(torch.equal(one, other) for other in shown[:number])
    sizes = {s: sum(len(b.target) for b in task.batches(s)) for s in ("validation", "test")}
    assert sizes == {"validation": 500, "test": 2000}
    assert torch.equal(next(task.batches("test", epoch=3)).input[:, :4], shown[3])


@pytest.mark.parametrize(
    ("options", "steps", "cue", "noise"),
    [
        ({}, 210, 40, 10),
        ({"delay": 0}, 50, 40, 10),
        ({"delay": 2500, "noise_hz": 20.0}, 550, 40, 20),
        ({"delay": 5, "noise_hz": 0, "cue_hz": 200}, 51, 200, 0),
    ],
)
def test_options(options: dict[str, Any], steps: int, cue: float, noise: float) -> None:
    task = DelayedMatch(**options)
    values = task.splits["validation"].values
    assert values.shape[1] == steps
    assert rate_hz(values[..., NOISE]) == pytest.approx(noise, rel=0.05)
    assert rate_hz(values[:, 10:30, :20]) * 2 == pytest.approx(cue, rel=0.05)
    assert rate_hz(values[:, steps - 20 :, :20]) * 2 == pytest.approx(cue, rel=0.05)
    assert [(s.start, s.stop) for s in task.spans()] == [(10, 30), (steps - 20, steps)]


def test_loss_by_hand() -> None:
    """Cross-entropy of the last step, and a hundredth of the rate penalty at 10 Hz."""
    task = DelayedMatch()
    output = torch.zeros(210, 1, 2)
    output[-1, 0, 1] = math.log(3)  # mismatch has probability 1/4
    spikes = torch.zeros(210, 1, 1)
    spikes[::7] = 1  # 30 spikes in 1050 ms
    penalty = (30 / 1.05 / 10 - 1) ** 2
    assert rate_penalty([spikes], 5, 10).item() == pytest.approx(penalty)
    loss = task.loss(output, [spikes], torch.tensor([0]))
    assert loss.item() == pytest.approx(math.log(4) + 0.01 * penalty)
    metrics = task.metrics(output, [spikes], torch.tensor([0]))
    assert metrics == {"accuracy": 0.0, "rate_hz": pytest.approx(30 / 1.05)}
    assert task.caption(output, torch.tensor([0])) == "delayed-match: mismatch, predicted match"


def test_defaults_are_the_protocol() -> None:
    config = default_config("delayed-match")
    assert (config.hidden, config.recurrent, config.batch_size) == ((100,), True, 32)
    assert config.epochs * config.options["iterations"] == 1000
    assert (config.optimizer, config.lr, config.decay_lr) == ("adam", 5e-3, 5e-3)
    assert (config.schedule, config.step_every, config.step_factor) == ("step", 100, 0.8)
    assert (config.warmup, config.weight_decay, config.dropout) == (0, 0, 0)
    assert (config.dt, config.tau, config.tau_reset) == (5.0, "normal(40,4)", 40.0)
    assert (config.tau_adaptation, config.adaptation) == (800.0, 0.15)
    assert (config.surrogate, config.readout) == ("triangular", "last")
    network = build_network(config, build_task(config))
    decay = first_layer(network).decay()
    assert decay.shape == (100, 30)
    assert decay.mean().item() == pytest.approx(math.exp(-5 / 40), abs=2e-3)


@pytest.mark.parametrize("recurrent", [True, False])
def test_is_learned(recurrent: bool) -> None:
    config = default_config(
        "delayed-match",
        recurrent=recurrent,
        hidden=(30,),
        lr=1e-2,
        tau="normal(100,10)",
        threads=1,
        options={"delay": 50, "noise_hz": 2.0},
    )
    assert_falls(losses(config, 60))
