"""Spiking networks with a learnable time constant at every synapse.

A name is imported on its first use: the command line answers, and can be interrupted, before
PyTorch is loaded. To use the operators alone, as a program saved by `torch.export` does, import
`hetsyn_triton.ops`.
"""

import lazy_loader

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
