"""Rows of neurons or inputs as vectors, the last one of them not full, and room for vectors."""

from __future__ import annotations

import numpy as np

from .compiling import borrowing, inlined
from .vectors import BYTES, lanes, load, store

SPAN = 8
"""Blocks of a task that goes step by step: what lies together is read together."""


@borrowing
def load_row(source, place, used, room):
    """The first `used` lanes from source[place], zeros after them; `room` holds a vector."""
    L = lanes(room)
    if used == L:
        return load(source, place)
    for l in range(L):
        room[l] = source[place + l] if l < used else 0
    return load(room, 0)


@borrowing
def store_row(target, place, used, room, vector):
    """The first `used` lanes to target[place]."""
    if used == lanes(room):
        store(target, place, vector)
    else:
        store(room, 0, vector)
        for l in range(used):
            target[place + l] = room[l]


@inlined
def aligned(count, like):
    """Room for `count` elements that begins with a cache line: a vector across two of them takes
    twice as long, and where NumPy begins is chance."""
    L = lanes(like)
    room = np.empty(count + L, like.dtype)
    return room[(-room.ctypes.data % BYTES) // room.itemsize :]
