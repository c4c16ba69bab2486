"""What the studies measure and choose: the right level, the better one, the asked control."""

from pathlib import Path
from typing import Any

import pytest

from hetsyn_triton.studies import STUDIES, run_study
from hetsyn_triton.studies.base import Place
from hetsyn_triton.studies.limited_neurons import LimitedNeurons
from hetsyn_triton.studies.settings import make_settings
from hetsyn_triton.studies.timescales import Timescales
from hetsyn_triton.training import load_run

PLACE = Place(Path(), 1)


def of(delay: int, tau: float | None, **score: float) -> dict[str, Any]:
    return {"change": "delay", "model": "homneu", "level": delay, "tau": tau, **score}


@pytest.mark.usefixtures("echo")
def test_the_best_time_constant_is_the_one_with_the_highest_accuracy() -> None:
    study = Timescales(make_settings(STUDIES["timescales"], task="echo"))
    taus = {1: {30.0: 0.5, 60.0: 0.9, 90.0: 0.7}, 4: {30.0: 0.8, 60.0: 0.6, 90.0: 0.7}}
    table = [of(d, tau, accuracy=a) for d, found in taus.items() for tau, a in found.items()]
    table += [of(1, None, accuracy=1.0), {**of(4, 30.0, accuracy=1.0), "model": "hetsyn"}]
    assert {row["level"]: row["tau"] for row in study._best(table)} == {1: 60.0, 4: 30.0}


def test_the_best_time_constant_is_the_one_with_the_lowest_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Timescales, "score", "loss")
    study = Timescales(make_settings(STUDIES["timescales"]))
    table = [of(1, 30.0, loss=0.5), of(1, 60.0, loss=0.2), of(1, 90.0, loss=0.3)]
    assert [row["tau"] for row in study._best(table)] == [60.0]


@pytest.mark.usefixtures("echo")
def test_exempt_decays_have_no_weight_decay(tmp_path: Path) -> None:
    run_study(
        "time-constants", task="echo", seeds=1, jobs=1, frozen=[0], weight_decay=0.1, out=tmp_path
    )
    found = {}
    for control in ("as-weights", "exempt"):
        run = load_run(tmp_path / "runs" / f"{control}-frozen-0-s0")
        assert run.config.weight_decay == 0.1
        found[control] = run
    assert found["as-weights"].config.decay_weight_decay in (None, 0.1)
    assert found["exempt"].config.decay_weight_decay == 0
    decays = {name: run.network.layers[0].decay() for name, run in found.items()}
    assert decays["exempt"].mean() > decays["as-weights"].mean()


@pytest.mark.usefixtures("echo")
def test_background_is_tested_at_the_asked_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hetsyn_triton.studies import noise

    tested, rates = noise.tested, []

    def noted(run: Any, change: Any, *stream: Any, threads: int) -> dict[str, float]:
        if change is noise.as_it_is:
            spikes = run.task.splits["test"].values[:, 2:-2]  # between the bursts
            rates.append(1000 * float(spikes.mean()))
        return tested(run, change, *stream, threads=threads)

    monkeypatch.setattr(noise, "tested", noted)
    run_study(
        "noise", task="echo", seeds=1, jobs=1, models=["hetsyn"], deletion=[0], addition=[0],
        background=[0, 20, 100], out=tmp_path,
    )  # fmt: skip
    assert rates[0] == 0
    assert rates[1] == pytest.approx(20, abs=20)
    assert rates[2] == pytest.approx(100, abs=35)
    assert rates[1] > 0


@pytest.mark.usefixtures("echo")
def test_success_is_ninety_per_cent(monkeypatch: pytest.MonkeyPatch) -> None:
    from hetsyn_triton.studies.replicas import Replicas

    accuracies = [0.5, 0.89, 0.9, 1.0]
    monkeypatch.setattr(Replicas, "fit", lambda self, checkpoint: None)
    monkeypatch.setattr(
        Replicas, "measure_split", lambda self, split: [{"accuracy": a} for a in accuracies]
    )
    changes = {"sizes": [2], "models": ["hetsyn"], "forms": ["recurrent"], "equal": ["neurons"]}
    study = LimitedNeurons(
        make_settings(STUDIES["limited-neurons"], task="echo", seeds=4, changes=changes)
    )
    (cell,) = study.cells()
    finished = study.run(cell, PLACE)
    assert [row["success"] for row in finished.rows] == [0, 0, 1, 1]
    (line,) = study.table([finished])
    assert line["success"] == 0.5
