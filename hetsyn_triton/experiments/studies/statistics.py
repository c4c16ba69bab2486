"""Means and deviations over seeds; intervals of a share."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from .base import Row


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and the sample's standard deviation (n - 1); None of a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def wilson_interval(share: float, samples: int) -> tuple[float, float]:
    """The 95 % interval [low, high] of a probability, given its `share` of `samples` trials.

    Wilson's score interval (J. Am. Stat. Assoc. 22, 1927), without continuity correction.
    ValueError for a share outside [0, 1] or no sample.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share: expected a number from 0 to 1, got {share}")
    if samples < 1:
        raise ValueError(f"samples: expected at least 1, got {samples}")
    z = statistics.NormalDist().inv_cdf(0.975)
    spread = z**2 / samples
    middle = share + spread / 2
    half = math.sqrt(spread * (share * (1 - share) + spread / 4))
    low, high = ((middle + side * half) / (1 + spread) for side in (-1, 1))
    return max(0.0, low), min(1.0, high)


def over_seeds(rows: Iterable[Row], by: Sequence[str], values: Sequence[str]) -> list[Row]:
    """A row for each combination of the columns `by`, in the order met: how many rows it has as
    `seeds`, and of each of `values` the mean (its name) and NAME_deviation. A row where a value is
    None is left out of that value's mean; the mean of no row is None."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    table = []
    for key, members in groups.items():
        line: Row = {**dict(zip(by, key, strict=True)), "seeds": len(members)}
        for name in values:
            there = [row[name] for row in members if row[name] is not None]
            mean = mean_and_deviation(there) if there else (None, None)
            line[name], line[f"{name}_deviation"] = mean
        table.append(line)
    return table


def mark_best(rows: Sequence[Row], measure: str, *, falls: bool) -> None:
    """Note in each of `rows` as `chosen` whether it has the best `measure`; of equals, the first.
    The smallest is the best where it `falls`."""
    best = (min if falls else max)(rows, key=lambda row: float(row[measure]), default=None)
    for row in rows:
        row["chosen"] = row is best


def chosen(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """The rows whose columns hold what is wanted."""
    return [row for row in rows if all(row.get(name) == value for name, value in wanted.items())]
