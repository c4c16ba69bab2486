"""Triton kernels run on a GPU where one is visible, else under Triton's interpreter.

Triton reads the environment variable that chooses the interpreter when it is imported, so tests
import this module first. `TRITON_INTERPRET=1 pytest tests/gpu` interprets beside a GPU too.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
"""Where the kernels of this run live."""


@contextmanager
def on_kernels() -> Iterator[torch.device]:
    """A device on which operators are Triton kernels. Where there is no GPU, the functions
    registered for CUDA stand under the CPU's key for a while."""
    from hetsyn_triton.ops import dispatch

    if not INTERPRETED:
        yield DEVICE
        return
    with torch.library._scoped_library("hetsyn_triton", "IMPL") as library:
        for name in dispatch.TRITON.operators:
            run = dispatch.implementation(dispatch.TRITON, name)
            library.impl(name, run, "CPU", allow_override=True)
        yield DEVICE
