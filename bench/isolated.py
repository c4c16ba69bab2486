"""Measure the memory of a call, and time a first call, each in a process of its own.

A worker imports everything and loads the kernels, but computes nothing large. It forks a child for
each measurement, so no measurement depends on earlier ones. There are two workers:

- `memory`: glibc maps tensors from 64 KiB separately, and free memory is returned to the system
  before the measured call. Growth is then the memory in use. The call maps new pages: `fresh_ms`.
- `first`: the default allocator. The call is the first of its size in its process: `first_ms`.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch

from bench import contenders, plain_lif, registry, timing
from bench.processes import Answer, Worker, in_a_fork
from bench.registry import CHECKPOINTED, OURS, PLAIN, Work
from hetsyn_triton.experiments.studies import memory

CPU = torch.device("cpu")
WARM_STEPS = 32
"""Steps of the warm-up call of a loop: two checkpoints. All steps are alike."""


class Isolated:
    """Both workers; each starts at its first measurement."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        mapped = {"MALLOC_MMAP_THRESHOLD_": str(1 << 16)}  # of glibc
        self.workers = {
            "memory": Worker(prepare, threads=threads, **mapped),
            "first": Worker(prepare, threads=threads),
        }

    def memory(self, work: Work, contender: str, saved: bool = False) -> Answer:
        """Measure the memory of a call.

        Returns:
            `peak`, bytes beyond input and parameters, or None and the reason `no_peak`; `fresh_ms`;
            with `saved`, the bytes that autograd saves. Or only the `reason` for no result.
        """
        given = (self.threads, work, contender, saved)
        return self.workers["memory"].call(_forked, memory_of, *given)

    def first_call(self, work: Work, contender: str) -> Answer:
        """Return the time of a first call, `first_ms`, or the `reason` for no result."""
        given = (self.threads, work, contender)
        return self.workers["first"].call(_forked, first_call_of, *given)

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()


def prepare() -> None:
    """Load kernels on one thread, because a fork keeps only one."""
    torch.set_num_threads(1)
    timing.zero_denormals()
    for recurrent in (False, True):
        for part in ("forward", "both"):
            contenders.make(Work("layer", 2, 2, 5, 4, recurrent, part), OURS, CPU).run()


def _forked(function: Any, threads: int, work: Work, contender: str, *given: Any) -> Answer:
    if contender in PLAIN:
        plain_lif.missing(contender)  # imports the library, once for all children

    def measured() -> Answer:
        torch.set_num_threads(threads)
        found: Answer = function(work, contender, *given)
        return found

    return in_a_fork(measured)


def first_call_of(work: Work, contender: str) -> Answer:
    """Time the first call of this size in this process, after two steps that load its code."""
    contenders.make(replace(work, T=min(work.T, 2)), contender, CPU).run()
    made = contenders.make(work, contender, CPU)
    begin = time.perf_counter()
    made.run()
    return {"first_ms": 1e3 * (time.perf_counter() - begin)}


def memory_of(work: Work, contender: str, saved: bool) -> Answer:
    """Measure memory in this process, in which nothing large has run."""
    # A first call also loads and compiles code and starts threads with their buffers.
    loop = contender in registry.LOOPS
    first = replace(work, T=min(work.T, WARM_STEPS)) if loop else work
    contenders.make(first, contender, CPU).run()
    made = contenders.make(work, contender, CPU)
    if work.kind == "replicas":  # the first step makes the optimizers' states
        made.run()
    returned: list[int] = []

    def run() -> None:
        found = made.run()
        returned.append(timing.size_of(*(found if isinstance(found, tuple) else (found,))))

    growth, ms = timing.growth_and_ms(run)
    found = {"fresh_ms": ms, **plausible(growth, returned[0])}
    # Autograd's hooks do not see the inputs that a checkpoint holds.
    seen = work.kind != "replicas" and contender != CHECKPOINTED
    if saved and seen and work.part in ("both", "step"):
        found["saved"] = memory.kept_for_backward(made.forward, made.given)
    return found


def plausible(growth: int | None, returned: int) -> Answer:
    """Return the peak, or a reason if the growth is below the size of the results."""
    if growth is None:
        return {"peak": None, "no_peak": "the system does not report it"}
    if growth < max(returned, 1):
        return {
            "peak": None,
            "no_peak": f"a growth of {growth} bytes is less than the {returned} of the results",
        }
    return {"peak": growth}
