"""Keyword arguments shared by layers, as types, and the signature `help` shows for all of them."""

import inspect
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


def full_signature(cls: type) -> inspect.Signature:
    """Signature of `cls(...)` with the arguments its bases take by way of `**options` spelt out."""
    merged: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__[: cls.__mro__.index(torch.nn.Module)]:
        if "__init__" in vars(base):
            own = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
            named = [p for p in own if p.kind is not p.VAR_KEYWORD]
            merged |= {p.name: p for p in named if p.name not in merged}
    return inspect.Signature(sorted(merged.values(), key=lambda p: p.kind))
