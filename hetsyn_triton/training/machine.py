"""What a result depends on besides its settings: machine, versions, date."""

import datetime
import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch


def environment() -> dict[str, Any]:
    """Versions and the number of threads, which together with the seed fix the result."""
    names = ("hetsyn-triton", "torch", "triton", "numba", "numpy")
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in names},
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }


def provenance(gpus: Iterable[torch.device | int] = ()) -> dict[str, Any]:
    """The date now (UTC), the CPU's name, those of `gpus` where there are some, and the
    `environment` without what is not there."""
    names = [torch.cuda.get_device_name(gpu) for gpu in gpus]
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "cpu": cpu_name(),
        **({"gpu": ", ".join(names)} if names else {}),
        **{name: value for name, value in environment().items() if value is not None},
    }


def cpu_name() -> str:
    """The CPU's name as the system gives it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
