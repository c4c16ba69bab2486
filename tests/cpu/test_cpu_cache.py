"""Compiled kernels on disk: compiled once and said so, and never in a user's way."""

import faulthandler
import os
import pickle
import random
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any

import numba
import numpy as np
import pytest
from numba.core import event

from hetsyn_triton.kernels.cpu.lib import compiling
from hetsyn_triton.ops.dispatch import seconds_compiling

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 200
ANNOUNCED = "hetsyn_triton: compiling CPU kernels"

PROGRAM = """
import torch
from hetsyn_triton.kernels.cpu import spike_scan as module

one = torch.full((1, 3, 2, 5), 0.6)
zero = torch.zeros(1, 1, 2, 5)
half = torch.full((1, 1, 5), 0.5)
spikes, potential, feedback = module.spike_scan(one, half[:, 0], half, half, zero, zero[:, 0])
v = torch.tensor([0.6, 0.6 - 0.5, 0.6 - 0.25])
torch.testing.assert_close(potential, v.view(1, 3, 1, 1).expand_as(one))
assert torch.equal(spikes, (potential > 0.5).float())
stats = module._scan.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


def start(cache: Path, tree: Path = ROOT) -> subprocess.Popen[str]:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(tree)}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=tree,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What it wrote: loaded and compiled kernels, and complaints."""
    try:
        out, err = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
    assert process.returncode == 0, err
    return out.strip(), err


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache filled by two processes at once: both are right, and each says once that it
    compiles."""
    cache = tmp_path_factory.mktemp("cache") / "not" / "there"
    both = [start(cache), start(cache)]
    found = [ended(process) for process in both]
    assert ("0 1", 1) in [(out, err.count(ANNOUNCED)) for out, err in found]
    for out, err in found:
        # The later one may find what the earlier one has compiled.
        assert (out, err.count(ANNOUNCED)) in (("0 1", 1), ("1 0", 0))
        assert out == "1 0" or f"once, kept in {cache}" in err
    return cache


@pytest.mark.slow
def test_a_later_process_compiles_nothing(warm: Path) -> None:
    assert ended(start(warm)) == ("1 0", "")


def test_changed_sources_are_compiled_anew(warm: Path, tmp_path: Path) -> None:
    """Also those of a part that the kernel calls, of which Numba knows nothing."""
    for part in ("hetsyn_triton", "kernels", "reference"):
        shutil.copytree(
            ROOT / part,
            tmp_path / part,
            symlinks=True,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    part_of_it = tmp_path / "kernels" / "cpu" / "lib" / "vectors.py"
    part_of_it.write_text(part_of_it.read_text() + "# another\n")
    before = set(warm.iterdir())
    out, err = ended(start(warm, tmp_path))
    assert (out, err.count(ANNOUNCED)) == ("0 1", 1)
    assert len(set(warm.iterdir()) - before) == 1


def test_where_nothing_can_be_kept(tmp_path: Path) -> None:
    """Compiled in every process, which each says. A path below a file: root may write anywhere
    else."""
    file = tmp_path / "file"
    file.touch()
    out, err = ended(start(file / "below"))
    assert out == "0 1"
    assert err.count(ANNOUNCED) == 1
    assert "in every process: no folder to keep them" in err
    assert file.read_bytes() == b""


# -- a cache that is damaged, in this process, with a kernel of no weight ------------------------


def doubled(values: Any, out: Any) -> None:
    for k in range(values.size):
        out[k] = 2 * values[k]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(compiling, "cache_folder", lambda: tmp_path)
    return tmp_path


def use(dtype: Any = np.float32) -> tuple[int, int]:
    """Runs the kernel as a new process would: how often it was loaded, and compiled."""
    made = compiling.kernel(doubled)
    values = np.arange(5, dtype=dtype)
    out = np.full(5, np.nan, dtype)
    made(values, out)
    assert np.array_equal(out, 2 * values)
    return sum(made.stats.cache_hits.values()), sum(made.stats.cache_misses.values())


LOADED, COMPILED = (1, 0), (0, 1)


def only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def test_kept(folder: Path) -> None:
    assert use() == COMPILED
    assert use() == LOADED
    assert use(np.float64) == COMPILED
    assert use(np.float64) == use() == LOADED
    assert len(list(folder.iterdir())) == 2


def flipped(place: float) -> Callable[[bytes], bytes]:
    """One bit, as a failing disk or memory leaves it."""

    def damage(old: bytes) -> bytes:
        at = int(place * (len(old) - 1))
        return old[:at] + bytes([old[at] ^ 4]) + old[at + 1 :]

    return damage


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda old: b"",
    "cut": lambda old: old[: len(old) // 2],
    "cut short by one": lambda old: old[:-1],
    "zeros": lambda old: bytes(len(old)),  # what a crash of the machine may leave
    "something else": lambda old: b"once upon a time\n" * 9,
    **{f"a bit at {place}": flipped(place) for place in (0.0, 0.3, 1.0)},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_made_anew(damage: str, folder: Path) -> None:
    """And nothing of it is loaded: a flipped bit in compiled code would end the process."""
    assert use() == COMPILED
    file = only_file(folder)
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    assert use() == COMPILED
    assert use() == LOADED


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_a_bit_anywhere(folder: Path, hunt: int, times: int) -> None:
    """Compiled code with a wrong bit ends the process, if it is loaded."""
    assert use() == COMPILED
    whole, chance = only_file(folder).read_bytes(), random.Random(hunt)
    for _ in range(20 * times):
        only_file(folder).write_bytes(flipped(chance.random())(whole))
        assert use() == COMPILED


def test_a_file_that_went(folder: Path) -> None:
    assert use() == COMPILED
    only_file(folder).unlink()
    assert use() == COMPILED
    assert use() == LOADED


def test_a_file_under_the_name_of_another(folder: Path) -> None:
    """Its digest is that of its own name and contents."""
    assert use(np.float64) == COMPILED
    other = only_file(folder)
    assert use() == COMPILED
    (file,) = set(folder.iterdir()) - {other}
    file.write_bytes(other.read_bytes())
    assert use() == COMPILED
    assert use() == use(np.float64) == LOADED


# -- what others may have written ------------------------------------------------------------------


class Bomb:
    """Runs a command in the process that unpickles it."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> Any:
        return Path.touch, (self.sign,)


