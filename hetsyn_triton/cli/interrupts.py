"""Ctrl-C ends the command with one line and exit code 130, whenever it comes.

While the command's parts are loading there is nothing to lose, and libraries turn an exception in
the middle of an import into others: the process leaves at once. Afterwards KeyboardInterrupt is
raised as usual, and remembered, for a library may still swallow it or raise another in its place.
"""

import atexit
import os
import signal
import sys
from types import FrameType, SimpleNamespace
from typing import Any

INTERRUPTED = 130  # 128 + SIGINT, what a shell reports for Ctrl-C

_now = SimpleNamespace(loading=False, asked=False, told=False)


def install() -> None:
    """From here on Ctrl-C is answered as this module says. Off the main thread, nothing."""
    forget()
    _now.loading = True
    try:
        signal.signal(signal.SIGINT, _on_interrupt)
    except ValueError:
        return
    sys.unraisablehook = _unraisable
    # what remains at exit is Python's own clean-up
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


def forget() -> None:
    """A command begins: what was asked of the one before is over."""
    _now.asked = _now.told = False


def loaded() -> None:
    """The command's parts are loaded: from here on Ctrl-C raises KeyboardInterrupt."""
    _now.loading = False


def is_interrupt(error: BaseException) -> bool:
    """Whether `error` is Ctrl-C, or came of it."""
    return _now.asked or isinstance(error, KeyboardInterrupt)


def raise_if_asked() -> None:
    """KeyboardInterrupt where one was raised before and swallowed."""
    if _now.asked:
        raise KeyboardInterrupt


def tell(line: str = "Stopped.") -> None:
    """Print `line` on stderr, unless a second Ctrl-C came while the first was being answered."""
    if not _now.told:
        _now.told = True
        print(line, file=sys.stderr, flush=True)
    _now.told = _now.asked  # in a process that runs several commands each is answered


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    if _now.loading:
        os.write(2, b"Stopped.\n")
        os._exit(INTERRUPTED)
    _now.asked = True
    raise KeyboardInterrupt


def _unraisable(hook: Any) -> None:
    """An interrupt inside a destructor cannot be raised; it is remembered, not printed."""
    if not isinstance(hook.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(hook)
