"""Keyword arguments shared by layers, as types: each layer's docstring lists those it takes."""

from typing import TypedDict

import torch

from hetsyn_triton.initializers import Initializer
from hetsyn_triton.surrogates import Surrogate


class LayerOptions(TypedDict, total=False):
    """Taken by every layer and readout."""

    weight_init: Initializer
    dt: float
    batch_first: bool
    backend: str
    device: torch.device | str | None
    dtype: torch.dtype | None


class SpikingOptions(LayerOptions, total=False):
    """Taken by every spiking layer."""

    recurrent: bool
    recurrent_weight_init: Initializer | None
    threshold: float
    learn_threshold: bool
    surrogate: Surrogate
    detach_reset: bool
