"""The learning rate as a function of the step, so that a resumed run needs no scheduler state."""

import math

from .config import TrainConfig


def lr_scale(config: TrainConfig, step: int, total: int) -> float:
    """What every learning rate is multiplied by at `step` (from 0) of `total` steps.

    A linear rise over the first `warmup` part of the run times the schedule: constant, half a
    cosine from 1 to 0 over what is left, or `step_factor` once every `step_every` steps.
    """
    rising = round(config.warmup * total)
    if step < rising:
        return (step + 1) / rising
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))
    if config.schedule == "step":
        return float(config.step_factor ** (step // config.step_every))
    return 1.0
