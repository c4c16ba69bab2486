"""A table reads alike wherever it is shown: on the terminal and in docs/results.md."""

from typing import Any

import pytest
from matplotlib.figure import Figure

from bench.results_page import _table as on_the_page
from hetsyn_triton.experiments.cli import study_table
from hetsyn_triton.experiments.studies import STUDIES
from hetsyn_triton.experiments.studies.base import Study
from hetsyn_triton.experiments.studies.study_pictures import label_score
from hetsyn_triton.experiments.studies.study_settings import make_settings
from hetsyn_triton.experiments.studies.tables import heading
from hetsyn_triton.experiments.studies.words import in_words
from hetsyn_triton.experiments.tasks import TASKS
from hetsyn_triton.experiments.training.measure import shown_measures, shown_name
from hetsyn_triton.modules import MODELS
from tests.support.terminal_tables import check_whole, on_the_terminal

ROWS: list[dict[str, Any]] = [
    {
        "model": "hetsyn", "size": "full", "seeds": 3, "mse": 0.0167512, "mse_deviation": 0.00412,
        "accuracy": 0.98765, "accuracy_deviation": 0.0123, "peak_mb": None,
    },
    {"model": "homneu", "size": "full", "seeds": 1, "mse": 0.2, "accuracy": 0.5, "peak_mb": 12.0},
]  # fmt: skip
RATIO_NAME = "step_ms_of_homneu"
HEAD = ["model", "seeds", "mse", "accuracy", "peak mb"]
CELLS = [
    ["hetsyn", "3", "0.01675 ± 0.0041", "98.77 ± 1.23 %", "-"],
    ["homneu", "1", "0.2", "50.00 %", "12"],
]


def parts(text: str, line: str) -> list[list[str]]:
    """The cells of a table drawn with `line` between columns."""
    return [
        [cell.strip() for cell in row.strip(line).split(line)]
        for row in text.replace("┃", "│").splitlines()
        if row.startswith(line)
    ]


def test_on_the_page() -> None:
    head, _, *rows = parts(on_the_page(ROWS), "|")
    assert [head, *rows] == [HEAD, *CELLS]


def test_one_rate_on_the_page() -> None:
    rows = [{"model": "hetsyn", "rate_hz": 10.0, "rate": 0.01}]
    assert parts(on_the_page(rows), "|") == [["model", "rate hz"], ["---"] * 2, ["hetsyn", "10"]]
    alone = [{"model": "hetsyn", "rate": 0.01}]
    assert parts(on_the_page(alone), "|")[0] == ["model", "rate"]


def study(name: str) -> Study:
    return STUDIES[name](make_settings(STUDIES[name]))


def test_on_the_terminal() -> None:
    *head, one, two = parts(on_the_terminal(study("variants"), ROWS, 200), "│")
    assert [" ".join(words).strip() for words in zip(*head, strict=True)] == HEAD
    assert [one, two] == CELLS


def costs(form: str) -> list[dict[str, Any]]:
    """Lines as of the study of cost."""
    measures = ["parameters", "step_ms", "step_ms_lower_quartile", "step_ms_upper_quartile",
                "peak_mb", "kept_mb"]  # fmt: skip
    ratios = [f"{name}_of_homneu" for name in ("parameters", "step_ms", "peak_mb", "kept_mb")]
    return [
        {"form": form, "neurons": 32, "model": model, "threads": 2,
         **{name: 1000 * (n + 1) + len(model) for n, name in enumerate(measures + ratios)},
         "parameters": 1000 + len(model)}
        for model in ("hetsyn", "homneu-adaptive")
    ]  # fmt: skip


