"""What a stored figure depends on besides its settings: machine, versions, date."""

import datetime
import platform
from pathlib import Path
from typing import Any

import torch

from hetsyn_triton.training import environment


def provenance() -> dict[str, Any]:
    """The machine's processors, versions and the date (UTC)."""
    gpus = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "cpu": cpu_name(),
        **({"gpu": ", ".join(gpus)} if gpus else {}),
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
