"""The learning rate as a function of the step, so that a resumed run needs no scheduler state."""

import math
from collections.abc import Sequence

import torch

from .config import TrainConfig


def lr_scale(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """Return the factor of all learning rates at `step` (from 0) of a run.

    The factor rises linearly over the fraction `warmup` of the schedule. Then it is constant, falls
    from 1 to 0 as half a cosine, or is multiplied by `step_factor` every `step_every`. The unit is
    batches or epochs, as `schedule_unit` says. After `horizon` epochs (None: the whole run), the
    factor stays as it is.
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
    """Set the learning rate of each group of `optimizer` to that in `base_lrs` times `scale`."""
    for group, base in zip(optimizer.param_groups, base_lrs, strict=True):
        group["lr"] = base * scale
