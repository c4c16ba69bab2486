"""Which operators have a Triton kernel, and how it takes the closed form's place on a GPU.

Nothing here imports Triton: a kernel's file is imported when its operator is first called.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hetsyn_triton.reference import closed_form

from .library import contiguous, full_precision, implement

TRITON_KERNELS = {
    "synaptic_current": "synaptic_current",
    "synaptic_current_backward": "synaptic_current",
    "synaptic_parameter_gradient": "parameter_gradient",
    "spike_scan": "spike_scan",
    "spike_scan_backward": "spike_scan",
    "feedforward_scan": "feedforward_scan",
    "recurrent_scan": "recurrent_scan",
    "recurrent_scan_backward": "recurrent_scan",
}
"""The operators that have a Triton kernel, and the file in `kernels/gpu` each is in."""

TRITON_DTYPE = torch.float32
"""What the Triton kernels compute in. Other dtypes run in the closed forms on a GPU too."""


def _on_gpu(operator: str) -> Callable[..., Any]:
    fallback = getattr(closed_form, operator)

    def implementation(*args: Any) -> Any:
        # `functional` brings inputs to the parameters' dtype: it is one dtype for all.
        dtypes = {a.dtype for a in args if isinstance(a, Tensor)}
        if dtypes == {TRITON_DTYPE}:
            module = f"hetsyn_triton.kernels.gpu.{TRITON_KERNELS[operator]}"
            kernel = getattr(importlib.import_module(module), operator)
            return contiguous(kernel(*args))
        device = next(a.device for a in args if isinstance(a, Tensor))
        with full_precision(device):
            return contiguous(fallback(*args))

    return implementation


def register_triton() -> None:
    """Puts the Triton kernels under PyTorch's key for GPUs; without the package Triton, nothing."""
    if importlib.util.find_spec("triton") is not None:
        for operator in TRITON_KERNELS:
            implement(operator, _on_gpu(operator), "CUDA")
