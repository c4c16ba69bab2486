"""The operators as Triton kernels, for GPUs. Importing this package imports Triton.

One file per operator: notation, kernel, launcher. A launcher takes and returns tensors as the raw
operator of the same name does (`hetsyn_triton.ops`), float32, and runs on the tensors' device
in the caller's stream.
"""
