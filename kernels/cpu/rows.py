"""Rows of neurons or inputs as vectors, the last one of them not full."""

from __future__ import annotations

from .compiling import borrowing
from .vectors import lanes, load, store

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
