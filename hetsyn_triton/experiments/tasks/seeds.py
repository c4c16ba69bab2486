"""Random numbers that depend only on a seed and their purpose."""

import zlib

import numpy as np
import torch

__all__ = ["derived_seed", "seeded_generator"]


def derived_seed(seed: int, *stream: int | str) -> int:
    """Return a 63-bit seed for one purpose, such as `derived_seed(seed, "order", epoch)`.

    Words and non-negative integers in `stream` identify the purpose. The same arguments give the
    same number on every machine, so a checkpoint needs no generator state.
    """
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in stream]
    state = np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)
    return int(state[0]) >> 1


def seeded_generator(seed: int, *stream: int | str) -> torch.Generator:
    """Return a CPU generator with seed `derived_seed(seed, *stream)`."""
    return torch.Generator().manual_seed(derived_seed(seed, *stream))
