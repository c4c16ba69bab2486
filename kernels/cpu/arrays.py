"""Tensors as kernels take them: flat, contiguous arrays; matrices and neurons' parameters cut into
blocks of lanes, the last one filled up with zeros."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from .vectors import lanes_of

Array = NDArray[Any]


def flat(tensor: Tensor) -> Array:
    """A contiguous tensor's memory, or a contiguous copy's."""
    return tensor.detach().contiguous().view(-1).numpy()


def optional(tensor: Tensor | None, like: Tensor) -> Array:
    """`flat`, or no elements of the same dtype where there is no tensor."""
    return flat(like.new_empty(0) if tensor is None else tensor)


def blocks_of(outputs: int, like: Tensor) -> int:
    """How many blocks of lanes hold `outputs`."""
    return -(-outputs // lanes_of(like.element_size()))


def padded(tensor: Tensor) -> Tensor:
    """[..., N] -> [..., blocks, L], zeros after N."""
    lanes = lanes_of(tensor.element_size())
    blocks = blocks_of(tensor.shape[-1], tensor)
    missing = blocks * lanes - tensor.shape[-1]
    filled = torch.nn.functional.pad(tensor.detach(), (0, missing))
    return filled.view(*tensor.shape[:-1], blocks, lanes)


def packed(matrix: Tensor) -> Array:
    """A matrix [R, S, O] with its outputs last -> [R, blocks, S, L], flat."""
    return flat(padded(matrix).transpose(1, 2))


def steps_like(steps: Tensor, features: int) -> Tensor:
    """An empty tensor [R, T, B, features]."""
    return torch.empty((*steps.shape[:3], features), dtype=steps.dtype)
