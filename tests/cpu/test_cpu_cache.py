"""Compiled kernels on disk: compiled once and said so, and never in a user's way."""

import os
import shutil
import subprocess
import sys
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


def files(folder: Path, ending: str) -> list[Path]:
    return sorted(folder.rglob(f"*.{ending}"))


def test_kept(folder: Path) -> None:
    assert use() == COMPILED
    assert use() == LOADED
    assert use(np.float64) == COMPILED
    assert use(np.float64) == use() == LOADED
    assert (len(files(folder, "nbi")), len(files(folder, "nbc"))) == (1, 2)


def test_numba_is_left_as_it_was(folder: Path) -> None:
    setting: Any = numba.config
    before = setting.CACHE_DIR
    use()
    assert before == setting.CACHE_DIR


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda old: b"",
    "cut": lambda old: old[: len(old) // 2],
    "cut short by one": lambda old: old[:-1],
    "zeros": lambda old: bytes(len(old)),  # what a crash of the machine may leave
    "something else": lambda old: b"once upon a time\n" * 9,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("ending", ["nbi", "nbc"])
def test_a_damaged_file_is_made_anew(ending: str, damage: str, folder: Path) -> None:
    assert use() == COMPILED
    (file,) = files(folder, ending)
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    assert use() == COMPILED
    assert use() == LOADED


def test_a_file_that_went(folder: Path) -> None:
    assert use() == COMPILED
    files(folder, "nbc")[0].unlink()
    assert use() == COMPILED
    assert use() == LOADED


def test_a_file_with_the_code_of_another_dtype(folder: Path) -> None:
    """What two processes may leave behind that compile for different dtypes at once: each has found
    the cache empty, and both write the first file."""
    assert use(np.float64) == COMPILED
    (other,) = files(folder, "nbc")
    code = other.read_bytes()
    for file in folder.rglob("*.nb?"):
        file.unlink()
    assert use() == COMPILED
    files(folder, "nbc")[0].write_bytes(code)
    assert use() == COMPILED
    assert use() == LOADED
    assert use(np.float64) == COMPILED
    assert use(np.float64) == use() == LOADED


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
