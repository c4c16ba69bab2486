"""How a kernel is compiled: on its first call for a dtype, then kept on disk.

`kernel` makes a function that runs without Python's lock, `inlined` and `borrowing` parts of
kernels. Compiled code lies in `NUMBA_CACHE_DIR`, else in `hetsyn_triton` in the user's cache
folder, in a folder named by a digest of all sources of `kernels/cpu`: Numba itself looks only at
the file of the kernel, not at what it calls. Where that folder cannot be written, kernels are
compiled in each process anew.

The first compilation in a process is announced by a warning of the logger `hetsyn_triton`;
`seconds_compiling` says how long all took.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import config, event
from numba.core.caching import FunctionCache

logger = logging.getLogger("hetsyn_triton")

_OPTIONS: Any = {"nogil": True, "error_model": "numpy"}
_BORROWING: Any = {"forceinline": True, "_nrt": False}
_decorating = threading.Lock()


def inlined(function: Callable[..., Any]) -> Any:
    """A function for kernels to call, compiled as part of each."""
    return numba.njit(forceinline=True, **_OPTIONS)(function)


def borrowing(function: Callable[..., Any]) -> Any:
    """`inlined` that counts no references to its arrays, which costs more than a step of a loop
    does: for a part that neither allocates nor returns an array."""
    return numba.njit(**_OPTIONS, **_BORROWING)(function)


def kernel(function: Callable[..., Any]) -> Any:
    """A function over tasks [begin, end), compiled when first called for a dtype, kept on disk."""
    folder = cache_folder()
    if folder is None:
        return numba.njit(**_OPTIONS)(function)
    made = numba.njit(**_OPTIONS)(function)
    setting: Any = config  # one for all of Numba, read when a cache is made
    with _decorating:
        before, setting.CACHE_DIR = setting.CACHE_DIR, str(folder)
        try:
            made._cache = _Cache(function)  # what `cache=True` does with Numba's own
        finally:
            setting.CACHE_DIR = before
    return made


class _Cache(FunctionCache):  # type: ignore[misc, unused-ignore]
    """Numba's, in which a file that cannot be read or written is no error of the caller's."""

    def load_overload(self, signature: Any, target: Any) -> Any:
        try:
            found = super().load_overload(signature, target)
        except Exception:  # of a file cut short, unpickling raises anything
            with suppress(OSError):
                self.flush()
            return None
        # Processes that compile for different dtypes at once may both write the first file.
        fits = found is not None and tuple(found.signature.args) == tuple(signature)
        return found if fits else None

    def save_overload(self, signature: Any, data: Any) -> None:
        with suppress(Exception):  # a full disk, say, or an index that can be neither read nor made
            super().save_overload(signature, data)


@cache
def cache_folder() -> Path | None:
    """Where compiled kernels are kept; None where nothing can be written."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(source.read_bytes())
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    root = os.environ.get("NUMBA_CACHE_DIR") or os.path.join(home, "hetsyn_triton")
    folder = Path(root) / f"cpu-{digest.hexdigest()[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return None
    return folder


class _Compilations(event.Listener):
    """Says once per process that kernels are being compiled, and where they are kept; and adds up
    how long it takes. Numba compiles under one lock, so no two threads are in here."""

    said = False
    seconds = 0.0
    depth = 0  # what a kernel calls is compiled within the kernel
    began = 0.0

    def on_start(self, event: Any) -> None:
        if not _is_ours(event):
            return
        if self.depth == 0:
            self.began = time.perf_counter()
        self.depth += 1
        if self.said:
            return
        self.said = True
        folder = cache_folder()
        kept = (
            f"each once, kept in {folder}" if folder else "in every process: no folder to keep them"
        )
        logger.warning("hetsyn_triton: compiling CPU kernels (%s)", kept)

    def on_end(self, event: Any) -> None:
        if not _is_ours(event):
            return
        self.depth -= 1
        if self.depth == 0:
            self.seconds += time.perf_counter() - self.began


def _is_ours(event: Any) -> bool:
    function = getattr(event.data["dispatcher"], "py_func", None)
    module = getattr(function, "__module__", None) or ""
    return module.startswith(__package__)


_compilations = _Compilations()
event.register("numba:compile", _compilations)


def seconds_compiling() -> float:
    """Seconds that this process has spent compiling kernels so far; none for those read from
    disk."""
    return _compilations.seconds
