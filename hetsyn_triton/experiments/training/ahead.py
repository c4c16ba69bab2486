"""Batches on the device of a run, prefetched for a GPU."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import torch

from hetsyn_triton.experiments.tasks import Batch


def on_device(batches: Iterator[Batch], device: torch.device | str) -> Iterator[Batch]:
    """Yield `batches`, moved to `device`.

    For a GPU, a thread makes the next batch on the CPU. On a CPU, the network needs the cores.

    Raises:
        ValueError: If a batch for a GPU is not made on the CPU.
    """
    if torch.device(device).type == "cpu":
        yield from (batch.to(device) for batch in batches)
        return
    context, with_gradients = copy_context(), torch.is_grad_enabled()

    def following() -> Batch | None:
        with torch.set_grad_enabled(with_gradients):  # each thread has its own mode
            return next(batches, None)

    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        coming = thread.submit(context.run, following)
        while (batch := coming.result()) is not None:
            for tensor in batch:
                if tensor.device.type != "cpu":
                    raise ValueError(f"batches: expected tensors on the CPU, got {tensor.device}")
            coming = thread.submit(context.run, following)
            # Moved here, because GPU calls of another thread break a graph capture.
            yield batch.to(device)
