"""Ctrl-C ends the command with one line and exit code 130 at any time.

While modules are imported, there is no work to lose, and libraries may turn an exception into
another one: the process exits at once. Later, KeyboardInterrupt is raised as usual and remembered,
because a library may swallow or replace it.
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
    """Start to handle Ctrl-C; do nothing outside the main thread."""
    forget()
    _now.loading = True
    try:
        signal.signal(signal.SIGINT, _on_interrupt)
    except ValueError:
        return
    sys.unraisablehook = _unraisable
    # only Python's own clean-up remains at exit
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


def forget() -> None:
    """Forget the interrupts of an earlier command."""
    _now.asked = _now.told = False


def loaded() -> None:
    """Let Ctrl-C raise KeyboardInterrupt, once all modules are imported."""
    _now.loading = False


def is_interrupt(error: BaseException) -> bool:
    """Return whether `error` is or was caused by Ctrl-C."""
    return _now.asked or isinstance(error, KeyboardInterrupt)


def raise_if_asked() -> None:
    """Raise KeyboardInterrupt again if a library has swallowed it."""
    if _now.asked:
        raise KeyboardInterrupt


def tell(line: str = "Stopped.") -> None:
    """Print `line` to stderr, but only once if Ctrl-C is pressed twice."""
    if not _now.told:
        _now.told = True
        print(line, file=sys.stderr, flush=True)
    _now.told = _now.asked  # each of several commands in a process prints its own line


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    if _now.loading:
        os.write(2, b"Stopped.\n")
        os._exit(INTERRUPTED)
    _now.asked = True
    raise KeyboardInterrupt


def _unraisable(hook: Any) -> None:
    """Do not print an interrupt inside a destructor, which cannot raise it."""
    if not isinstance(hook.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(hook)
