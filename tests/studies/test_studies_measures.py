"""What the studies measure and choose: the right level, the better one, the asked control."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hetsyn_triton.experiments.studies import STUDIES, run_study
from hetsyn_triton.experiments.studies.base import Cell, Finished, Place
from hetsyn_triton.experiments.studies.cost import Cost
from hetsyn_triton.experiments.studies.limited_neurons import LimitedNeurons
from hetsyn_triton.experiments.studies.statistics import chosen, mark_best
from hetsyn_triton.experiments.studies.study_settings import make_settings
from hetsyn_triton.experiments.studies.timescales import Timescales
from hetsyn_triton.experiments.tasks import TASKS
from hetsyn_triton.experiments.training import load_run

PLACE = Place(Path(), 1)


def of(delay: int, tau: float | None, **scores: float | None) -> dict[str, Any]:
    return {"change": "delay", "model": "homneu", "level": delay, "tau": tau, **scores}


def timescales(**settings: Any) -> Timescales:
    return Timescales(make_settings(STUDIES["timescales"], **settings))


def choice(rows: list[dict[str, Any]]) -> dict[int, list[float | None]]:
    taken = [row for row in rows if row["chosen"]]
    return {d: [r["tau"] for r in taken if r["level"] == d] for d in {r["level"] for r in rows}}


@pytest.mark.usefixtures("echo")
def test_the_time_constant_is_chosen_by_the_highest_held_out_accuracy() -> None:
    """Not by the test; the task's own is among the candidates and wins a draw."""
    held_out = {1: {None: 0.7, 30.0: 0.5, 60.0: 0.9}, 4: {None: 0.8, 30.0: 0.8, 60.0: 0.6},
                9: {None: 0.9, 30.0: 0.1, 60.0: 0.2}}  # fmt: skip
    rows = [
        of(delay, tau, accuracy=1 - value, validation_accuracy=value)
        for delay, found in held_out.items() for tau, value in found.items()
    ]  # fmt: skip
    for delay in held_out:
        mark_best(chosen(rows, level=delay), "validation_accuracy", falls=False)
    assert choice(rows) == {1: [60.0], 4: [None], 9: [None]}


def test_the_time_constant_is_chosen_by_the_lowest_held_out_loss() -> None:
    rows = [of(1, t, validation_loss=v) for t, v in ((None, 0.5), (60.0, 0.2), (90.0, 0.3))]
    mark_best(rows, "validation_loss", falls=True)
    assert choice(rows) == {1: [60.0]}


@pytest.mark.parametrize("falls", [False, True])
@pytest.mark.usefixtures("echo")
def test_timescales_knows_which_score_is_better(
    falls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Timescales, "score", "loss" if falls else "accuracy")
    score = f"validation_{Timescales.score}"
    rows = [
        {**of(1, tau, accuracy=0.5, loss=0.5, **{score: value}), "seed": 0}
        for tau, value in ((None, 0.5), (60.0, 0.2), (90.0, 0.8))
    ]
    study = timescales(task="echo")
    table = study.table([Finished(Cell("one", {}), rows)])
    assert choice(chosen(table, change="delay")) == {1: [60.0 if falls else 90.0]}


@pytest.mark.usefixtures("echo")
def test_the_table_says_which_time_constant_was_chosen_and_why(tmp_path: Path) -> None:
    result = run_study(
        "timescales", task="echo", seeds=2, jobs=1, models=["hetsyn", "homneu"], factors=[0],
        delays=[1, 4], homneu_tau=[30], out=tmp_path,
    )  # fmt: skip
    for delay in (1, 4):
        rows = chosen(result.table, change="delay", level=delay, model="homneu")
        for row, tau in zip(rows, (None, 30), strict=True):
            ending = f"-delay-{delay}" + (f"-tau-{tau}" if tau else "")
            runs = [load_run(tmp_path / "runs" / f"homneu-s{seed}{ending}") for seed in (0, 1)]
            scores = [run.history[-1]["validation_accuracy"] for run in runs]
            assert row["validation_accuracy"] == sum(scores) / 2
        best = max(rows, key=lambda row: row["validation_accuracy"])
        assert [row["chosen"] for row in rows] == [row is best for row in rows]
    (other,) = chosen(result.table, change="delay", level=1, model="hetsyn")
    assert "chosen" not in other
    assert other["validation_accuracy"] is not None


