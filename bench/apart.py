"""Memory of a call, and its time where all memory is fresh, in a process of its own.

There every tensor is mapped by itself and unmapped when freed. So growth is what is in use, and a
call touches new pages throughout, as in a process that has not run it before: `fresh_ms`. The
process reads one question a line, a work and a contender as JSON, and answers each with a line.
"""

# ruff: noqa: E402 - the path comes first

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.registry import Work


class Apart:
    """The process, started when first asked."""

    def __init__(self, threads: int) -> None:
        self.threads = str(threads)
        self.process: subprocess.Popen[str] | None = None

    def ask(self, work: Work, contender: str, saved: bool) -> dict[str, Any]:
        """-> peak, bytes beyond input and parameters; fresh_ms; if asked for `saved`, what autograd
        keeps. Or the reason why there are none."""
        if self.process is None or self.process.poll() is not None:
            names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
            self.process = subprocess.Popen(
                [sys.executable, __file__],
                env=os.environ | dict.fromkeys(names, self.threads),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps([asdict(work), contender, saved]) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            return {"reason": f"the process ended with {self.process.wait()}"}
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        if self.process is not None:
            for stream in (self.process.stdin, self.process.stdout):
                assert stream is not None
                stream.close()
            self.process.wait()
            self.process = None


def answer(work: Work, contender: str, saved: bool) -> dict[str, Any]:
    import torch

    from bench import contests, timing
    from hetsyn_triton.studies import memory

    cpu = torch.device("cpu")
    if work.kind != "replicas":  # what is compiled does not depend on the length
        contests.make(replace(work, T=2), contender, cpu).run()
    made = contests.make(work, contender, cpu)
    if work.kind == "replicas":
        made.run()
    growth, ms = timing.growth_and_ms(made.run)
    found = {"peak": growth, "fresh_ms": ms}
    if saved and work.part in ("both", "step") and work.kind != "replicas":
        found["saved"] = memory.kept_for_backward(made.forward, made.given)
    return found


def main() -> None:
    # Answers go where questions came from; what else is said goes to the screen.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import torch

    from bench import timing

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    timing.give_back_freed_memory()
    for line in sys.stdin:
        given, contender, saved = json.loads(line)
        given["hidden"] = tuple(given["hidden"])
        try:
            found = answer(Work(**given), contender, saved)
        except Exception as error:  # what breaks costs this answer, not the next
            found = {"reason": f"{type(error).__name__}: {error}"[:300]}
        answers.write(json.dumps(found) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
