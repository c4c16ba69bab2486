"""The plain truth every implementation is compared with. Imported as `hetsyn_triton.reference`."""

if __name__ == "reference":  # the short name belongs to other projects
    raise ModuleNotFoundError(
        "not a top-level package: import hetsyn_triton.reference", name="reference"
    )
