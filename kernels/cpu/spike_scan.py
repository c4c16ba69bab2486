"""Threshold and feedback currents over a given current. Equations in `neurons.py`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .arrays import blocks_of, flat, padded
from .compiling import kernel
from .neurons import load_neurons, neurons_tile, store_feedback, store_steps
from .threads import run
from .vectors import lanes


@kernel
def _scan(
    begin, end, current, theta, f_decay, f_strength, feedback, spike, spikes, potential,
    last_feedback, T, B, J, K,
):  # fmt: skip
    """Tasks (replica, sample, block)."""
    L = lanes(current)
    blocks = (J + L - 1) // L
    c = np.zeros(T * L, current.dtype)
    f = np.empty(K * L, current.dtype)
    s = np.empty(L, current.dtype)
    for task in range(begin, end):
        b, block = divmod(task, blocks)
        replica, sample = divmod(b, B)
        used = min(L, J - block * L)
        for t in range(T):
            place = ((replica * T + t) * B + sample) * J + block * L
            for l in range(used):
                c[t * L + l] = current[place + l]
        load_neurons(feedback, spike, f, s, b, block, B, J, K)
        neurons_tile(c, theta, f_decay, f_strength, f, s, replica, block, blocks, T, K)
        store_steps(c, theta, spikes, potential, replica, b, block, blocks, T, B, J)
        store_feedback(f, last_feedback, b, block, B, J, K)


def spike_scan(
    current: Tensor,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """current [R, T, B, J] -> spikes, V [R, T, B, J], final feedback [R, K, B, J]."""
    R, T, B, J = current.shape
    K = feedback_decay.shape[1]
    spikes, potential = (torch.empty(current.shape, dtype=current.dtype) for _ in range(2))
    last_feedback = torch.empty(feedback.shape, dtype=current.dtype)
    run(
        _scan, R * B * blocks_of(J, current), 8 * R * T * B * J * (1 + K),
        flat(current), padded(threshold), padded(feedback_decay),
        padded(feedback_strength), flat(feedback), flat(spike), flat(spikes),
        flat(potential), flat(last_feedback), T, B, J, K,
    )  # fmt: skip
    return spikes, potential, last_feedback
