"""Which operators have kernels, and how these take the closed forms' place on their device.

Nothing here imports Triton or Numba: a kernel's file is imported when its operator is first called.
"""

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from hetsyn_triton.reference import closed_form

from .library import contiguous, implement, in_closed_form


@dataclass(frozen=True, eq=False)
class Kernels:
    """The kernels of one device: a file in `folder` for each operator in `files`."""

    name: str
    key: str
    """PyTorch's dispatch key."""
    device: str
    package: str
    """What compiles them."""
    folder: str
    files: Mapping[str, str]
    dtypes: frozenset[torch.dtype]
    """What they compute in. Other dtypes run in the closed forms there too."""

    @cache  # noqa: B019 - there are two tables, and they stay
    def launcher(self, operator: str) -> Callable[..., Any]:
        """The function that runs an operator."""
        file = f"hetsyn_triton.kernels.{self.folder}.{self.files[operator]}"
        found: Callable[..., Any] = getattr(importlib.import_module(file), operator)
        return found


TRITON = Kernels(
    "Triton kernel",
    "CUDA",
    "cuda",
    "triton",
    "gpu",
    {
        "synaptic_current": "synaptic_current",
        "synaptic_current_backward": "synaptic_current",
        "synaptic_parameter_gradient": "synaptic_current",
        "spike_scan": "spike_scan",
        "spike_scan_backward": "spike_scan",
        "feedforward_scan": "feedforward_scan",
        "recurrent_scan": "recurrent_scan",
        "recurrent_scan_backward": "recurrent_scan",
    },
    frozenset({torch.float32}),
)

NUMBA = Kernels(
    "Numba kernel",
    "CPU",
    "cpu",
    "numba",
    "cpu",
    {
        "synaptic_current": "synaptic_current",
        "synaptic_current_backward": "synaptic_current",
        "synaptic_parameter_gradient": "synaptic_current",
        "leaky_current": "leaky_current",
        "leaky_current_backward": "leaky_current",
        "spike_scan": "spike_scan",
        "spike_scan_backward": "spike_scan",
        "feedforward_scan": "feedforward_scan",
        "recurrent_scan": "recurrent_scan",
        "recurrent_scan_backward": "recurrent_scan",
        "leaky_recurrent_scan": "leaky_recurrent_scan",
        "leaky_recurrent_scan_backward": "leaky_recurrent_scan",
    },
    frozenset({torch.float32, torch.float64}),
)


def unusable(kernels: Kernels) -> str | None:
    """Why the package that compiles `kernels` cannot be used; None where it can: it is imported."""
    package = kernels.package
    if importlib.util.find_spec(package) is None:
        return f"the package {package} is not installed"
    try:
        importlib.import_module(package)
    except (ImportError, OSError) as error:  # OSError: a library of its own that does not load
        return f"the package {package} cannot be imported: {error}"
    return None


@cache
def usable(kernels: Kernels) -> bool:
    """Asked when a kernel is first called; a package that is there and broken is told of once."""
    reason = unusable(kernels)
    if reason is not None:
        warnings.warn(f"{reason}; the closed forms run instead", RuntimeWarning, stacklevel=2)
    return reason is None


def seconds_compiling() -> float:
    """Seconds that this process has spent compiling CPU kernels so far; none for those read from
    disk."""
    compiling = sys.modules.get("hetsyn_triton.kernels.cpu.lib.compiling")  # once one is called
    return 0.0 if compiling is None else float(compiling.seconds_compiling())


def implementation(kernels: Kernels, operator: str) -> Callable[..., Any]:
    """What the dispatcher calls for `operator` on the kernels' device: the kernel where all tensors
    are of one of its dtypes, else the closed form."""
    otherwise = in_closed_form(getattr(closed_form, operator))

    def run(*args: Any) -> Any:
        # `functional` brings inputs to the parameters' dtype: it is one dtype for all.
        dtypes = {a.dtype for a in args if isinstance(a, Tensor)}
        if len(dtypes) == 1 and dtypes <= kernels.dtypes and usable(kernels):
            return contiguous(kernels.launcher(operator)(*args))
        return otherwise(*args)

    return run


def register(kernels: Kernels) -> None:
    """Puts kernels under PyTorch's key for their device; where their package is missing, none."""
    if importlib.util.find_spec(kernels.package) is not None:
        for operator in kernels.files:
            implement(operator, implementation(kernels, operator), kernels.key)
