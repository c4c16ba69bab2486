"""Rows of neurons or inputs as vectors, the last one of them not full, and room for vectors."""

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
def ask_for(array, place, count):
    """Has the caches get array[place : place + count], which need not exist, to be read or written
    soon: a sample's rows lie too far apart for the processor to guess the next. The last line of a
    row that begins within one may be left out."""
    for o in range(0, count, lanes(array)):
        prefetch(array, place + o)


@inlined
def aligned(count, like):
    """Room for `count` elements that begins with a cache line: a vector across two of them takes
    twice as long, and where NumPy begins is chance."""
    L = lanes(like)
    room = np.empty(count + L, like.dtype)
    return room[(-room.ctypes.data % BYTES) // room.itemsize :]
