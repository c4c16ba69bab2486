"""The machine that a figure was measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re

import torch

from bench.provenance import provenance, said
from bench.records import Record
from hetsyn_triton import ops
from hetsyn_triton.experiments.training.machine import cpu_name

CLOCK = 1.98e9
"""Highest clock of an H200, assumed where nvidia-smi does not tell."""


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def of(device: str, commit: str = "") -> Record:
    """The record of a "cpu" or a "cuda" device."""
    return gpu(torch.device(device), commit) if device == "cuda" else cpu(commit)


def cpu(commit: str) -> Record:
    """All that a figure depends on."""
    capability = torch.backends.cpu.get_cpu_capability()
    compiler = (said(os.environ.get("CXX", "g++"), "--version") or "").splitlines()
    packages = ("numba", "llvmlite", "numpy", "spikingjelly", "snntorch", "norse")
    return {
        "device": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "instructions": capability,
        "system": f"{platform.system()} {platform.machine()}",
        **{name: _version(name) for name in packages},
        "compiler": compiler[0] if compiler else None,
        **provenance(commit),
        "load_average": os.getloadavg()[0],
        "denormals_zero": _denormals_are_zero(),
        "operators": {i.operator: i.chosen for i in ops.backend_info("cpu").operators},
    }


def _denormals_are_zero() -> bool:
    """On all threads that PyTorch would share large work out over."""
    halves = torch.full((1 << 20,), torch.finfo(torch.float32).tiny) / 2
    return not halves.count_nonzero()


def file_name(kind: str, machine: Record) -> str:
    """Of what is stored: `kind`, processor, where they are known its instructions and threads."""
    threads = f"{machine['threads']}-threads" if "threads" in machine else None
    parts = (kind, machine["device"], machine.get("instructions"), threads)
    name = "-".join(part for part in parts if part is not None)
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") + ".json"


def gpu(device: torch.device, commit: str) -> Record:
    """All that a figure depends on. `fma_rate`: multiply-adds a second at the highest clock."""
    import triton

    found: Record = {
        "device": platform.processor() or platform.machine(),
        "cuda": torch.version.cuda,
        "triton": triton.__version__,
        **provenance(commit),
        "fma_rate": None,
    }
    if device.type != "cuda":
        return found
    properties = torch.cuda.get_device_properties(device)
    query = "--query-gpu=clocks.max.sm,driver_version,power.limit"
    answer = (said("nvidia-smi", query, "--format=csv,noheader,nounits") or "").splitlines()
    megahertz, driver, power = (answer[0].split(", ") if answer else ["", "", ""])[:3]
    clock = float(megahertz) * 1e6 if re.fullmatch(r"\d+", megahertz) else CLOCK
    # GA100 has 64 lanes a multiprocessor; what came after has 128.
    lanes = 64 if (properties.major, properties.minor) == (8, 0) else 128
    return found | {
        "device": properties.name,
        "sms": properties.multi_processor_count,
        "lanes": lanes,
        "clock_hz": clock,
        "clock_from": "nvidia-smi" if clock != CLOCK or megahertz else "assumed",
        "driver": driver,
        "power_limit_w": power,
        "memory_bytes": properties.total_memory,
        "fma_rate": properties.multi_processor_count * lanes * clock,
    }
