"""The study variants at several sizes: what is equal, which time constant is shown, the picture."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hetsyn_triton.experiments.studies import STUDIES, StudyResult, run_study
from hetsyn_triton.experiments.studies.base import Cell, Finished, Place
from hetsyn_triton.experiments.studies.long_decays import histogram
from hetsyn_triton.experiments.studies.networks import trained
from hetsyn_triton.experiments.studies.parameters import parameter_count
from hetsyn_triton.experiments.studies.runner import command
from hetsyn_triton.experiments.studies.statistics import chosen
from hetsyn_triton.experiments.studies.study_folder import read_cell
from hetsyn_triton.experiments.studies.study_settings import make_settings
from hetsyn_triton.experiments.studies.variants import Variants
from hetsyn_triton.experiments.tasks import TASKS
from hetsyn_triton.experiments.training import ConfigError, Run, load_run
from hetsyn_triton.experiments.training.build import build_task
from hetsyn_triton.timeconstants import decay_to_tau
from tests.support.layer_cases import first_layer

XOR = "multi-timescale-xor"


def variants(task: str = XOR, **changes: Any) -> Variants:
    return Variants(make_settings(STUDIES["variants"], task=task, changes=changes))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    """Two sizes, two seeds, hardly any training."""
    changes: dict[str, Any] = {"sizes": [3, 6], "homneu_tau": [5, 50], "epochs": 1, "iterations": 2}
    out = tmp_path_factory.mktemp("study")
    return run_study("variants", task=XOR, seeds=2, jobs=1, out=out / "xor", **changes)


def test_on_the_xor_the_study_has_one_size() -> None:
    for full in (False, True):
        settings = make_settings(STUDIES["variants"], task=XOR, full=full)
        assert Variants(settings).sizes_in_words() == "full size: 10 seeds"
        assert settings.options["sizes"] == [8, 16, 32, 64]
        assert settings.options["equal"] == ["neurons", "parameters"]
        assert settings.options["homneu_tau"] == [5, 10, 20, 50, 100]
        assert settings.options["forms"] == ["feedforward"]
    other = make_settings(STUDIES["variants"], task="digits")
    assert (other.options["sizes"], other.options["homneu_tau"]) == ([], [])
    assert Variants(other).sizes_in_words().startswith("SMALL")


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("name", "sizes"), [("variants", 1), ("noise", 2)])
def test_the_command_on_the_xor_has_full_if_the_study_has_two_sizes(
    name: str, sizes: int, full: bool
) -> None:
    settings = make_settings(STUDIES[name], task=XOR, full=full)
    words = shlex.split(command(settings))
    assert ("--full" in words) == (full and sizes == 2)
    assert make_settings(STUDIES[name], task=XOR, full="--full" in words).full == settings.full


def test_cells_have_no_two_of_a_kind_and_all_sizes() -> None:
    """A network that is equal in neurons at one size and in parameters at another trains once."""
    cells = [cell for cell in variants().cells() if cell.values["seed"] == 0]
    sizes: dict[str, list[int]] = {}
    for cell in cells:
        sizes.setdefault(cell.values["model"], []).append(cell.values["neurons"])
    assert sizes["hetsyn"] == [8, 16, 32, 64]
    assert sizes["hetneu"] == [8, 16, 31, 32, 62, 64, 125]
    for model in ("homneu", "homneu-adaptive"):  # each with five time constants
        assert sizes[model] == [n for n in (8, 16, 32, 64, 128) for _ in range(5)]
        taus = [c.values["tau"] for c in cells if c.values["model"] == model]
        assert taus == [5, 10, 20, 50, 100] * 5


def test_the_table_and_its_networks(small: StudyResult) -> None:
    assert small.failures == {}
    for equal in ("neurons", "parameters"):
        for size in (3, 6):
            lines = chosen(small.table, equal=equal, size_of_hetsyn=size)
            assert [line["model"] for line in lines] == small.settings.options["models"]
            for line in lines:
                assert line["seeds"] == 2
                count = parameter_count(line["model"], 40, line["neurons"], 2, recurrent=False)
                assert line["parameters"] == count
                assert (line["tau"] is not None) == line["model"].startswith("homneu")
                if equal == "neurons":
                    assert line["neurons"] == size
                else:
                    assert abs(count - parameter_count("hetsyn", 40, size, 2, recurrent=False)) < 30
    for seed, tau in ((0, 5), (1, 50)):
        run = load_run(small.path / "runs" / f"homneu-feedforward-6-tau-{tau}-s{seed}")
        assert (run.config.model, run.config.tau, run.config.seed) == ("homneu", tau, seed)
        assert run.config.hidden == (6,)


def test_the_held_out_score_of_a_row_is_that_of_the_last_epoch(
    small: StudyResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the first, the best, the worst nor the mean."""
    study = Variants(small.settings)
    (cell,) = (cell for cell in study.cells() if cell.name == "hetsyn-feedforward-3-s0")

    def several_epochs(*arguments: Any) -> Run:
        run = trained(*arguments)
        scores = (0.5, 0.9, 0.6, 0.4, 0.7)
        history = [{**run.history[-1], "validation_accuracy": score} for score in scores]
        return replace(run, history=history)

    monkeypatch.setattr("hetsyn_triton.experiments.studies.variants.trained", several_epochs)
    (row,) = study.run(cell, Place(small.path / "runs", 1)).rows
    assert row["validation_accuracy"] == 0.7


