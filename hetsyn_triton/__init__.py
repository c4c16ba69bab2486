"""Spiking networks with a learnable time constant at every synapse."""
