"""Each study from end to end at toy size, and what holds for all: resuming, refusing, failing."""

import csv
import json
import math
import multiprocessing
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib import image

from hetsyn_triton.experiments.cli.commands import run as command
from hetsyn_triton.experiments.studies import STUDIES, StudyResult, networks, replicas, run_study
from hetsyn_triton.experiments.studies.base import Cell, Finished, Place, Study
from hetsyn_triton.experiments.studies.limited_neurons import LimitedNeurons
from hetsyn_triton.experiments.studies.replica_checkpoint import FORMAT
from hetsyn_triton.experiments.studies.replicas import Replicas
from hetsyn_triton.experiments.studies.runner import StudyReporter
from hetsyn_triton.experiments.studies.statistics import chosen
from hetsyn_triton.experiments.studies.study_folder import read_cell
from hetsyn_triton.experiments.studies.study_settings import SMALL_TRAINING, cores, make_settings
from hetsyn_triton.experiments.studies.variants import Variants
from hetsyn_triton.experiments.studies.workers import work_through
from hetsyn_triton.experiments.tasks import TASKS, DataError
from hetsyn_triton.experiments.training import ConfigError, RunFolderError, load_run
from hetsyn_triton.experiments.training.checkpoint import read_values, save_values
from hetsyn_triton.experiments.training.claim import claim_folder
from hetsyn_triton.experiments.training.machine import cpu_name
from hetsyn_triton.experiments.training.trainer import Trainer
from tests.support.idx_files import idx_bytes
from tests.support.layer_cases import first_layer
from tests.support.terminal_tables import check_whole, on_the_terminal

TOYS: dict[str, dict[str, Any]] = {
    "variants": {},
    "limited-neurons": {"sizes": [2, 5], "together": 2, "seeds": 3},
    "noise": {"deletion": [0, 0.5], "addition": [0, 0.1], "background": [0, 50], "retrain": True},
    "timescales": {"factors": [-0.5, 0, 0.5], "delays": [1, 4], "homneu_tau": [30, 60]},
    "time-constants": {"frozen": [0, 1], "bound": 9, "weight_decay": 0.1},
    "cost": {"sizes": [4], "inputs": 5, "steps": 6, "samples": 2, "rounds": 3, "threads": 1},
}


BLOCKS = {"variants": 2, "limited-neurons": 4, "noise": 4, "timescales": 2, "time-constants": 2,
          "cost": 1}  # fmt: skip


def toy(name: str, out: Path, **changes: Any) -> StudyResult:
    settings: dict[str, Any] = {"seeds": 2, "jobs": 1, **TOYS[name], **changes}
    if name == "cost":
        settings.pop("seeds")
        settings |= {"models": ["hetsyn", "homneu"], "forms": ["recurrent"]}
    else:
        settings["task"] = "echo"
    return run_study(name, out=out, **settings)


