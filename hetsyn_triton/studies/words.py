"""How measures are written."""

import re


def in_words(name: str) -> str:
    """A measure's name as axes and tables show it."""
    return re.sub(r"\bmse\b", "mean squared error", name.replace("_", " "))


def is_share(name: str) -> bool:
    """Whether a measure is a fraction, shown in per cent; accuracy_validation_selected too."""
    words = name.replace("_", " ").split()
    return any(word in ("accuracy", "share", "success") for word in words)
