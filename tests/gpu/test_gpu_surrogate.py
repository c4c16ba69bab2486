"""The surrogate kernel on tensors of more than 2^31 elements."""

from pathlib import Path

import torch

from hetsyn_triton.kernels.gpu import surrogate as kernel
from tests.support.bounds import sparse


def test_offsets_beyond_32_bits(device: torch.device, tmp_path: Path) -> None:
    """More than 2^31 potentials: only the last program is run."""
    neurons = 2**29 + 4
    memory = sparse(11 * neurons, device, tmp_path)
    potential, found = memory[: 10 * neurons].view(2, 1, 1, 5, neurons)
    threshold = memory[10 * neurons :].view(1, neurons)
    potential[0, 0, -1, -4:] = torch.tensor([1.0, 2.0, 4.0, 0.5], device=device)
    threshold[0, -4:] = 1.0
    programs = -(-5 * neurons // 512)
    kernel.launch_surrogate("fast_sigmoid", (1.0,), potential, threshold, found, first=programs - 1)
    exact = torch.tensor([1.0, 1 / 4, 1 / 16, 4 / 9], device=device)
    assert torch.allclose(found[0, 0, -1, -4:], exact, rtol=1e-6, atol=0)
