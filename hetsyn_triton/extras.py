"""What the optional extras bring, and the error that says how to get them."""

from importlib.util import find_spec

INSTALL = "pip install 'hetsyn-triton[{extra}]'"


class MissingExtraError(ImportError):
    """A package of an optional extra is asked for and not installed."""


def require_extra(purpose: str, *modules: str, extra: str = "train") -> None:
    """Raise MissingExtraError unless every one of `modules` can be imported.

    `purpose` is what needs them, as it begins the error's sentence: "the digits data set";
    `extra` is the one that brings them.
    """
    missing = [name for name in modules if not _importable(name)]
    if missing:
        raise MissingExtraError(
            f"{purpose} needs {', '.join(missing)}: {INSTALL.format(extra=extra)}"
        )


def _importable(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ValueError:  # a module that is blocked or half loaded has no spec
        return False
