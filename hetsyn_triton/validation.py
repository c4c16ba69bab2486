"""Checks of arguments: each error names the argument, the value and what is allowed.

Values are read only on the CPU and outside of `torch.compile`, `torch.func` transforms and export.
Elsewhere a read would stall the device or break the graph. Parameters of layers are therefore also
checked when they are created and loaded.
"""

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from difflib import get_close_matches
from numbers import Integral, Real
from typing import TypeGuard

import torch
from torch import Tensor

from .one_thread import SHARED, on_this_thread

PARAMETER_DTYPES = (torch.float32, torch.float64)
_EXACT = {
    torch.float32: (torch.bool, torch.uint8, torch.int8, torch.bfloat16, torch.float16),
    torch.float64: (
        torch.bool,
        torch.uint8,
        torch.int8,
        torch.bfloat16,
        torch.float16,
        torch.float32,
    ),
}


def _names(dtypes: Sequence[torch.dtype]) -> str:
    return ", ".join(str(d).removeprefix("torch.") for d in dtypes)


def check_tensor(name: str, value: object) -> None:
    """Raise TypeError unless `value` is a dense tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
    if value.layout != torch.strided:
        raise TypeError(f"{name}: expected a dense tensor, got layout {value.layout}")


def check_module(name: str, value: object) -> None:
    """Raise TypeError unless `value` is a `torch.nn.Module`."""
    if not isinstance(value, torch.nn.Module):
        raise TypeError(f"{name}: expected a torch.nn.Module, got {type(value).__name__}")


def check_parameter_dtype(name: str, dtype: torch.dtype) -> None:
    """Raise TypeError unless `dtype` is float32 or float64, as for parameters and states."""
    if dtype not in PARAMETER_DTYPES:
        raise TypeError(
            f"{name}: expected dtype {_names(PARAMETER_DTYPES)}, got {_names([dtype])}; "
            "states and sums need at least float32 (inputs may have fewer bits)"
        )


def as_input(name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    """Return `value` in the parameters' `dtype`; TypeError if the conversion could round."""
    if value.dtype == dtype:
        return value
    if value.dtype not in _EXACT[dtype]:
        allowed = _names([dtype, *_EXACT[dtype]])
        raise TypeError(
            f"{name}: expected dtype {allowed} for {_names([dtype])} parameters, "
            f"got {_names([value.dtype])}"
        )
    if not readable(value):
        return value.to(dtype)
    with _alone(value):
        return value.to(dtype)


