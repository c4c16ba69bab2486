"""How a kernel is compiled: on its first call for a dtype, then kept on disk.

`kernel` makes a function that runs without Python's lock, `inlined` and `borrowing` parts of
kernels. Compiled code lies in `NUMBA_CACHE_DIR`, else in `hetsyn_triton` in the user's cache
folder, in a folder named by a digest of all sources of `kernels/cpu`: Numba itself looks only at
the file of the kernel, not at what it calls. Where that folder cannot be written, or others can
write it, kernels are compiled in each process anew.

The first compilation in a process is announced by a warning of the logger `hetsyn_triton`;
`seconds_compiling` says how long all took.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import stat
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import event
from numba.core.caching import FunctionCache
from numba.core.compiler import CompileResult
from numba.core.compiler_lock import global_compiler_lock
from numba.core.serialize import dumps

logger = logging.getLogger("hetsyn_triton")

_OPTIONS: Any = {"nogil": True, "error_model": "numpy"}
_BORROWING: Any = {"forceinline": True, "_nrt": False}


def inlined(function: Callable[..., Any]) -> Any:
    """A function for kernels to call, compiled as part of each."""
    return numba.njit(forceinline=True, **_OPTIONS)(function)


def borrowing(function: Callable[..., Any]) -> Any:
    """`inlined` that counts no references to its arrays, which costs more than a step of a loop
    does: for a part that neither allocates nor returns an array."""
    return numba.njit(**_OPTIONS, **_BORROWING)(function)


def kernel(function: Callable[..., Any]) -> Any:
    """A function over tasks [begin, end), compiled when first called for a dtype, kept on disk."""
    made = numba.njit(**_OPTIONS)(function)
    folder = cache_folder()
    if folder is not None:
        made._cache = _Cache(function, folder)  # what `cache=True` does with Numba's own
    return made


# -- compiled code on disk -------------------------------------------------------------------------


class _Cache(FunctionCache):  # type: ignore[misc, unused-ignore]
    """Numba's, with files that are checked before they are read.

    Numba's own are pickles: who can write one runs code in the process that reads it, and a bit
    that flips in compiled code ends the process. Here a file begins with a digest of its name and
    contents, and is read only if nobody else can have written it. Each has the code for one
    function and dtype. A file that cannot be read or written is no error of the caller's.
    """

    def __init__(self, function: Any, folder: Path) -> None:
        self._py_func, self._folder, self._cache_path = function, folder, str(folder)
        self.enable()

    def load_overload(self, signature: Any, target: Any) -> Any:
        target.refresh()
        name = self._file(signature, target.codegen())
        try:
            content = _read(self._folder / name)
            if content is None or content[:_SIZE] != _digest(name, content[_SIZE:]):
                return None
            found = CompileResult._rebuild(target, *pickle.loads(content[_SIZE:]))
        except Exception:  # written by another Numba, say: unpickling raises anything
            return None
        return found if tuple(found.signature.args) == tuple(signature) else None

    def save_overload(self, signature: Any, data: Any) -> None:
        name = self._file(signature, data.codegen)
        with suppress(Exception):  # a full disk, say
            code = dumps(data._reduce())
            with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
                try:
                    file.write(_digest(name, code) + code)
                    file.close()
                    os.replace(file.name, self._folder / name)
                except BaseException:
                    os.unlink(file.name)
                    raise

    def flush(self) -> None:
        """Nothing: a file that is damaged is written anew."""

    def _file(self, signature: Any, codegen: Any) -> str:
        key = (self._py_func.__qualname__, *self._index_key(signature, codegen))
        return f"{self._py_func.__name__}-{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}"


_SIZE = hashlib.sha256().digest_size


def _digest(name: str, code: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + code).digest()


def _read(path: Path) -> bytes | None:
    """Return the contents of a file, or None if somebody else may have written it."""
    # A link is an error, a pipe without a writer empty.
    place = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(place, "rb") as file:
        refusal = _refusal(os.fstat(place), stat.S_ISREG)
        if refusal is None:
            return file.read()
    _tell(path.parent, refusal)
    return None


@cache
def _tell(folder: Path, refusal: str) -> None:
    """Once per process, not for each file."""
    logger.warning("hetsyn_triton: kernels in %s are not used: %s", folder, refusal)


def _refusal(info: os.stat_result, is_kind: Callable[[int], bool]) -> str | None:
    """Return why a folder or file may be somebody else's work, or None."""
    if not is_kind(info.st_mode):
        return "expected a folder of plain files, got something else"
    if info.st_uid != os.geteuid():
        return f"expected files of user {os.geteuid()}, got one of user {info.st_uid}"
    if info.st_mode & 0o022:
        return f"expected that only the owner can write, got mode {stat.S_IMODE(info.st_mode):o}"
    return None


def cache_folder() -> Path | None:
    """Where compiled kernels are kept; None where they cannot be."""
    return _place()[0]


@cache
def _place() -> tuple[Path | None, str]:
    """-> the folder or None, and what is said about it."""
    digest = hashlib.sha256(repr((numba.__version__, sys.implementation.cache_tag)).encode())
    for source in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(source.read_bytes())
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    root = os.environ.get("NUMBA_CACHE_DIR") or os.path.join(home, "hetsyn_triton")
    if not os.path.isabs(root):
        return None, f"in every process: expected an absolute cache folder, got {root}"
    folder = Path(root) / f"cpu-{digest.hexdigest()[:16]}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        refusal = _refusal(folder.lstat(), stat.S_ISDIR)
        if refusal is not None:
            return None, f"in every process: {folder} is not used: {refusal}"
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return None, "in every process: no folder to keep them"
    return folder, f"each once, kept in {folder}"


# A child that is forked while a thread compiles would wait for Numba's lock for ever: forking waits
# for the end of the compilation.
os.register_at_fork(
    before=global_compiler_lock.acquire,
    after_in_parent=global_compiler_lock.release,
    after_in_child=global_compiler_lock.release,
)


# -- what is said and counted ----------------------------------------------------------------------


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
        logger.warning("hetsyn_triton: compiling CPU kernels (%s)", _place()[1])

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
