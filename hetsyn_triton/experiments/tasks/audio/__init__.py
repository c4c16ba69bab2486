"""Spoken words as spikes: the threshold-crossing encoder and the tasks fsdd, tidigits and ti46."""

from .crossings import CrossingEncoder, Spikes
from .fsdd import SpokenDigits
from .reading import read_audio
from .ti46 import TI46Alpha
from .tidigits import TIDigits

__all__ = ["CrossingEncoder", "Spikes", "SpokenDigits", "TI46Alpha", "TIDigits", "read_audio"]
