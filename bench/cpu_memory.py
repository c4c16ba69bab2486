"""Memory and first calls, in a process of their own: `python -m bench.cpu_memory WHAT SIZES...`.

    first|peak layer|recurrent ours|loop T B I J
    first|peak network ours|loop T B SIZE...
    slope B T1 T2 N...

Prints one line of JSON. Modules are imported and kernels loaded before, by a call of two steps.

- `first`: the first call as it comes, its pages new to the process: milliseconds and growth.
- `peak`: what a call needs beyond parameters and input at its peak, each tensor mapped by itself,
  so that nothing the allocator keeps is counted; `saved`, what autograd keeps of the forward,
  parameters and input left out.
- `slope`: peaks of feedforward layers N -> N, and bytes they take for each further step.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bench import cpu_rows, rivals, timing, workloads
from hetsyn_triton.experiments.studies import memory


def _layer(who: str, recurrent: bool, T: int, B: int, I: int, J: int) -> tuple[Any, Any, Any]:  # noqa: E741
    """The call, its forward alone, its parameters and input."""
    make = cpu_rows.our_layer if who == "ours" else cpu_rows.layer_loop
    x, module = workloads.spikes(T, B, I).requires_grad_(), cpu_rows.layer(I, J, recurrent)
    given: list[Tensor] = [x, *module.parameters()]
    if who == "ours":
        return make(T, B, I, J, recurrent), lambda: module(x)[0], given
    weights = workloads.weights_of(module)
    given += weights.tensors
    return make(T, B, I, J, recurrent), lambda: rivals.layer_loop(x, weights), given


def _network(who: str, T: int, B: int, sizes: Sequence[int]) -> tuple[Any, Any, Any]:
    x, made, classes = workloads.spikes(T, B, sizes[0]), workloads.network(sizes), sizes[-1]
    if who == "ours":
        step, parameters = workloads.our_network(made, x, classes)
        return step, lambda: made(x)[0], [x, *parameters]
    step, parameters = workloads.loop_network(made, x, classes)
    weights = [workloads.weights_of(m) for m in [*made.layers, made.readout]]
    given = [x, *parameters, *(t for w in weights for t in w.tensors)]
    return step, lambda: rivals.network_loop(x, weights), given


def measured(which: str, make: Callable[[int], tuple[Any, Any, Any]], T: int) -> dict[str, Any]:
    # Before anything large: a chunk that is free already would be taken instead.
    mapped = which == "peak" and timing.give_back_freed_memory()
    make(min(T, 2))[0]()
    run, forward, given = make(T)
    growth, ms = timing.growth_and_ms(run)
    if which == "first":
        return {"first_ms": ms, "first_growth": growth}
    saved = memory.kept_for_backward(forward, given)
    return {"peak": growth, "saved": saved, "mapped_one_by_one": mapped}


def slope(B: int, T1: int, T2: int, *neurons: int) -> dict[str, Any]:
    """Peaks of feedforward layers N -> N at T1 and T2 steps, and bytes for each step between."""
    timing.give_back_freed_memory()
    peaks = {}
    for N in neurons:
        for T in (T1, T2):
            run = cpu_rows.our_layer(T, B, N, N, False)
            run()
            peaks[N, T], _ = timing.growth_and_ms(run)
    pairs = [[peaks[N, T] for T in (T1, T2)] for N in neurons]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    steps = [(b - a) / (T2 - T1) for a, b in known] if len(known) == len(pairs) else None
    return {"peaks": pairs, "bytes_per_step": steps}


def main(given: Sequence[str]) -> dict[str, Any]:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    timing.zero_denormals()
    what, *rest = given
    if what == "slope":
        return slope(*(int(n) for n in rest))
    module, who, *numbers = rest
    T, B, *sizes = (int(n) for n in numbers)
    if module == "network":
        return measured(what, lambda T: _network(who, T, B, sizes), T)
    return measured(what, lambda T: _layer(who, module == "recurrent", T, B, *sizes), T)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
