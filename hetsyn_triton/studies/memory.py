"""What a call needs beyond its inputs: the growth of the process, and what autograd keeps."""

import gc
import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


def in_a_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """`function(*arguments)` in a process of its own, whose memory nobody else has used."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        return executor.submit(function, *arguments).result()


def growth(call: Callable[[], object]) -> int | None:
    """By how many bytes the process is larger at the peak of `call` than before it.

    None where the system does not tell, or does not let the peak be reset (Linux does both).
    """
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    gc.collect()
    if not status.exists() or not os.access(reset, os.W_OK):
        return None
    try:
        reset.write_text("5")  # the peak begins anew
    except OSError:
        return None
    before = _status(status, "VmRSS")
    call()
    return _status(status, "VmHWM") - before


def kept_for_backward(forward: Callable[[], Tensor], known: Iterable[Tensor] = ()) -> int:
    """Bytes of all storages that autograd keeps between `forward` and its backward, but for those
    of the `known` tensors, parameters and inputs."""
    mine = {tensor.untyped_storage().data_ptr() for tensor in known}
    storages: dict[int, int] = {}
    held = []  # so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in mine:
            storages[storage.data_ptr()] = storage.nbytes()
            held.append(tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(storages.values())


def _status(path: Path, field: str) -> int:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"{path} has no {field}")