def test_the_stored_time_constants_are_those_of_the_input_synapses(small: StudyResult) -> None:
    """Signal 1 is on the first 20 of the 40 channels, signal 2 on the others."""
    cells = [c for c in Variants(small.settings).cells() if c.values["model"] == "hetsyn"]
    assert len(cells) == 4
    for cell in cells:
        stored = read_cell(small.path, cell)
        assert stored is not None
        layer = first_layer(load_run(small.path / "runs" / cell.name).network)
        steps = decay_to_tau(layer.decay().detach().double())
        assert steps.shape == (cell.values["neurons"], 40)
        first, second = histogram(steps[:, :20].flatten()), histogram(steps[:, 20:].flatten())
        assert first != second
        assert stored.extra["histograms"] == {"signal 1": first, "signal 2": second}


@pytest.mark.parametrize(
    ("task", "score", "best"), [(XOR, "accuracy", 50), ("pattern-generation", "mse", 5)]
)
def test_the_time_constant_is_chosen_by_held_out_samples(task: str, score: str, best: int) -> None:
    """The mean over seeds decides for each size, not the test: highest accuracy or lowest mse."""
    study = variants(task, models=["homneu"], sizes=[8], equal=["neurons"], homneu_tau=[5, 50])
    scores = {5: (0.9, 0.5), 50: (0.8, 0.7)}
    held_out = f"validation_{score}"
    rows = [
        {"model": "homneu", "form": "feedforward", "neurons": 8, "tau": tau, "seed": seed,
         "parameters": 336, score: 1 - value, held_out: value}
        for tau, values in scores.items() for seed, value in enumerate(values)
    ]  # fmt: skip
    (line,) = study.table([Finished(Cell("one", {}), rows)])
    assert (line["tau"], line["seeds"]) == (best, 2)
    assert line[score] == pytest.approx({5: 0.3, 50: 0.25}[best])
    assert not {"chosen", held_out, f"{held_out}_deviation"} & set(line)


def test_a_time_constant_with_failed_cells_is_not_chosen() -> None:
    """Only those with the most seeds compete."""
    study = variants(models=["homneu"], sizes=[8], equal=["neurons"], homneu_tau=[5, 20, 50])
    scores = {5: (0.6, 0.8), 20: (0.6, 0.6), 50: (0.9,)}
    rows = [
        {"model": "homneu", "form": "feedforward", "neurons": 8, "tau": tau, "seed": seed,
         "parameters": 336, "accuracy": value, "validation_accuracy": value}
        for tau, values in scores.items() for seed, value in enumerate(values)
    ]  # fmt: skip
    (line,) = study.table([Finished(Cell("one", {}), rows)])
    assert (line["tau"], line["seeds"]) == (5, 2)


def test_the_picture(small: StudyResult) -> None:
    """Input, mean time constants by signal, and mean accuracy by model and size."""
    study = Variants(replace(small.settings, seeds=3))
    shares = {3: (0.1, 0.2, 0.6), 6: (0.7, 0.8, 0.9)}  # of each seed, by size; only 3 is drawn
    cells = [
        Finished(cell, [], {"histograms": {"signal 1": [share] * 40, "signal 2": [share / 2] * 40}})
        for cell in study.cells()
        if cell.values["model"] == "hetsyn"
        for share in [shares[cell.values["neurons"]][cell.values["seed"]]]
    ]
    figure = study.draw(small.table, cells)
    raster, taus, neurons, parameters = figure.axes
    labels = [text.get_text() for text in raster.texts]
    assert labels.count("signal 2") == 6
    target = build_task(small.settings.config()).sample().target[0]
    shown = [label for label in labels if label.startswith("label ")]
    assert shown == [f"label {target[start]}" for start in range(15, 100, 15)]
    assert len(set(shown)) == 2
    legend = taus.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["signal 1", "signal 2"]
    patches: list[Any] = list(taus.patches)
    assert {one.get_label(): one.get_data().values.tolist() for one in patches} == {
        "signal 1": pytest.approx([0.3] * 40), "signal 2": pytest.approx([0.15] * 40)
    }  # fmt: skip
    assert "3 neurons" in taus.get_title()
    for axes, equal in ((neurons, "neurons"), (parameters, "parameters")):
        assert axes.get_title().endswith(f"equal {equal}")
        models = small.settings.options["models"]
        assert [line.get_label() for line in axes.lines] == models
        for model, line in zip(models, axes.lines, strict=True):
            mine = chosen(small.table, equal=equal, model=model)
            assert (
                np.asarray(line.get_xdata()).tolist()
                == [row["size_of_hetsyn"] for row in mine]
                == [3, 6]
            )
            assert np.asarray(line.get_ydata()).tolist() == [row["accuracy"] for row in mine]
    legend = neurons.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == models


