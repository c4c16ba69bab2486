"""The studies by name."""

from hetsyn_triton.experiments.training import ConfigError

from .base import Study
from .cost import Cost
from .limited_neurons import LimitedNeurons
from .noise import Noise
from .time_constants import TimeConstants
from .timescales import Timescales
from .variants import Variants

STUDIES: dict[str, type[Study]] = {
    study.name: study
    for study in (Variants, LimitedNeurons, Noise, Timescales, TimeConstants, Cost)
}


def study_class(name: str) -> type[Study]:
    """Return the study of that name; the ConfigError for another name lists all names."""
    if name not in STUDIES:
        raise ConfigError(f"study: expected one of {', '.join(STUDIES)}, got {name!r}")
    return STUDIES[name]
