"""Which surrogates a kernel computes in one pass over the potentials, and with which numbers."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from hetsyn_triton import surrogates
from hetsyn_triton.reference.steps import SpikeFunction
from hetsyn_triton.validation import plain

from .kernels import NUMBA, TRITON, Kernels, usable

KERNELS = (TRITON, NUMBA)
"""Those that have a file `surrogate`."""


def _multi_gaussian(s: surrogates.MultiGaussian, least: float) -> tuple[float, ...]:
    def bump(deviation: float, factor: float) -> tuple[float, float]:
        """Logarithm of the height, and fall, of factor N(u; ., deviation)."""
        height = factor / deviation / math.sqrt(2 * math.pi)
        return math.log(height) if height > 0 else -math.inf, 0.5 / deviation / deviation

    middle = bump(s.width, s.scale * (1 + s.height))
    return *middle, *bump(s.ratio * s.width, s.scale * s.height), s.width, least


_NUMBERS: dict[type[Any], tuple[str, Callable[[Any, float], tuple[float, ...]]]] = {
    surrogates.Triangular: ("triangular", lambda s, least: (s.height, s.width)),
    surrogates.MultiGaussian: ("multi_gaussian", _multi_gaussian),
    surrogates.ATan: ("atan", lambda s, least: (s.slope / 2, math.pi * s.slope / 2)),
    surrogates.FastSigmoid: ("fast_sigmoid", lambda s, least: (s.slope,)),
    surrogates.Sigmoid: ("sigmoid", lambda s, least: (s.slope, least)),
}
"""By the class itself: one derived from it may compute something else."""


def numbers_of(
    surrogate: SpikeFunction, dtype: torch.dtype
) -> tuple[str, tuple[float, ...]] | None:
    """Kind and numbers as `kernels/surrogate_kinds.py` has them; None of a surrogate that it has
    not, or with numbers that are not normal ones of `dtype`: too large, which PyTorch refuses, or
    so small that kernels take them for 0."""
    if type(surrogate) not in _NUMBERS:
        return None
    kind, numbers_in = _NUMBERS[type(surrogate)]
    numbers = numbers_in(surrogate, float(surrogates.least_exponent(dtype)))
    least, most = torch.finfo(dtype).tiny, torch.finfo(dtype).max
    # The logarithm of a height may be 0, of a height of 0 -inf.
    normal = all(least <= abs(n) <= most or n in (0.0, -math.inf) for n in numbers)
    return (kind, numbers) if normal else None


def _kernels_for(potential: Tensor) -> Kernels | None:
    device, dtype = potential.device.type, potential.dtype
    return next((k for k in KERNELS if k.device == device and dtype in k.dtypes), None)


def derivative(surrogate: SpikeFunction, potential: Tensor, threshold: Tensor) -> Tensor | None:
    """ds/dV [R, T, B, J] from V and threshold [R, J]; None where PyTorch's operations are needed:
    for a surrogate of one's own, another dtype, under a transform or a trace."""
    if not (plain(potential) and plain(threshold)):  # first: a compiler follows no further
        return None
    kernels = _kernels_for(potential)
    if kernels is None or threshold.dtype != potential.dtype:
        return None
    if _get_current_dispatch_mode() is not None:
        return None
    given = numbers_of(surrogate, potential.dtype)
    there = importlib.util.find_spec(kernels.package) is not None
    if given is None or not there or not usable(kernels):
        return None
    kernel = importlib.import_module(f"hetsyn_triton.kernels.{kernels.folder}.surrogate")
    found: Tensor = kernel.derivative(*given, potential.detach(), threshold.detach())
    return found
