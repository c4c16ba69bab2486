"""How measures are written, in pictures and in every table."""

import re
from collections.abc import Iterable

from .base import Row

DEVIATION = "_deviation"  # ends the name of what stands beside a mean


def in_words(name: str) -> str:
    """A measure's name as axes and tables show it."""
    return re.sub(r"\bmse\b", "mean squared error", name.replace("_", " "))


def is_share(name: str) -> bool:
    """Whether a measure is a fraction, shown in per cent; accuracy_validation_selected too."""
    words = name.replace("_", " ").split()
    return any(word in ("accuracy", "share", "success") for word in words)


def columns(rows: Iterable[Row]) -> list[str]:
    """The columns of a table of `rows`, in the order met: a deviation stands beside its mean, and
    the study's size above the table."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [name for name in names if not name.endswith(DEVIATION) and name != "size"]


def cell(row: Row, name: str) -> str:
    """The value of column `name`, with its deviation where there is one; shares in per cent."""
    value, deviation = row.get(name), row.get(f"{name}{DEVIATION}")
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    if is_share(name):
        text = f"{100 * value:.2f}"
        return f"{text} %" if deviation is None else f"{text} ± {100 * deviation:.2f} %"
    return f"{value:.4g}" if deviation is None else f"{value:.4g} ± {deviation:.2g}"
