"""What a stored figure depends on, whatever was measured: versions, date, commit."""

from __future__ import annotations

import datetime
import platform
import subprocess
from pathlib import Path

import torch

from bench.records import Record

ROOT = Path(__file__).resolve().parent.parent


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


def provenance(given: str) -> Record:
    """Common to all results; `given`: the commit where there is no git to ask."""
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": given or commit(),
        "changed": bool(said("git", "status", "--porcelain", "--untracked-files=no")),
        "threads": torch.get_num_threads(),
    }
