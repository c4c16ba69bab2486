"""What a study changes reaches what is trained and what is tested; nothing is trained here."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hetsyn_triton.experiments.studies import (
    STUDIES,
    cost,
    limited_neurons,
    noise,
    time_constants,
    timescales,
)
from hetsyn_triton.experiments.studies.base import Finished, Place
from hetsyn_triton.experiments.studies.statistics import chosen
from hetsyn_triton.experiments.studies.study_settings import make_settings
from hetsyn_triton.experiments.tasks import Batch
from hetsyn_triton.experiments.tasks.seeds import seeded_generator
from hetsyn_triton.experiments.training import Run, TrainConfig
from hetsyn_triton.experiments.training.build import build_network, build_task
from hetsyn_triton.modules import Decay, SpikingNetwork
from hetsyn_triton.timeconstants import decay_to_tau

pytestmark = pytest.mark.usefixtures("echo")
PLACE = Place(Path(), 1)


def done(name: str, task: str | None = "echo", **changes: Any) -> list[Finished]:
    """All cells of a study."""
    seeds = changes.pop("seeds", 1 if task else None)
    settings = make_settings(STUDIES[name], task=task, seeds=seeds, changes=changes)
    study = STUDIES[name](settings)
    return [study.run(cell, PLACE) for cell in study.cells()]


@dataclass
class Test:
    """One call of `tested`."""

    __test__ = False
    run: Run
    change: Any
    stream: tuple[Any, ...]

    def batches(self) -> list[Batch]:
        """What the network would be tested on."""
        seed, stream = self.run.config.seed, ("study", *self.stream)
        return [
            part
            for number, batch in enumerate(self.run.task.batches("test"))
            for part in self.change(batch, seeded_generator(seed, *stream, number))
        ]

    def inputs(self) -> Tensor:
        """Those of all samples, where they are equally long."""
        return torch.cat([batch.input for batch in self.batches()], 1)


@dataclass
class Watch:
    """Takes the place of training and testing, and notes what both are asked for."""

    configs: list[TrainConfig] = field(default_factory=list)
    tests: list[Test] = field(default_factory=list)
    training: Callable[[SpikingNetwork, float], None] = lambda network, dt: None

    def trained(self, config: TrainConfig, name: str, place: Place) -> Run:
        self.configs.append(config)
        task = build_task(config)
        network = build_network(config, task)
        self.training(network, config.dt)
        history = [{"validation_accuracy": 0.5}]
        return Run(place.runs / name, config, task, network, config.epochs, history)

    def tested(self, run: Run, change: Any, *stream: Any, threads: int) -> dict[str, float]:
        self.tests.append(Test(run, change, stream))
        return {"loss": 1.0, "accuracy": 0.5}


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    watch = Watch()
    for module in (noise, timescales, time_constants):
        monkeypatch.setattr(module, "trained", watch.trained)
        monkeypatch.setattr(module, "tested", watch.tested)
    return watch


def test_spikes_are_deleted_and_added_with_the_probability_of_the_row(watch: Watch) -> None:
    levels = [0, 0.5, 1]
    (finished,) = done("noise", models=["hetsyn"], deletion=levels, addition=levels)
    found = {
        (row["noise"], row["level"]): test.inputs()
        for row, test in zip(finished.rows, watch.tests, strict=True)
    }
    whole = next(build_task(watch.configs[0]).batches("test")).input
    spikes, silent = int(whole.sum()), int((1 - whole).sum())
    cases: list[tuple[str, int, int, Callable[[Tensor], Tensor]]] = [
        ("deletion", 0, spikes, lambda x: x > whole),
        ("addition", spikes, spikes + silent, lambda x: x < whole),
    ]
    for kind, least, most, wrong in cases:
        none, half, full = (found[kind, level] for level in levels)
        assert torch.equal(none, whole)
        assert int(full.sum()) == (least if kind == "deletion" else most)
        tolerance = 2 * (most - least) ** 0.5  # four deviations
        assert float(half.sum()) == pytest.approx((least + most) / 2, abs=tolerance)
        assert not wrong(half).any()


def test_all_models_meet_the_same_noise(watch: Watch) -> None:
    one, two = done("noise", models=["hetsyn", "homneu"], deletion=[0.5], addition=[0.5])
    assert [row["noise"] for row in one.rows] == [row["noise"] for row in two.rows]
    half = len(watch.tests) // 2
    for first, second in zip(watch.tests[:half], watch.tests[half:], strict=True):
        assert torch.equal(first.inputs(), second.inputs())


def test_networks_are_trained_again_at_each_background(watch: Watch) -> None:
    finished = done("noise", models=["hetneu"], background=[0, 30, 70], retrain=True)
    trained = [config.options["noise_hz"] for config in watch.configs]
    assert trained == [10, 0, 30, 70]  # first the task's own
    found = [
        (test.run.config.options["noise_hz"], row["level"])
        for test, row in zip(watch.tests[-3:], [f.rows[0] for f in finished[1:]], strict=True)
    ]
    assert found == [(0, 0), (30, 30), (70, 70)]
    assert all(f.rows[0]["noise"] == "background, trained at" for f in finished[1:])


def test_time_is_warped_by_the_factor_of_the_row(watch: Watch) -> None:
    """The task has 8 steps."""
    factors = [-0.5, 0, 0.5, 1]
    finished = done("timescales", models=["homneu"], factors=factors, delays=[1])[0]
    steps = [[len(batch.input) for batch in test.batches()] for test in watch.tests]
    assert steps[:4] == [[6], [8], [11], [16]]
    assert [row["level"] for row in finished.rows] == [*(2.0**f for f in factors), None]
    drawn = steps[4]
    assert len(drawn) > 3
    assert 6 <= min(drawn) < 8 < max(drawn) <= 11
    samples = [batch.input.shape[1] for batch in watch.tests[4].batches()]
    assert sum(samples) == 16


def test_networks_are_trained_for_each_delay_and_time_constant(watch: Watch) -> None:
    done("timescales", models=["hetsyn", "homneu"], factors=[0], delays=[1, 4], homneu_tau=[30])
    own = "uniform(2,10)"
    assert [(c.model, c.options["delay"], c.tau) for c in watch.configs] == [
        ("hetsyn", 2, own), ("homneu", 2, own),
        ("hetsyn", 1, own), ("homneu", 1, own), ("homneu", 1, 30),
        ("hetsyn", 4, own), ("homneu", 4, own), ("homneu", 4, 30),
    ]  # fmt: skip
    lengths = [len(test.inputs()) for test in watch.tests[-6:]]
    assert lengths == [7, 7, 7, 10, 10, 10]


def test_the_part_of_the_row_is_frozen(watch: Watch) -> None:
    finished = done("time-constants", frozen=[0, 0.5, 1], tau=[5])
    for config, one in zip(watch.configs, finished, strict=True):
        values = one.cell.values
        assert (config.model, config.frozen_fraction) == ("hetsyn", values["frozen"])
        assert config.tau == values["tau"]
    networks = watch.tests[::3]  # as they are, then twice reset
    for test, part in zip(networks, (0, 0.5, 1), strict=False):
        decays = decays_of(test.run.network)
        frozen = [0.0 if d.frozen is None else float(d.frozen.double().mean()) for d in decays]
        assert frozen == pytest.approx([part] * len(decays), abs=0.05)


def decays_of(network: SpikingNetwork) -> list[Decay]:
    return [module for module in network.modules() if isinstance(module, Decay)]


def taus_of(network: SpikingNetwork, dt: float) -> Tensor:
    return torch.cat([decay_to_tau(d().detach(), dt).flatten() for d in decays_of(network)])


def with_long_ones(*taus: float) -> Callable[[SpikingNetwork, float], None]:
    """A training that ends with these time constants in the first synapses of each group."""

    def training(network: SpikingNetwork, dt: float) -> None:
        for decay in decays_of(network):
            decay.raw.data.view(-1)[: len(taus)] = torch.exp(-dt / torch.tensor(taus))

    return training


@pytest.mark.parametrize(
    ("task", "taus"),
    [("delayed-match", (690.0, 710.0)), ("echo", (15.0, 21.0))],
    ids=["the paper's 700 ms", "three times the mean of about 6"],
)
def test_what_is_long_by_default(watch: Watch, task: str, taus: tuple[float, float]) -> None:
    watch.training = with_long_ones(*taus)
    finished = done("time-constants", task=task, frozen=[0], tau=["uniform(2,10)"])[0]
    dt = watch.configs[0].dt
    whole, reset = (taus_of(test.run.network, dt) for test in watch.tests[:2])
    changed = (whole != reset).nonzero().flatten()
    torch.testing.assert_close(whole[changed], torch.full((3,), taus[1]), rtol=1e-3, atol=0)
    assert finished.rows[0]["reset_share"] == 3 / len(whole)
    long = [row["beyond_bound_after_share"] * row["synapses"] for row in finished.rows[1:]]
    assert sum(long) == pytest.approx(3)


def test_long_time_constants_become_the_initial_mean_and_as_many_others_do(watch: Watch) -> None:
    watch.training = with_long_ones(60, 80, 90)
    finished = done("time-constants", frozen=[0], bound=70)[0]
    config, row = watch.configs[0], finished.rows[0]
    mean = taus_of(build_network(config, build_task(config)), config.dt).mean()
    whole, reset, other = (taus_of(test.run.network, config.dt) for test in watch.tests[:3])
    long, changed = whole > 70, other != whole
    assert int(long.sum()) == int(changed.sum()) == 6
    assert not (changed & long).any()
    for found, places in ((reset, long), (other, changed)):
        assert torch.equal(found[~places], whole[~places])
        torch.testing.assert_close(found[places], mean.expand(6), rtol=1e-4, atol=0)
    assert row["reset_share"] == row["as_many_reset_share"] == 6 / len(whole)


def test_small_networks_are_of_the_asked_size(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[TrainConfig] = []

    class Recorded:
        def __init__(self, configs: list[TrainConfig], threads: int) -> None:
            assert threads == PLACE.threads
            made.extend(configs)
            self.tasks = [build_task(configs[0])]
            self.diverged: dict[int, str] = {}
            self.seconds_before = 0.0
            self.environments: list[dict[str, Any]] = []
            self.count = len(configs)

        def fit(self, checkpoint: Path) -> None:
            pass

        def measure_split(self, split: str) -> list[dict[str, float]]:
            return [{"accuracy": 1.0}] * self.count

    monkeypatch.setattr(limited_neurons, "Replicas", Recorded)
    done("limited-neurons", sizes=[3, 4], models=["hetsyn", "hetneu"], equal=["neurons"], seeds=2)
    assert [(c.recurrent, c.hidden, c.model, c.seed) for c in made] == [
        (recurrent, (size,), model, seed)
        for recurrent in (True, False)
        for size in (3, 4)
        for model in ("hetsyn", "hetneu")
        for seed in (0, 1)
    ]


def test_the_asked_training_step_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    timed, weighed = [], []

    def training_step(load: cost.Load) -> Any:
        timed.append(load)
        return (lambda: None), None, None

    def in_a_process(measured: Any, load: cost.Load, threads: int) -> dict[str, float]:
        weighed.append((load, threads))
        return {"peak_mb": 2.0, "kept_mb": 1.0}

    monkeypatch.setattr(cost, "training_step", training_step)
    monkeypatch.setattr(cost, "in_a_process", in_a_process)
    changes: dict[str, Any] = {"inputs": 5, "steps": 6, "samples": 2, "rounds": 3, "threads": 1}
    finished = done("cost", None, sizes=[4, 7], models=["hetsyn", "homneu"], **changes)
    rows = [row for one in finished for row in one.rows]
    for row, load in zip(rows, timed, strict=True):
        recurrent = row["form"] == "recurrent"
        assert load == (row["model"], recurrent, row["neurons"], 5, 6, 2)
    assert weighed == [(load, 1) for load in timed]
    assert len(chosen(rows, form="recurrent", neurons=7)) == 2
