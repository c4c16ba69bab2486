"""A study's table on the terminal: in blocks, with as many columns as there is room for."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from textwrap import fill
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hetsyn_triton.studies.base import Row, Study
from hetsyn_triton.studies.tables import blocks, cell, columns, common, heading
from hetsyn_triton.studies.words import in_words

LINES = 40  # of a block; the file has them all
FEWEST = 3  # columns that stay however narrow the terminal is


class Block(NamedTuple):
    """A table and its heading, the columns there was no room for, and how many lines are left."""

    heading: str
    table: Table
    left_out: list[str]
    more: int


def in_blocks(console: Console, study: Study, rows: Sequence[Row]) -> list[Block]:
    """A block for each combination of the study's `blocks`. What all its lines have in common is in
    its heading, a mean with its deviation in one column; columns that do not fit are left out,
    first the study's `details`."""
    return [_block(console, study, values, mine) for values, mine in blocks(rows, study.blocks)]


def show(console: Console, study: Study, rows: Sequence[Row], file: str) -> None:
    """Print the blocks; `file` has all lines and columns."""
    console.print(Text(f"{study.title} ({study.settings.size})"), soft_wrap=True)
    left_out: dict[str, None] = {}
    for block in in_blocks(console, study, rows):
        if block.heading:
            console.print(Text(block.heading), soft_wrap=True)
        console.print(block.table)
        if block.more:
            console.print(Text(f"{block.more} more lines are in {file}"), soft_wrap=True)
        left_out |= dict.fromkeys(block.left_out)
    if left_out:
        names = ", ".join(map(in_words, left_out))
        console.print(Text(f"No room for {names}: in {file}"), soft_wrap=True)


def _block(console: Console, study: Study, values: Row, rows: list[Row]) -> Block:
    same = {**values, **common(rows)}
    names = [name for name in columns(rows) if name not in same]
    left_out: list[str] = []
    table = _table(names, rows)
    for name in _dispensable(study, names):
        if _width(table) <= console.width or len(names) <= FEWEST:
            break
        names.remove(name)
        left_out.append(name)
        table = _table(names, rows)
    return Block(heading(same), table, left_out, max(0, len(rows) - LINES))


def _dispensable(study: Study, names: Sequence[str]) -> list[str]:
    """Columns in the order in which they are left out: `details`, then from the right; the score
    and the first two last."""
    details = [n for pattern in study.details for n in names if fnmatchcase(n, pattern)]
    order = dict.fromkeys([*details, *reversed(names[2:])])
    score = study.score if study.settings.task is not None else None
    return [name for name in order if name != score]


def _table(names: Sequence[str], rows: Sequence[Row]) -> Table:
    """The name of a column is broken to about the width of its cells."""
    table = Table()
    numeric = {n for row in rows for n, v in row.items() if isinstance(v, (int, float))}
    for name in names:
        widest = max(len(cell(row, name)) for row in rows[:LINES])
        words = in_words(name)
        title = fill(words, max(widest, *map(len, words.split())), break_on_hyphens=False)
        table.add_column(title, justify="right" if name in numeric else "left")
    for row in rows[:LINES]:
        table.add_row(*(cell(row, name) for name in names))
    return table


def _width(table: Table) -> int:
    """How wide a terminal has to be, so that no cell is broken."""
    return Console(width=10_000).measure(table).maximum