def planted(file: Path, sign: Path) -> None:
    """A file with a digest that fits, as an attacker would make it."""
    code = pickle.dumps(Bomb(sign))
    file.write_bytes(compiling._digest(file.name, code) + code)


def link(file: Path) -> None:
    target = file.with_name("target")
    file.rename(target)
    file.symlink_to(target)


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


WAYS: dict[str, tuple[Callable[[Path], None], str]] = {
    "others may write it": (
        lambda file: file.chmod(0o606),
        "only the owner can write, got mode 606",
    ),
    "the group may write it": (lambda file: file.chmod(0o660), "only the owner can write"),
    "of another user": (lambda file: os.chown(file, 12345, -1), "got one of user 12345"),
    "a link": (link, ""),
    "a pipe": (pipe, "expected a folder of plain files"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_others_may_have_written(
    way: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not unpickled; the process says so once and compiles for itself."""
    if "user" in way and os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    change, said = WAYS[way]
    compiling._tell.cache_clear()
    assert use() == COMPILED
    file, sign = only_file(folder), folder.parent / "sign"
    planted(file, sign)
    change(file)
    for _ in range(2):
        before = set(folder.iterdir())
        made = compiling.kernel(doubled)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compiling._Cache, "save_overload", lambda *_: None)
            made(np.ones(1, np.float32), np.ones(1, np.float32))
        assert sum(made.stats.cache_misses.values()) == 1
        assert set(folder.iterdir()) == before
    assert not sign.exists()
    assert caplog.text.count("are not used") == (1 if said else 0)
    assert said in caplog.text


def test_the_planted_file_would_run(folder: Path) -> None:
    """What the tests above rely on: in a folder of one's own it is loaded."""
    assert use() == COMPILED
    sign = folder.parent / "sign"
    planted(only_file(folder), sign)
    assert use() == COMPILED
    assert sign.exists()


FOLDERS: dict[str, Callable[[Path], dict[str, str]]] = {
    "others may write it": lambda path: {"NUMBA_CACHE_DIR": str(path)},
    "a relative path": lambda path: {"NUMBA_CACHE_DIR": "cache"},
    "no home": lambda path: {"HOME": "", "XDG_CACHE_HOME": "~/.cache"},
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_that_is_refused(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    place = compiling._place.__wrapped__
    for name, value in FOLDERS[case](tmp_path / "cache").items():
        monkeypatch.setenv(name, value)
    if case == "others may write it":
        made, _ = place()
        assert made is not None
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
        made.chmod(0o777)
    folder, said = place()
    assert folder is None
    assert said.startswith("in every process: ")
    assert "only the owner can write" in said or "expected an absolute cache folder" in said
    if case != "others may write it":
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077])
def test_modes_do_not_depend_on_the_umask(
    umask: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    before = os.umask(umask)
    try:
        folder, _ = compiling._place.__wrapped__()
        assert folder is not None
        monkeypatch.setattr(compiling, "cache_folder", lambda: folder)
        assert use() == COMPILED
        assert use() == LOADED
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(only_file(folder).stat().st_mode) == 0o600


def test_forking_waits_for_a_compilation() -> None:
    """A child that is forked while a thread compiles can compile."""
    begun, go_on = threading.Event(), threading.Event()

    class Slow(event.Listener):
        def on_start(self, event: Any) -> None:
            begun.set()
            go_on.wait(1)

        def on_end(self, event: Any) -> None:
            pass

    def compile_one() -> None:
        numba.njit(lambda x: x + 1)(1)

    with event.install_listener("numba:compile", Slow()):
        thread = threading.Thread(target=compile_one)
        thread.start()
        begun.wait()
        child = os.fork()
        if child == 0:
            faulthandler.dump_traceback_later(60, exit=True)
            os._exit(int(numba.njit(lambda x: x + 2)(1)) - 3)
        thread.join()
    _, status = os.waitpid(child, 0)
    assert status == 0


def test_a_folder_that_can_no_longer_be_written(folder: Path) -> None:
    """As a disk that is full by now: compiled, not kept."""
    made = compiling.kernel(doubled)
    shutil.rmtree(folder)
    folder.touch()
    values = np.arange(5, dtype=np.float32)
    out = np.full_like(values, np.nan)
    made(values, out)
    assert np.array_equal(out, 2 * values)
    made(values, out)
    folder.unlink()


def test_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "cache_folder", lambda: None)
    assert use() == use() == COMPILED


def test_functions_of_others_are_not_announced(caplog: pytest.LogCaptureFixture) -> None:
    """Numba compiles for its users too, also functions that belong to no module."""
    space: dict[str, Any] = {}
    exec("def function(x):\n    return x + 1", space)
    space["function"].__module__ = None
    assert numba.njit(space["function"])(1) == 2
    assert not caplog.records


# -- how long compiling took -----------------------------------------------------------------------


def ours() -> FunctionType:
    """A function that counts as one of the kernels' own."""
    function = FunctionType(doubled.__code__, globals())
    function.__module__ = f"{compiling.__package__}.none"
    return function


def test_what_is_compiled_takes_time_and_what_is_read_takes_none(folder: Path) -> None:
    def added() -> float:
        before, values = seconds_compiling(), np.arange(5, dtype=np.float32)
        compiling.kernel(ours())(values, values.copy())
        return seconds_compiling() - before

    assert added() > 0
    assert added() == 0


def test_a_part_compiled_within_a_kernel_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter((1.0, 4.0))  # asked where the kernel begins and ends, and nowhere between
    monkeypatch.setattr(compiling, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    before = seconds_compiling()

    def compiled(function: Any) -> Any:
        details = {"dispatcher": SimpleNamespace(py_func=function)}
        return event.trigger_event("numba:compile", data=details)

    with compiled(doubled), compiled(ours()), compiled(ours()):
        pass
    assert seconds_compiling() - before == 3


def test_asking_for_the_time_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, compiling.__name__)
    assert seconds_compiling() == 0
    assert compiling.__name__ not in sys.modules
