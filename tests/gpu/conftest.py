"""The proofs of the Triton kernels: on a GPU where one is visible, else under Triton's interpreter.

The interpreter is chosen by an environment variable that Triton reads when it is imported, so it is
set here, before any test runs. `TRITON_INTERPRET=1 pytest tests/gpu` interprets beside a GPU too.
"""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture
def device() -> torch.device:
    """Where the kernels of this run live."""
    return torch.device("cpu" if INTERPRETED else "cuda")
