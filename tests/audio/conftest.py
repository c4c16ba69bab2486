"""Each test has a cache of its own for spikes; compiled kernels stay where they were."""

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    before = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    compiled = os.environ.get("NUMBA_CACHE_DIR") or os.path.join(before, "hetsyn_triton")
    monkeypatch.setenv("NUMBA_CACHE_DIR", compiled)
    home = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home