@pytest.mark.usefixtures("echo")
def test_the_chosen_time_constant_is_drawn_over_delays() -> None:
    study = timescales(task="echo", changes={"models": ["homneu"]})
    found = {(4, None): 0.9, (1, 30.0): 0.8, (9, 60.0): 0.7}
    table = [
        of(delay, tau, accuracy=value, accuracy_deviation=None) | {"chosen": True, "seeds": 2}
        for (delay, tau), value in found.items()
    ]
    (axes,) = study.draw(table, []).axes
    (line,) = (one for one in axes.lines if one.get_label() == "homneu, time constant chosen")
    assert np.asarray(line.get_xdata()).tolist() == [1, 4, 9]
    assert np.asarray(line.get_ydata()).tolist() == [0.8, 0.9, 0.7]


@pytest.mark.usefixtures("echo")
def test_a_time_constant_is_not_chosen_without_held_out_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    echo = TASKS["echo"]
    whole = echo.load  # type: ignore[attr-defined]
    monkeypatch.setattr(
        echo, "load", lambda self: {s: v for s, v in whole(self).items() if s != "validation"}
    )
    changes: dict[str, Any] = {"factors": [0], "delays": [1], "homneu_tau": [30]}
    result = run_study(
        "timescales", task="echo", seeds=1, jobs=1, models=["hetsyn", "homneu"], out=tmp_path,
        **changes,
    )  # fmt: skip
    assert set(result.failures) == {"homneu-s0-delay-1", "homneu-s0-delay-1-tau-30"}
    assert "expected held-out samples" in result.failures["homneu-s0-delay-1"]
    assert not (tmp_path / "runs" / "homneu-s0-delay-1").exists()  # before any work
    assert len(chosen(result.table, change="delay")) == 1


@pytest.mark.usefixtures("echo")
def test_background_is_tested_at_the_asked_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hetsyn_triton.experiments.studies import noise
    from hetsyn_triton.experiments.studies.measuring import as_it_is, tested

    rates = []

    def noted(run: Any, change: Any, *stream: Any, threads: int) -> dict[str, float]:
        if change is as_it_is:
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
    from hetsyn_triton.experiments.studies.replicas import Replicas

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


def test_a_cost_is_divided_by_that_of_homneu_at_the_same_size_and_form() -> None:
    """Each measure has its own ratio; one that is missing has none."""
    measured = {
        ("recurrent", 32): {"homneu": 2.0, "hetneu": 3.0, "hetsyn": 8.0},
        ("recurrent", 64): {"homneu": 4.0, "hetneu": 5.0, "hetsyn": 12.0},
        ("feedforward", 32): {"hetsyn": 5.0, "homneu": 10.0},
    }
    done = [
        Finished(Cell(f"{form}-{neurons}", {}), [
            {"form": form, "neurons": neurons, "model": model, "step_ms": value,
             "parameters": value**2, "kept_mb": value**3, "peak_mb": None}
            for model, value in values.items()
        ])
        for (form, neurons), values in measured.items()
    ]  # fmt: skip
    table = Cost(make_settings(STUDIES["cost"])).table(done)
    ratios = [1.0, 1.5, 4.0, 1.0, 1.25, 3.0, 0.5, 1.0]
    for power, name in enumerate(("step_ms", "parameters", "kept_mb"), 1):
        assert [row[f"{name}_of_homneu"] for row in table] == [ratio**power for ratio in ratios]
    assert not any("peak_mb_of_homneu" in row for row in table)
