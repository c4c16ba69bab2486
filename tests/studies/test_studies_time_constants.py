"""The study of time constants: what it trains by default, and what weight decay does by itself."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hetsyn_triton.experiments.studies import STUDIES, run_study, study_folder as files
from hetsyn_triton.experiments.studies.statistics import chosen
from hetsyn_triton.experiments.studies.study_settings import make_settings
from hetsyn_triton.experiments.studies.time_constants import TimeConstants
from hetsyn_triton.experiments.studies.weight_decay import (
    EXEMPT,
    LABELS,
    NONE,
    USUAL,
    settings_of,
    shrunk,
)
from hetsyn_triton.experiments.training import ConfigError, TrainConfig, default_config, load_run
from hetsyn_triton.experiments.training.build import build_optimizer
from hetsyn_triton.experiments.training.schedule import lr_scale, scale_rates
from hetsyn_triton.modules import SpikingNetwork, make_network
from hetsyn_triton.optim import clamp_decays_
from hetsyn_triton.timeconstants import decay_to_tau
from tests.support.layer_cases import first_layer

TOY: dict[str, Any] = {"task": "echo", "seeds": 1, "jobs": 1, "frozen": [0]}


def planned(full: bool = False, **settings: Any) -> set[tuple[str, str, float]]:
    """Initial time constants, weight decay and frozen part of every network."""
    study = TimeConstants(make_settings(STUDIES["time-constants"], full=full, **settings))
    of = [cell.values for cell in study.cells()]
    return {(values["tau"], values["weight_decay"], values["frozen"]) for values in of}


@pytest.mark.parametrize("full", [False, True])
def test_the_papers_initial_means_and_the_control_are_trained_by_default(full: bool) -> None:
    frozen = (0, 0.2, 0.4, 0.6, 0.8, 1) if full else (0, 0.8, 1)
    means = ("normal(100,10)", "normal(200,20)", "normal(400,40)")
    assert planned(full) == {
        *(("normal(40,4)", NONE, part) for part in frozen),
        *((tau, way, 0) for tau in means for way in (NONE, USUAL, EXEMPT)),
    }


def test_a_task_with_weight_decay_is_the_usual_way() -> None:
    tau = "uniform(5,20)"
    assert planned(task="shd", changes={"frozen": [0, 1]}) == {
        (tau, USUAL, 0), (tau, USUAL, 1), (tau, EXEMPT, 0),
    }  # fmt: skip


def test_initial_time_constants_are_the_asked_ones() -> None:
    changes = {"tau": ["normal(40, 4)", 7], "frozen": [0]}
    ways = (NONE, USUAL, EXEMPT)
    assert planned(changes=changes) == {(t, w, 0) for t in ("normal(40,4)", "7") for w in ways}


@pytest.mark.usefixtures("echo")
def test_each_way_of_training_has_its_weight_decay(tmp_path: Path) -> None:
    result = run_study("time-constants", **TOY, weight_decay=0.1, out=tmp_path)
    decays, pathways = {}, chosen(result.table, part="pathways")
    for way in (NONE, USUAL, EXEMPT):
        run = load_run(tmp_path / "runs" / f"uniform-2-10-{way}-frozen-0-s0")
        assert run.config.optimizer == "adamw"
        groups = build_optimizer(run.config, run.network).param_groups
        found = {group["name"]: group["weight_decay"] for group in groups}
        on_weights, on_decays = (0 if way == NONE else 0.1), (0.1 if way == USUAL else 0)
        assert found == {"weights": on_weights, "decays": on_decays}
        decays[way] = first_layer(run.network).decay().mean()
        for row in chosen(pathways, weight_decay=way):
            before, alone = row["median_before"], row["median_weight_decay_alone"]
            assert alone < 0.99 * before if way == USUAL else alone == before
    assert len(pathways) == 3 * 3
    assert decays[USUAL] < min(decays[NONE], decays[EXEMPT])


@pytest.mark.usefixtures("echo")
def test_the_weight_decay_is_that_of_shd_where_none_is_given(tmp_path: Path) -> None:
    run_study("time-constants", **TOY, tau=[5], out=tmp_path)
    for way in (USUAL, EXEMPT):
        config = load_run(tmp_path / "runs" / f"5-{way}-frozen-0-s0").config
        assert (config.weight_decay, config.tau) == (0.004, "5")


@pytest.mark.usefixtures("echo")
def test_the_picture_shows_both_ways_and_weight_decay_alone(tmp_path: Path) -> None:
    # So strong that after its few steps no two curves are the same.
    result = run_study("time-constants", **TOY, tau=[5, 8], weight_decay=10, out=tmp_path)
    study = TimeConstants(result.settings)
    found = [files.read_cell(tmp_path, cell) for cell in study.cells()]
    done = [finished for finished in found if finished is not None]
    figure = study.draw(result.table, done)
    legends = [legend for axes in figure.axes if (legend := axes.get_legend())]
    labels = [text.get_text() for legend in legends for text in legend.texts]
    for label in (LABELS[USUAL], LABELS[EXEMPT], "weight decay alone, computed"):
        assert labels.count(label) == 2  # from 5 and from 8
    drawn = {axes.get_ylabel().split("\n")[0]: axes for axes in figure.axes}
    assert {"from 5", "from 8", "from uniform(2,10)", "reset share"} <= set(drawn)
    patches: list[Any] = list(drawn["from 5"].patches)
    curves = {one.get_label(): one.get_data().values.tolist() for one in patches}
    for finished in done:
        way = finished.cell.values["weight_decay"]
        if finished.cell.values["tau"] == "5":
            before, after, alone = finished.extra["histograms"]["layer 1, input"]
            assert curves["before"] == before
            assert curves[LABELS[way]] == after
            assert way != USUAL or curves["weight decay alone, computed"] == alone


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tau": ["normal(0,1)"]}, "tau: expected different distributions"),
        ({"tau": "normal(100,10)"}, "tau: expected different distributions"),
        ({"weight_decay": 0}, "weight_decay: expected a positive number"),
        ({"optimizer": "adam"}, "because time-constants trains with AdamW"),
    ],
)
def test_bad_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_settings(STUDIES["time-constants"], changes=changes)


def without_gradients(network: SpikingNetwork, config: TrainConfig, steps: int) -> None:
    """The steps of a run of `config` in which every gradient is zero."""
    optimizer = build_optimizer(config, network)
    rates = [group["lr"] for group in optimizer.param_groups]
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for step in range(config.epochs * steps):
        scale_rates(optimizer, rates, lr_scale(config, step, steps))
        optimizer.step()
        clamp_decays_(network)


@pytest.mark.parametrize("way", [NONE, USUAL, EXEMPT])
@pytest.mark.parametrize("parametrization", ["clamp", "sigmoid"])
def test_weight_decay_alone_is_training_without_gradients(parametrization: str, way: str) -> None:
    config = default_config(
        "delayed-match", epochs=3, schedule="cosine", warmup=0.1, **settings_of(way, 0.5)
    )
    network = make_network(
        "hetsyn", 3, [4], 2, tau=8.0, frozen_fraction=0.5, decay_parametrization=parametrization
    ).double()
    fresh = first_layer(network).decay()
    alone = shrunk(network, config, 20)
    assert torch.equal(first_layer(network).decay(), fresh)  # it is a copy that shrinks
    assert torch.equal(first_layer(alone).weight, first_layer(network).weight)
    without_gradients(network, config, 20)
    found = first_layer(alone).decay()
    torch.testing.assert_close(found, first_layer(network).decay(), rtol=1e-12, atol=0)
    moved = (found != fresh).double().mean()
    assert moved == (0.5 if way == USUAL else 0)


def test_weight_decay_alone_over_shd() -> None:
    """5, 10 and 20 steps become about 3.5, 5.5 and 7.5, as 1 / (1 / tau + sum of lr wd) says for
    8,156 recordings in batches of 32 and a rate that is half of 4e-3 on average over 40 epochs."""
    for tau, left in ((5.0, 3.5), (10.0, 5.5), (20.0, 7.5)):
        network = make_network("hetsyn", 2, [2], 1, tau=tau)
        alone = shrunk(network, default_config("shd"), 255)
        assert decay_to_tau(first_layer(alone).decay()).mean().item() == pytest.approx(
            left, rel=0.03
        )


def test_weight_decay_in_the_gradient_is_refused() -> None:
    config = default_config("delayed-match")
    with pytest.raises(ConfigError, match="optimizer: expected adamw"):
        shrunk(make_network("hetsyn", 2, [2], 1), config, 5)
