"""Data-parallel training: each rank takes its part of every batch, all make the same step.

Each rank holds the whole network and the whole data. It computes the output of its own samples,
gets that of the others, and takes the loss of the whole batch; the gradient through its own part,
summed over ranks, is then the gradient of one process with the whole batch, whatever the loss is.
`torchrun` starts the ranks and ends them all when one fails.
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
SECONDS_TO_SPEAK = 5.0
PATIENCE = timedelta(hours=12)  # of ranks that wait while another writes, draws or compiles


@dataclass(frozen=True)
class Ranks:
    """The processes that train one network: this is number `rank` of `size`.

    Methods that exchange something are called by all ranks, in the same order.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this rank is the one that writes and speaks."""
        return self.rank == 0

    def device(self, wanted: str) -> str:
        """The device of this rank where the run's is `wanted`: with CUDA, a GPU for each."""
        device = torch.device(wanted)
        if self.size == 1 or device.type != "cuda":
            return wanted
        number, have = int(os.environ.get("LOCAL_RANK", self.rank)), torch.cuda.device_count()
        if device.index is not None:
            raise ConfigError(f"device: expected cuda, so that each rank has its own, got {wanted}")
        if number >= have:
            raise ConfigError(
                f"device: expected a GPU for each rank, got {have} on this machine and rank "
                f"{number} of it"
            )
        return f"cuda:{number}"

    def parts(self, samples: int) -> list[int]:
        """How many of `samples` each rank takes, those of rank 0 first; none differs by over 1."""
        return [samples // self.size + (rank < samples % self.size) for rank in range(self.size)]

    def own(self, samples: int) -> slice:
        """The samples of this rank; empty where there are fewer samples than ranks."""
        parts = self.parts(samples)
        start = sum(parts[: self.rank])
        return slice(start, start + parts[self.rank])

    def whole(self, own: Tensor, samples: int, spikes: bool = False) -> Tensor:
        """[T, samples, N] of all ranks from `own` [T, part, N]; gradients flow to `own` alone.

        With `spikes`, all values are 0 or 1, and are sent in a byte each.
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
        """Each gradient as the sum of those of all ranks; none where no rank has one."""
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
        """RanksError unless the parameters of all ranks are equal bit for bit."""
        if self.size == 1:
            return
        for name, value in network.state_dict().items():
            first = value.clone()
            dist.broadcast(first, 0)
            if not self.all(torch.equal(first, value)):
                raise RanksError(f"the ranks no longer have the same {name} {where}", self.first)

    def all(self, holds: bool) -> bool:
        """Whether it holds on every rank."""
        return all(self.gather(holds))

    def gather(self, value: T) -> list[T]:
        """What each rank has, by rank, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def share(self, value: T) -> T:
        """What rank 0 has, on every rank."""
        if self.size == 1:
            return value
        values: list[Any] = [value]
        dist.broadcast_object_list(values, 0)
        shared: T = values[0]
        return shared

    def let_the_first_speak(self) -> None:
        """On other ranks than the first, before an end that all make for the same reason: wait.

        `torchrun` ends all when one has ended; the first one should have said why.
        """
        if not self.first:
            time.sleep(SECONDS_TO_SPEAK)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What fails in the block on one rank ends all: rank 0 raises its own error or names the
        rank, the others raise a RanksError that says so."""
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
                self.let_the_first_speak()
                raise RanksError(f"rank {rank} of {self.size}: {problem}", self.first) from failed


ALONE = Ranks()


def current_ranks() -> Ranks:
    """The ranks of the process group this process is in; ALONE without one."""
    if not (dist.is_available() and dist.is_initialized()):
        return ALONE
    return Ranks(dist.get_rank(), dist.get_world_size())


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """The ranks that `torchrun` started, as a process group while the block runs.

    A group that is there already is used and stays. Without `torchrun`, or with one process, this
    process is alone.
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
        if not with_gpus:  # NCCL may wait for ranks that do not come any more
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()
