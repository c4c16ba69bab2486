"""A table reads alike wherever it is shown: on the terminal and in docs/results.md."""

import io
from typing import Any

from rich.console import Console

from hetsyn_triton.cli.study import _table as on_the_terminal
from hetsyn_triton.studies import STUDIES
from hetsyn_triton.studies.results_page import _table as on_the_page
from hetsyn_triton.studies.settings import make_settings

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


def test_on_the_terminal() -> None:
    study = STUDIES["variants"](make_settings(STUDIES["variants"]))
    console = Console(file=io.StringIO(), width=200)
    console.print(on_the_terminal(study, ROWS))
    assert parts(console.file.getvalue(), "│") == [HEAD, *CELLS]  # type: ignore[attr-defined]
