"""Batches on the device of a run, each made while the one before is worked on."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import torch

from hetsyn_triton.tasks import Batch


def on_device(batches: Iterator[Batch], device: torch.device | str) -> Iterator[Batch]:
    """`batches`, moved to `device`.

    For a GPU the next one is made in a thread meanwhile, on the CPU: ValueError for one that is
    not there. A CPU's cores are the network's.
    """
    if torch.device(device).type == "cpu":
        yield from (batch.to(device) for batch in batches)
        return
    context, with_gradients = copy_context(), torch.is_grad_enabled()

    def following() -> Batch | None:
        with torch.set_grad_enabled(with_gradients):  # each thread has a mode of its own
            return next(batches, None)

    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        coming = thread.submit(context.run, following)
        while (batch := coming.result()) is not None:
            for tensor in batch:
                if tensor.device.type != "cpu":
                    raise ValueError(f"batches: expected tensors on the CPU, got {tensor.device}")
            coming = thread.submit(context.run, following)
            # Moved here: a thread that talks to the GPU would spoil a capture.
            yield batch.to(device)