@contextmanager
def stopped_in_a_run(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A run that is trained within is stopped after its first epoch, as by Ctrl-C."""
    epoch = Trainer._epoch

    def stop_after_one(self: Trainer, *arguments: Any) -> Any:
        if self.epoch == 1:
            raise KeyboardInterrupt
        return epoch(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_epoch", stop_after_one)
        yield


def test_every_study_has_a_toy() -> None:
    assert set(TOYS) == set(STUDIES)
    assert set(SMALL_TRAINING) <= set(TASKS)


@pytest.mark.usefixtures("echo")
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "cost" else n for n in TOYS]
)
def test_a_study_from_end_to_end(name: str, tmp_path: Path) -> None:
    result = toy(name, tmp_path / "study")
    assert result.failures == {}
    assert result.table
    stored = json.loads((tmp_path / "study" / "table.json").read_text())
    assert stored["table"] == result.table
    assert stored["rows"] == result.rows
    assert stored["size"].startswith("SMALL: ")
    assert (" --seeds " in stored["command"]) == (name != "cost")
    assert all(line["size"] == "small" for line in result.table)
    for part in ("date", "cpu", "torch", "python", "threads"):
        (environment,) = stored["environments"]
        assert environment[part]
    for file, lines in (("table.csv", result.table), ("rows.csv", result.rows)):
        with open(tmp_path / "study" / file, newline="") as opened:
            read = list(csv.DictReader(opened))
        assert len(read) == len(lines)
        for column, value in lines[0].items():
            assert read[0][column] == ("" if value is None else str(value))
    study = STUDIES[name](result.settings)
    shown = on_the_terminal(study, result.table, 250)
    shown_rows = [line for line in shown.splitlines() if line.startswith("│ ")]
    assert len(shown_rows) == len(result.table)  # no cell is broken
    assert shown.count("┡") == BLOCKS[name]
    for width in (60, 80):
        assert len(check_whole(study, result.table, width)) == BLOCKS[name]
    picture = image.imread(tmp_path / "study" / "picture.png")
    assert min(picture.shape[:2]) > 400
    assert picture[..., :3].std() > 0.05


@pytest.mark.usefixtures("echo")
def test_the_rows_are_the_runs(tmp_path: Path) -> None:
    result = toy("variants", tmp_path, models=["hetneu"], forms=["feedforward"])
    (line,) = result.table
    assert line["seeds"] == 2
    accuracies = []
    for seed in range(2):
        run = load_run(tmp_path / "runs" / f"hetneu-feedforward-s{seed}")
        assert (run.config.model, run.config.recurrent, run.config.seed) == ("hetneu", False, seed)
        summary = json.loads((run.path / "summary.json").read_text())
        accuracies.append(summary["test"]["accuracy"])
        assert line["parameters"] == summary["parameters"]
    assert line["accuracy"] == sum(accuracies) / 2
    assert "accuracy_validation_selected" in line


class Counted(StudyReporter):
    def __init__(self) -> None:
        self.cells: list[str] = []

    def begun(self, cell: Cell) -> None:
        self.cells.append(cell.name)


@pytest.mark.usefixtures("echo")
def test_a_second_start_does_what_is_missing(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"models": ["hetsyn", "homneu"], "forms": ["recurrent"]}
    first = toy("variants", tmp_path, **changes)
    cells = tmp_path / "cells"
    (cells / "homneu-recurrent-s1.json").unlink()
    (cells / ".half.json.0.hetsyn-partial").write_text("{")
    again = Counted()
    second = toy("variants", tmp_path, **changes, reporter=again)
    assert again.cells == ["homneu-recurrent-s1"]
    assert second.table == first.table  # the run folder was whole: nothing was trained again
    assert not list(cells.glob(".*"))


@pytest.mark.usefixtures("echo")
def test_machine_and_date_are_those_of_the_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machines that trained its networks, by date, whichever wrote its file; time is that of
    the cells, with what a process that was cut off had trained."""
    changes: dict[str, Any] = {"models": ["hetsyn"], "forms": ["recurrent"]}
    on = partial(monkeypatch.setattr, "hetsyn_triton.experiments.training.machine.cpu_name")

    def again(seeds: int) -> Any:
        toy("variants", tmp_path, seeds=seeds, **changes)
        stored = json.loads((tmp_path / "table.json").read_text())
        return [e["cpu"] for e in stored["environments"]], stored["seconds"]

    on(lambda: "one")
    cpus, seconds = again(1)
    assert cpus == ["one"]
    on(lambda: "two")
    assert again(1) == (["one"], seconds)
    assert again(2)[0] == ["one", "two"]
    cell, trained = tmp_path / "cells/hetsyn-recurrent-s0.json", tmp_path / "runs"
    history = load_run(trained / "hetsyn-recurrent-s0").history
    took = sum(record["seconds"] for record in history)
    assert networks._seconds_trained(trained / "hetsyn-recurrent-s0") == took > 0
    monkeypatch.setattr(networks, "_seconds_trained", lambda folder: 1000.5)
    on(lambda: "three")
    cell.unlink()
    assert again(2)[0] == ["one", "two"]  # the third only read the run
    assert 1000.5 <= json.loads(cell.read_text())["seconds"] < 1100
    stored = json.loads(cell.read_text())
    stored["environments"][0]["date"] = "9999-01-01"
    cell.write_text(json.dumps(stored))
    assert again(2)[0] == ["two", "one"]


@pytest.mark.usefixtures("echo")
def test_what_was_done_before_machines_were_recorded_stays(tmp_path: Path) -> None:
    """A cell without them is whole; of a run that began without them the rest is known."""
    changes: dict[str, Any] = {"models": ["hetsyn"], "forms": ["recurrent"], "seeds": 1}
    toy("variants", tmp_path, **changes)
    cell = tmp_path / "cells/hetsyn-recurrent-s0.json"
    stored = json.loads(cell.read_text())
    (known,) = stored.pop("environments")
    cell.write_text(json.dumps(stored))

    def environments() -> Any:
        again = Counted()
        toy("variants", tmp_path, **changes, reporter=again)
        assert len(again.cells) == (not kept)
        return json.loads((tmp_path / "table.json").read_text())["environments"]

    kept = True
    assert environments() == [{}]
    path, kept = tmp_path / "runs/hetsyn-recurrent-s0/summary.json", False
    summary = json.loads(path.read_text())
    for sessions, wanted in (
        ([], [{}]),
        ([{**known, "step": 3}], [{}, known]),
        ([{**known, "step": 0}, {**known, "cpu": "other", "step": 3}],
         [known, {**known, "cpu": "other"}]),
    ):  # fmt: skip
        path.write_text(json.dumps({**summary, "sessions": sessions}))
        cell.unlink()
        assert environments() == wanted


@pytest.mark.usefixtures("echo")
def test_a_study_is_given_more_seeds(tmp_path: Path) -> None:
    """What is there stays as it is, and the tables are those of all seeds at once."""
    changes: dict[str, Any] = {"models": ["hetsyn", "homneu"], "forms": ["recurrent"]}
    whole = toy("variants", tmp_path / "whole", **changes, seeds=3)
    toy("variants", tmp_path / "more", **changes, seeds=1)
    (tmp_path / "more" / "cells" / "homneu-recurrent-s0.json").unlink()  # as if cut off
    kept = (tmp_path / "more" / "cells" / "hetsyn-recurrent-s0.json").stat().st_mtime_ns
    again = Counted()
    more = toy("variants", tmp_path / "more", **changes, seeds=3, reporter=again)
    assert sorted(again.cells) == [
        "hetsyn-recurrent-s1", "hetsyn-recurrent-s2",
        "homneu-recurrent-s0", "homneu-recurrent-s1", "homneu-recurrent-s2",
    ]  # fmt: skip
    assert (tmp_path / "more/cells/hetsyn-recurrent-s0.json").stat().st_mtime_ns == kept
    assert (more.rows, more.table) == (whole.rows, whole.table)
    again = Counted()
    toy("variants", tmp_path / "more", **changes, seeds=3, reporter=again)
    assert again.cells == []
    for other, message in (
        ({"seeds": 2}, r"seeds is 3 in the folder and 2 in this call. A study can get more"),
        ({"seeds": 4, "lr": 0.5}, r"lr is not set in the folder and 0.5 in this call. A study"),
    ):
        with pytest.raises(RunFolderError, match=message):
            toy("variants", tmp_path / "more", **{**changes, **other})
    assert json.loads((tmp_path / "more" / "study.json").read_text())["seeds"] == 3


@pytest.mark.usefixtures("echo")
def test_networks_that_train_together_are_joined_by_more(tmp_path: Path) -> None:
    """The first ones keep their cells, also those that are not finished."""
    changes: dict[str, Any] = {"models": ["hetsyn"], "forms": ["recurrent"], "equal": ["neurons"]}
    changes |= {"sizes": [2, 3], "together": 2}
    toy("limited-neurons", tmp_path, **changes, seeds=1)
    cells = tmp_path / "cells"
    (cells / "hetsyn-recurrent-2-s0-0.json").unlink()
    for seeds, names in ((4, ["2-s0-0", "2-s1-2", "3-s1-2", "2-s3-3", "3-s3-3"]),
                         (4, []), (5, ["2-s4-4", "3-s4-4"])):  # fmt: skip
        again = Counted()
        more = toy("limited-neurons", tmp_path, **changes, seeds=seeds, reporter=again)
        assert again.cells == [f"hetsyn-recurrent-{name}" for name in names]
        assert [line["seeds"] for line in more.table] == [seeds, seeds]
        size = STUDIES["limited-neurons"](more.settings).sizes_in_words()
        assert size.startswith(f"SMALL: {seeds} seeds")
    whole = toy("limited-neurons", tmp_path / "whole", **changes, seeds=5)
    assert more.table == whole.table  # replicas do not see each other
    stored = json.loads((tmp_path / "study.json").read_text())
    assert (stored["seeds"], stored["seeds_before"]) == (5, [1, 4])
    for before in ([4, 1], [5], ["1"], 7):
        (tmp_path / "study.json").write_text(json.dumps({**stored, "seeds_before": before}))
        with pytest.raises(RunFolderError, match=r"json is damaged: seeds_before: .*another"):
            toy("limited-neurons", tmp_path, **changes, seeds=5)


@pytest.mark.usefixtures("echo")
def test_a_cell_goes_on_with_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study stopped in the middle of a run ends with the numbers of one never stopped."""
    changes: dict[str, Any] = {"models": ["hetsyn"], "forms": ["recurrent"]}
    changes |= {"seeds": 1, "epochs": 3}
    whole = toy("variants", tmp_path / "whole", **changes)
    with stopped_in_a_run(monkeypatch), pytest.raises(KeyboardInterrupt):
        toy("variants", tmp_path / "cut", **changes)
    assert not (tmp_path / "cut" / "table.json").exists()
    assert toy("variants", tmp_path / "cut", **changes).table == whole.table


@pytest.mark.usefixtures("echo")
def test_networks_that_train_together_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cell stopped in the middle does the steps that are missing, and ends the same; so does one
    whose file is lost."""
    changes: dict[str, Any] = {"epochs": 2, "sizes": [3], "models": ["hetsyn", "homneu"]}
    changes |= {"forms": ["recurrent"], "equal": ["neurons"], "seeds": 2}
    whole = toy("limited-neurons", tmp_path / "whole", **changes)
    monkeypatch.setattr(replicas, "CHECKPOINT_SECONDS", -1.0)
    real, steps, stop = Replicas.train_on, [], 4

    def train_on(self: Replicas, batches: Any) -> Any:
        if self.step == stop:
            raise KeyboardInterrupt
        steps.append((self.config.model, self.step))
        return real(self, batches)

    monkeypatch.setattr(Replicas, "train_on", train_on)
    cut = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        toy("limited-neurons", cut, **changes)
    (cut / "runs" / ".half.pt.0.hetsyn-partial").write_text("{")
    monkeypatch.setattr("hetsyn_triton.experiments.training.machine.cpu_name", lambda: "another")
    steps, stop = [], 6
    result = toy("limited-neurons", cut, **changes)
    assert steps == [("hetsyn", 4), ("hetsyn", 5), *(("homneu", n) for n in range(6))]
    assert (result.rows, result.table) == (whole.rows, whole.table)
    cell, of_homneu = (cut / f"cells/{m}-recurrent-3-s0-1.json" for m in ("hetsyn", "homneu"))
    cpus = [[e["cpu"] for e in json.loads(path.read_text())["environments"]]
            for path in (cell, of_homneu)]  # fmt: skip
    assert cpus == [[cpu_name(), "another"], ["another"]]
    cell.unlink()
    checkpoint = cut / "runs" / "hetsyn-recurrent-3-s0-1.pt"
    values = read_values(checkpoint, FORMAT, torch.device("cpu"))
    save_values(checkpoint, FORMAT, {**values, "seconds": 1000.5})
    assert toy("limited-neurons", cut, **changes).rows == whole.rows
    assert len(steps) == 8
    again = json.loads(cell.read_text())
    assert [e["cpu"] for e in again["environments"]] == cpus[0]
    assert 1000.5 <= again["seconds"] < 1100
    names = [f"{model}-recurrent-3-s0-1.pt" for model in ("hetsyn", "homneu")]
    assert sorted(path.name for path in (cut / "runs").iterdir()) == names


@pytest.mark.usefixtures("echo")
def test_a_failing_cell_is_named_and_loses_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Variants.run

    def sometimes(self: Variants, cell: Cell, place: Place) -> Finished:
        if cell.values["model"] == "hetneu":
            raise ArithmeticError("left the numbers\nin the second line")
        return real(self, cell, place)

    monkeypatch.setattr(Variants, "run", sometimes)
    changes: dict[str, Any] = {"forms": ["recurrent"], "seeds": 1}
    result = toy("variants", tmp_path, **changes)
    assert result.failures == {"hetneu-recurrent-s0": "ArithmeticError: left the numbers"}
    assert [line["model"] for line in result.table] == ["hetsyn", "homneu", "homneu-adaptive"]
    assert json.loads((tmp_path / "table.json").read_text())["failures"] == result.failures
    monkeypatch.setattr(Variants, "run", real)
    mended = toy("variants", tmp_path, **changes)
    assert mended.failures == {}
    assert len(mended.table) == 4


@pytest.mark.usefixtures("echo")
def test_a_diverged_network_is_one_failure_of_its_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named, has no accuracy, is no success, and the others are as they were."""
    changes: dict[str, Any] = {"together": 3, "sizes": [3], "equal": ["neurons"]}
    whole = toy("limited-neurons", tmp_path / "whole", **changes)
    real = Replicas.train_on

    def train_on(self: Replicas, batches: Any) -> Any:
        if self.step == 1 and self.config.model in ("hetsyn", "homneu"):
            lost = range(3) if self.config.model == "homneu" else [1]
            for replica in lost:
                first_layer(self.network).weight.data[replica] = math.nan
        return real(self, batches)

    monkeypatch.setattr(Replicas, "train_on", train_on)
    lost = toy("limited-neurons", tmp_path / "lost", **changes)
    assert lost.failures == {}
    for row, wanted in zip(lost.rows, whole.rows, strict=True):
        if row["model"] == "homneu" or (row["model"], row["seed"]) == ("hetsyn", 1):
            assert "layers.0.weight is not finite at step 2" in row["diverged"]
            assert (row["accuracy"], row["success"]) == (None, 0)
        else:
            assert row == wanted
            assert row["diverged"] is None
    for line, wanted in zip(lost.table, whole.table, strict=True):
        mine = [row for row in lost.rows if chosen([row], model=line["model"], form=line["form"])]
        assert line["seeds"] == 3
        assert line["success"] == sum(row["success"] for row in mine) / 3
        assert line["diverged"] == {"hetsyn": 1, "homneu": 3}.get(line["model"], 0)
        if line["model"] == "hetsyn":
            assert line["accuracy"] == (mine[0]["accuracy"] + mine[2]["accuracy"]) / 2
        elif line["model"] == "homneu":
            assert line["accuracy"] is None
        else:
            assert line == wanted


@pytest.mark.usefixtures("echo")
def test_labels_count_the_networks_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here a cell of two seeds fails for one model, and one network of the other diverges."""
    real = LimitedNeurons.run

    def sometimes(self: LimitedNeurons, cell: Cell, place: Place) -> Finished:
        if cell.values["model"] == "homneu" and cell.values["seeds"] == [0, 1]:
            raise ArithmeticError("no")
        finished = real(self, cell, place)
        if cell.values["model"] == "hetsyn" and cell.values["seeds"] == [2]:
            finished.rows[0].update(accuracy=None, success=0.0, diverged="at step 7")
        return finished

    monkeypatch.setattr(LimitedNeurons, "run", sometimes)
    changes: dict[str, Any] = {"sizes": [2], "models": ["hetsyn", "homneu"]}
    changes |= {"forms": ["recurrent"], "equal": ["neurons"]}
    labels: list[str] = []
    draw = LimitedNeurons.draw

    def drawn(self: LimitedNeurons, *arguments: Any) -> Any:
        figure = draw(self, *arguments)
        labels.extend(axes.get_ylabel() for axes in figure.axes)
        return figure

    monkeypatch.setattr(LimitedNeurons, "draw", drawn)
    result = toy("limited-neurons", tmp_path, **changes)
    assert len(result.failures) == 1
    assert labels == [
        "accuracy\n(mean ± deviation of 1 to 2 seeds)",
        "success (1 to 3 seeds)\n(≥ 90% correct; 1 diverged: failures)",
    ]


@pytest.mark.usefixtures("echo")
@pytest.mark.parametrize(
    ("name", "changes", "lost"),
    [
        ("variants", {}, {"model": "hetneu"}),
        ("noise", {}, {"model": "hetneu"}),
        ("timescales", {"models": ["hetsyn", "hetneu"]}, {"model": "hetneu"}),
        ("time-constants", {}, {"weight_decay": "exempt"}),
    ],
)
def test_labels_count_the_seeds_there_are(
    name: str,
    changes: dict[str, Any],
    lost: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Here the second seed fails for some of the networks."""
    study = STUDIES[name]
    labels: list[str] = []
    run, draw = study.run, study.draw

    def sometimes(self: Study, cell: Cell, place: Place) -> Finished:
        if cell.values["seed"] == 1 and lost.items() <= cell.values.items():
            raise ArithmeticError("no")
        return run(self, cell, place)

    def drawn(self: Study, *arguments: Any) -> Any:
        figure = draw(self, *arguments)
        labels.extend(axes.get_ylabel() for axes in figure.axes)
        return figure

    monkeypatch.setattr(study, "run", sometimes)
    monkeypatch.setattr(study, "draw", drawn)
    result = toy(name, tmp_path, **changes)
    assert result.failures
    assert "accuracy\n(mean ± deviation of 1 to 2 seeds)" in labels


@pytest.mark.usefixtures("echo")
def test_a_study_goes_on_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With other threads: a run in the middle, too, and one of a GPU that is not here."""
    changes: dict[str, Any] = {"models": ["hetsyn"], "forms": ["recurrent"], "epochs": 2}
    whole = toy("variants", tmp_path / "whole", **changes)
    out = tmp_path / "study"
    with stopped_in_a_run(monkeypatch), pytest.raises(KeyboardInterrupt):
        toy("variants", out, **changes, seeds=1, threads=1)
    assert toy("variants", out, **changes, threads=2).table == whole.table
    assert json.loads((out / "study.json").read_text())["changes"]["threads"] == 2
    for seed, used in ((0, [1, 2]), (1, [2])):
        summary = json.loads((out / f"runs/hetsyn-recurrent-s{seed}/summary.json").read_text())
        assert [session["threads"] for session in summary["sessions"]] == used
    (out / "cells/hetsyn-recurrent-s0.json").unlink()
    path = out / "runs/hetsyn-recurrent-s0/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "device": "cuda"}))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert toy("variants", out, **changes, threads=2).table == whole.table


def test_a_study_finds_its_data_where_it_is_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which its complete runs and one in the middle are told."""
    changes: dict[str, Any] = {"task": "idx", "models": ["homneu"], "classes": 10}
    changes |= {"epochs": 2, "hidden": (3,), "jobs": 1, "out": tmp_path / "study"}
    here = tmp_path / "here"
    here.mkdir()
    for part in ("train", "t10k"):
        labels = torch.arange(20) % 10
        (here / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
        images = 20 * labels.view(20, 1, 1).expand(20, 3, 4)
        (here / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(images))
    first = run_study("noise", data_dir=str(here), seeds=1, **changes)
    with stopped_in_a_run(monkeypatch), pytest.raises(KeyboardInterrupt):
        run_study("noise", data_dir=str(here), seeds=2, **changes)
    there = here.rename(tmp_path / "there")
    again = run_study("noise", data_dir=str(there), seeds=2, **changes)
    assert again.failures == {}
    assert [row for row in again.rows if row["seed"] == 0] == first.rows
    (tmp_path / "study/cells/homneu-s0.json").unlink()  # its run is only read
    assert run_study("noise", data_dir=str(there), seeds=2, **changes).rows == again.rows


@pytest.mark.usefixtures("echo")
def test_a_study_from_before_an_option_goes_on(tmp_path: Path) -> None:
    """It had the option's default; another value is another study."""
    changes: dict[str, Any] = {"models": ["homneu"], "forms": ["recurrent"], "seeds": 1}
    first = toy("variants", tmp_path, **changes)
    stored = json.loads((tmp_path / "study.json").read_text())
    for name in ("sizes", "equal", "homneu_tau"):
        del stored["options"][name]
    (tmp_path / "study.json").write_text(json.dumps(stored))
    again = Counted()
    assert toy("variants", tmp_path, **changes, reporter=again).table == first.table
    assert again.cells == []
    del stored["options"]["models"]
    (tmp_path / "study.json").write_text(json.dumps(stored))
    with pytest.raises(RunFolderError, match="models is"):
        toy("variants", tmp_path, **changes)


@pytest.mark.usefixtures("echo")
def test_another_folder_is_refused(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"models": ["homneu"], "forms": ["recurrent"], "seeds": 1}
    toy("variants", tmp_path / "study", **changes)
    with pytest.raises(
        RunFolderError, match=r"lr is not set in the folder and 0.5 in .*another folder"
    ):
        toy("variants", tmp_path / "study", **changes, lr=0.5)
    with pytest.raises(
        RunFolderError, match="study is 'variants' in the folder and 'noise' in this call"
    ):
        toy("noise", tmp_path / "study")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear reader")
    with pytest.raises(RunFolderError, match=r"expected a new folder or a study folder"):
        toy("variants", tmp_path / "full", **changes)
    stored = json.loads((tmp_path / "study" / "study.json").read_text())
    (tmp_path / "study" / "study.json").write_text(json.dumps({**stored, "changes": [1]}))
    with pytest.raises(RunFolderError, match=r"changes is \[1\] in the folder and"):
        toy("variants", tmp_path / "study", **changes)
    (tmp_path / "study" / "study.json").write_text("{")
    with pytest.raises(
        RunFolderError, match=r"study.json is damaged: .* another folder with --out"
    ):
        toy("variants", tmp_path / "study", **changes)


@pytest.mark.usefixtures("echo")
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: content[: len(content) // 2], "is damaged: "),
        (lambda content: b"\xff\x00" + content, "is damaged: "),
        (lambda content: b"[]", "is damaged: expected an object"),
        (lambda content: content.replace(b'"rows"', b'"rods"'), "is damaged: expected rows"),
        (lambda content: content.replace(b'"seconds"', b'"minutes"'), "is damaged: expected rows"),
        (
            lambda content: content.replace(b'"environments": [', b'"environments": [3, '),
            "is damaged: expected rows",
        ),
        (
            lambda content: content.replace(b"homneu", b"hetneu"),
            "belongs to another cell: expected",
        ),
    ],
    ids=["half", "no text", "no object", "no rows", "no seconds", "no machine", "another cell"],
)
def test_a_damaged_cell_is_kept_aside_and_done_anew(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[bytes], bytes],
    reason: str,
) -> None:
    changes: dict[str, Any] = {"models": ["hetsyn", "homneu"], "forms": ["recurrent"], "seeds": 1}
    first = toy("variants", tmp_path, **changes)
    path = tmp_path / "cells" / "homneu-recurrent-s0.json"
    whole, content = path.read_bytes(), damage(path.read_bytes())
    assert content != whole
    for name in ("homneu-recurrent-s0.json.damaged", "homneu-recurrent-s0.json.damaged-2"):
        path.write_bytes(content)
        caplog.clear()
        again = Counted()
        result = toy("variants", tmp_path, **changes, reporter=again)
        assert again.cells == ["homneu-recurrent-s0"]
        assert (result.table, result.failures) == (first.table, {})
        assert json.loads(path.read_bytes())["rows"] == json.loads(whole)["rows"]
        assert path.with_name(name).read_bytes() == content
        (record,) = caplog.records
        assert f"{path} {reason}" in record.getMessage()
        assert f"It was renamed to {name}, and its work is repeated" in record.getMessage()


