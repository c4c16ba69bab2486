"""Report how far a task is with the preparation of its data."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Watcher = Callable[[str, int, int], None]
"""Receives what is done, how many pieces are done, and their total number."""

_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Send reports to `watcher` while the block runs."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def tell(what: str, done: int, total: int) -> None:
    """Report that `done` of `total` pieces are done, if there is a watcher."""
    watcher = _watcher.get()
    if watcher is not None:
        watcher(what, done, total)
