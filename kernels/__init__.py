"""Fast implementations of the operators: how it is fast. Imported as `hetsyn_triton.kernels`."""

if __name__ == "kernels":  # the short name belongs to another project
    raise ModuleNotFoundError(
        "not a top-level package: import hetsyn_triton.kernels", name="kernels"
    )
