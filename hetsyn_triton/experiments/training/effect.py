"""Settings without effect because of another setting.

They are allowed, so that the same settings work for all four models, and reported in a note.
"""

from hetsyn_triton.experiments.tasks import task_class

from .config import TrainConfig

OF_LEARNING_DECAYS = ("frozen_fraction", "decay_parametrization", "decay_lr", "decay_weight_decay")


def without_effect(config: TrainConfig) -> dict[str, str]:
    """Return the settings without effect in `config`, each with the reason."""
    reasons: dict[str, str] = {}
    if config.model.startswith("homneu"):
        reason = f"{config.model} does not learn time constants"
        reasons |= dict.fromkeys(("learn_decay", *OF_LEARNING_DECAYS), reason)
    elif not config.learn_decay:
        reasons |= dict.fromkeys(OF_LEARNING_DECAYS, "learn_decay is false")
    if config.model != "homneu-adaptive":
        reason = f"{config.model} does not adapt; only homneu-adaptive does"
        reasons |= dict.fromkeys(("adaptation", "tau_adaptation"), reason)
    if config.schedule != "step":
        reason = f"the schedule is {config.schedule}"
        reasons |= dict.fromkeys(("step_every", "step_factor"), reason)
    if config.schedule == "constant" and config.warmup == 0:
        reason = "the schedule is constant without warm-up"
        reasons |= dict.fromkeys(("schedule_unit", "horizon"), reason)
    if not task_class(config.task).scores_classes:
        reasons["readout"] = f"{config.task} has no class scores"
    return reasons
