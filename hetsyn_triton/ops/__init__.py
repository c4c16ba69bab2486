"""The operators, one file each: schema, fake, autograd.Function and checked function.

Shapes: R replicas, T steps, B samples, I inputs, J neurons, K feedback currents. The functions that
`hetsyn_triton.functional` exports check their arguments; `run` of the same file trusts them, for
callers that have checked, and takes every tensor with the replica axis.
"""

from hetsyn_triton.kernels.parallel_in_time import parallel_in_time
from hetsyn_triton.kernels.trial import trial_kernels

from . import (
    feedforward_scan,
    leaky_current,
    leaky_recurrent_scan,
    recurrent_scan,
    spike_scan,
    surrogate,
    synaptic_current,
)
from .dispatch import (
    BACKENDS,
    OPERATORS,
    BackendInfo,
    BackendUnavailableError,
    OperatorInfo,
    backend_info,
    full_precision,
)
from .flops import register_flops

register_flops()

__all__ = [
    "BACKENDS",
    "OPERATORS",
    "BackendInfo",
    "BackendUnavailableError",
    "OperatorInfo",
    "backend_info",
    "feedforward_scan",
    "full_precision",
    "leaky_current",
    "leaky_recurrent_scan",
    "parallel_in_time",
    "recurrent_scan",
    "register_flops",
    "spike_scan",
    "surrogate",
    "synaptic_current",
    "trial_kernels",
]
