"""How tables and pictures write measures and counts."""

from collections.abc import Collection
from typing import Any

from hetsyn_triton.experiments.training.measure import shown_name

RATIO = "_of_homneu"  # suffix of a measure divided by that of homneu


def in_words(name: str) -> str:
    """Return the name of a measure as axes and tables show it; ratios as in "step ms / homneu"."""
    measure = name.removesuffix(RATIO)
    return shown_name(measure) if measure == name else f"{shown_name(measure)} / homneu"


def counted(count: int, name: str) -> str:
    """Return a count with its noun, such as "1 seed" or "3 seeds"."""
    return f"{count} {name}{'' if count == 1 else 's'}"


def seeds_in_words(numbers: Collection[int]) -> str:
    """Return the number of seeds, or its range if it differs between points."""
    least, most = min(numbers), max(numbers)
    return f"{'' if least == most else f'{least} to '}{counted(most, 'seed')}"


def is_share(name: str) -> bool:
    """Return whether a measure is a fraction, shown in percent: accuracy, success or a share."""
    words = name.replace("_", " ").split()
    return any(word in ("accuracy", "share", "success") for word in words)


def setting_in_words(name: str, value: Any) -> str:
    """Return a setting; layers as in 64-32, other lists in brackets."""
    if not isinstance(value, (list, tuple)):
        return f"{name} {value}"
    items = map(str, value)
    return f"{name} {'-'.join(items)}" if name == "hidden" else f"{name} ({', '.join(items)})"
