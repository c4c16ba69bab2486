"""Batches on the device of a run, each made while the one before is worked on."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

from hetsyn_triton.tasks import Batch


def on_device(batches: Iterator[Batch], device: torch.device | str) -> Iterator[Batch]:
    """`batches`, moved to `device`.

    For a GPU the next one is made in a thread meanwhile; a CPU's cores are the network's.
    """
    if torch.device(device).type == "cpu":
        yield from (batch.to(device) for batch in batches)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            # Moved here: a thread that talks to the GPU would spoil a capture.
            yield batch.to(device)
