"""Memory of a call and the time of a first call, in a process of its own for each.

A server has imported everything and loaded the kernels, but has computed nothing large. It reads a
work and a contender as JSON and forks a child for each, which answers and ends: no answer depends
on earlier questions. Two kinds of server:

- `memory`: tensors from 64 KiB are mapped by themselves, and all free memory is given back before
  the measured call. So growth is what is in use, and a call touches new pages: `fresh_ms`.
- `first`: the allocator as it is. The call is the first of its size in its process: `first_ms`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from bench.registry import CHECKPOINTED, OURS, PLAIN, Work
from bench.server import Server, serve

WARM_STEPS = 32
"""Of a loop that is called before it is measured: two checkpoints; no step depends on how many."""


class Apart:
    """Both servers, started when first asked."""

    def __init__(self, threads: int) -> None:
        self.servers = {
            kind: Server([sys.executable, "-m", "bench.apart", kind], threads)
            for kind in ("memory", "first")
        }

    def ask(self, work: Work, contender: str, saved: bool, kind: str = "memory") -> dict[str, Any]:
        """Ask a server, or return the `reason` why there is no answer.

        `memory` answers peak, bytes beyond input and parameters, None with the reason `no_peak`;
        fresh_ms; if asked for `saved`, what autograd keeps. `first` answers first_ms.
        """
        return self.servers[kind].ask([asdict(work), contender, saved])

    def close(self) -> None:
        for server in self.servers.values():
            server.close()


def first_call(work: Work, contender: str) -> dict[str, Any]:
    """Time the first call of this size in this process; two steps have loaded its code before."""
    import torch

    from bench import contests

    cpu = torch.device("cpu")
    contests.make(replace(work, T=min(work.T, 2)), contender, cpu).run()
    made = contests.make(work, contender, cpu)
    begin = time.perf_counter()
    made.run()
    return {"first_ms": 1e3 * (time.perf_counter() - begin)}


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


def prepare() -> None:
    """Load kernels, on one thread: a fork has no others."""
    import torch

    from bench import contests, timing

    torch.set_num_threads(1)
    timing.zero_denormals()
    for recurrent in (False, True):
        for part in ("forward", "both"):
            tiny = Work("layer", 2, 2, 5, 4, recurrent, part)
            contests.make(tiny, OURS, torch.device("cpu")).run()


def answer_in_a_child(question: Any, kind: str, threads: int) -> dict[str, Any]:
    """Measure in a fork of this process."""
    import torch

    from bench import plain_lif

    given, contender, saved = question
    work = Work(**given | {"hidden": tuple(given["hidden"])})
    if contender in PLAIN:
        plain_lif.missing(contender)  # imported once for all children

    def measure() -> dict[str, Any]:
        torch.set_num_threads(threads)
        return answer(work, contender, saved) if kind == "memory" else first_call(work, contender)

    return in_a_child(measure)


def main(kind: str) -> None:
    from bench import timing

    def begin() -> None:
        if kind == "memory":  # before anything large: no free chunk of the heap is left for tensors
            timing.give_back_freed_memory()
        prepare()

    threads = int(os.environ["OMP_NUM_THREADS"])
    serve(lambda question: answer_in_a_child(question, kind, threads), begin)


if __name__ == "__main__":
    main(sys.argv[1])
