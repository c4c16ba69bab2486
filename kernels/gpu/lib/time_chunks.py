"""Chunks of time side by side: the synaptic current of few samples over many steps.

The current is linear in input and state. Every chunk of L steps runs from a zero state to its end
state e_c; then X_{c+1} = r^L X_c + e_c gives the state at each start, one multiply-add per synapse
and chunk; then every chunk runs again from there. Chunks stand in the replica axis of the kernel.

Cost: 4 R T B S O multiply-adds, twice those of the step-by-step form, by as many times as many
programs as there are chunks.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Run = Callable[[Tensor, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""(z [R, T, B, S], weight and decay [R, S, O], state [R, B, S, O] or None) -> out [R, T, B, O], the
state at the end [R, B, S, O]."""

LEAST_STEPS = 32
"""A shorter chunk spends its time on loading weights."""


def chunks(steps: int, programs: int, sms: int) -> int:
    """How many chunks fill a GPU that `programs` leave idle; 1 where it does not pay."""
    count = min(2 * sms // max(programs, 1), steps // LEAST_STEPS)
    return count if count >= 4 else 1


def run_in_chunks(
    run: Run,
    z: Tensor,
    weight: Tensor,
    decay: Tensor,
    state: Tensor | None,
    count: int,
    backward: bool,
) -> tuple[Tensor, Tensor]:
    """As `run`, in `count` chunks; `backward` in time the last comes first. What `count` does not
    divide is run step by step at the end."""
    replicas, steps = z.shape[:2]
    length = steps // count
    rest = steps - count * length
    parts = z[:, rest:] if backward else z[:, : count * length]
    parts = parts.unflatten(1, (count, length)).flatten(0, 1)
    weights, decays = (m.repeat_interleave(count, 0) for m in (weight, decay))
    _, ends = run(parts, weights, decays, None)
    ends = ends.unflatten(0, (replicas, count))
    starts = torch.empty_like(ends)
    over_chunk = decay.pow(length).unsqueeze(1)
    now = torch.zeros_like(ends[:, 0]) if state is None else state
    order = range(count - 1, -1, -1) if backward else range(count)
    for c in order:
        starts[:, c] = now
        now = torch.addcmul(ends[:, c], over_chunk, now)
    out, ends = run(parts, weights, decays, starts.flatten(0, 1))
    out = out.unflatten(0, (replicas, count)).flatten(1, 2)
    last = ends.unflatten(0, (replicas, count))[:, order[-1]]
    if not rest:
        return out, last.contiguous()
    remaining = z[:, :rest] if backward else z[:, count * length :]
    tail, last = run(remaining, weight, decay, last.contiguous())
    return torch.cat([tail, out] if backward else [out, tail], 1), last
