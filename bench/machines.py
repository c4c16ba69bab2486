"""Provenance of a result: machine, versions, date, commit, and a digest of the sources."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path

import torch

from bench import ROOT
from bench.records import Record
from hetsyn_triton import ops
from hetsyn_triton.experiments.training.machine import cpu_name

CLOCK = 1.98e9
"""Maximum clock of an H200 in Hz, used if nvidia-smi does not report one."""
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
"""The code that is tested and timed, and its tests."""
MEASURING = (
    "baseline_loop", "benchmark_runner", "cases", "conftest", "contenders", "isolated",
    "operator_arguments", "peak", "plain_lif", "processes", "registry", "replica_steps",
    "test_benchmark", "timing", "workloads",
)  # fmt: skip
"""Files of bench/ that define what is timed and how."""


def output(*command: str) -> str | None:
    """Run a command in the checkout; return its output, None if it fails or cannot run."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def commit() -> str:
    """Return the commit of the checkout, "unknown" without git."""
    return output("git", "rev-parse", "HEAD") or "unknown"


def sources(root: Path = ROOT) -> str:
    """Return a digest of kernels, operators, closed forms, layers, their tests and timing code.

    Results with the same digest have tested and timed the same code.
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


def provenance() -> Record:
    """Return the entries that CPU and GPU results share."""
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "changed": bool(output("git", "status", "--porcelain", "--untracked-files=no")),
        "sources": sources(),
        "threads": torch.get_num_threads(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def of(device: str) -> Record:
    """Return the provenance of a result on a "cpu" or "cuda" device."""
    return (gpu() if device == "cuda" else cpu()) | provenance()


def cpu() -> Record:
    """Return the machine and the versions that affect a CPU."""
    capability = torch.backends.cpu.get_cpu_capability()
    compiler = (output(os.environ.get("CXX", "g++"), "--version") or "").splitlines()
    packages = ("numba", "llvmlite", "numpy", "spikingjelly", "snntorch", "norse")
    return {
        "device": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "instructions": capability,
        "system": f"{platform.system()} {platform.machine()}",
        **{name: _version(name) for name in packages},
        "compiler": compiler[0] if compiler else None,
        "load_average": os.getloadavg()[0],
        "denormals_zero": _denormals_are_zero(),
        "operators": {i.operator: i.chosen for i in ops.backend_info("cpu").operators},
    }


def _denormals_are_zero() -> bool:
    """Whether subnormal numbers are zero on all threads that PyTorch uses for large tensors."""
    halves = torch.full((1 << 20,), torch.finfo(torch.float32).tiny) / 2
    return not halves.count_nonzero()


def file_name(machine: Record) -> str:
    """Return the name of the stored file: processor, instructions if known, threads."""
    parts = ("benchmark", machine["device"], machine.get("instructions"), machine["threads"])
    name = "-".join(str(part) for part in parts if part is not None)
    return re.sub(r"[^A-Za-z0-9]+", "-", name) + "-threads.json"


def gpu() -> Record:
    """Return the machine; `fma_rate` is multiply-adds per second at the maximum clock."""
    import triton

    properties = torch.cuda.get_device_properties("cuda")
    query = "--query-gpu=clocks.max.sm,driver_version,power.limit"
    answer = (output("nvidia-smi", query, "--format=csv,noheader,nounits") or "").splitlines()
    megahertz, driver, power = (answer[0].split(", ") if answer else ["", "", ""])[:3]
    known = re.fullmatch(r"\d+", megahertz) is not None
    clock = float(megahertz) * 1e6 if known else CLOCK
    # FP32 lanes per multiprocessor: 64 in GA100, 128 in later GPUs.
    lanes = 64 if (properties.major, properties.minor) == (8, 0) else 128
    return {
        "device": properties.name,
        "cuda": torch.version.cuda,
        "triton": triton.__version__,
        "sms": properties.multi_processor_count,
        "lanes": lanes,
        "clock_hz": clock,
        "clock_from": "nvidia-smi" if known else "assumed",
        "driver": driver,
        "power_limit_w": power,
        "memory_bytes": properties.total_memory,
        "fma_rate": properties.multi_processor_count * lanes * clock,
    }
