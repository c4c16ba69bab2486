"""A recurrent layer's scan over time: s(t-1) comes back through synapses with a decay of their own.

    x_ji(t) = r_ji x_ji(t-1) + s_i(t-1),   c_j(t) = current_j(t) + sum_i w_ji x_ji(t)

then threshold and feedback currents as in `lib/neurons.py`, which need all of c_j(t): only one step
per pass over the traces. Neurons j in lanes.

A task is a group of 4, 2 or 1 samples, through all steps. Traces lie as [block, i, sample, L], so
that a vector of w and one of r serve the whole group. A vector of synapses is loaded, advanced and
stored in every step: loads and stores decide, not the arithmetic. Every other step goes backwards
through the blocks: it begins with those that the first cache still has.

The decay is fused with the spike that joins, so traces are those of `synaptic_current`. The product
with w is not fused with the sum: two fused operations beside each store took 4.0 cycles a vector
where this takes 3.0 (Zen 3, first cache; 4.2 and 3.6 from the second).

Order of a sum: CHUNK neurons i ascending make a partial sum, partial sums are added ascending, and
what they make is added to the given current.

The reverse, with g = dL/dV(t) and m(T) the gradient of the last trace:

    a_ji(t) = w_ji g_j(t) + m_ji(t),   dL/ds_i(t-1) += sum_j a_ji(t),   m_ji(t-1) = r_ji a_ji(t)

m is the gradient of the trace before: one state, whether or not a gradient of the last trace is
given, and nothing is lost when a sequence is cut. Neurons i in lanes, groups and sums as above,
neurons as in `lib/neurons_reverse.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .lib.arrays import flat, optional, packed, padded
from .lib.compiling import inlined, kernel
from .lib.neurons import load_feedback, load_neurons, next_feedback, store_feedback
from .lib.neurons_reverse import feedback_gradients, prefetch_step, reverse_step
from .lib.rows import aligned, load_row, prefetch_row, store_row
from .lib.sums import sum_in_order
from .lib.threads import run
from .lib.vectors import above, add, filled, fma, lanes, load, mul, spread, store, sub

CHUNK = 64
GROUPS = (4, 2, 1)
"""Samples that may share what is loaded of w and r. The sums of 4 fill half of AVX2's registers."""


