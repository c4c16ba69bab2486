"""How every kernel is started: on the tensors' device, with sizes that compile nothing anew.

`recording()` catches launches instead of running them: `bench/codegen.py` and the tests compile
ahead of time exactly what would have run. Under it tensors may be on the meta device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from operator import itemgetter
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from ... import trial


class Launch(NamedTuple):
    """One kernel launch: run-time arguments and compile-time constants by name."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    constants: dict[str, Any]
    num_warps: int
    options: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.kernel.fn.__name__)


def _run(call: Launch) -> Any:
    """Run a kernel by way of Triton's cache; return what it compiled."""
    device = next(a.device for a in call.arguments.values() if isinstance(a, Tensor))
    # Triton launches on the current device and its current stream: make it the tensors' own.
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        # One policy for every kernel: Triton 3.10 turns fusion off unless told.
        return call.kernel[call.grid](
            **call.arguments,
            **call.constants,
            num_warps=call.num_warps,
            enable_fp_fusion=True,
            **call.options,
        )


_compiled: dict[tuple[Any, ...], tuple[Any, Callable[[dict[str, Any]], tuple[Any, ...]]]] = {}


def _run_again(call: Launch) -> None:
    """Run a kernel as `_run` does, but what Triton works out for each launch is kept.

    Triton compiles by constants, dtypes and 16-byte alignment alone, because kernels have nothing
    else specialized (kernels/README.md).
    """
    tensors = [a for a in call.arguments.values() if isinstance(a, Tensor)]
    device = tensors[0].device
    if device.index != torch.cuda.current_device():
        _run(call)
        return
    seen = [(t.dtype, t.data_ptr() % 16 == 0) for t in tensors]
    key = (call.kernel, device.index, call.num_warps, *call.constants.values(), *seen)
    known = _compiled.get(key)
    if known is None:
        _compiled[key] = _run(call), itemgetter(*call.kernel.arg_names)
        return
    compiled, in_order = known
    compiled[(*call.grid, 1, 1)[:3]](*in_order(call.arguments | call.constants))


_recorded: list[Launch] | None = None


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """Catches every launch inside in a list, in order, and runs none. Not for several threads."""
    global _recorded
    before, _recorded = _recorded, []
    try:
        yield _recorded
    finally:
        _recorded = before


def launch(
    kernel: Any,
    grid: tuple[int, ...],
    arguments: dict[str, Any],
    constants: dict[str, Any],
    num_warps: int,
    **options: Any,
) -> None:
    """Runs `kernel` over `grid`; an empty grid runs nothing."""
    call = Launch(kernel, grid, arguments, constants, num_warps, options)
    if _recorded is not None:
        _recorded.append(call)
    elif all(grid):
        run = _run_again if trial.allowed() and steps_ahead(1) else _run
        run(call)


def steps_ahead(steps: int) -> int:
    """Return how many steps ahead to prefetch: `steps`, or 0 where PTX cannot run.

    That is on AMD GPUs, and in Triton's interpreter unless launches are only recorded.
    """
    interpreted = triton.knobs.runtime.interpret and _recorded is None
    return 0 if interpreted or torch.version.hip is not None else steps


def strides(steps: Tensor) -> tuple[int, int, int]:
    """Strides of replica, time and sample of a tensor [R, T, B, N] whose features are adjacent."""
    r, t, b, n = steps.stride()
    assert n == 1 or steps.shape[3] == 1
    return r, t, b


def named_strides(letter: str, steps: Tensor) -> dict[str, int]:
    """`strides` as the kernel arguments stride_<letter>r, t and b."""
    r, t, b = strides(steps)
    return {f"stride_{letter}r": r, f"stride_{letter}t": t, f"stride_{letter}b": b}


def rows(steps: Tensor) -> Tensor:
    """[R, T, B, N] in float32 with adjacent features: itself where it is so already."""
    if steps.dtype != torch.float32:
        steps = steps.to(torch.float32)
    return steps if steps.stride(3) == 1 or steps.shape[3] == 1 else steps.contiguous()


def dense(tensor: Tensor) -> Tensor:
    """float32 and contiguous: itself where it is so already."""
    if tensor.dtype == torch.float32 and tensor.is_contiguous():
        return tensor
    return tensor.to(torch.float32).contiguous()


def quads(steps: Tensor, least: int = 4) -> Tensor:
    """Steps [R, T, B, N] ready for loads of four neighbors: float32, N zero-padded to a multiple
    of 4 and at least `least`, 16-byte aligned. Itself where it is so already."""
    steps = rows(steps)
    features = max(-(-steps.shape[3] // 4) * 4, least)
    aligned = steps.storage_offset() % 4 == 0 and all(s % 4 == 0 for s in steps.stride()[:3])
    if features == steps.shape[3] and aligned and steps.stride(3) == 1:
        return steps
    padded = steps.new_zeros(*steps.shape[:3], features)
    padded[..., : steps.shape[3]] = steps
    return padded


@cache
def processors(device: torch.device) -> int:
    """Multiprocessors of the device; those of an H100 or H200 where it is no GPU."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).multi_processor_count)
    return 132
