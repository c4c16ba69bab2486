"""One time step of a spiking neuron, forward and in reverse: elementwise, for tiles of any shape.

    F_k(t) = d_k F_k(t-1) + a_k s(t-1)         reset and adaptation
    V(t) = c(t) - sum_k F_k(t)
    s(t) = V(t) > theta

and, from the last step to the first, with s' = ds/dV and D, S what comes back from later steps:

    S(t) = S + dL/ds(t),   g(t) = s' S(t) + dL/dV(t)
    at_k = D_k - g,   D_k <- d_k at_k,   S <- sum_k a_k at_k

| name | meaning |
|---|---|
| b_decays, b_strengths | tuples of K: d_k, a_k |
| b_feedbacks | tuple of K: F_k |
| b_d_feedbacks, b_d_spike | D_k (tuple of K) and S: gradients carried backward in time |
| b_g_v | g: the whole dL/dV of a step, and so the gradient of its current |
| b_d_threshold | running sum of dL/dtheta, by way of the spike alone |

ds/dV is data, or computed from V (`surrogate_derivative`, kinds of `kernels/surrogate_kinds.py`).

Every product that is added to something is an explicit multiply-add, so that no compiler's choice
of fusion tells one kernel, or one copy of an unrolled loop, from another. Sums over k ascend.
"""

import triton
import triton.language as tl


@triton.jit
def neuron_step(
    b_current, b_spike, b_feedbacks, b_decays, b_strengths, b_threshold, K: tl.constexpr
):  # fmt: skip
    """c(t), s(t-1), F(t-1) -> s(t), V(t), F(t)."""
    b_next = ()
    for k in tl.static_range(K):
        b_feedback = tl.fma(b_decays[k], b_feedbacks[k], b_strengths[k] * b_spike)
        b_next = b_next + (b_feedback,)
    b_sum = b_next[0]
    for k in tl.static_range(1, K):
        b_sum = b_sum + b_next[k]
    b_potential = b_current - b_sum
    return tl.where(b_potential > b_threshold, 1.0, 0.0), b_potential, b_next


@triton.jit
def neuron_reverse_step(
    b_g_spikes, b_g_potential, b_derivative, b_d_spike, b_d_feedbacks, b_decays, b_strengths,
    b_d_threshold, K: tl.constexpr, DETACH_RESET: tl.constexpr,
):  # fmt: skip
    """-> g(t), S for s(t-1), D for F(t-1), running sum of dL/dtheta.

    b_g_spikes and b_g_potential are 0.0 where the loss does not see them. What the current sends
    back to s(t-1) the caller adds to S. DETACH_RESET: no gradient by way of the feedback to s(t-1).
    """
    b_seen = b_d_spike + b_g_spikes
    b_g_v = tl.fma(b_derivative, b_seen, b_g_potential)
    b_d_threshold = tl.fma(-b_derivative, b_seen, b_d_threshold)
    b_before = ()
    b_back = tl.zeros_like(b_g_v)
    for k in tl.static_range(K):
        b_at_step = b_d_feedbacks[k] - b_g_v
        # + 0.0: a bare product might be fused with whatever is added to it next.
        b_before = b_before + (tl.fma(b_decays[k], b_at_step, 0.0),)
        if not DETACH_RESET:
            b_back = tl.fma(b_strengths[k], b_at_step, b_back)
    return b_g_v, b_back, b_before, b_d_threshold


@triton.jit
def _no_less(b_x, least):
    """max(x, least), and NaN where x is."""
    return tl.where(b_x < least, least, b_x)


@triton.jit
def _bump(b_u, mean, height, fall, least):
    b_moved = b_u - mean
    return tl.exp(_no_less(height - (fall * b_moved) * b_moved, least))


@triton.jit
def surrogate_derivative(
    b_potential, b_threshold, a, b, c, d, e, least, KIND: tl.constexpr
):  # fmt: skip
    """V -> ds/dV. If KIND is "given", b_potential is ds/dV itself."""
    b_u = b_potential - b_threshold
    if KIND == "given":
        b_derivative = b_potential
    elif KIND == "triangular":
        b_derivative = a * _no_less(1 - tl.abs(b_u) / (b * b_threshold), 0.0)
    elif KIND == "multi_gaussian":
        b_sides = _bump(b_u, e, c, d, least) + _bump(b_u, -e, c, d, least)
        b_derivative = _bump(b_u, 0.0, a, b, least) - b_sides
    elif KIND == "atan":
        b_scaled = b * b_u
        b_derivative = a / (1 + b_scaled * b_scaled)
    elif KIND == "fast_sigmoid":
        b_below = 1 + a * tl.abs(b_u)
        b_derivative = 1 / (b_below * b_below)
    else:
        tl.static_assert(KIND == "sigmoid")
        b_sigma = 1 / (1 + tl.exp(-_no_less(-a * tl.abs(b_u), least)))
        b_derivative = a * b_sigma * (1 - b_sigma)
    return b_derivative


@triton.jit
def load_per_feedback(p_first, stride_k, o, m, K: tl.constexpr, GIVEN: tl.constexpr):
    """K tiles at the offsets o, stride_k apart; zeros if not GIVEN."""
    b_tiles = ()
    for k in tl.static_range(K):
        b_tiles = b_tiles + (tl.load(p_first + k * stride_k + o, mask=m & GIVEN, other=0.0),)
    return b_tiles
