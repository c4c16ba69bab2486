"""Multi-timescale XOR: the trials follow the protocol, only labeled steps count, it is learned."""

import math

import pytest
import torch

from hetsyn_triton.experiments.tasks import MultiTimescaleXOR
from hetsyn_triton.experiments.tasks.multi_timescale_xor import NO_LABEL
from hetsyn_triton.experiments.training import default_config
from hetsyn_triton.experiments.training.build import build_network, build_task
from tests.support.layer_cases import first_layer
from tests.support.learning import assert_falls, losses

SHOWN = [slice(start, start + 10) for start in (15, 30, 45, 60, 75, 90)]  # signal 2


def test_protocol() -> None:
    """The rates in each window say which signals are high; their XOR is the label there."""
    task = MultiTimescaleXOR(seed=3)
    batch = next(task.batches("test"))
    assert batch.input.shape == (100, 256, 40)
    assert batch.input.unique().tolist() == [0, 1]
    high = batch.input[:10, :, :20].mean((0, 2)) > 0.4
    labeled = torch.zeros(100, dtype=torch.bool)
    for steps in SHOWN:
        labeled[steps] = True
        rate = batch.input[steps, :, 20:].mean((0, 2))
        for wanted, found in ((0.2, rate[rate < 0.4]), (0.6, rate[rate > 0.4])):
            assert found.mean().item() == pytest.approx(1 - (1 - wanted) * 0.99, abs=0.01)
            assert len(found) > 80  # of 128 expected
        label = (high != (rate > 0.4)).long()
        assert torch.equal(batch.target[:, steps], label.unsqueeze(1).expand(-1, 10))
    assert high.double().mean().item() == pytest.approx(0.5, abs=0.1)
    assert (batch.target[:, ~labeled] == NO_LABEL).all()
    noise = batch.input.clone()
    noise[:10, :, :20] = noise[labeled, :, 20:] = math.nan
    assert noise.nanmean().item() == pytest.approx(0.01, rel=0.05)
    spans = [(span.start, span.stop) for span in task.spans()]
    assert spans == [(0, 10), *((s.start, s.stop) for s in SHOWN)]


@pytest.mark.parametrize("noise", [0, 0.2, 1])
def test_noise(noise: float) -> None:
    silent = next(MultiTimescaleXOR(noise=noise).batches("validation")).input[10:15]
    assert silent.mean().item() == pytest.approx(noise, abs=0.01)


def test_splits_share_no_trial_and_resume() -> None:
    task = MultiTimescaleXOR(seed=0, batch_size=4, iterations=3)
    assert task.steps_per_epoch == 3
    whole = list(task.batches("train", 1))
    assert torch.equal(next(task.batches("train", 1, start=2)).input, whole[2].input)
    shown = [
        *(batch.input for batch in whole),
        next(task.batches("train", 0)).input,
        *(next(task.batches(split)).input[:, :4] for split in ("validation", "test")),
        next(MultiTimescaleXOR(seed=1).batches("test")).input[:, :4],
    ]
    for number, one in enumerate(shown):
        assert not any(torch.equal(one, other) for other in shown[:number])
    sizes = {s: sum(len(b.target) for b in task.batches(s)) for s in ("validation", "test")}
    assert sizes == {"validation": 512, "test": 2048}
    assert torch.equal(next(task.batches("test", epoch=3)).input[:, :4], shown[5])


def test_only_labeled_steps_count() -> None:
    """The loss by hand; what the network says elsewhere changes neither loss nor gradient."""
    task = MultiTimescaleXOR()
    target = torch.full((2, 100), NO_LABEL)
    target[0, 15:25], target[1, 30:40] = 1, 0
    output = torch.zeros(100, 2, 2)
    output[15:25, 0, 1] = math.log(3)  # the right label has probability 3/4
    output[30:40, 1, 1] = math.log(4)  # the right label has probability 1/5
    output.requires_grad_()
    loss = task.loss(output, [], target)
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(5)) / 2)
    assert task.metrics(output, [], target) == {"accuracy": 0.5}
    assert task.caption(output, target).endswith("50 % of the labeled steps correct")
    (gradient,) = torch.autograd.grad(loss, output)
    counted = (target != NO_LABEL).T.unsqueeze(2).expand_as(output)
    assert (gradient[~counted] == 0).all()
    assert (gradient[counted] != 0).all()


def test_what_the_picture_shows() -> None:
    task = MultiTimescaleXOR()
    sample = task.sample()
    wanted, output = task.wanted(sample.target), torch.zeros(100, 1, 2)
    assert wanted is not None
    assert wanted.shape == task.trace(output).shape == (100, 1)
    assert (task.trace(output) == 0.5).all()
    for steps in SHOWN:
        assert torch.equal(wanted[steps, 0], sample.target[0, steps].float())
    assert wanted.isnan().sum() == 40


def test_defaults() -> None:
    config = default_config("multi-timescale-xor")
    assert (config.hidden, config.recurrent, config.batch_size) == ((32,), False, 64)
    assert config.epochs * config.options["iterations"] == 800
    assert (config.optimizer, config.lr, config.decay_lr, config.clip) == ("adamw", 5e-3, None, 1)
    layer = first_layer(build_network(config, build_task(config)))
    taus = layer.decay().log().reciprocal().neg()
    assert 2 <= taus.min().item() < 3
    assert 80 < taus.max().item() <= 100 + 1e-3


@pytest.mark.parametrize("recurrent", [False, True])
def test_is_learned(recurrent: bool) -> None:
    changes = {"recurrent": recurrent, "hidden": (16,), "lr": 1e-2, "threads": 1}
    assert_falls(losses(default_config("multi-timescale-xor", **changes), 240))
