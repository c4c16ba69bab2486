"""The learning rate as a function of the step, so that a resumed run needs no scheduler state."""

import math
from collections.abc import Sequence

import torch

from .config import TrainConfig


def lr_scale(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """What every learning rate is multiplied by at `step` (from 0) of a run.

    A linear rise over the first `warmup` part times the schedule: constant, half a cosine from 1
    to 0 over what is left, or `step_factor` once every `step_every`. All of it is counted in
    batches, or in epochs where `schedule_unit` says so: then the rate stands still within one. It
    is over after `horizon` epochs (None: at the run's end); from there on the last rate stays.
    """
    now, total = step, config.epochs if config.horizon is None else config.horizon
    if config.schedule_unit == "epoch":
        now //= steps_per_epoch
    else:
        total *= steps_per_epoch
    now = min(now, total - 1)
    rising = round(config.warmup * total)
    if now < rising:
        return (now + 1) / rising
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (now - rising) / max(1, total - rising)))
    if config.schedule == "step":
        return float(config.step_factor ** (now // config.step_every))
    return 1.0


def scale_rates(optimizer: torch.optim.Optimizer, base_lrs: Sequence[float], scale: float) -> None:
    """Give each group of `optimizer` its learning rate in `base_lrs` times `scale`."""
    for group, base in zip(optimizer.param_groups, base_lrs, strict=True):
        group["lr"] = base * scale
