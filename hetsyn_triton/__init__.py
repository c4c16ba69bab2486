"""Spiking networks with a learnable time constant at every synapse.

A name is imported on its first use: the command line answers, and can be interrupted, before
PyTorch is loaded. To use the operators alone, as a program saved by `torch.export` does, import
`hetsyn_triton.ops`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors; the same names are in _HOMES
    from . import functional
    from .initializers import Constant, FanInNormal, Initializer, LogUniform, Normal, Uniform
    from .modules import (
        MODELS,
        Decay,
        HetNeuLIF,
        HetNeuReadout,
        HetSynLIF,
        HetSynReadout,
        HomNeuALIF,
        HomNeuLIF,
        HomNeuReadout,
        SpikingNetwork,
        make_network,
    )
    from .ops import (
        BACKENDS,
        BackendInfo,
        BackendUnavailableError,
        backend_info,
        parallel_in_time,
    )
    from .optim import clamp_decays_, parameter_groups
    from .states import (
        HetSynReadoutState,
        HetSynState,
        LeakyReadoutState,
        LeakyState,
        NeuronState,
    )
    from .surrogates import (
        SURROGATES,
        ATan,
        FastSigmoid,
        MultiGaussian,
        Sigmoid,
        SuperSpike,
        Triangular,
        surrogate_by_name,
    )
    from .timeconstants import decay_to_tau, tau_to_decay

__version__ = "0.2.0"

__all__ = [
    "BACKENDS",
    "MODELS",
    "SURROGATES",
    "ATan",
    "BackendInfo",
    "BackendUnavailableError",
    "Constant",
    "Decay",
    "FanInNormal",
    "FastSigmoid",
    "HetNeuLIF",
    "HetNeuReadout",
    "HetSynLIF",
    "HetSynReadout",
    "HetSynReadoutState",
    "HetSynState",
    "HomNeuALIF",
    "HomNeuLIF",
    "HomNeuReadout",
    "Initializer",
    "LeakyReadoutState",
    "LeakyState",
    "LogUniform",
    "MultiGaussian",
    "NeuronState",
    "Normal",
    "Sigmoid",
    "SpikingNetwork",
    "SuperSpike",
    "Triangular",
    "Uniform",
    "backend_info",
    "clamp_decays_",
    "decay_to_tau",
    "functional",
    "make_network",
    "parallel_in_time",
    "parameter_groups",
    "surrogate_by_name",
    "tau_to_decay",
]

_HOMES: dict[str, tuple[str, ...]] = {
    "initializers": (
        "Constant",
        "FanInNormal",
        "Initializer",
        "LogUniform",
        "Normal",
        "Uniform",
    ),
    "modules": (
        "MODELS",
        "Decay",
        "HetNeuLIF",
        "HetNeuReadout",
        "HetSynLIF",
        "HetSynReadout",
        "HomNeuALIF",
        "HomNeuLIF",
        "HomNeuReadout",
        "SpikingNetwork",
        "make_network",
    ),
    "ops": (
        "BACKENDS",
        "BackendInfo",
        "BackendUnavailableError",
        "backend_info",
        "parallel_in_time",
    ),
    "optim": (
        "clamp_decays_",
        "parameter_groups",
    ),
    "states": (
        "HetSynReadoutState",
        "HetSynState",
        "LeakyReadoutState",
        "LeakyState",
        "NeuronState",
    ),
    "surrogates": (
        "SURROGATES",
        "ATan",
        "FastSigmoid",
        "MultiGaussian",
        "Sigmoid",
        "SuperSpike",
        "Triangular",
        "surrogate_by_name",
    ),
    "timeconstants": (
        "decay_to_tau",
        "tau_to_decay",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_PARTS = ("functional", *_HOMES)


def __getattr__(name: str) -> Any:
    """A public name or a part of the package, loaded when it is first asked for."""
    if name in _PARTS:
        return import_module(f"{__name__}.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PARTS})
