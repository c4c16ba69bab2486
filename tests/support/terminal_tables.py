"""What a terminal shows of a study, compared with the rows of its table."""

import io
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from hetsyn_triton.experiments.cli import study_table
from hetsyn_triton.experiments.studies.base import Study
from hetsyn_triton.experiments.studies.tables import blocks, cell, columns, common
from hetsyn_triton.experiments.studies.words import in_words

Columns = dict[str, str]
"""The text of each column below its name, without spaces."""


def on_the_terminal(study: Study, rows: Sequence[dict[str, Any]], width: int) -> str:
    """What is printed on a terminal of that width."""
    console = Console(file=io.StringIO(), width=width)
    study_table.show(console, study, rows, "table.csv")
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def printed(text: str) -> list[Columns]:
    """The columns of each table in `text`; lines of a cell or of a heading are joined."""
    tables: list[Columns] = []
    for part in text.split("┏")[1:]:
        lines = part.partition("└")[0].splitlines()
        parts = {}
        for line in "┃│":
            cells = [row.strip(line).split(line) for row in lines if row.startswith(line)]
            parts[line] = list(zip(*cells, strict=True))
        names = [" ".join(" ".join(name).split()).replace("- ", "-") for name in parts["┃"]]
        texts = ["".join("".join(column).split()) for column in parts["│"]]
        assert len(set(names)) == len(names)
        tables.append(dict(zip(names, texts, strict=True)))
    return tables


def check_whole(study: Study, rows: Sequence[dict[str, Any]], width: int) -> list[list[Columns]]:
    """Assert that all columns and values of each block are shown within `width`.

    Returns the tables of each block: the first columns are those that tell the rows apart.
    """
    text = on_the_terminal(study, rows, width)
    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines() if line[:1] in tuple("┏┃┡│└"))
    tables, found = printed(text), []
    for about, mine in blocks(rows, study.blocks):
        same = {**about, **common(mine)}
        names = [name for name in columns(mine) if name not in same]
        names = [name for name in names if name != "rate" or "rate_hz" not in names]
        mine = mine[: study_table.LINES]
        wanted = {in_words(n): "".join("".join(cell(r, n) for r in mine).split()) for n in names}
        shown: Columns = {}
        own = []
        while list(shown) != list(wanted):
            own.append(tables.pop(0))
            assert next(iter(own[-1])) == next(iter(wanted))
            shown |= own[-1]
            assert list(shown) == list(wanted)[: len(shown)]
        assert shown == wanted
        found.append(own)
        for name in same:
            assert in_words(name) in text
    assert not tables
    return found
