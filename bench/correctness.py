"""Run the tests that must pass before a result is stored.

`python -m bench.correctness FILE` tests the kernels of this machine's device and writes the result.
`pytest --benchmark --benchmark-tested=FILE` uses it, so a GPU can run both in separate calls.
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
"""All tests of GPU kernels, except the tests of compiled code, which need no GPU."""
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
"""Tests of CPU kernels: every operator against the loop in float64, code around them, threads."""


def run(arguments: Sequence[str], folder: Path, seconds: float, workers: int) -> Record:
    """Run tests; write pytest's report to tests.xml and its output to tests.log in `folder`.

    Returns:
        `state`: "passed" if pytest ended in time and at least one test passed and none failed, else
        "failed" with the `reason`; counts; names of failed tests.
    """
    if importlib.util.find_spec("pytest") is None:
        raise SystemExit("pytest is not installed: install the extra 'test'")
    folder.mkdir(parents=True, exist_ok=True)
    report, log = folder / "tests.xml", folder / "tests.log"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", *arguments, "-v", "-p", "no:cacheprovider"]
    # Warnings of other torch or Triton versions are not errors.
    command += ["-W", "default", f"--junitxml={report}"]
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    if workers > 1 and importlib.util.find_spec("xdist"):
        command += ["-n", str(workers), "--dist", "worksteal"]
        environment.setdefault("OMP_NUM_THREADS", "1")  # workers share the cores
    found: Record = {"command": " ".join(command[1:]), "state": "failed", "reason": None}
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
            late = f"did not end within {seconds:.0f} s; {log.name} has the tests that ended"
            return found | _counts(report) | {"reason": late}
    found |= _counts(report)
    if code == 0 and found["passed"]:
        found["state"] = "passed"
    else:
        found["reason"] = f"pytest ended with {code}, see {log.name}"
    return found


def _counts(report: Path) -> Record:
    """Count the tests in pytest's report, if there is one."""
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


# -- command line ----------------------------------------------------------------------------------


def earlier(file: Path, machine: Record) -> Record:
    """Read an earlier result; raise Refused if tests failed, or device or sources differ."""
    found = json.loads(file.read_text(encoding="utf-8"))
    tested: Record = found["machine"]
    tests: Record = found["tests"]
    for name in ("device", "sources"):
        if tested[name] != machine[name]:
            raise Refused(f"expected {name} {machine[name]}, got {tested[name]} in {file.name}")
    if tests["state"] != "passed":
        raise Refused(f"expected tests that passed, got {tests['state']} in {file.name}")
    return tests | {name: tested[name] for name in ("date", "commit", "sources")}


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Test the kernels on this machine.")
    parser.add_argument(
        "file", type=Path, help="result file (JSON); tests.log is written beside it"
    )
    parser.add_argument(
        "--budget", type=float, default=900.0, help="time limit in seconds (default 900)"
    )
    parser.add_argument("--workers", type=int, default=max(1, min(14, (os.cpu_count() or 2) - 2)))
    options = parser.parse_args(given)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tests = GPU_TESTS if device == "cuda" else CPU_TESTS
    found = run(tests, options.file.parent, options.budget, options.workers)
    result = {"machine": machines.of(device), "tests": found}
    records.write(options.file, json.dumps(result, indent=1) + "\n")
    print(f"tests {found['state']} {found['reason'] or ''}", *found["failures"][:20], sep="\n  ")
    return 0 if found["state"] == "passed" else 1


if __name__ == "__main__":
    sys.exit(main())
