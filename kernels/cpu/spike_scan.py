"""Threshold and feedback currents over a given current, and their reverse. Equations in
`lib/neurons.py` and `lib/neurons_reverse.py`.

A task is some blocks of one sample; the reverse goes step by step. Rows that lie together are read
together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .lib.arrays import blocks_of, flat, optional, padded
from .lib.compiling import kernel
from .lib.neurons import load_feedback, neurons_blocks, store_feedback
from .lib.neurons_reverse import feedback_gradients, prefetch_step, reverse_step
from .lib.rows import AHEAD, SPAN, aligned, load_row, prefetch_row, store_row
from .lib.sums import sum_in_order
from .lib.threads import grouped, run
from .lib.vectors import lanes, load, store


@kernel
def _scan(
    begin, end, current, theta, f_decay, f_strength, feedback, spike, spikes, potential,
    last_feedback, T, B, J, K, group,
):  # fmt: skip
    """Tasks (replica, sample, `group` blocks)."""
    L = lanes(current)
    blocks = (J + L - 1) // L
    groups = (blocks + group - 1) // group
    c = aligned(group * T * L, current)
    f = aligned(K * L, current)
    s = aligned(L, current)
    for task in range(begin, end):
        b, number = divmod(task, groups)
        replica, sample = divmod(b, B)
        first = number * group
        here = min(group, blocks - first)
        for t in range(T):
            row = ((replica * T + t) * B + sample) * J
            prefetch_row(current, row + first * L + AHEAD * B * J, here * L)
            for h in range(here):
                lane = (first + h) * L
                used = min(L, J - lane)
                store(c, (h * T + t) * L, load_row(current, row + lane, used))
        neurons_blocks(
            c, theta, f_decay, f_strength, feedback, spike, f, s, spikes, potential, last_feedback,
            replica, b, first, here, T, B, J, K,
        )  # fmt: skip


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
    spikes = torch.empty(current.shape, dtype=current.dtype)
    potential = torch.empty(current.shape, dtype=current.dtype)
    last_feedback = torch.empty(feedback.shape, dtype=current.dtype)
    group, tasks = grouped(R * B, blocks_of(J, current))
    run(
        _scan, tasks, 8 * R * T * B * J * (1 + K),
        flat(current), padded(threshold), padded(feedback_decay),
        padded(feedback_strength), flat(feedback), flat(spike), flat(spikes),
        flat(potential), flat(last_feedback), T, B, J, K, group,
    )  # fmt: skip
    return spikes, potential, last_feedback


@kernel
def _reverse(
    begin, end, g_spikes, has_g_spikes, g_potential, has_g_potential, g_feedback, derivative,
    decay, strength, detach_reset, d_current, d_threshold, d_feedback, d_spike, T, B, J, K,
):  # fmt: skip
    """Tasks (replica, sample, span). d_threshold [R, B, J], of each sample alone."""
    L = lanes(derivative)
    blocks = (J + L - 1) // L
    spans = (blocks + SPAN - 1) // SPAN
    s = aligned(SPAN * L, derivative)
    theta = aligned(SPAN * L, derivative)
    f = aligned(SPAN * K * L, derivative)
    for task in range(begin, end):
        b, span = divmod(task, spans)
        replica, sample = divmod(b, B)
        first = span * SPAN
        here = min(SPAN, blocks - first)
        s[:] = theta[:] = 0
        for h in range(here):
            load_feedback(g_feedback, f[h * K * L :], b, first + h, B, J, K)
        for t in range(T - 1, -1, -1):
            row = ((replica * T + t) * B + sample) * J
            prefetch_step(
                derivative, g_spikes, has_g_spikes, g_potential, has_g_potential, d_current,
                row + first * L - B * J, here * L,
            )  # fmt: skip
            for h in range(here):
                block = first + h
                place, used = row + block * L, min(L, J - block * L)
                g, back = reverse_step(
                    derivative, g_spikes, has_g_spikes, g_potential, has_g_potential, place, used,
                    load(s, h * L), f, h * K * L, theta, h * L, decay, strength,
                    (replica * K * blocks + block) * L, blocks * L, K, detach_reset,
                )  # fmt: skip
                store_row(d_current, place, used, g)
                store(s, h * L, back)
        for h in range(here):
            block = first + h
            place, used = b * J + block * L, min(L, J - block * L)
            store_row(d_spike, place, used, load(s, h * L))
            store_row(d_threshold, place, used, load(theta, h * L))
            store_feedback(f[h * K * L :], d_feedback, b, block, B, J, K)


def spike_scan_backward(
    g_spikes: Tensor | None,
    g_potential: Tensor | None,
    g_feedback: Tensor | None,
    derivative: Tensor,
    spikes: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    detach_reset: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of spikes and V [R, T, B, J] and of the final feedback, ds/dV -> d_current [R, T,
    B, J], d_threshold [R, J], d_decay and d_strength [R, K, J], d_feedback [R, K, B, J], d_spike
    [R, B, J]."""
    R, T, B, J = derivative.shape
    K = feedback_decay.shape[1]
    like = derivative
    d_current = torch.empty(like.shape, dtype=like.dtype)
    d_feedback = torch.empty(feedback.shape, dtype=like.dtype)
    d_spike = torch.empty(spike.shape, dtype=like.dtype)
    d_threshold = torch.empty(spike.shape, dtype=like.dtype)
    run(
        _reverse, R * B * -(-blocks_of(J, like) // SPAN), 8 * R * T * B * J * (1 + K),
        optional(g_spikes, like), g_spikes is not None, optional(g_potential, like),
        g_potential is not None, optional(g_feedback, like), flat(derivative),
        padded(feedback_decay), padded(feedback_strength), detach_reset, flat(d_current),
        flat(d_threshold), flat(d_feedback), flat(d_spike), T, B, J, K,
    )  # fmt: skip
    d_decay, d_strength = feedback_gradients(
        d_current, g_feedback, spikes, feedback_decay, feedback_strength, feedback, spike
    )
    return d_current, sum_in_order(d_threshold), d_decay, d_strength, d_feedback, d_spike
