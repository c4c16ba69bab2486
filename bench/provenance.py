"""What a stored figure depends on, whatever was measured: versions, date, commit."""

from __future__ import annotations

import datetime
import hashlib
import platform
import subprocess
from pathlib import Path

import torch

from bench import ROOT
from bench.records import Record

SOURCES = (
    "hetsyn_triton/kernels",
    "hetsyn_triton/ops",
    "hetsyn_triton/reference",
    "hetsyn_triton/modules",
    "tests/cpu",
    "tests/gpu",
    "tests/operators",
    "tests/support",
)
"""What is tested and timed, and its tests."""
MEASURING = (
    "apart", "conftest", "contests", "measuring", "operators", "peak", "plain_lif", "processes",
    "registry", "replicas", "rivals", "cases", "test_benchmark", "timing", "workloads",
)  # fmt: skip
"""Files of bench that say what is timed and how."""


def said(*command: str) -> str | None:
    """What a command prints, in the checkout; None where it cannot run or fails."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def commit() -> str:
    """Of the checkout; unknown without git."""
    return said("git", "rev-parse", "HEAD") or "unknown"


def sources(root: Path = ROOT) -> str:
    """Return a digest of kernels, operators, closed forms, layers, their tests and timing code.

    Two results with one digest tested and timed the same code.
    """
    files = [file for folder in SOURCES for file in (root / folder).rglob("*.py")]
    files += (root / "hetsyn_triton").glob("*.py")
    files += [f for name in MEASURING if (f := root / "bench" / f"{name}.py").exists()]
    files += [f for f in (root / "tests").glob("*.py") if not f.name.startswith("test_")]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def provenance(given: str) -> Record:
    """Common to all results; `given`: the commit where there is no git to ask."""
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": given or commit(),
        "changed": bool(said("git", "status", "--porcelain", "--untracked-files=no")),
        "sources": sources(),
        "threads": torch.get_num_threads(),
    }
