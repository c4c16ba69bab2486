"""How far a task is with making its data ready, told to whoever watches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Watcher = Callable[[str, int, int], None]
"""Gets what is done, in words, how many pieces are done, and of how many."""

_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """While the block runs, what is told goes to `watcher`."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def tell(what: str, done: int, total: int) -> None:
    """Say that `done` of `total` pieces are done. Nothing where nobody watches."""
    watcher = _watcher.get()
    if watcher is not None:
        watcher(what, done, total)
