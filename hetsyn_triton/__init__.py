"""Spiking networks with a learnable time constant at every synapse."""

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
from .ops import BACKENDS, BackendInfo, BackendUnavailableError, backend_info
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

__version__ = "0.1.0"

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
    "parameter_groups",
    "surrogate_by_name",
    "tau_to_decay",
]
