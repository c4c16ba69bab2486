"""Checks of optional dependencies."""

from importlib.util import find_spec

INSTALL = "pip install -c constraints.txt -e '.[{extra}]' in the checkout of hetsyn_triton"


class MissingExtraError(ImportError):
    """A package of an optional extra is needed but not installed."""


def require_extra(purpose: str, *modules: str, extra: str = "train") -> None:
    """Check that all `modules` can be imported.

    Args:
        purpose: What needs them, as the subject of the message, such as "the digits data set".
        modules: Names of the modules.
        extra: The extra that installs them.

    Raises:
        MissingExtraError: If a module is missing.
    """
    missing = [name for name in modules if not _importable(name)]
    if missing:
        raise MissingExtraError(
            f"{purpose} needs {', '.join(missing)}: run {INSTALL.format(extra=extra)}"
        )


def _importable(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ValueError:  # a blocked or partly loaded module has no spec
        return False
