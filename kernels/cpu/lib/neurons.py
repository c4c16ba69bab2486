"""Threshold and feedback currents of one block of neurons of one sample, over time.

    F_k(t) = decay_k F_k(t-1) + strength_k s(t-1)   reset and adaptation, K of them
    V(t) = c(t) - sum_k F_k(t),   s(t) = 1 where V(t) > theta, else 0

Parameters lie in blocks of lanes: theta [R, blocks, L], decay and strength [R, K, blocks, L]. In
lanes without a neuron all are 0, and so is V.
"""

from __future__ import annotations

from .compiling import borrowing
from .rows import AHEAD, load_row, prefetch_row, store_row
from .vectors import above, add, filled, fma, lanes, load, mul, store, sub


@borrowing
def load_feedback(feedback, f, b, block, B, J, K):
    """feedback [R, K, B, J] of a block of sample b (of R B) -> f [K, L]; no elements are zeros."""
    L = lanes(f)
    used = min(L, J - block * L)
    replica, sample = b // B, b % B
    for k in range(K):
        for l in range(L):
            place = ((replica * K + k) * B + sample) * J + block * L + l
            f[k * L + l] = feedback[place] if l < used and feedback.size else 0


@borrowing
def store_feedback(f, feedback, b, block, B, J, K):
    """f [K, L] -> feedback [R, K, B, J]."""
    L = lanes(f)
    replica, sample = b // B, b % B
    for k in range(K):
        for l in range(min(L, J - block * L)):
            feedback[((replica * K + k) * B + sample) * J + block * L + l] = f[k * L + l]


@borrowing
def load_neurons(feedback, spike, f, s, b, block, B, J, K):
    """State of a block of sample b: `load_feedback`, and spike [R, B, J] -> s [L]."""
    L = lanes(f)
    load_feedback(feedback, f, b, block, B, J, K)
    store(s, 0, load_row(spike, b * J + block * L, min(L, J - block * L)))


@borrowing
def next_feedback(f, s, decay, strength, first, stride, K):
    """F_k <- decay_k F_k + strength_k s in f [K, L]; returns their sum. Parameters of k at
    [first + k stride]."""
    L = lanes(f)
    total = filled(f, 0)
    for k in range(K):
        p = first + k * stride
        next_f = fma(load(decay, p), load(f, k * L), mul(load(strength, p), s))
        store(f, k * L, next_f)
        total = add(total, next_f)
    return total


@borrowing
def neurons_tile(c, place, theta, decay, strength, f, s, replica, block, blocks, T, K):
    """c [T, L] at `place` becomes V; the states f [K, L] and s [L] go on."""
    L = lanes(c)
    threshold = load(theta, (replica * blocks + block) * L)
    first, stride = (replica * K * blocks + block) * L, blocks * L
    spike = load(s, 0)
    for t in range(T):
        v = sub(load(c, place + t * L), next_feedback(f, spike, decay, strength, first, stride, K))
        spike = above(v, threshold)
        store(c, place + t * L, v)
    store(s, 0, spike)


@borrowing
def neurons_blocks(
    c, theta, decay, strength, feedback, spike, f, s, spikes, potential, last_feedback, replica, b,
    first, here, T, B, J, K,
):  # fmt: skip
    """Currents c [here, T, L] of blocks from `first` on -> spikes and potential [R, T, B, J], and
    the states after them. Row by row: what lies together is written together."""
    L = lanes(c)
    blocks = (J + L - 1) // L
    for h in range(here):
        block = first + h
        load_neurons(feedback, spike, f, s, b, block, B, J, K)
        neurons_tile(c, h * T * L, theta, decay, strength, f, s, replica, block, blocks, T, K)
        store_feedback(f, last_feedback, b, block, B, J, K)
    for t in range(T):
        row = ((replica * T + t) * B + b % B) * J
        after = row + first * L + AHEAD * B * J
        prefetch_row(potential, after, here * L)
        prefetch_row(spikes, after, here * L)
        for h in range(here):
            lane = (first + h) * L
            used = min(L, J - lane)
            v = load(c, (h * T + t) * L)
            fired = above(v, load(theta, replica * blocks * L + lane))
            store_row(potential, row + lane, used, v)
            store_row(spikes, row + lane, used, fired)
