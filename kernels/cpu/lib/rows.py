"""Load, store, prefetch and allocate rows of neurons or inputs; the last vector may be partial."""

from __future__ import annotations

import numpy as np

from .compiling import borrowing, inlined
from .vectors import BYTES, lanes, load, load_first, prefetch, store, store_first

SPAN = 8
"""Blocks of a task that goes step by step: what lies together is read together."""
AHEAD = 4
"""Steps by which a tile's rows are asked for before they are read or written."""


@borrowing
def load_row(source, place, used):
    """The first `used` lanes from source[place], zeros after them."""
    if used == lanes(source):
        return load(source, place)
    return load_first(source, place, used)


@borrowing
def store_row(target, place, used, vector):
    """The first `used` lanes to target[place]."""
    if used == lanes(target):
        store(target, place, vector)
    else:
        store_first(target, place, used, vector)


@borrowing
def prefetch_row(array, place, count):
    """Prefetch array[place : place + count], which need not exist, for a read or a write.

    A sample's rows lie too far apart for the hardware prefetcher. The last cache line of a row that
    does not begin at a cache line may be left out.
    """
    for o in range(0, count, lanes(array)):
        prefetch(array, place + o)


@inlined
def aligned(count, like):
    """Allocate `count` elements from the start of a cache line, which NumPy does not promise.

    A vector across two cache lines takes twice as long.
    """
    L = lanes(like)
    memory = np.empty(count + L, like.dtype)
    return memory[(-memory.ctypes.data % BYTES) // memory.itemsize :]
