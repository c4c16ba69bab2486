"""A table reads alike wherever it is shown: on the terminal and in docs/results.md."""

import io
from typing import Any

import pytest
from rich.console import Console

from hetsyn_triton.cli import study_table
from hetsyn_triton.studies import STUDIES
from hetsyn_triton.studies.results_page import _table as on_the_page
from hetsyn_triton.studies.settings import make_settings
from hetsyn_triton.studies.tables import heading

ROWS: list[dict[str, Any]] = [
    {
        "model": "hetsyn", "size": "full", "seeds": 3, "mse": 0.0167512, "mse_deviation": 0.00412,
        "accuracy": 0.98765, "accuracy_deviation": 0.0123, "peak_mb": None,
    },
    {"model": "homneu", "size": "full", "seeds": 1, "mse": 0.2, "accuracy": 0.5, "peak_mb": 12.0},
]  # fmt: skip
HEAD = ["model", "seeds", "mean squared error", "accuracy", "peak mb"]
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


def on_the_terminal(name: str, rows: list[dict[str, Any]], width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    study_table.show(console, STUDIES[name](make_settings(STUDIES[name])), rows, "table.csv")
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_on_the_terminal() -> None:
    *head, one, two = parts(on_the_terminal("variants", ROWS, 200), "│")
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
    text = on_the_terminal("cost", rows, 300)
    assert text.count("neurons: 32") == 2
    for form in ("recurrent", "feedforward"):
        assert f"form: {form}, neurons: 32, threads: 2" in text
    lines = parts(text, "│")
    assert [line[:2] for line in lines if line[0].startswith("ho")] == [
        ["homneu-adaptive", "1015"]
    ] * 2
    assert "No room" not in text
    assert "table.csv" not in text
    single = on_the_terminal("cost", rows[:1], 300)  # a line shares nothing
    assert "form: recurrent\n" in "\n".join(map(str.rstrip, single.splitlines())) + "\n"


def test_what_a_block_has_not_is_not_in_its_heading() -> None:
    assert heading({"change": "warp", "delay": None, "tau": 400.0}) == "change: warp, tau: 400"


def test_means_are_never_in_the_heading() -> None:
    rows = [{**ROWS[0], "model": model} for model in ("hetsyn", "homneu")]
    assert "accuracy: " not in on_the_terminal("variants", rows, 200)


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_what_has_no_room_is_in_the_file(width: int) -> None:
    text = on_the_terminal("cost", costs("recurrent"), width)
    table, _, left = text.partition("No room for ")
    assert "…" not in table
    assert all(len(line) <= width for line in table.splitlines())
    names, _, file = left.partition(": in ")
    assert file.strip() == "table.csv"
    *head, first, _ = parts(table, "│")
    shown = [" ".join(words).split() for words in zip(*head, strict=True)]
    left_out = [name.split() for name in names.split(", ")]
    every = [name.replace("_", " ").split() for name in costs("recurrent")[0]]
    every = [name for name in every if name[0] not in ("form", "neurons", "threads")]
    assert sorted(shown + left_out) == sorted(every)
    assert first[0] == "hetsyn"
    quartiles = [["step", "ms", which, "quartile"] for which in ("lower", "upper")]
    assert left_out[: len(quartiles)] == quartiles


def test_the_score_stays() -> None:
    measures = dict.fromkeys(("loss", "mse", "distance", "rate_hz", "rate"), 0.123456789)
    deviations = {f"{name}_deviation": 0.1 for name in measures}
    rows = [
        {"form": "recurrent", "model": model, "parameters": len(model), **measures, **deviations}
        for model in ("hetsyn", "homneu-adaptive")
    ]
    text = on_the_terminal("variants", rows, 40)
    assert "squared" in text.partition("No room")[0]
    assert "No room for rate, rate hz, loss" in " ".join(text.split())


def test_long_tables_are_cut() -> None:
    rows = [{"form": "recurrent", "model": "hetsyn", "parameters": n} for n in range(50)]
    text = on_the_terminal("variants", rows, 80)
    assert len(parts(text, "│")) == 1 + study_table.LINES
    assert "10 more lines are in table.csv" in text
