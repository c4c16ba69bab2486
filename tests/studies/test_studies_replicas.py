"""Networks trained together are the networks trained one after the other."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hetsyn_triton.modules import MODELS
from hetsyn_triton.studies.replicas import Replicas, stacked
from hetsyn_triton.training import ConfigError, NonFiniteError, TrainConfig, default_config, train
from hetsyn_triton.training.build import build_network, build_task

pytestmark = pytest.mark.usefixtures("echo")
SEEDS = (0, 3, 7)


def configs(**changes: Any) -> list[TrainConfig]:
    return [default_config("echo", **{"seed": seed, **changes}) for seed in SEEDS]


@pytest.mark.parametrize("recurrent", [True, False], ids=["recurrent", "feedforward"])
@pytest.mark.parametrize("model", MODELS)
def test_the_same_as_one_after_the_other(model: str, recurrent: bool, tmp_path: Path) -> None:
    """Two epochs with weight decay and a schedule: weights and test measures, bit for bit where the
    operators promise it."""
    chosen = configs(model=model, recurrent=recurrent, epochs=2, weight_decay=0.01)
    together = Replicas(chosen)
    together.fit()
    tests = together.measure_split("test")
    assert together.step == 6
    for replica, config in enumerate(chosen):
        alone = train(config, tmp_path / str(config.seed), pictures=False)
        found, wanted = together.weights(replica), alone.network.state_dict()
        assert list(found) == list(wanted)
        for name, value in wanted.items():
            if model == "hetsyn":
                assert torch.equal(found[name], value), name
            else:
                torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)
        expected = alone.history[-1]
        validation = together.measure_split("validation")[replica]
        tolerance = 0 if model == "hetsyn" else 1e-4
        assert validation["loss"] == pytest.approx(expected["validation_loss"], rel=tolerance)
        assert tests[replica].keys() == {"loss", "accuracy", "rate"}


def test_losses_of_the_first_step() -> None:
    """And the gradients: an optimizer step moves every replica's weights, not only the first's."""
    together = Replicas(configs())
    before = [together.weights(replica) for replica in range(3)]
    values = together.train_on(next(together._batches("train")))
    assert len({value["loss"] for value in values}) == 3
    for replica in range(3):
        changed = together.weights(replica)
        assert not torch.equal(before[replica]["layers.0.weight"], changed["layers.0.weight"])


def test_decays_stay_decays_and_frozen_ones_stay() -> None:
    together = Replicas(configs(lr=0.5, frozen_fraction=0.5))
    together.fit()
    decay = together.network.layers[0].decay
    assert decay.raw.shape == (3, 6, 4)
    assert ((decay.raw >= 0) & (decay.raw <= 1)).all()
    assert torch.equal(decay()[decay.frozen], decay.frozen_value[decay.frozen])


def test_dropout_differs_between_replicas() -> None:
    """The same network and data in both places, yet other spikes are dropped."""
    together = Replicas(configs(hidden=(20, 20), dropout=0.5, tau=1000.0)[:2])
    for tensor in (*together.network.parameters(), *together.network.buffers()):
        tensor.data[1] = tensor.data[0]
    batch = next(together._batches("train"))[0]
    first, second = together.train_on([batch, batch])
    assert first["loss"] != second["loss"]


def test_spiking_outputs() -> None:
    together = Replicas(configs(readout="spike-count"))
    together.fit()
    assert all(0 <= test["accuracy"] <= 1 for test in together.measure_split("test"))


def test_stacking_keeps_names_and_what_learns() -> None:
    chosen = configs(model="hetsyn")
    networks = [build_network(config, build_task(config)) for config in chosen]
    whole = stacked(networks)
    for name, parameter in whole.named_parameters():
        assert parameter.shape == (3, *networks[0].get_parameter(name).shape)
        assert parameter.requires_grad
        assert torch.equal(parameter[1], networks[1].get_parameter(name))
    assert dict(whole.named_buffers()).keys() == dict(networks[0].named_buffers()).keys()


def test_what_cannot_be_trained_together() -> None:
    with pytest.raises(ConfigError, match="at least one network"):
        Replicas([])
    with pytest.raises(ConfigError, match="differ in the seed alone"):
        Replicas([default_config("echo"), default_config("echo", seed=1, lr=0.5)])
    with pytest.raises(ConfigError, match="clip: expected none"):
        Replicas(configs(clip=1.0))


def test_leaving_the_numbers_is_told() -> None:
    together = Replicas(configs(lr=1e38))
    with pytest.raises(NonFiniteError, match="of 3 networks side by side"):
        together.fit()
