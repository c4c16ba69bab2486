"""Pattern generation: its defaults, inputs and loss are those of the protocol."""

import math

import pytest
import torch

from hetsyn_triton.experiments.tasks import PatternGeneration
from hetsyn_triton.experiments.training import default_config
from hetsyn_triton.experiments.training.build import build_network, build_task
from tests.support.layer_cases import first_layer
from tests.support.learning import assert_falls, losses


def test_defaults_are_the_protocol() -> None:
    config = default_config("pattern-generation")
    assert (config.hidden, config.recurrent, config.batch_size) == ((100,), True, 1)
    assert config.epochs * config.options["iterations"] == 1000
    assert config.options == {"noise_hz": 2.0, "iterations": 50, "curves": 1}
    assert (config.optimizer, config.lr, config.decay_lr) == ("adam", 1e-3, 1e-3)
    assert (config.schedule, config.step_every, config.step_factor) == ("step", 100, 0.8)
    assert (config.warmup, config.weight_decay, config.dropout) == (0, 0, 0)
    assert (config.dt, config.tau, config.tau_reset) == (1.0, "normal(20,5)", 20.0)
    assert (config.tau_adaptation, config.adaptation) == (500.0, 0.01)
    assert (config.threshold, config.surrogate) == (1.0, "triangular")


@pytest.mark.parametrize("recurrent", [True, False])
@pytest.mark.parametrize("curves", [1, 3])
def test_the_networks_of_the_protocol(recurrent: bool, curves: int) -> None:
    """100-100-1 and 100-100-3; a homogeneous model has 20 ms at every synapse."""
    config = default_config(
        "pattern-generation", recurrent=recurrent, model="homneu", options={"curves": curves}
    )
    network = build_network(config, build_task(config))
    assert len(network.layers) == 1
    layer = first_layer(network)
    assert layer.weight.shape == (100, 100)
    assert (layer.recurrent_weight is not None) == recurrent
    assert network.readout is not None
    assert network.readout.weight.shape == (curves, 100)
    for part in (layer, network.readout):
        assert torch.allclose(part.decay(), torch.tensor(math.exp(-1 / 20)))


@pytest.mark.parametrize("noise_hz", [0, 1, 2.0, 3, 4])
def test_background(noise_hz: float) -> None:
    """Its rate on all channels, drawn anew for every trial, beside a segment that stays."""
    task = PatternGeneration(seed=1, noise_hz=noise_hz)
    first, second = (next(task.batches("train", epoch)).input for epoch in (0, 1))
    test = next(task.batches("test")).input
    gaps = torch.cat([test[500:750], test[1250:1500]])
    assert gaps.mean().item() * 1000 == pytest.approx(noise_hz, rel=0.15)
    assert torch.equal(first, second) == (noise_hz == 0)
    added = test[:500] - task.segment[:, None]
    assert added.mean().item() * 1000 == pytest.approx(noise_hz * 0.99, rel=0.15)  # some coincide


def test_curves() -> None:
    """Every curve is its own, from -1 to 1, and nothing but cosines of 0.5 to 2.5 Hz."""
    target = next(PatternGeneration(curves=3).batches("test")).target
    assert target.shape == (10, 2000, 3)
    assert target.amin((0, 1)).tolist() == [-1] * 3
    assert target.amax((0, 1)).tolist() == [1] * 3
    spectrum = torch.fft.rfft(target[0].double(), dim=0).abs()
    assert (spectrum[1:6].amin(0) > 50 * spectrum[6:].amax(0)).all()
    assert not torch.equal(target[..., 0], target[..., 1])


def test_loss_by_hand() -> None:
    """The squared error over time, and a hundredth of the rate penalty at 10 Hz."""
    task = PatternGeneration()
    target = next(task.batches("test")).target
    spikes = torch.zeros(2000, 10, 2)
    spikes[::50, :, 0] = 1  # 20 Hz, and a silent neuron: penalties of 1 and 1
    loss = task.loss(target.transpose(0, 1) + 0.5, [spikes], target)
    assert loss.item() == pytest.approx(0.25 + 0.01)
    metrics = task.metrics(target.transpose(0, 1) + 0.5, [spikes], target)
    assert metrics == pytest.approx({"mse": 0.25, "distance": 1.0, "rate_hz": 10.0}, rel=1e-4)


def test_three_curves_are_learned() -> None:
    config = default_config(
        "pattern-generation", hidden=(10,), lr=3e-2, threads=1, options={"curves": 3}
    )
    assert_falls(losses(config, 9))
