"""The two inner loops of the parameter gradient: a machine takes one of them for most synapses, and
no bit may depend on which."""

from typing import Any, no_type_check

import numba
import numpy as np
import pytest

from hetsyn_triton.kernels.cpu.lib import parameter_gradient
from hetsyn_triton.kernels.cpu.lib.vectors import lanes, lanes_of, load

_one, _four = parameter_gradient._sweep, parameter_gradient._sweep_four


@numba.njit
@no_type_check
def _singly(along, other, lane, decay, states, T, along_inputs):
    L = lanes(along)
    for k in range(4):
        r = load(decay, L + k * L)
        _one(along, L, other, lane + k, r, states, k * 4 * L, T, along_inputs)


@numba.njit
@no_type_check
def _together(along, other, lane, decay, states, T, along_inputs):
    L = lanes(along)
    _four(along, L, other, lane, decay, L, states, 0, T, along_inputs)


@pytest.mark.parametrize("along_inputs", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("T", [0, 1, 37])
def test_four_at_once_are_one_after_the_other(T: int, dtype: Any, along_inputs: bool) -> None:
    random = np.random.default_rng(T)
    L = lanes_of(np.dtype(dtype).itemsize)
    along, other = (random.standard_normal((T + 1) * L).astype(dtype) for _ in range(2))
    decay = random.random(5 * L).astype(dtype)
    states = random.standard_normal(16 * L).astype(dtype)
    singly, together = states.copy(), states.copy()
    _singly(along, other, 3, decay, singly, T, along_inputs)
    _together(along, other, 3, decay, together, T, along_inputs)
    assert np.array_equal(singly, together)
    assert T == 0 or not np.array_equal(together, states)