@pytest.mark.usefixtures("echo")
def test_sizes_without_channel_groups_and_without_time_constants(tmp_path: Path) -> None:
    """A task of another kind: panels alone, both forms, the task's own time constants."""
    result = run_study(
        "variants", task="echo", seeds=1, jobs=1, sizes=[2, 4], out=tmp_path, models=["hetsyn"]
    )
    assert [(row["form"], row["neurons"]) for row in result.table] == [
        ("recurrent", 2), ("recurrent", 4), ("feedforward", 2), ("feedforward", 4)
    ]  # fmt: skip
    assert "tau" not in result.table[0]
    assert len(Variants(result.settings).draw(result.table, []).axes) == 2
    words = "SMALL: 1 seed, models (hetsyn), sizes (2, 4)"
    assert Variants(result.settings).sizes_in_words().startswith(words)


def test_deviations_are_drawn_at_one_size_and_at_sizes_in_any_order() -> None:
    study = variants(models=["hetsyn"], equal=["neurons"], sizes=[8, 4])
    row = {"model": "hetsyn", "form": "feedforward", "equal": "neurons", "seeds": 2}
    row |= {"accuracy": 0.9, "accuracy_deviation": 0.05}
    table = [{**row, "size_of_hetsyn": size} for size in (8, 4)]
    (axes,) = (one for one in study.draw(table, []).axes if one.lines)
    assert np.asarray(axes.lines[0].get_xdata()).tolist() == [4, 8]
    (axes,) = (one for one in study.draw(table[:1], []).axes if one.lines)
    collections: list[Any] = list(axes.collections)
    (bars,) = collections
    assert bars.get_segments()[0].tolist() == [[8, 0.85], [8, pytest.approx(0.95)]]
    assert max(axes.get_yticks()) <= 1


@pytest.mark.usefixtures("echo")
def test_chosen_time_constants_are_the_ones_drawn_over_training(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"models": ["homneu"], "forms": ["recurrent"], "homneu_tau": [3, 30]}
    result = run_study("variants", task="echo", seeds=2, jobs=1, out=tmp_path, **changes)
    (line,) = result.table
    study = Variants(result.settings)
    done = [
        Finished(cell, [{"accuracy": cell.values["tau"]}], {
            "curve": {"part": "validation", "steps": [1], "values": [cell.values["tau"]]}
        })
        for cell in study.cells()
    ]  # fmt: skip
    left, right = study.draw(result.table, done).axes
    assert [np.asarray(one.get_ydata()).tolist() for one in left.lines] == [[line["tau"]]]
    assert np.asarray(right.lines[0].get_ydata()).tolist() == [line["tau"]] * 2


@pytest.mark.usefixtures("echo")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": [0]}, "sizes: expected different integers from 1 to 10000"),
        ({"sizes": [8], "hidden": (4,)}, r"hidden: expected no value beside sizes \[8\]"),
        ({"equal": ["parameters"]}, "equal: expected neurons where sizes is empty"),
        (
            {"sizes": [8], "equal": ["parameters"], "learn_decay": False},
            "equal: expected neurons where decays are frozen",
        ),
        (
            {"sizes": [8], "equal": ["parameters"], "frozen_fraction": 0.5},
            "equal: expected neurons where decays are frozen",
        ),
        ({"equal": ["size"]}, "equal: expected different names among neurons, parameters"),
        ({"homneu_tau": [0]}, "homneu_tau: expected different numbers from 0.001"),
    ],
)
def test_bad_input(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        run_study("variants", task="echo", out=tmp_path / "study", **changes)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("echo")
def test_time_constants_need_held_out_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = TASKS["echo"].load  # type: ignore[attr-defined]
    monkeypatch.setattr(TASKS["echo"], "load", lambda self: {"train": whole(self)["train"]})
    with pytest.raises(ConfigError, match="task: expected held-out samples because variants"):
        run_study("variants", task="echo", homneu_tau=[5], out=tmp_path / "study")
    assert not (tmp_path / "study").exists()
