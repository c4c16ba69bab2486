"""The cells and headings of a study's tables, on the terminal and in docs/results.md."""

from collections.abc import Iterable, Sequence

from .base import Row
from .words import RATIO, in_words, is_share

DEVIATION = "_deviation"  # suffix of the standard deviation of a mean


def columns(rows: Iterable[Row]) -> list[str]:
    """Return the columns of a table of `rows`, in the order met.

    Deviations are shown with their means, and the size of the study is shown above the table.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    return [name for name in names if not name.endswith(DEVIATION) and name != "size"]


def blocks(rows: Iterable[Row], by: Sequence[str]) -> list[tuple[Row, list[Row]]]:
    """Return each combination of the columns `by`, in the order met, with its rows."""
    found: dict[tuple[object, ...], tuple[Row, list[Row]]] = {}
    for row in rows:
        values = {name: row[name] for name in by if name in row}
        found.setdefault(tuple(values.items()), (values, []))[1].append(row)
    return list(found.values())


def common(rows: Sequence[Row]) -> Row:
    """Return the columns, other than means over seeds, that have one value in two or more rows."""
    names = columns(rows) if len(rows) > 1 else []
    return {
        name: rows[0].get(name)
        for name in names
        if all(row.get(name) == rows[0].get(name) for row in rows)
        and not any(f"{name}{DEVIATION}" in row for row in rows)
    }


def heading(values: Row) -> str:
    """Return the values that all rows of a block share, in one line."""
    known = (name for name in values if values[name] is not None)
    return ", ".join(f"{in_words(name)}: {cell(values, name)}" for name in known)


def cell(row: Row, name: str) -> str:
    """Format the value of column `name`, with its deviation if there is one.

    Shares are in percent, and ratios to homneu are factors such as 1.83x.
    """
    value, deviation = row.get(name), row.get(f"{name}{DEVIATION}")
    if value is None:
        return "-"
    if name.endswith(RATIO):
        return f"{value:.2f}x"
    if not isinstance(value, float):
        return str(value)
    if is_share(name):
        text = f"{100 * value:.2f}"
        return f"{text} %" if deviation is None else f"{text} ± {100 * deviation:.2f} %"
    return f"{value:.4g}" if deviation is None else f"{value:.4g} ± {deviation:.2g}"