def group_size(replicas: int, batch: int) -> int:
    """Samples of a group: as many as leave every thread work."""
    threads = torch.get_num_threads()
    fitting = (n for n in GROUPS if n <= batch and replicas * (batch // n) >= threads)
    return next(fitting, 1)


def groups_of(batch: int, size: int) -> int:
    """Groups of a batch: of `size`, and what is left over in twos and ones."""
    return batch // size + (batch % size + 1) // 2


@inlined
def group(number, batch, size):
    """First sample and number of samples of a group: 4, 2 or 1."""
    whole = batch // size
    if number < whole:
        return number * size, size
    left = batch - whole * size
    return (whole * size, 2) if number == whole and left > 1 else (batch - 1, 1)


@inlined
def add_synapses(synapse, weight, decay, rows, z, x, place, c, first, W, S, n):
    """c [n, W], `first` in its row: adds the sums of one block of outputs over S synapses each of n
    samples, and advances the traces [S, n, L] at x[place].

    `synapse(x, place, w, r, z, c)` does so for a vector and returns c with its part. `rows` is
    where the block begins in `weight` and `decay` [S, L], z [n, W] what joins.
    """
    L = lanes(x)
    for begin in range(0, S, CHUNK):
        end = min(begin + CHUNK, S)
        c0 = c1 = c2 = c3 = filled(x, 0)
        if n == 4:
            for i in range(begin, end):
                w, r, p = load(weight, rows + i * L), load(decay, rows + i * L), place + i * 4 * L
                c0 = synapse(x, p, w, r, spread(z, i), c0)
                c1 = synapse(x, p + L, w, r, spread(z, W + i), c1)
                c2 = synapse(x, p + 2 * L, w, r, spread(z, 2 * W + i), c2)
                c3 = synapse(x, p + 3 * L, w, r, spread(z, 3 * W + i), c3)
            store(c, first + 2 * W, add(load(c, first + 2 * W), c2))
            store(c, first + 3 * W, add(load(c, first + 3 * W), c3))
        elif n == 2:
            for i in range(begin, end):
                w, r, p = load(weight, rows + i * L), load(decay, rows + i * L), place + i * 2 * L
                c0 = synapse(x, p, w, r, spread(z, i), c0)
                c1 = synapse(x, p + L, w, r, spread(z, W + i), c1)
        else:
            for i in range(begin, end):
                w, r = load(weight, rows + i * L), load(decay, rows + i * L)
                c0 = synapse(x, place + i * L, w, r, spread(z, i), c0)
        store(c, first, add(load(c, first), c0))
        if n > 1:
            store(c, first + W, add(load(c, first + W), c1))


@inlined
def _synapse(x, place, w, r, s, c):
    """x <- r x + s; c + w x."""
    trace = fma(r, load(x, place), s)
    store(x, place, trace)
    return add(c, mul(w, trace))


@inlined
def turn(number, blocks, t):
    """The block whose turn it is in step t."""
    return blocks - 1 - number if t % 2 else number


@kernel
def _scan(
    begin, end, current, weight, decay, trace, given, last, theta, f_decay, f_strength, feedback,
    spike, spikes, potential, last_feedback, T, B, J, K, size, groups,
):  # fmt: skip
    """Tasks (replica, group)."""
    L = lanes(current)
    blocks = (J + L - 1) // L
    W = blocks * L
    x = aligned(size * W * J, current)
    c = aligned(size * W, current)
    s = aligned(size * W, current)
    f = aligned(size * W * K, current)
    for task in range(begin, end):
        replica, which = divmod(task, groups)
        first, n = group(which, B, size)
        b = replica * B + first
        c[:] = 0
        for p in range(0, n * W * J, L):
            store(x, p, filled(x, 0))
        for k in range(n):
            for block in range(blocks):
                p = k * W + block * L
                load_neurons(feedback, spike, f[p * K :], s[p:], b + k, block, B, J, K)
        if given:
            for k in range(n):
                for j0 in range(0, J, L):
                    for i0 in range(0, J, CHUNK):  # they stay in the first cache for L rows
                        for j in range(j0, min(j0 + L, J)):
                            place, row = j0 * J * n + k * L + j - j0, ((b + k) * J + j) * J
                            for i in range(i0, min(i0 + CHUNK, J)):
                                x[place + i * n * L] = trace[row + i]
        for t in range(T):
            row = ((replica * T + t) * B + first) * J
            prefetch_row(current, row + B * J, n * J)
            prefetch_row(potential, row + B * J, n * J)
            prefetch_row(spikes, row + B * J, n * J)
            for number in range(blocks):
                block = turn(number, blocks, t)
                add_synapses(
                    _synapse, weight, decay, (replica * blocks + block) * J * L, s, x,
                    block * J * n * L, c, block * L, W, J, n,
                )  # fmt: skip
            for k in range(n):
                for block in range(blocks):
                    p, at = k * W + block * L, row + k * J + block * L
                    used = min(L, J - block * L)
                    first_parameter = (replica * K * blocks + block) * L
                    back = next_feedback(
                        f[p * K :], load(s, p), f_decay, f_strength, first_parameter, W, K
                    )
                    v = sub(add(load_row(current, at, used), load(c, p)), back)
                    fired = above(v, load(theta, (replica * blocks + block) * L))
                    store(c, p, filled(c, 0))
                    store(s, p, fired)
                    store_row(potential, at, used, v)
                    store_row(spikes, at, used, fired)
        for k in range(n):
            for block in range(blocks):
                p = k * W + block * L
                store_feedback(f[p * K :], last_feedback, b + k, block, B, J, K)
            for j0 in range(0, J, L):
                for i0 in range(0, J, CHUNK):
                    for j in range(j0, min(j0 + L, J)):
                        place, row = j0 * J * n + k * L + j - j0, ((b + k) * J + j) * J
                        for i in range(i0, min(i0 + CHUNK, J)):
                            last[row + i] = x[place + i * n * L]


def recurrent_scan(
    current: Tensor,
    weight: Tensor,
    decay: Tensor,
    trace: Tensor | None,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """current [R, T, B, J] -> spikes, V [R, T, B, J], final feedback [R, K, B, J], final trace [R,
    B, J, J]."""
    R, T, B, J = current.shape
    K = feedback_decay.shape[1]
    spikes = torch.empty(current.shape, dtype=current.dtype)
    potential = torch.empty(current.shape, dtype=current.dtype)
    last_feedback = torch.empty(feedback.shape, dtype=current.dtype)
    last = torch.empty((R, B, J, J), dtype=current.dtype)
    size = group_size(R, B)
    groups = groups_of(B, size)
    run(
        _scan, R * groups, 2 * R * T * B * J * J,
        flat(current), packed(weight.mT), packed(decay.mT), optional(trace, current),
        trace is not None, flat(last), padded(threshold), padded(feedback_decay),
        padded(feedback_strength), flat(feedback), flat(spike), flat(spikes),
        flat(potential), flat(last_feedback), T, B, J, K, size, groups,
    )  # fmt: skip
    return spikes, potential, last_feedback, last


# -- reverse ---------------------------------------------------------------------------------------


@inlined
def _synapse_reverse(m, place, w, r, g, c):
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
            prefetch_step(
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
                    _synapse_reverse, weight, decay, (replica * blocks + block) * J * L, g, m,
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
    to_threshold = torch.empty((R, B, J), dtype=like.dtype)
    d_spike = torch.empty((R, B, J), dtype=like.dtype)
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
