"""What a call needs beyond its inputs: the growth of the process, and what autograd keeps."""

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
    """`function(*arguments)` in a process of its own, whose memory nobody else has used."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        return executor.submit(function, *arguments).result()


def growth(call: Callable[[], object]) -> int | None:
    """By how many bytes the process is larger at the peak of `call`, which is made once, than
    before it.

    None where the system does not tell, or does not let the peak be reset (Linux does both).
    """
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = _status("VmRSS")
    except OSError:
        call()
        return None
    call()
    return _status("VmHWM") - before


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


def _status(field: str) -> int:
    """Bytes in a field of /proc/self/status."""
    path = Path("/proc/self/status")
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"{path} has no {field}")
