"""The derivative ds/dV of a spike, which the backward passes take as data.

The built-in surrogates are the operator `surrogate`, with a kernel on each device. A surrogate of
one's own is ordinary PyTorch, outside of the operator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from hetsyn_triton import surrogates
from hetsyn_triton.kernels import trial
from hetsyn_triton.kernels.cpu.lib import threads
from hetsyn_triton.one_thread import on_this_thread
from hetsyn_triton.reference import closed_form
from hetsyn_triton.reference.lib.steps import SpikeFunction, spike_derivative
from hetsyn_triton.validation import readable

from .dispatch import NAMESPACE, define

ROWS = 64
"""Rows that one thread computes together: whole vectors, because PyTorch rounds the last elements
of a call in another way. So the number of threads changes no bit."""
PIECE, SHARED_PIECE = 1 << 16, 1 << 18
"""Elements that go through all operations of a surrogate before the next ones do: they stay in
cache. (Of 6 million, `MultiGaussian` took six times as long all at once.) Shared pieces are larger
because threads wait for Python's lock between operations."""
WORK = 1
"""The cost of an element in multiply-adds of a kernel: a second thread pays from half a million."""

raw = define(
    "surrogate(Tensor potential, Tensor threshold, str kind, float[] numbers) -> Tensor",
    closed_form.surrogate,
    lambda potential, threshold, kind, numbers: potential.new_empty(potential.shape),
)


def with_surrogate(raw_backward: Any) -> Any:
    """Define and return the operator `<scan>_surrogate_backward`.

    It takes V where `raw_backward`, the backward of a scan, takes ds/dV, and ends with threshold
    [R, J], kind and numbers of the surrogate. Where no kernel computes both it is `raw` and then
    `raw_backward`.
    """
    place = [a.name for a in raw_backward._schema.arguments].index("derivative")
    schema = str(raw_backward._schema).removeprefix(f"{NAMESPACE}::")
    for plain, own in (
        ("_backward(", "_surrogate_backward("),
        ("Tensor derivative", "Tensor potential"),
        ("bool detach_reset)", "bool detach_reset, Tensor threshold, str kind, float[] numbers)"),
    ):
        schema = schema.replace(plain, own)

    def composed(*given: Any) -> Any:
        *arguments, threshold, kind, numbers = given
        arguments[place] = raw(arguments[place], threshold, kind, numbers)
        return raw_backward(*arguments)

    return define(schema, composed, composed)


def scan_backward(
    raw_backward: Any,
    raw_surrogate_backward: Any,
    surrogate: SpikeFunction,
    g: Sequence[Tensor | None],
    potential: Tensor,
    threshold: Tensor,
    *rest: Any,
) -> Any:
    """Call the backward of a scan: with ds/dV, or with V and the surrogate on `trial`."""
    given = built_in(surrogate, potential, threshold) if trial.allowed() else None
    if given is None:
        return raw_backward(*g, derivative(surrogate, potential, threshold), *rest)
    return raw_surrogate_backward(*g, potential, *rest, threshold, *given)


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
"""By the class itself: a subclass may compute something else."""


def derivative(surrogate: SpikeFunction, potential: Tensor, threshold: Tensor) -> Tensor:
    """Return ds/dV [R, T, B, J] of V and threshold [R, J].

    A surrogate of one's own that promises to be `elementwise` is shared out over the kernels'
    threads on a CPU.
    """
    given = built_in(surrogate, potential, threshold)
    if given is not None:
        found: Tensor = raw(potential, threshold, *given)
        return found
    theta = threshold[:, None, None]
    if not readable(potential):
        return spike_derivative(surrogate, potential - theta, theta)
    # A dispatch mode, such as make_fx, sees only what its own thread does.
    if not _is_elementwise(surrogate) or _get_current_dispatch_mode() is not None:
        with on_this_thread():
            return spike_derivative(surrogate, potential - theta, theta)
    R, T, B, J = potential.shape
    steps = potential.detach().reshape(R, T * B, J).contiguous()
    thresholds = threshold.detach()
    made = torch.empty_like(steps)
    parts = -(-T * B // ROWS)

    def compute(begin: int, end: int) -> None:
        piece = PIECE if end - begin == parts else SHARED_PIECE
        length = ROWS * max(1, piece // (ROWS * max(J, 1)))
        with on_this_thread(), torch.no_grad():
            for given, place, own in zip(steps, made, thresholds, strict=True):
                for first in range(ROWS * begin, ROWS * end, length):
                    rows = slice(first, min(first + length, ROWS * end))
                    place[rows] = spike_derivative(surrogate, given[rows] - own, own)

    threads.share(compute, parts, WORK * steps.numel())
    return made.view(R, T, B, J)


def built_in(
    surrogate: SpikeFunction, potential: Tensor, threshold: Tensor
) -> tuple[str, tuple[float, ...]] | None:
    """Return kind and numbers of a surrogate that the operator can compute, else None."""
    if type(surrogate) not in _NUMBERS or threshold.dtype != potential.dtype:
        return None
    return numbers_of(surrogate, potential.dtype)


def numbers_of(
    surrogate: SpikeFunction, dtype: torch.dtype
) -> tuple[str, tuple[float, ...]] | None:
    """Return kind and numbers of a built-in surrogate as in `kernels/surrogate_kinds.py`.

    None if a number is not a normal one of `dtype`: PyTorch refuses one that is too large, and
    kernels take one that is too small for 0.
    """
    # torch.compile warns of a cache and does not use it.
    compute = _numbers_of if torch.compiler.is_compiling() else _cached_numbers_of
    return compute(surrogate, dtype)


def _numbers_of(
    surrogate: SpikeFunction, dtype: torch.dtype
) -> tuple[str, tuple[float, ...]] | None:
    kind, numbers_in = _NUMBERS[type(surrogate)]
    if dtype not in (torch.float32, torch.float64):
        return None
    numbers = numbers_in(surrogate, float(surrogates.least_exponent(dtype)))
    least, most = torch.finfo(dtype).tiny, torch.finfo(dtype).max
    # The logarithm of a height may be 0, of a height of 0 -inf.
    normal = all(least <= abs(n) <= most or n in (0.0, -math.inf) for n in numbers)
    return (kind, numbers) if normal else None


_cached_numbers_of = lru_cache(maxsize=256)(_numbers_of)


def _is_elementwise(surrogate: SpikeFunction) -> bool:
    """Return whether a surrogate promises so itself: a class with another `__call__` than its base
    does not inherit the promise."""
    for namespace in (getattr(surrogate, "__dict__", {}), *map(vars, type(surrogate).__mro__)):
        if "elementwise" in namespace:
            return bool(namespace["elementwise"])
        if "__call__" in namespace:
            return False
    return False