@pytest.mark.usefixtures("echo")
@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("variant", {}, "study: expected one of variants, limited-neurons"),
        ("variants", {"task": "cifar"}, "task: expected one of digits"),
        ("variants", {"seeds": 0}, "seeds: expected an integer from 1"),
        ("variants", {"jobs": 0}, "jobs: expected an integer from 1"),
        ("variants", {"jobs": 100_000}, "jobs: expected an integer from 1"),
        (
            "variants",
            {"task": "echo", "jobs": 2, "threads": cores()},
            "jobs: expected an integer from 1 to 1 ",
        ),
        ("variants", {"model": "hetsyn"}, "model: expected no value because variants varies it"),
        ("variants", {"speed": 1}, "settings: expected one of variants: models, forms"),
        ("variants", {"lr": -1}, "lr: expected a positive number"),
        ("variants", {"models": ["lstm"]}, "models: expected different names among hetsyn"),
        ("variants", {"models": ["hetsyn", "hetsyn"]}, "models: expected different names"),
        ("variants", {"seed": 3}, "settings: expected one of variants: "),
        (
            "limited-neurons",
            {"task": "pattern-generation"},
            "task: expected a task with an accuracy",
        ),
        ("limited-neurons", {"learn_decay": False}, "because limited-neurons counts parameters"),
        ("limited-neurons", {"frozen_fraction": 0.5}, "frozen_fraction: expected no value"),
        ("limited-neurons", {"sizes": [0]}, "sizes: expected different integers from 1"),
        ("limited-neurons", {"task": "multi-timescale-xor"}, "clip: expected null .* clip=null"),
        ("timescales", {"task": "pattern-generation"}, "task: expected a task that classifies"),
        ("noise", {"task": "echo", "deletion": [2]}, "deletion: expected different numbers"),
        ("noise", {"background": [500]}, "options.noise_hz: expected a number from 0 to 200"),
        (
            "noise",
            {"task": "digits", "background": [5]},
            "background: expected no value because digits has no noise of its own",
        ),
        ("timescales", {"delays": [400, 7]}, "options.delay: expected a multiple of 5"),
        (
            "timescales",
            {"task": "digits", "delays": [50]},
            "delays: expected no value because digits has no delay",
        ),
        (
            "timescales",
            {"task": "digits", "homneu_tau": [50]},
            "homneu_tau: expected no value because digits has no delay",
        ),
        ("cost", {"task": "digits"}, "task: expected none because cost has no task"),
        ("cost", {"jobs": 2}, "jobs: expected 1 because cost measures times"),
        ("cost", {"lr": 1}, "settings: expected one of cost: models, .*, threads; got lr"),
        ("cost", {"seeds": 5}, "seeds: expected none because cost has one network of each kind"),
    ],
)
def test_bad_input(name: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        run_study(name, out=tmp_path / "study", **changes)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "task", "groups"),
    [
        ("cost", None, ["of cost: models, "]),
        (
            "variants",
            "digits",
            ["of variants: models", "of digits: ", "of the training: hidden"],
        ),
    ],
)
def test_what_may_be_set_is_said_without_holes(
    name: str, task: str | None, groups: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_settings(STUDIES[name], task=task, changes={"devise": "cuda"})
    allowed, _, got = str(caught.value).partition("; got ")
    assert got.startswith("devise")
    parts = allowed.removeprefix("settings: expected one ").split("; ")
    for part, group in zip(parts, groups, strict=True):
        assert part.startswith(group)
        assert "none" not in part


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_missing_data_set_is_one_error_and_leaves_no_folder(
    jobs: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there: dict[str, Any] = {
        "models": ["homneu"],
        "forms": ["recurrent"],
        "data_dir": str(tmp_path / "none"),
    }
    with pytest.raises(DataError, match=r"data_dir: expected a folder, got .*none"):
        run_study("variants", task="smnist", jobs=min(jobs, cores()), out=tmp_path / "s", **there)
    assert not list(tmp_path.iterdir())
    words = ["study", "variants", "--task", "smnist", "--out", str(tmp_path / "s")]
    assert command([*words, "--data-dir", str(tmp_path / "none")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert "--data-dir" in said.err
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("echo")
def test_what_is_finished_needs_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes: dict[str, Any] = {"models": ["homneu"], "forms": ["recurrent"], "seeds": 1}
    first = toy("variants", tmp_path, **changes)

    def load(self: object) -> Any:
        raise DataError("not there")

    monkeypatch.setattr(TASKS["echo"], "load", load)
    assert toy("variants", tmp_path, **changes).table == first.table
    with pytest.raises(DataError):
        toy("variants", tmp_path, **{**changes, "seeds": 2})
    assert json.loads((tmp_path / "study.json").read_text())["seeds"] == 1  # nothing was begun


@pytest.mark.usefixtures("echo")
def test_a_study_without_a_finished_cell_names_no_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(self: Variants, cell: Cell, place: Place) -> Finished:
        raise ArithmeticError("no")

    monkeypatch.setattr(Variants, "run", fails)
    words = ["study", "variants", "--task", "echo", "--seeds", "1", "--jobs", "1"]
    words += ["--set", "models=homneu", "--set", "forms=recurrent", "--out", str(tmp_path / "s")]
    assert command(words) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "FAILED homneu-recurrent-s0: ArithmeticError: no" in said
    assert "No cell is finished" in said
    assert not (tmp_path / "s" / "picture.png").exists()
    assert "picture.png" not in said
    assert "The four models" not in said  # the table's title


def test_small_studies_train_for_a_shorter_time() -> None:
    """But for the tasks of which the documentation says that they do not."""
    long = {"smnist", "psmnist", "idx"}
    for task in TASKS:
        small = make_settings(STUDIES["noise"], task=task).config().epochs
        usual = make_settings(STUDIES["noise"], task=task, full=True).config().epochs
        assert small < usual if task not in long else small == usual, task


@pytest.mark.slow
def test_the_picture_of_cost_names_the_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hetsyn_triton.experiments.training.machine.cpu_name", lambda: "Pico 3")
    result = toy("cost", tmp_path)
    study = STUDIES["cost"](result.settings)
    done = [read_cell(tmp_path, cell) for cell in study.cells()]
    title = study.draw(result.table, [finished for finished in done if finished]).get_suptitle()
    assert title.endswith(f"float32; Pico 3, torch {version('torch')}, 1 thread")
    (place,) = json.loads((tmp_path / "table.json").read_text())["environments"]
    assert place["threads"] == 1
    of_before = [replace(finished, environments=[{}]) for finished in done if finished]
    title = study.draw(result.table, of_before).get_suptitle()
    assert title.endswith("float32; machine not recorded")


@pytest.mark.slow
def test_threads_of_cost_are_what_it_measures(tmp_path: Path) -> None:
    """Not where networks are trained: other threads are another study."""
    toy("cost", tmp_path)
    with pytest.raises(RunFolderError, match="threads is 1 in the folder and 2 in this call"):
        toy("cost", tmp_path, threads=2)


def test_the_full_size_is_the_papers() -> None:
    neurons = make_settings(STUDIES["limited-neurons"], full=True)
    assert neurons.options["sizes"] == [5, 10, 20, 50, 100]
    assert neurons.seeds == 50
    assert neurons.config().epochs * neurons.config().options["iterations"] == 1000
    pattern = make_settings(STUDIES["variants"], full=True)
    assert pattern.config().epochs * pattern.config().options["iterations"] == 1000
    assert STUDIES["variants"](pattern).sizes_in_words() == "full size: 10 seeds"
    noise = make_settings(STUDIES["noise"], full=True)
    assert noise.options["deletion"] == [0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64]
    assert noise.seeds == 50  # the paper's runs of delayed match-to-sample
    assert make_settings(STUDIES["noise"], full=True, task="digits").seeds == 10
    timescales = make_settings(STUDIES["timescales"], full=True)
    assert timescales.options["factors"] == [-0.5, -0.25, 0, 0.25, 0.5]
    assert timescales.options["delays"] == [200, 400, 800, 1600, 2500]
    assert timescales.options["homneu_tau"] == [100, 200, 400, 800, 1600]
    assert timescales.seeds == 50
    cost = make_settings(STUDIES["cost"], full=True).options
    assert cost["sizes"] == [32, 64, 128, 256, 512]
    assert (cost["inputs"], cost["steps"], cost["samples"]) == (700, 250, 32)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("variants", {"seeds": 12}, "full size: 12 seeds"),
        ("variants", {"seeds": 3}, "full size but 3 of 10 seeds"),
        ("variants", {"seeds": 1, "task": "delayed-match"}, "full size but 1 of 50 seeds"),
        ("variants", {"changes": {"epochs": 2}}, "full size but epochs 2: 10 seeds"),
        ("variants", {"changes": {"threads": 1}}, "full size: 10 seeds"),
        (
            "limited-neurons",
            {"seeds": 2, "changes": {"sizes": [5, 10], "delay": 100}},
            "full size but 2 of 50 seeds, sizes (5, 10), delay 100",
        ),
        (
            "noise",
            {"seeds": 1, "changes": {"hidden": (8, 4)}},
            "full size but 1 of 50 seeds, hidden 8-4",
        ),
        ("cost", {"changes": {"rounds": 3}}, "full size but rounds 3: one network of each kind"),
    ],
)
def test_what_is_less_than_the_papers_is_said(
    name: str, settings: dict[str, Any], words: str
) -> None:
    study = STUDIES[name]
    assert study(make_settings(study, full=True, **settings)).sizes_in_words() == words


@pytest.mark.slow
@pytest.mark.skipif(cores() < 2, reason="needs two cores for two processes")
def test_on_two_processes(tmp_path: Path) -> None:
    """The same table as in one process; of a task of the package, for the processes are new."""
    changes: dict[str, Any] = {
        "task": "digits", "seeds": 1, "epochs": 1, "hold": 1, "hidden": (4,),
        "models": ["hetsyn", "homneu"], "forms": ["recurrent"],
    }  # fmt: skip
    two = run_study("variants", out=tmp_path / "two", jobs=2, **changes)
    one = run_study("variants", out=tmp_path / "one", jobs=1, **changes)
    assert two.failures == {}
    assert two.table == one.table


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_a_study_is_killed_at_any_moment(tmp_path: Path, hunt: int, times: int) -> None:
    """The same command ends with the table of a study that was never killed."""
    command = [sys.executable, "-m", "hetsyn_triton", "study", "variants", "--task", "digits"]
    command += ["--seeds", "2", "--jobs", "2", "--set", "epochs=1", "--set", "hold=1"]
    command += ["--set", "hidden=4", "--set", "models=hetsyn,homneu", "--set", "forms=recurrent"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}

    def start(out: str) -> "subprocess.Popen[bytes]":
        with (tmp_path / "errors").open("ab") as errors:
            return subprocess.Popen(
                [*command, "--out", str(tmp_path / out)],
                env=environment,
                start_new_session=True,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )

    def ended(process: "subprocess.Popen[bytes]") -> None:
        assert process.wait() == 0, (tmp_path / "errors").read_text()

    began = time.monotonic()
    ended(start("whole"))
    seconds = time.monotonic() - began
    moments = random.Random(hunt)
    for part in range(times):
        out = f"killed{part}"
        for _ in range(2):
            process = start(out)
            time.sleep(moments.uniform(0.2 * seconds, 0.9 * seconds))
            if moments.random() < 0.5:  # the parent alone, whose workers have to end themselves
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        ended(start(out))
        tables = [json.loads((tmp_path / o / "table.json").read_text()) for o in ("whole", out)]
        assert tables[0]["rows"] == tables[1]["rows"]


def _or_die(item: str) -> None:
    if item == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "raises":
        raise ValueError("a reason")
    time.sleep(0.01)


@pytest.mark.full
def test_a_process_that_dies_is_told_and_loses_no_other() -> None:
    items = ["a", "dies", "raises", "b"]
    outcomes = dict(work_through(items, _or_die, 2))
    assert outcomes == {
        "a": None,
        "b": None,
        "raises": "ValueError: a reason",
        "dies": "its process ended early (killed or out of memory)",
    }


def _say_and_stay(item: str) -> None:
    Path(item).write_text(str(os.getpid()))
    time.sleep(300)


def _parent(items: list[str]) -> None:
    list(work_through(items, _say_and_stay, 2))


def _is_there(process: int) -> bool:
    """Whether it runs; one that ended may wait, as a zombie, for somebody to ask how."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    return condition()


@pytest.mark.full
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    parent = multiprocessing.get_context("spawn").Process(
        target=_parent, args=([str(file) for file in files],)
    )
    parent.start()
    workers: list[int] = []
    try:
        assert _wait_for(lambda: all(f.is_file() and f.read_text() for f in files), 60)
        workers = [int(file.read_text()) for file in files]
        assert all(_is_there(worker) for worker in workers)
        parent.kill()
        parent.join()
        assert _wait_for(lambda: not any(_is_there(worker) for worker in workers), 10)
    finally:
        parent.kill()
        for worker in workers:
            if _is_there(worker):
                os.kill(worker, signal.SIGKILL)


@pytest.mark.usefixtures("echo")
def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["study", "variants", "--task", "echo", "--seeds", "1", "--jobs", "1"]
    words += ["--set", "models=hetsyn,homneu", "--set", "forms=recurrent", "--set", "hidden=5"]
    assert command(words) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for part in ("2 cells", "runs/study-variants-echo", "SMALL: 1 seed", "--full", "picture.png"):
        assert part in shown
    stored = json.loads(Path("runs/study-variants-echo/table.json").read_text())
    assert stored["command"].startswith("hetsyn study variants --task echo --seeds 1")
    assert command(shlex.split(stored["command"])[1:]) == 0  # the stored command is the same study
    assert "2 cells (2 already finished)" in capsys.readouterr().out
    assert command(["study", "variants", "--task", "echo", "--seeds", "2"]) == 2
    said = capsys.readouterr().err
    assert (
        "hidden is [5] in the folder and not set in this call; models is ['hetsyn', 'homneu'] in"
        in said
    )
    assert "seeds is" not in said  # more of them are no reason to refuse
    assert command(["study", "dance"]) == 2
    assert "study: expected one of variants" in capsys.readouterr().err
    assert command(["study", "variants", "--set", "lr=1", "--set", "lr=2"]) == 2
    assert "set: expected lr once" in capsys.readouterr().err


@pytest.mark.parametrize("width", [60, 80])
def test_help_names_the_studies(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert command(["study", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    *names, last = STUDIES
    assert f"NAME is {', '.join(names)} or {last}. " in shown


@pytest.mark.usefixtures("echo")
def test_a_study_at_work_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["study", "variants", "--task", "echo", "--seeds", "1", "--jobs", "1"]
    words += ["--set", "models=homneu", "--set", "forms=recurrent", "--out", str(tmp_path)]
    with claim_folder(tmp_path, "study"):
        assert command(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"hetsyn: study folder: expected one that no other process uses, got {tmp_path}, "
        "which another `hetsyn study` uses"
    )
    assert command(words) == 0
