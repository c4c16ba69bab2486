"""Tensors as kernels take them: flat, contiguous arrays; matrices and neurons' parameters cut into
blocks of lanes, the last one filled up with zeros."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .vectors import BYTES

Array = NDArray[Any]


_NAMES = "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"
_TYPES = {getattr(torch, name): np.dtype(name).str for name in _NAMES}


class _Memory:
    """A tensor's memory as NumPy asks for it; it keeps the tensor alive.

    `Tensor.numpy()` would mark the storage for ever: it could no longer be resized.
    """

    __slots__ = ("__array_interface__", "tensor")
    __array_interface__: dict[str, Any]
    tensor: Tensor


def array(tensor: Tensor) -> Array:
    """The elements of a tensor in its own memory."""
    memory = _Memory()
    memory.tensor = tensor = tensor.resolve_neg()
    size = tensor.element_size()
    memory.__array_interface__ = {
        "data": (tensor.data_ptr(), False),
        "shape": tuple(tensor.shape),
        "strides": tuple(map(size.__mul__, tensor.stride())),
        "typestr": _TYPES[tensor.dtype],
        "version": 3,
    }
    return np.asarray(memory)


def flat(tensor: Tensor) -> Array:
    """A contiguous tensor's memory, or a contiguous copy's."""
    if not tensor.is_contiguous() or tensor.is_neg():
        # NumPy copies on this thread; PyTorch's others are not there in a forked child.
        return np.ascontiguousarray(array(tensor)).reshape(-1)
    memory = _Memory()  # as `array`, without a call more
    memory.tensor = tensor
    memory.__array_interface__ = {
        "data": (tensor.data_ptr(), False),
        "shape": (tensor.numel(),),
        "typestr": _TYPES[tensor.dtype],
        "version": 3,
    }
    return np.asarray(memory)


def optional(tensor: Tensor | None, like: Tensor) -> Array:
    """`flat`, or no elements of the same dtype where there is no tensor."""
    if tensor is None:
        return np.empty(0, np.float64 if like.dtype == torch.float64 else np.float32)
    return flat(tensor)


def blocks_of(outputs: int, like: Tensor) -> int:
    """How many blocks of lanes hold `outputs`."""
    return -(-outputs * like.element_size() // BYTES)


def _zeros(count: int, like: Array) -> Array:
    """Zeros from the start of a cache line."""
    memory = np.zeros(count + BYTES // like.itemsize, like.dtype)
    first = -memory.ctypes.data % BYTES // like.itemsize
    return memory[first : first + count]


def padded(tensor: Tensor) -> Array:
    """[..., N] -> [..., blocks, L], zeros after N, flat."""
    given = array(tensor)
    *outer, N = given.shape
    lanes = BYTES // given.itemsize
    width = -(-N // lanes) * lanes
    filled = _zeros(math.prod(outer) * width, given)
    filled.reshape(*outer, width)[..., :N] = given
    return filled


def packed(matrix: Tensor) -> Array:
    """A matrix [R, S, O] with its outputs last -> [R, blocks, S, L], flat."""
    given = array(matrix)
    R, S, O = given.shape
    lanes = BYTES // given.itemsize
    blocks = -(-O // lanes)
    filled = _zeros(R * blocks * S * lanes, given)
    places = filled.reshape(R, blocks, S, lanes)
    for block in range(blocks):
        part = given[:, :, block * lanes : (block + 1) * lanes]
        places[:, block, :, : part.shape[2]] = part
    return filled


def steps_like(steps: Tensor, features: int) -> Tensor:
    """An empty tensor [R, T, B, features]."""
    return torch.empty((*steps.shape[:3], features), dtype=steps.dtype)
