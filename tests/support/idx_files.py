"""idx files as the tests need them."""

import struct

import torch
from torch import Tensor


def idx_bytes(values: Tensor) -> bytes:
    """`values` as an idx file of unsigned bytes."""
    header = struct.pack(">HBB", 0, 8, values.dim())
    sizes = struct.pack(f">{values.dim()}I", *values.shape)
    return header + sizes + values.to(torch.uint8).numpy().tobytes()
