"""Memory of a call, and its time where all memory is fresh, in a process of its own for each.

A server has everything imported and the kernels loaded, but has computed nothing large. It reads
one question a line, a work and a contender as JSON, and forks a child for each, which answers with
a line and ends: no answer depends on the questions before. There tensors from 64 KiB are mapped by
themselves, and before the measured call all free memory is given back to the system. So growth is
what is in use, and a call touches new pages throughout: `fresh_ms`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench.registry import CHECKPOINTED, OURS, PLAIN, Work

ROOT = Path(__file__).resolve().parent.parent

WARM_STEPS = 32
"""Of a loop that is called before it is measured: two checkpoints; no step depends on how many."""


class Apart:
    """The server, started when first asked."""

    def __init__(self, threads: int) -> None:
        self.threads = str(threads)
        self.process: subprocess.Popen[str] | None = None

    def ask(self, work: Work, contender: str, saved: bool) -> dict[str, Any]:
        """-> peak, bytes beyond input and parameters, None with the reason `no_peak`; fresh_ms; if
        asked for `saved`, what autograd keeps. Or the `reason` why there are none."""
        if self.process is None or self.process.poll() is not None:
            names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bench.apart"],
                cwd=ROOT,
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
    """Measures in this process, in which nothing large has run."""
    import torch

    from bench import contests, timing, turns
    from hetsyn_triton.experiments.studies import memory

    cpu = torch.device("cpu")
    # What a first call brings is not its own: code, threads and their buffers, what is compiled.
    first = replace(work, T=min(work.T, WARM_STEPS)) if turns.tape(work, contender) else work
    contests.make(first, contender, cpu).run()
    made = contests.make(work, contender, cpu)
    if work.kind == "replicas":  # the optimizers' states are made by the first step
        made.run()
    returned: list[int] = []

    def run() -> None:
        found = made.run()
        returned.append(
            timing.size_of(*found) if isinstance(found, tuple) else timing.size_of(found)
        )

    growth, ms = timing.growth_and_ms(run)
    found = {"fresh_ms": ms, **plausible(growth, returned[0])}
    # A checkpoint holds its inputs itself: autograd's hooks do not see them.
    seen = work.kind != "replicas" and contender != CHECKPOINTED
    if saved and seen and work.part in ("both", "step"):
        found["saved"] = memory.kept_for_backward(made.forward, made.given)
    return found


def plausible(growth: int | None, returned: int) -> dict[str, Any]:
    """The peak; none, with the reason, where it cannot be: a call has at least what it returns."""
    if growth is None:
        return {"peak": None, "no_peak": "the system does not tell"}
    if growth < max(returned, 1):
        return {
            "peak": None,
            "no_peak": f"a growth of {growth} bytes is less than the {returned} that are returned",
        }
    return {"peak": growth}


def in_a_child(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `measure` finds in a fork of this process; why there is nothing, where it breaks."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            found = measure()
        except Exception as error:
            found = {"reason": f"{type(error).__name__}: {error}"[:300]}
        with os.fdopen(writing, "w") as stream:
            stream.write(json.dumps(found))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        said = stream.read()
    _, status = os.waitpid(child, 0)
    if not said:
        return {"reason": f"the process ended with {os.waitstatus_to_exitcode(status)}"}
    answer: dict[str, Any] = json.loads(said)
    return answer


def serve(questions: Iterable[str], threads: int) -> Iterable[dict[str, Any]]:
    """An answer to each question. This process computes on one thread: a fork has no others."""
    import torch

    from bench import contests, plain_lif, timing

    torch.set_num_threads(1)
    timing.zero_denormals()
    for recurrent in (False, True):
        for part in ("forward", "both"):
            tiny = Work("layer", 2, 2, 5, 4, recurrent, part)
            contests.make(tiny, OURS, torch.device("cpu")).run()
    for line in questions:
        given, contender, saved = json.loads(line)
        work = Work(**given | {"hidden": tuple(given["hidden"])})
        if contender in PLAIN:
            plain_lif.missing(contender)  # imported once for all children

        def measure(work: Work = work, who: str = contender, saved: bool = saved) -> dict[str, Any]:
            torch.set_num_threads(threads)
            return answer(work, who, saved)

        yield in_a_child(measure)


def main() -> None:
    # Answers go where questions came from; what else is said goes to the screen.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from bench import timing

    timing.give_back_freed_memory()
    for found in serve(sys.stdin, int(os.environ["OMP_NUM_THREADS"])):
        answers.write(json.dumps(found) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
