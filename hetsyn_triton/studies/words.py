"""How measures are written."""

import re
from collections.abc import Collection


def in_words(name: str) -> str:
    """A measure's name as axes and tables show it."""
    return re.sub(r"\bmse\b", "mean squared error", name.replace("_", " "))


def counted(count: int, name: str) -> str:
    """As many of what is called `name`."""
    return f"{count} {name}{'' if count == 1 else 's'}"


def seeds_in_words(numbers: Collection[int]) -> str:
    """How many seeds there are, where that is not the same number everywhere."""
    least, most = min(numbers), max(numbers)
    return f"{'' if least == most else f'{least} to '}{counted(most, 'seed')}"


def is_share(name: str) -> bool:
    """Whether a measure is a fraction, shown in per cent; accuracy_validation_selected too."""
    words = name.replace("_", " ").split()
    return any(word in ("accuracy", "share", "success") for word in words)
