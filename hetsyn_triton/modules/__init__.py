"""Layers and networks as PyTorch modules."""

from .decay import Decay
from .hetsyn import HetSynLIF, HetSynReadout
from .leaky import HetNeuLIF, HetNeuReadout, HomNeuALIF, HomNeuLIF, HomNeuReadout
from .network import MODELS, SpikingNetwork, make_network

__all__ = [
    "MODELS",
    "Decay",
    "HetNeuLIF",
    "HetNeuReadout",
    "HetSynLIF",
    "HetSynReadout",
    "HomNeuALIF",
    "HomNeuLIF",
    "HomNeuReadout",
    "SpikingNetwork",
    "make_network",
]
