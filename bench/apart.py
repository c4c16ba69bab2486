"""Memory of a call and the time of a first call, in a process of its own for each.

A worker has imported everything and loaded the kernels, but has computed nothing large. It forks a
child for each question, so that no answer depends on earlier questions. Two kinds of worker:

- `memory`: tensors from 64 KiB are mapped by themselves, and all free memory is given back before
  the measured call. So growth is what is in use, and a call touches new pages: `fresh_ms`.
- `first`: the allocator as it is. The call is the first of its size in its process: `first_ms`.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch

from bench import contests, plain_lif, registry, timing
from bench.processes import Answer, Worker, in_a_fork
from bench.registry import CHECKPOINTED, OURS, PLAIN, Work
from hetsyn_triton.experiments.studies import memory

CPU = torch.device("cpu")
WARM_STEPS = 32
"""Of a loop that is called before it is measured: two checkpoints; no step depends on how many."""


class Apart:
    """Both workers, started when first asked."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        mapped = {"MALLOC_MMAP_THRESHOLD_": str(1 << 16)}  # of glibc
        self.workers = {
            "memory": Worker(prepare, threads=threads, **mapped),
            "first": Worker(prepare, threads=threads),
        }

    def ask(self, work: Work, contender: str, saved: bool = False) -> Answer:
        """Measure a call, or return the `reason` why there is no answer.

        Returns:
            `peak`, bytes beyond input and parameters, None with the reason `no_peak`; `fresh_ms`;
            if asked for, `saved`, bytes that autograd keeps.
        """
        given = (self.threads, work, contender, saved)
        return self.workers["memory"].call(_forked, of_memory, *given)

    def first_call(self, work: Work, contender: str) -> Answer:
        """Time a first call, `first_ms`, or return the `reason` why there is no answer."""
        given = (self.threads, work, contender)
        return self.workers["first"].call(_forked, of_a_first_call, *given)

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()


def prepare() -> None:
    """Load kernels, on one thread: a fork has no others."""
    torch.set_num_threads(1)
    timing.zero_denormals()
    for recurrent in (False, True):
        for part in ("forward", "both"):
            contests.make(Work("layer", 2, 2, 5, 4, recurrent, part), OURS, CPU).run()


def _forked(function: Any, threads: int, work: Work, contender: str, *given: Any) -> Answer:
    if contender in PLAIN:
        plain_lif.missing(contender)  # imported once for all children

    def measured() -> Answer:
        torch.set_num_threads(threads)
        found: Answer = function(work, contender, *given)
        return found

    return in_a_fork(measured)


def of_a_first_call(work: Work, contender: str) -> Answer:
    """Time the first call of this size in this process; two steps have loaded its code before."""
    contests.make(replace(work, T=min(work.T, 2)), contender, CPU).run()
    made = contests.make(work, contender, CPU)
    begin = time.perf_counter()
    made.run()
    return {"first_ms": 1e3 * (time.perf_counter() - begin)}


def of_memory(work: Work, contender: str, saved: bool) -> Answer:
    """Measure in this process, in which nothing large has run."""
    # What a first call brings is not its own: code, threads and their buffers, what is compiled.
    loop = contender in registry.LOOPS
    first = replace(work, T=min(work.T, WARM_STEPS)) if loop else work
    contests.make(first, contender, CPU).run()
    made = contests.make(work, contender, CPU)
    if work.kind == "replicas":  # the optimizers' states are made by the first step
        made.run()
    returned: list[int] = []

    def run() -> None:
        found = made.run()
        returned.append(timing.size_of(*(found if isinstance(found, tuple) else (found,))))

    growth, ms = timing.growth_and_ms(run)
    found = {"fresh_ms": ms, **plausible(growth, returned[0])}
    # A checkpoint holds its inputs itself: autograd's hooks do not see them.
    seen = work.kind != "replicas" and contender != CHECKPOINTED
    if saved and seen and work.part in ("both", "step"):
        found["saved"] = memory.kept_for_backward(made.forward, made.given)
    return found


def plausible(growth: int | None, returned: int) -> Answer:
    """The peak; none, with the reason, where it cannot be: a call has at least what it returns."""
    if growth is None:
        return {"peak": None, "no_peak": "the system does not tell"}
    if growth < max(returned, 1):
        return {
            "peak": None,
            "no_peak": f"a growth of {growth} bytes is less than the {returned} that are returned",
        }
    return {"peak": growth}
