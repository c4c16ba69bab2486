"""Tensors as kernels take them: flat, contiguous arrays; matrices and neurons' parameters cut into
blocks of lanes, the last one filled up with zeros."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .vectors import BYTES, lanes_of

Array = NDArray[Any]


def flat(tensor: Tensor) -> Array:
    """A contiguous tensor's memory, or a contiguous copy's."""
    # NumPy copies on this thread; PyTorch's others are not there in a forked child.
    return np.ascontiguousarray(tensor.detach().resolve_neg().numpy()).reshape(-1)


def optional(tensor: Tensor | None, like: Tensor) -> Array:
    """`flat`, or no elements of the same dtype where there is no tensor."""
    return flat(like.new_empty(0) if tensor is None else tensor)


def blocks_of(outputs: int, like: Tensor) -> int:
    """How many blocks of lanes hold `outputs`."""
    return -(-outputs // lanes_of(like.element_size()))


def _padded(tensor: Tensor) -> Array:
    """[..., N] -> [..., blocks, L], zeros after N."""
    lanes = lanes_of(tensor.element_size())
    blocks = blocks_of(tensor.shape[-1], tensor)
    given = tensor.detach().resolve_neg().numpy()
    filled = np.zeros((*given.shape[:-1], blocks * lanes), given.dtype)
    filled[..., : given.shape[-1]] = given
    return filled.reshape(*given.shape[:-1], blocks, lanes)


def _aligned(values: Array) -> Array:
    """A flat copy that begins with a cache line."""
    room = np.empty(values.size + BYTES // values.itemsize, values.dtype)
    first = -room.ctypes.data % BYTES // values.itemsize
    copy = room[first : first + values.size]
    copy.reshape(values.shape)[:] = values
    return copy


def padded(tensor: Tensor) -> Array:
    """[..., N] -> [..., blocks, L], zeros after N, flat."""
    return _aligned(_padded(tensor))


def packed(matrix: Tensor) -> Array:
    """A matrix [R, S, O] with its outputs last -> [R, blocks, S, L], flat."""
    return _aligned(_padded(matrix).swapaxes(1, 2))


def steps_like(steps: Tensor, features: int) -> Tensor:
    """An empty tensor [R, T, B, features]."""
    return torch.empty((*steps.shape[:3], features), dtype=steps.dtype)
