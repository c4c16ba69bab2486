"""The operators as compiled CPU kernels, through Numba. Importing this package imports Numba.

One file per operator: equations, kernel, launcher. A launcher takes and returns tensors as the raw
operator of the same name does (`hetsyn_triton.ops`), all float32 or all float64.

Every sum is written with explicit vectors and fused multiply-adds (`lib/vectors.py`), so its order
is fixed by the problem: no compiler flag, thread count or batch changes a bit.
"""
