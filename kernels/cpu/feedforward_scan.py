"""A feedforward layer: synaptic current, threshold and feedback currents, some blocks of neurons of
one sample at a time.

The current of a block stays in cache, is turned into potentials there and written once. Equations
in `synaptic_current.py` and `lib/neurons.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .lib.arrays import blocks_of, flat, optional, packed, padded, steps_like
from .lib.compiling import kernel
from .lib.neurons import neurons_blocks
from .lib.rows import aligned
from .lib.threads import grouped, run
from .lib.vectors import lanes
from .synaptic_current import CHUNK, currents


@kernel
def _layer(
    begin, end, z, weight, decay, trace, given, last, theta, f_decay, f_strength, feedback, spike,
    spikes, potential, last_feedback, T, B, I, J, K, group,
):  # fmt: skip
    """Tasks (replica, sample, `group` blocks)."""
    L = lanes(z)
    blocks = (J + L - 1) // L
    groups = (blocks + group - 1) // group
    x = aligned(2 * CHUNK * L, z)
    square = aligned(CHUNK * L, z)
    tile = aligned(CHUNK * T, z)
    c = aligned(group * T * L, z)
    f = aligned(K * L, z)
    s = aligned(L, z)
    for task in range(begin, end):
        b, first = task // groups, task % groups * group
        replica, sample = divmod(b, B)
        here = min(group, blocks - first)
        currents(
            z, (replica * T * B + sample) * I, B * I, weight, decay, trace, given, last, False, c,
            x, square, tile, b, replica, first, here, T, I, J,
        )  # fmt: skip
        neurons_blocks(
            c, theta, f_decay, f_strength, feedback, spike, f, s, spikes, potential, last_feedback,
            replica, b, first, here, T, B, J, K,
        )  # fmt: skip


def feedforward_scan(
    z: Tensor,
    weight: Tensor,
    decay: Tensor,
    trace: Tensor | None,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """z [R, T, B, I] -> spikes, V [R, T, B, J], final feedback [R, K, B, J], final trace [R, B, J,
    I]."""
    R, T, B, I = z.shape
    _, K, J = feedback_decay.shape
    spikes, potential = steps_like(z, J), steps_like(z, J)
    last_feedback = torch.empty(feedback.shape, dtype=z.dtype)
    last = torch.empty((R, B, J, I), dtype=z.dtype)
    group, tasks = grouped(R * B, blocks_of(J, z))
    run(
        _layer, tasks, 2 * R * T * B * I * J,
        flat(z), packed(weight.mT), packed(decay.mT), optional(trace, z), trace is not None,
        flat(last), padded(threshold), padded(feedback_decay),
        padded(feedback_strength), flat(feedback), flat(spike), flat(spikes),
        flat(potential), flat(last_feedback), T, B, I, J, K, group,
    )  # fmt: skip
    return spikes, potential, last_feedback, last
