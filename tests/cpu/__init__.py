"""Tests of the Numba kernels."""
