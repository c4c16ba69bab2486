"""Machine, versions and date of a result."""

import datetime
import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch


def environment() -> dict[str, Any]:
    """Return versions and thread counts; with the settings, they determine a result."""
    names = ("hetsyn-triton", "torch", "triton", "numba", "numpy")
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in names},
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }


def provenance(gpus: Iterable[torch.device | int] = ()) -> dict[str, Any]:
    """Return the date (UTC), the names of CPU and `gpus`, and the known parts of `environment`."""
    names = [torch.cuda.get_device_name(gpu) for gpu in gpus]
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "cpu": cpu_name(),
        **({"gpu": ", ".join(names)} if names else {}),
        **{name: value for name, value in environment().items() if value is not None},
    }


def cpu_name() -> str:
    """Return the name of the CPU, or its architecture if the system reports no name."""
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
