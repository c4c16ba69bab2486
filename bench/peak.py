"""Measure the peak rate of a CPU: fused multiply-adds per second.

The kernels run independent chains of fused multiply-adds on registers. 6 chains of 64 bytes are 12
registers of AVX2; AVX-512 needs 12 chains to keep both pipes busy. The result is the best of many
runs of both, on PyTorch's number of threads.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from hetsyn_triton.kernels.cpu.lib.compiling import kernel
from hetsyn_triton.kernels.cpu.lib.threads import run
from hetsyn_triton.kernels.cpu.lib.vectors import fma, lanes, lanes_of, spread, store


@kernel
def _chains_6(begin, end, number, out, steps):
    L = lanes(number)
    for task in range(begin, end):
        a = spread(number, 0)
        x0 = spread(number, 1)
        x1, x2, x3, x4, x5 = fma(x0, a, a), fma(x0, x0, a), fma(a, a, a), fma(a, x0, x0), a
        for _ in range(steps):
            x0 = fma(x0, a, a)
            x1 = fma(x1, a, a)
            x2 = fma(x2, a, a)
            x3 = fma(x3, a, a)
            x4 = fma(x4, a, a)
            x5 = fma(x5, a, a)
        for k, x in enumerate((x0, x1, x2, x3, x4, x5)):
            store(out, (task * 12 + k) * L, x)


@kernel
def _chains_12(begin, end, number, out, steps):
    L = lanes(number)
    for task in range(begin, end):
        a = spread(number, 0)
        x0 = spread(number, 1)
        x1, x2, x3, x4, x5 = fma(x0, a, a), fma(x0, x0, a), fma(a, a, a), fma(a, x0, x0), a
        y0, y1, y2 = fma(x1, a, a), fma(x2, a, a), fma(x3, a, a)
        y3, y4, y5 = fma(x4, a, a), fma(x1, x2, a), fma(x2, x3, a)
        for _ in range(steps):
            x0 = fma(x0, a, a)
            x1 = fma(x1, a, a)
            x2 = fma(x2, a, a)
            x3 = fma(x3, a, a)
            x4 = fma(x4, a, a)
            x5 = fma(x5, a, a)
            y0 = fma(y0, a, a)
            y1 = fma(y1, a, a)
            y2 = fma(y2, a, a)
            y3 = fma(y3, a, a)
            y4 = fma(y4, a, a)
            y5 = fma(y5, a, a)
        for k, x in enumerate((x0, x1, x2, x3, x4, x5, y0, y1, y2, y3, y4, y5)):
            store(out, (task * 12 + k) * L, x)


def fma_rate(seconds: float = 1.0) -> float:
    """Return the float32 multiply-adds per second of all threads together."""
    threads, L = torch.get_num_threads(), lanes_of(4)
    number = np.array([0.5, 0.25], np.float32)
    out = np.empty(threads * 12 * L, np.float32)
    best = 0.0
    for chains, function in ((6, _chains_6), (12, _chains_12)):
        steps = 100_000_000 // (chains * L) if seconds > 0.1 else 10_000
        work = threads * chains * L * steps
        run(function, threads, work, number, out, 1)
        end = time.perf_counter() + seconds / 2
        while True:
            begin = time.perf_counter()
            run(function, threads, work, number, out, steps)
            now = time.perf_counter()
            best = max(best, work / (now - begin))
            if now >= end:
                break
    return best
