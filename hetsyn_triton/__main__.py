"""`python -m hetsyn_triton` is the command `hetsyn`."""

from hetsyn_triton.experiments.cli import main

if __name__ == "__main__":
    main()
