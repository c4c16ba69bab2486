# The public names: type checkers read them here, and __init__.py loads them on first use.

from . import functional as functional, ops as ops
from .graphed_step import (
    GraphedStep as GraphedStep,
    NonFiniteError as NonFiniteError,
)
from .initializers import (
    Constant as Constant,
    FanInNormal as FanInNormal,
    Initializer as Initializer,
    LogUniform as LogUniform,
    Normal as Normal,
    Uniform as Uniform,
)
from .modules import (
    MODELS as MODELS,
    Decay as Decay,
    HetNeuLIF as HetNeuLIF,
    HetNeuReadout as HetNeuReadout,
    HetSynLIF as HetSynLIF,
    HetSynReadout as HetSynReadout,
    HomNeuALIF as HomNeuALIF,
    HomNeuLIF as HomNeuLIF,
    HomNeuReadout as HomNeuReadout,
    SpikingNetwork as SpikingNetwork,
    make_network as make_network,
)
from .ops import (
    BACKENDS as BACKENDS,
    BackendInfo as BackendInfo,
    BackendUnavailableError as BackendUnavailableError,
    backend_info as backend_info,
    parallel_in_time as parallel_in_time,
    trial_kernels as trial_kernels,
)
from .optim import (
    clamp_decays_ as clamp_decays_,
    parameter_groups as parameter_groups,
)
from .states import (
    HetSynReadoutState as HetSynReadoutState,
    HetSynState as HetSynState,
    LeakyReadoutState as LeakyReadoutState,
    LeakyState as LeakyState,
    NeuronState as NeuronState,
    detach_state as detach_state,
)
from .surrogates import (
    SURROGATES as SURROGATES,
    ATan as ATan,
    FastSigmoid as FastSigmoid,
    MultiGaussian as MultiGaussian,
    Sigmoid as Sigmoid,
    SuperSpike as SuperSpike,
    Triangular as Triangular,
    surrogate_by_name as surrogate_by_name,
)
from .timeconstants import (
    decay_to_tau as decay_to_tau,
    tau_to_decay as tau_to_decay,
)

__version__: str
