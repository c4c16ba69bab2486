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
from .neurons_reverse import feedback_gradients, sum_over_samples
from .recurrent_scan import add_synapses, aligned, group, group_size, groups_of
from .threads import run
from .vectors import add, filled, fma, lanes, lanes_of, load, mul, store, sub


@inlined
def _synapse(m, place, w, r, g, c):
    """a = w g + m, m <- r a; c + a."""
    a = fma(w, g, load(m, place))
    store(m, place, mul(r, a))
    return add(c, a)


@inlined
def _step(
    derivative, at, g_spikes, at_spikes, g_potential, at_potential, d, c, p, d_threshold, f, decay,
    strength, first, stride, K, g, d_current, out,
):  # fmt: skip
    """One step of a block of neurons of a sample, as `neurons_reverse.reverse_step` but without a
    branch: around branches Numba counts references to every array, which takes longer than this.

    d[p] + c[p] is what later steps sent to s(t); d[p] becomes what the feedback sends to s(t-1),
    c[p] zero. d_threshold[p] and f [K, L] go on. dL/dV(t) goes to g[p] and d_current[out].
    """
    L = lanes(d)
    d_spike = add(add(load(d, p), load(c, p)), load(g_spikes, at_spikes))
    through = mul(load(derivative, at), d_spike)
    g_v = add(through, load(g_potential, at_potential))
    store(d_threshold, p, sub(load(d_threshold, p), through))
    back = filled(d, 0)
    for k in range(K):
        at_step = sub(load(f, p * K + k * L), g_v)
        store(f, p * K + k * L, mul(load(decay, first + k * stride), at_step))
        back = fma(load(strength, first + k * stride), at_step, back)
    store(c, p, filled(c, 0))
    store(d, p, back)
    store(g, p, g_v)
    store(d_current, out, g_v)


@kernel
def _reverse(
    begin, end, g_spikes, has_spikes, g_potential, has_potential, derivative, g_feedback,
    has_feedback, g_trace, has_trace, weight, decay, f_decay, f_strength, d_current, d_threshold,
    d_feedback, d_spike, d_trace, T, B, J, K, size, groups,
):  # fmt: skip
    """Tasks (replica, group). d_threshold [R, B, J], each sample's own. g_spikes and g_potential
    are a row of zeros where they are not given."""
    L = lanes(derivative)
    blocks, whole = (J + L - 1) // L, J // L
    rest, W = J - whole * L, blocks * L
    m = aligned(size * W * J, derivative)
    c = aligned(size * W, derivative)
    d = aligned(size * W, derivative)
    g = aligned(size * W, derivative)
    to_threshold = aligned(size * W, derivative)
    f = aligned(size * W * K, derivative)
    rows = aligned(4 * L, derivative)
    rows[:] = 0
    for task in range(begin, end):
        replica, number = divmod(task, groups)
        first, n = group(number, B, size)
        b = replica * B + first
        c[:] = d[:] = to_threshold[:] = f[:] = 0
        for p in range(0, n * W * J, L):
            store(m, p, filled(m, 0))
        for k in range(n):
            if has_feedback:
                for q in range(K):
                    for j in range(J):
                        place = ((replica * K + q) * B + first + k) * J + j
                        f[(k * W + j // L * L) * K + q * L + j % L] = g_feedback[place]
            if has_trace:
                for j in range(J):
                    for i0 in range(0, J, L):
                        place, row = (i0 * J + j * L) * n + k * L, ((b + k) * J + j) * J + i0
                        for l in range(min(L, J - i0)):
                            m[place + l] = g_trace[row + l]
        for t in range(T - 1, -1, -1):
            row = ((replica * T + t) * B + first) * J
            for k in range(n):
                for block in range(blocks):
                    p, at = k * W + block * L, row + k * J + block * L
                    at_spikes = at if has_spikes else 0
                    at_potential = at if has_potential else 0
                    parameters = (replica * K * blocks + block) * L
                    if block < whole:
                        _step(
                            derivative, at, g_spikes, at_spikes, g_potential, at_potential, d, c, p,
                            to_threshold, f, f_decay, f_strength, parameters, W, K, g, d_current,
                            at,
                        )  # fmt: skip
                    else:
                        for l in range(rest):
                            rows[l] = derivative[at + l]
                            rows[L + l] = g_spikes[at_spikes + l]
                            rows[2 * L + l] = g_potential[at_potential + l]
                        _step(
                            rows, 0, rows, L, rows, 2 * L, d, c, p, to_threshold, f, f_decay,
                            f_strength, parameters, W, K, g, rows, 3 * L,
                        )  # fmt: skip
                        for l in range(rest):
                            d_current[at + l] = rows[3 * L + l]
            for block in range(blocks):
                add_synapses(
                    _synapse, weight, decay, (replica * blocks + block) * J * L, g, m,
                    block * J * n * L, c, block * L, W, J, n,
                )  # fmt: skip
        for k in range(n):
            for j in range(J):
                p = k * W + j
                d_threshold[(b + k) * J + j] = to_threshold[p]
                d_spike[(b + k) * J + j] = d[p] + c[p]
                for q in range(K):
                    place = ((replica * K + q) * B + first + k) * J + j
                    d_feedback[place] = f[(k * W + j // L * L) * K + q * L + j % L]
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
    nothing = like.new_zeros(lanes_of(like.element_size()))
    # A detached reset sends nothing back through its strength.
    strength = torch.zeros_like(feedback_strength) if detach_reset else feedback_strength
    size = group_size(R, B)
    groups = groups_of(B, size)
    run(
        _reverse, R * groups, 2 * R * T * B * J * J,
        flat(nothing if g_spikes is None else g_spikes), g_spikes is not None,
        flat(nothing if g_potential is None else g_potential), g_potential is not None,
        flat(derivative), optional(g_feedback, like), g_feedback is not None,
        optional(g_trace, like), g_trace is not None, packed(weight), packed(decay),
        padded(feedback_decay), padded(strength), flat(d_current), flat(to_threshold),
        flat(d_feedback), flat(d_spike), flat(d_trace), T, B, J, K, size, groups,
    )  # fmt: skip
    d_decay, d_strength = feedback_gradients(
        d_current, g_feedback, spikes, feedback_decay, feedback_strength, feedback, spike
    )
    d_threshold = sum_over_samples(to_threshold)
    return d_current, d_threshold, d_decay, d_strength, d_feedback, d_spike, d_trace
