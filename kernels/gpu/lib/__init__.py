"""Tools and parts that the GPU kernels share."""
