"""The tests that must pass before anything is stored, run in processes of their own.

`python -m bench.gate FILE` runs those of this machine's device and writes the result: on a GPU lent
for minutes in a call of its own, for `pytest --benchmark --benchmark-proven=FILE`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import torch

from bench import ROOT, machines, records
from bench.records import Record, Refused

GPU_TESTS = (
    "--slow",
    "tests/operators",
    "tests/gpu",
    "--ignore=tests/gpu/test_gpu_codegen.py",
    "-k=not (Numba or eager)",
)
"""All tests of GPU kernels except those of the compiler's output, which need no GPU."""
_CPU = (
    "operators", "synaptic_current", "neurons", "recurrent", "sweeps", "vectors", "surrogate",
    "between", "threads",
)  # fmt: skip
CPU_TESTS = (
    "--slow",
    "-k=not (Triton or eager)",
    "tests/operators",
    *(f"tests/cpu/test_cpu_{name}.py" for name in _CPU),
)
"""Tests of CPU kernels: every operator within rounding of the loop in float64, what is computed
around them, several threads. Child processes and random cases are not part of the gate."""


def run(arguments: Sequence[str], folder: Path, seconds: float, workers: int) -> Record:
    """Run tests; keep pytest's report as gate.xml and its output as gate.log in `folder`.

    Returns:
        `state`: "green" if at least one test passed, none failed, and the end came in time, else
        "red" with the `reason`; counts; names of what failed.
    """
    if importlib.util.find_spec("pytest") is None:
        raise SystemExit("the gate needs pytest, which is not installed: extra 'test'")
    folder.mkdir(parents=True, exist_ok=True)
    report, log = folder / "gate.xml", folder / "gate.log"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", *arguments, "-v", "-p", "no:cacheprovider"]
    # A warning of another version of torch or Triton is no wrong number.
    command += ["-W", "default", f"--junitxml={report}"]
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    if workers > 1 and importlib.util.find_spec("xdist"):
        command += ["-n", str(workers), "--dist", "worksteal"]
        environment.setdefault("OMP_NUM_THREADS", "1")  # workers share the cores
    found: Record = {"command": " ".join(command[1:]), "state": "red", "reason": None}
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            late = f"did not end within {seconds:.0f} s; {log.name} has what had ended"
            return found | _counts(report) | {"reason": late}
    found |= _counts(report)
    if code == 0 and found["passed"]:
        found["state"] = "green"
    else:
        found["reason"] = f"pytest ended with {code}, see {log.name}"
    return found


def _counts(report: Path) -> Record:
    """Of pytest's report; none where there is no report."""
    counts: Record = {"passed": 0, "failed": 0, "skipped": 0, "failures": []}
    for case in ElementTree.parse(report).iter("testcase") if report.exists() else ():
        broken = [e for e in case if e.tag in ("failure", "error")]
        if broken:
            message = (broken[0].get("message") or "").splitlines() or [""]
            name = f"{case.get('classname')}::{case.get('name')}"
            counts["failures"].append(f"{name}: {message[0][:300]}")
        skipped = case.find("skipped") is not None
        counts["failed" if broken else "skipped" if skipped else "passed"] += 1
    return counts


# -- the gate as a program -------------------------------------------------------------------------


def proven(file: Path, machine: Record) -> Record:
    """The gate of an earlier call; Refused unless green, on this device, of these sources."""
    earlier = json.loads(file.read_text(encoding="utf-8"))
    for name in ("device", "sources"):
        if earlier["machine"][name] != machine[name]:
            there = earlier["machine"][name]
            raise Refused(f"expected {name} {machine[name]}, got {there} in {file.name}")
    state = earlier["gate"]["state"]
    if state != "green":
        raise Refused(f"expected a green gate, got {state} in {file.name}")
    return dict(earlier["gate"]) | {
        name: earlier["machine"][name] for name in ("date", "commit", "sources")
    }


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run the tests of the kernels on this machine.")
    parser.add_argument("file", type=Path, help="where the result is written; the log is beside it")
    parser.add_argument("--budget", type=float, default=900.0, help="seconds (default 900)")
    parser.add_argument("--workers", type=int, default=max(1, min(14, (os.cpu_count() or 2) - 2)))
    options = parser.parse_args(given)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tests = GPU_TESTS if device == "cuda" else CPU_TESTS
    found = run(tests, options.file.parent, options.budget, options.workers)
    result = {"machine": machines.of(device), "gate": found}
    records.write(options.file, json.dumps(result, indent=1) + "\n")
    print(f"gate: {found['state']} {found['reason'] or ''}", *found["failures"][:20], sep="\n  ")
    return 0 if found["state"] == "green" else 1


if __name__ == "__main__":
    sys.exit(main())
