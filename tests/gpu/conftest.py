"""The proofs of the Triton kernels: on a GPU where one is visible, else under Triton's interpreter.

The interpreter is chosen by an environment variable that Triton reads when it is imported, so it is
set here, before any test runs. `TRITON_INTERPRET=1 pytest tests/gpu` interprets beside a GPU too.
"""

import os
from collections.abc import Iterator

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture
def device() -> torch.device:
    """Where the kernels of this run live."""
    return torch.device("cpu" if INTERPRETED else "cuda")


@pytest.fixture
def on_kernels(device: torch.device) -> Iterator[torch.device]:
    """A device on which operators are kernels. Where there is no GPU, the functions registered for
    CUDA stand under the CPU's key for the length of a test."""
    from hetsyn_triton.ops import dispatch
    from hetsyn_triton.reference import closed_form

    if not INTERPRETED:
        yield device
        return
    with torch.library._scoped_library("hetsyn_triton", "IMPL") as library:
        for name in dispatch.TRITON.operators:
            run = dispatch.implementation(dispatch.TRITON, name, getattr(closed_form, name))
            library.impl(name, run, "CPU", allow_override=True)
        yield device
