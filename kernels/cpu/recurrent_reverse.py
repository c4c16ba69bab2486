"""The recurrent scan in reverse: from the gradients of spikes, potentials and last states to those
of the current, the neurons' parameters and the first states.

With g = dL/dV(t) and m(T) the gradient of the last trace,

    a_ji(t) = w_ji g_j(t) + m_ji(t),   dL/ds_i(t-1) += sum_j a_ji(t),   m_ji(t-1) = r_ji a_ji(t)

and m is the gradient of the trace before: one state, whether or not a gradient of the last trace is
given, and nothing is lost when a sequence is cut. Neurons i in lanes, groups and sums as in
`recurrent_scan.py`, neurons as in `neurons_reverse.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .arrays import flat, optional, packed, padded
from .compiling import inlined, kernel
from .neurons import load_feedback, store_feedback
from .neurons_reverse import ask_for_step, feedback_gradients, reverse_step
from .recurrent_scan import add_synapses, group, group_size, groups_of, turn
from .rows import aligned, store_row
from .sums import sum_in_order
from .threads import run
from .vectors import add, filled, fma, lanes, load, mul, store


@inlined
def _synapse(m, place, w, r, g, c):
    """a = w g + m, m <- r a; c + a."""
    a = fma(w, g, load(m, place))
    store(m, place, mul(r, a))
    return add(c, a)


@kernel
def _reverse(
    begin, end, g_spikes, has_g_spikes, g_potential, has_g_potential, derivative, g_feedback,
    g_trace, has_trace, weight, decay, f_decay, f_strength, detach_reset, d_current, d_threshold,
    d_feedback, d_spike, d_trace, T, B, J, K, size, groups,
):  # fmt: skip
    """Tasks (replica, group). d_threshold [R, B, J], of each sample alone."""
    L = lanes(derivative)
    blocks = (J + L - 1) // L
    W = blocks * L
    m = aligned(size * W * J, derivative)
    c = aligned(size * W, derivative)
    d = aligned(size * W, derivative)
    g = aligned(size * W, derivative)
    theta = aligned(size * W, derivative)
    f = aligned(size * W * K, derivative)
    for task in range(begin, end):
        replica, which = divmod(task, groups)
        first, n = group(which, B, size)
        b = replica * B + first
        c[:] = d[:] = theta[:] = 0
        for p in range(0, n * W * J, L):
            store(m, p, filled(m, 0))
        for k in range(n):
            for block in range(blocks):
                p = k * W + block * L
                load_feedback(g_feedback, f[p * K :], b + k, block, B, J, K)
            if has_trace:
                for j in range(J):
                    for i0 in range(0, J, L):
                        place, row = (i0 * J + j * L) * n + k * L, ((b + k) * J + j) * J + i0
                        for l in range(min(L, J - i0)):
                            m[place + l] = g_trace[row + l]
        for t in range(T - 1, -1, -1):
            row = ((replica * T + t) * B + first) * J
            ask_for_step(
                derivative, g_spikes, has_g_spikes, g_potential, has_g_potential, d_current,
                row - B * J, n * J,
            )  # fmt: skip
            for k in range(n):
                for block in range(blocks):
                    p, at = k * W + block * L, row + k * J + block * L
                    used = min(L, J - block * L)
                    g_t, back = reverse_step(
                        derivative, g_spikes, has_g_spikes, g_potential, has_g_potential, at, used,
                        add(load(d, p), load(c, p)), f, p * K, theta, p, f_decay, f_strength,
                        (replica * K * blocks + block) * L, W, K, detach_reset,
                    )  # fmt: skip
                    store(c, p, filled(c, 0))
                    store(d, p, back)
                    store(g, p, g_t)
                    store_row(d_current, at, used, g_t)
            for number in range(blocks):
                block = turn(number, blocks, t)
                add_synapses(
                    _synapse, weight, decay, (replica * blocks + block) * J * L, g, m,
                    block * J * n * L, c, block * L, W, J, n,
                )  # fmt: skip
        for k in range(n):
            for block in range(blocks):
                p, at = k * W + block * L, (b + k) * J + block * L
                used = min(L, J - block * L)
                store_row(d_threshold, at, used, load(theta, p))
                store_row(d_spike, at, used, add(load(d, p), load(c, p)))
                store_feedback(f[p * K :], d_feedback, b + k, block, B, J, K)
            for j in range(J):
                for i0 in range(0, J, L):
                    place, row = (i0 * J + j * L) * n + k * L, ((b + k) * J + j) * J + i0
                    for l in range(min(L, J - i0)):
                        d_trace[row + l] = m[place + l]


def recurrent_scan_backward(
    g_spikes: Tensor | None,
    g_potential: Tensor | None,
    g_feedback: Tensor | None,
    g_trace: Tensor | None,
    derivative: Tensor,
    spikes: Tensor,
    weight: Tensor,
    decay: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    detach_reset: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of spikes and V [R, T, B, J] and of the final states, ds/dV [R, T, B, J] ->
    d_current [R, T, B, J], d_threshold [R, J], d_feedback_decay and d_feedback_strength [R, K, J],
    d_feedback [R, K, B, J], d_spike [R, B, J], d_trace [R, B, J, J]."""
    R, T, B, J = derivative.shape
    K = feedback_decay.shape[1]
    like = derivative
    d_current = torch.empty(derivative.shape, dtype=like.dtype)
    to_threshold, d_spike = (torch.empty((R, B, J), dtype=like.dtype) for _ in range(2))
    d_feedback = torch.empty((R, K, B, J), dtype=like.dtype)
    d_trace = torch.empty((R, B, J, J), dtype=like.dtype)
    size = group_size(R, B)
    groups = groups_of(B, size)
    run(
        _reverse, R * groups, 2 * R * T * B * J * J,
        optional(g_spikes, like), g_spikes is not None, optional(g_potential, like),
        g_potential is not None, flat(derivative), optional(g_feedback, like),
        optional(g_trace, like), g_trace is not None, packed(weight), packed(decay),
        padded(feedback_decay), padded(feedback_strength), detach_reset, flat(d_current),
        flat(to_threshold), flat(d_feedback), flat(d_spike), flat(d_trace), T, B, J, K, size,
        groups,
    )  # fmt: skip
    d_decay, d_strength = feedback_gradients(
        d_current, g_feedback, spikes, feedback_decay, feedback_strength, feedback, spike
    )
    d_threshold = sum_in_order(to_threshold)
    return d_current, d_threshold, d_decay, d_strength, d_feedback, d_spike, d_trace