def check_like(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    """Raise TypeError or ValueError unless `value` has dtype and device of `other`."""
    check_tensor(name, value)
    if value.dtype != other.dtype:
        raise TypeError(
            f"{name}: expected dtype {_names([other.dtype])} as {other_name} has, "
            f"got {_names([value.dtype])}"
        )
    check_device(name, value, other_name, other)


def check_device(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    """Raise ValueError unless `value` is on the device of `other`."""
    if value.device != other.device:
        raise ValueError(
            f"{name}: expected device {other.device} as {other_name} has, got {value.device}"
        )


def check_shape(name: str, value: Tensor, shape: Sequence[int], axes: str) -> None:
    """Raise ValueError unless `value` has `shape`; `axes` names its axes, as in "[B, J, I]"."""
    if tuple(value.shape) != tuple(shape):
        raise ValueError(
            f"{name}: expected shape {axes} = {tuple(shape)}, got {tuple(value.shape)}"
        )


def readable(value: Tensor) -> bool:
    """Return whether the values of a tensor may be read here (see the module's docstring)."""
    return plain(value) and value.device.type == "cpu" and value.numel() > 0


def plain(value: Tensor) -> bool:
    """Return whether a tensor has its own memory and is not part of a trace or transform."""
    if torch.compiler.is_compiling() or type(value) not in (Tensor, torch.nn.Parameter):
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(value)


def _alone(value: Tensor) -> AbstractContextManager[None]:
    """Return a context that keeps operations on `value` on this thread, if necessary."""
    return on_this_thread() if value.numel() >= SHARED else nullcontext()


def _extent(value: Tensor) -> tuple[float, float] | None:
    """Return the smallest and the largest value, both NaN if any value is; None if `value` must not
    be read here."""
    if not readable(value):
        return None
    if value.numel() < SHARED:
        low, high = torch.aminmax(value.detach())
    else:
        with on_this_thread():
            low, high = torch.aminmax(value.detach())
    return low.item(), high.item()


def check_finite(name: str, value: Tensor) -> None:
    """Raise ValueError if `value` has NaN or infinity."""
    extent = _extent(value)
    if extent is not None and not (math.isfinite(extent[0]) and math.isfinite(extent[1])):
        count = int((~torch.isfinite(value)).sum())
        raise ValueError(
            f"{name}: expected finite values, got {count} NaN or infinite of {value.numel()}"
        )


def sums_to_finite(value: Tensor) -> bool:
    """Return whether the sum is finite: then no element is NaN or infinite. True if it must not be
    read here. Half the time of `check_finite`."""
    if not readable(value):
        return True
    with _alone(value):
        return math.isfinite(value.detach().sum().item())


def check_unit_interval(name: str, value: Tensor) -> None:
    """Raise ValueError unless all of `value` is in [0, 1], as for decays; NaN is an error, too."""
    extent = _extent(value)
    if extent is not None and not (extent[0] >= 0 and extent[1] <= 1):
        raise ValueError(
            f"{name}: expected decays in [0, 1], got values from {extent[0]:g} to {extent[1]:g}; "
            "after an optimizer step call clamp_decays_(module), or use "
            "decay_parametrization='sigmoid'"
        )


def check_positive(name: str, value: Tensor) -> None:
    """Raise ValueError unless all of `value` is positive and finite."""
    extent = _extent(value)
    if extent is not None and not (extent[0] > 0 and extent[1] < math.inf):
        raise ValueError(
            f"{name}: expected positive, finite values, got values from {extent[0]:g} to "
            f"{extent[1]:g}"
        )


def is_number(value: object) -> TypeGuard[float]:
    """Return whether `value` is a real number, including NumPy scalars but not bools."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_positive_number(name: str, value: object) -> float:
    """Return `value` as a float; ValueError unless it is a positive finite number."""
    if not is_number(value) or not 0 < value < math.inf:
        raise ValueError(f"{name}: expected a positive, finite number, got {value!r}")
    return float(value)


def check_not_negative(name: str, value: object) -> float:
    """Return `value` as a float; ValueError unless it is a finite number of at least 0."""
    if not is_number(value) or not 0 <= value < math.inf:
        raise ValueError(f"{name}: expected a finite number >= 0, got {value!r}")
    return float(value)


def check_finite_number(name: str, value: object) -> float:
    """Return `value` as a float; ValueError unless it is a finite number."""
    if not is_number(value) or not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value!r}")
    return float(value)


def check_size(name: str, value: object) -> int:
    """Return `value` as an int; ValueError unless it is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name}: expected a whole number >= 1, got {value!r}")
    return int(value)


def check_fraction(name: str, value: object) -> float:
    """Return `value` as a float; ValueError unless it is in [0, 1]."""
    if not is_number(value) or not 0 <= value <= 1:
        raise ValueError(f"{name}: expected a number in [0, 1], got {value!r}")
    return float(value)


def check_flag(name: str, value: object) -> bool:
    """Return `value`; TypeError unless it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return value


def check_surrogate(value: object) -> None:
    """Raise TypeError unless `value` is callable as a surrogate: a function, not a class."""
    if not callable(value) or isinstance(value, type):
        raise TypeError(
            "surrogate: expected a function of (V - threshold, threshold) such as "
            f"Triangular(), got {value!r}"
        )


def check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """Raise ValueError unless `value` is one of `allowed`."""
    if value not in allowed:
        near = did_you_mean(value, allowed)
        raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}{near}")


def did_you_mean(value: object, allowed: Iterable[str]) -> str:
    """Return the end of an error message that suggests the most similar name in `allowed`."""
    near = get_close_matches(value, allowed, n=1) if isinstance(value, str) else []
    return f" (did you mean {near[0]}?)" if near else ""
