"""Print the table of a study on the terminal, in blocks that fit its width."""

from collections.abc import Sequence
from textwrap import fill
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hetsyn_triton.experiments.studies.base import Row, Study
from hetsyn_triton.experiments.studies.tables import blocks, cell, columns, common, heading
from hetsyn_triton.experiments.studies.words import in_words
from hetsyn_triton.experiments.training.measure import shown_measures

LINES = 40  # rows of a block on the terminal; the file has all rows


class Block(NamedTuple):
    """A heading, the tables below it, and the number of rows that are not shown."""

    heading: str
    tables: list[Table]
    more: int


def in_blocks(console: Console, study: Study, rows: Sequence[Row]) -> list[Block]:
    """Return a block for each combination of the study's `blocks`.

    Values that all rows of a block share are in its heading. A mean and its deviation share a
    column. If a table is too wide, its cells and headings are broken into lines. If it is still too
    wide, its columns are divided into several tables, which all begin with the columns that tell
    the rows apart. No column is left out.
    """
    return [_block(console, values, mine) for values, mine in blocks(rows, study.blocks)]


def show(console: Console, study: Study, rows: Sequence[Row], file: str) -> None:
    """Print the blocks; `file` contains all rows."""
    small = "" if study.settings.full else " (small)"
    console.print(Text(f"{study.title}{small}"), soft_wrap=True)
    for block in in_blocks(console, study, rows):
        if block.heading:
            console.print(Text(block.heading), soft_wrap=True)
        for table in block.tables:
            console.print(table)
        if block.more:
            console.print(Text(f"{block.more} more rows are in {file}"), soft_wrap=True)


def _block(console: Console, values: Row, rows: list[Row]) -> Block:
    same = {**values, **common(rows)}
    names = [name for name in shown_measures(columns(rows)) if name not in same]
    tables = _tables(names, rows[:LINES], console.width)
    return Block(heading(same), tables, max(0, len(rows) - LINES))


def _tables(names: Sequence[str], rows: Sequence[Row], width: int) -> list[Table]:
    """Return the columns `names` in as few tables of at most `width` as possible."""
    for broken in (False, True):
        table = _table(names, rows, broken)
        if _width(table) <= width:
            return [table]
    keys = _keys(names, rows)
    parts: list[list[str]] = [[]]
    for name in names[len(keys) :]:
        if parts[-1] and _width(_table([*keys, *parts[-1], name], rows, True)) > width:
            parts.append([])
        parts[-1].append(name)
    return [_table([*keys, *part], rows, True) for part in parts]


def _keys(names: Sequence[str], rows: Sequence[Row]) -> Sequence[str]:
    """Return the first columns that tell all rows apart."""
    for count in range(1, len(names)):
        if len({tuple(str(row.get(name)) for name in names[:count]) for row in rows}) == len(rows):
            return names[:count]
    return names[:1]


def _table(names: Sequence[str], rows: Sequence[Row], broken: bool) -> Table:
    """Return a table whose headings are broken to about the width of the cells."""
    table = Table()
    numeric = {n for row in rows for n, v in row.items() if isinstance(v, (int, float))}
    cells = {name: [_cell(row, name, broken) for row in rows] for name in names}
    for name in names:
        widest = max(len(line) for text in cells[name] for line in text.splitlines())
        words = in_words(name)
        longest = max(map(len, (words.replace("-", "- ") if broken else words).split()))
        title = fill(words, max(widest, longest), break_on_hyphens=broken)
        table.add_column(title, justify="right" if name in numeric else "left")
    for row in zip(*cells.values(), strict=True):
        table.add_row(*row)
    return table


def _cell(row: Row, name: str, broken: bool) -> str:
    """Return a cell; `broken`: with its deviation, or each part of its name, on its own line."""
    text = cell(row, name)
    if broken and isinstance(row.get(name), str):
        return text.replace("-", "-\n").rstrip("\n")
    return text.replace(" ±", "\n±") if broken else text


def _width(table: Table) -> int:
    """Return the width of a terminal that shows all cells unbroken."""
    return Console(width=10_000).measure(table).maximum