def test_a_block_for_each_form_with_what_its_lines_share_in_the_heading() -> None:
    rows = costs("recurrent") + costs("feedforward")
    text = on_the_terminal(study("cost"), rows, 300)
    assert text.count("neurons: 32") == 2
    for form in ("recurrent", "feedforward"):
        assert f"form: {form}, neurons: 32, threads: 2" in text
    lines = parts(text, "│")
    assert [line[:2] for line in lines if line[0].startswith("ho")] == [
        ["homneu-adaptive", "1015"]
    ] * 2
    assert "table.csv" not in text
    single = on_the_terminal(study("cost"), rows[:1], 300)  # a line shares nothing
    assert "form: recurrent\n" in "\n".join(map(str.rstrip, single.splitlines())) + "\n"


def test_what_a_block_has_not_is_not_in_its_heading() -> None:
    assert heading({"change": "warp", "delay": None, "tau": 400.0}) == "change: warp, tau: 400"


def test_means_are_never_in_the_heading() -> None:
    rows = [{**ROWS[0], "model": model} for model in ("hetsyn", "homneu")]
    assert "accuracy: " not in on_the_terminal(study("variants"), rows, 200)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 300])
def test_no_column_is_left_out(width: int) -> None:
    """Where not all fit, a further table begins with the same first columns."""
    rows = costs("recurrent") + [{**row, "neurons": 64} for row in costs("recurrent")]
    (tables,) = check_whole(study("cost"), rows, width)
    assert all(list(table)[:2] == ["neurons", "model"] for table in tables)
    assert len(tables) == {40: 8, 60: 3, 80: 2, 100: 2, 300: 1}[width]


@pytest.mark.parametrize("width", [60, 80])
def test_all_measures_of_the_models_are_kept(width: int) -> None:
    measures = dict.fromkeys(
        ("loss", "mse", "distance", "rate_hz", "rate", "mse_validation_selected"), 0.123456789
    )
    deviations = {f"{name}_deviation": 0.1 for name in measures}
    rows = [
        {"form": "recurrent", "model": model, "parameters": len(model), **measures, **deviations}
        for model in MODELS
    ]
    (tables,) = check_whole(study("variants"), rows, width)
    names = [name for table in tables for name in table if name != "model"]
    shown = ["loss", "mse", "distance", "rate hz", "mse validation-selected"]
    assert names == ["parameters", *shown]
    assert len(tables) == {60: 2, 80: 1}[width]


def test_a_ratio_is_a_factor() -> None:
    rows = [
        {"form": "recurrent", "neurons": n, "model": model, "step_ms": 3.0 * n, RATIO_NAME: ratio}
        for n in (4, 8)
        for model, ratio in (("hetsyn", 1.8349), ("homneu", 1.0), ("hetneu", 12))
    ]
    ((table,),) = check_whole(study("cost"), rows, 80)
    assert table["step ms / homneu"] == 2 * "1.83x1.00x12.00x"
    head, _, *lines = parts(on_the_page(rows), "|")
    assert [line[head.index("step ms / homneu")] for line in lines[:2]] == ["1.83x", "1.00x"]


def test_one_name_for_one_measure() -> None:
    """A measure is called by its key everywhere, with spaces."""
    assert in_words("mse") == "mse"
    assert in_words("mse_validation_selected") == "mse validation-selected"
    for task in TASKS.values():
        if task.score is not None:
            assert in_words(task.score) == shown_name(task.score) == task.score
    assert shown_measures(["loss", "rate_hz", "rate"]) == ["loss", "rate_hz"]
    assert shown_measures(["loss", "rate"]) == ["loss", "rate"]
    generation = TASKS["pattern-generation"](iterations=1)
    target = generation.sample().target
    assert generation.caption(target.transpose(0, 1), target) == "pattern-generation: mse 0.000"
    axes = Figure().subplots()
    label_score(axes, "mse", {3})
    assert axes.get_ylabel() == "mse\n(mean ± deviation of 3 seeds)"


def test_long_tables_are_cut() -> None:
    rows = [{"form": "recurrent", "model": "hetsyn", "parameters": n} for n in range(50)]
    text = on_the_terminal(study("variants"), rows, 80)
    assert len(parts(text, "│")) == 1 + study_table.LINES
    assert "10 more rows are in table.csv" in text
