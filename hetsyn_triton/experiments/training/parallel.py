"""Data-parallel training: each rank takes its part of every batch, and all make the same step.

Each rank has the whole network and all data. It computes the output for its own samples, receives
the outputs of the other ranks, and computes the loss of the whole batch. Each rank backpropagates
through its own part. The sum over ranks is the gradient of one process with the whole batch, for
any loss. `torchrun` starts the ranks, and ends all if one fails.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .errors import ConfigError, RanksError

T = TypeVar("T")
SECONDS_TO_SPEAK = 5.0  # for the first rank to report an error
PATIENCE = timedelta(hours=12)  # timeout of ranks that wait for another


@dataclass(frozen=True)
class Ranks:
    """The processes that train one network; this is number `rank` of `size`.

    All ranks have to call the methods that communicate, in the same order.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes and prints."""
        return self.rank == 0

    def device(self, wanted: str) -> str:
        """Return the device of this rank for a run on `wanted`; each rank gets its own GPU."""
        device = torch.device(wanted)
        if self.size == 1 or device.type != "cuda":
            return wanted
        number, have = int(os.environ.get("LOCAL_RANK", self.rank)), torch.cuda.device_count()
        if device.index is not None:
            raise ConfigError(
                f"device: expected cuda because each rank uses its own GPU, got {wanted}"
            )
        if number >= have:
            raise ConfigError(
                f"device: expected a GPU for each rank, got {have} on this machine and local rank "
                f"{number}"
            )
        return f"cuda:{number}"

    def parts(self, samples: int) -> list[int]:
        """Return how many of `samples` each rank takes; the numbers differ by at most 1."""
        return [samples // self.size + (rank < samples % self.size) for rank in range(self.size)]

    def own(self, samples: int) -> slice:
        """Return the samples of this rank; empty if there are fewer samples than ranks."""
        parts = self.parts(samples)
        start = sum(parts[: self.rank])
        return slice(start, start + parts[self.rank])

    def whole(self, own: Tensor, samples: int, spikes: bool = False) -> Tensor:
        """Gather [T, samples, N] of all ranks from `own` [T, part, N].

        Gradients flow to `own` only. With `spikes`, values are 0 or 1 and are sent as bytes.
        """
        if self.size == 1:
            return own
        parts = self.parts(samples)
        kind = torch.uint8 if spikes else own.dtype
        sent = own.new_zeros(own.shape[0], max(parts), own.shape[2], dtype=kind)
        sent[:, : parts[self.rank]] = own.detach()
        received = [torch.empty_like(sent) for _ in parts]
        dist.all_gather(received, sent)
        pieces = [p[:, :part].to(own.dtype) for p, part in zip(received, parts, strict=True)]
        pieces[self.rank] = own
        return torch.cat(pieces, dim=1)

    def sum_gradients(self, network: nn.Module) -> None:
        """Sum each gradient over all ranks; no gradient if no rank has one."""
        if self.size == 1:
            return
        parameters = [p for p in network.parameters() if p.requires_grad]
        there = [p.grad is not None for p in parameters]
        flat = torch.cat(
            [
                *[
                    (torch.zeros_like(p) if p.grad is None else p.grad).flatten()
                    for p in parameters
                ],
                parameters[0].new_tensor(there),
            ]
        )
        dist.all_reduce(flat)
        *sums, anywhere = flat.split([*(p.numel() for p in parameters), len(parameters)])
        for parameter, total, any_has in zip(parameters, sums, anywhere.tolist(), strict=True):
            parameter.grad = total.view_as(parameter) if any_has else None

    def check_alike(self, network: nn.Module, where: str) -> None:
        """Raise RanksError unless the parameters of all ranks are bit-identical."""
        if self.size == 1:
            return
        for name, value in network.state_dict().items():
            first = value.clone()
            dist.broadcast(first, 0)
            if not self.all(torch.equal(first, value)):
                raise RanksError(f"the ranks have different values of {name} {where}", self.first)

    def all(self, holds: bool) -> bool:
        """Return whether `holds` is true on every rank."""
        return all(self.gather(holds))

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def share(self, value: T) -> T:
        """Return the value of rank 0, on every rank."""
        if self.size == 1:
            return value
        values: list[Any] = [value]
        dist.broadcast_object_list(values, 0)
        shared: T = values[0]
        return shared

    def wait_for_report(self) -> None:
        """Let the first rank report an error that ends all ranks; wait on the others.

        `torchrun` ends all ranks when one has ended.
        """
        if not self.first:
            time.sleep(SECONDS_TO_SPEAK)

    @contextmanager
    def together(self) -> Iterator[None]:
        """End all ranks if the block fails on one.

        Rank 0 raises its own error, or a RanksError that names the failed rank. The others raise a
        RanksError.
        """
        if self.size == 1:
            yield
            return
        failed: Exception | None = None
        try:
            yield
        except Exception as error:
            failed = error
        problems = self.gather(None if failed is None else f"{type(failed).__name__}: {failed}")
        if self.first and failed is not None:
            raise failed
        for rank, problem in enumerate(problems):
            if problem is not None:
                self.wait_for_report()
                raise RanksError(f"rank {rank} of {self.size}: {problem}", self.first) from failed


ALONE = Ranks()


def current_ranks() -> Ranks:
    """Return the ranks of the current process group, or ALONE."""
    if not (dist.is_available() and dist.is_initialized()):
        return ALONE
    return Ranks(dist.get_rank(), dist.get_world_size())


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Join the ranks that `torchrun` started in a process group while the block runs.

    An existing group is used and kept. Without `torchrun`, or with one process, the result is
    ALONE.
    """
    ranks = current_ranks()
    launched = dist.is_available() and dist.is_torchelastic_launched()
    if ranks.size > 1 or not launched or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ranks
        return
    with_gpus = torch.cuda.is_available() and dist.is_nccl_available()
    dist.init_process_group("cpu:gloo,cuda:nccl" if with_gpus else "gloo", timeout=PATIENCE)
    try:
        yield current_ranks()
    except BaseException:
        if not with_gpus:  # NCCL may wait for ranks that have ended
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()
