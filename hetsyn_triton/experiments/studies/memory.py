"""The memory of a call: the peak growth of the process, and what autograd keeps."""

import gc
import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


def in_a_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call `function(*arguments)` in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        return executor.submit(function, *arguments).result()


def growth(call: Callable[[], object]) -> int | None:
    """Return the peak growth of the process in bytes while `call` runs once.

    None if the system does not report the peak or cannot reset it. Linux does both.
    """
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # reset the peak
        before = _status("VmRSS")
    except OSError:
        call()
        return None
    call()
    return _status("VmHWM") - before


def kept_for_backward(forward: Callable[[], Tensor], known: Iterable[Tensor] = ()) -> int:
    """Return the bytes of all storages that autograd keeps from `forward` to its backward pass.

    Storages of the `known` tensors, such as parameters and inputs, do not count.
    """
    mine = {tensor.untyped_storage().data_ptr() for tensor in known}
    storages: dict[int, int] = {}
    held = []  # keep alive, so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in mine:
            storages[storage.data_ptr()] = storage.nbytes()
            held.append(tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(storages.values())


def _status(field: str) -> int:
    """Return the bytes in a field of /proc/self/status."""
    path = Path("/proc/self/status")
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"{path} has no {field}")
