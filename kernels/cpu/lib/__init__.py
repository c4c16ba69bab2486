"""Tools that the CPU kernels share."""
