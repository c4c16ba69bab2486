"""Memory that is freed and taken again costs no page fault where it is kept."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hetsyn_triton import freed_memory
from hetsyn_triton.experiments.cli import main
from hetsyn_triton.experiments.studies.workers import work_through

HAS_GLIBC = freed_memory._is_glibc()

FAULTS = """
import resource
import numpy as np
import hetsyn_triton.freed_memory as freed_memory

kept = {call}

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(1 << 24)  # 128 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first = faults()
print(kept, first, faults(), faults())
"""


def ran(call: str, **variables: str) -> tuple[str, int, int]:
    """Whether memory is kept, and page faults of an array made first and of those after it."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    own.pop("GLIBC_TUNABLES", None)
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(call=call)],
        env={**own, **variables}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kept, first, *others = done.stdout.split()
    return kept, int(first), sum(map(int, others))


@pytest.mark.skipif(not HAS_GLIBC, reason="it is glibc that is told")
def test_what_is_freed_is_there_again() -> None:
    kept, first, others = ran("freed_memory.keep_freed_memory()")
    assert kept == "True"
    assert others < first / 10
    kept, first, others = ran("None")
    assert others > first  # two arrays, each faulted in anew


@pytest.mark.parametrize(
    "variables",
    [
        {"GLIBC_TUNABLES": "glibc.malloc.mmap_max=1000"},
        {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=1000000"},
        {"MALLOC_TRIM_THRESHOLD_": "1000000"},
        {"MALLOC_MMAP_MAX_": "1000"},
        {"MALLOC_MMAP_THRESHOLD_": "1000000"},
    ],
    ids=str,
)
def test_the_users_own_setting_stays(variables: dict[str, str]) -> None:
    kept, _, _ = ran("freed_memory.keep_freed_memory()", **variables)
    assert kept == "False"


@pytest.mark.skipif(not HAS_GLIBC, reason="it is glibc that is told")
def test_large_pages_are_another_setting() -> None:
    kept, _, _ = ran("freed_memory.keep_freed_memory()", GLIBC_TUNABLES="glibc.malloc.hugetlb=1")
    assert kept == "True"


@pytest.mark.parametrize("error", [ValueError, OSError, None])
def test_another_library_is_not_told(
    error: type[Exception] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the others some do not know the question, one has no answer, and one no such function."""

    def asked(name: str) -> str:
        assert error is not None
        raise error(name)

    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("asked"))
    for variable in ("GLIBC_TUNABLES", *freed_memory._OF_THE_USER):
        monkeypatch.delenv(variable, raising=False)
    if error is None:
        monkeypatch.delattr(os, "confstr", raising=False)
    else:
        monkeypatch.setattr(os, "confstr", asked, raising=False)
    assert freed_memory.keep_freed_memory() is False


def test_the_command_keeps_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    monkeypatch.setattr(freed_memory, "keep_freed_memory", lambda: asked.append(1))
    monkeypatch.setattr(sys, "argv", ["hetsyn", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert asked == [1]


def _write_faults(folder: Path) -> None:
    import resource

    import numpy as np

    counts = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones(1 << 24)
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    (folder / str(os.getpid())).write_text(" ".join(map(str, counts)))


@pytest.mark.skipif(not HAS_GLIBC, reason="it is glibc that is told")
def test_a_studys_own_processes_keep_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("GLIBC_TUNABLES", *freed_memory._OF_THE_USER):
        monkeypatch.delenv(variable, raising=False)
    assert all(e is None for _, e in work_through([tmp_path, tmp_path], _write_faults, 2))
    for file in tmp_path.iterdir():
        assert file.name != str(os.getpid())
        first, *others = map(int, file.read_text().split())
        assert sum(others) < first / 10
