"""Build the task, the network and the optimizer of a configuration."""

import os
from itertools import pairwise

import torch

from hetsyn_triton.experiments.tasks import Task, task_class
from hetsyn_triton.experiments.tasks.seeds import seeded_generator
from hetsyn_triton.modules import SpikingNetwork, make_network
from hetsyn_triton.ops.dispatch import BackendUnavailableError
from hetsyn_triton.optim import parameter_groups
from hetsyn_triton.surrogates import surrogate_by_name

from .config import OPTIMIZERS, TrainConfig
from .distributions import parse_distribution
from .errors import ConfigError


def build_task(config: TrainConfig) -> Task:
    """Return the task of `config`."""
    return task_class(config.task)(
        seed=config.seed,
        batch_size=config.batch_size,
        data_dir=config.data_dir,
        readout=config.readout,
        **config.options,
    )


def build_network(config: TrainConfig, task: Task) -> SpikingNetwork:
    """Return the network of `config`, initialized from its seed, on its device.

    The network runs one step with zero input, to check settings and backend.

    Raises:
        ConfigError: If a setting or the backend cannot work.
    """
    check_memory(config, task)
    readout = config.tau_readout
    try:
        network = make_network(
            config.model,
            task.in_features,
            config.hidden,
            task.out_features,
            recurrent=config.recurrent,
            readout=not task.spiking_output,
            dropout=config.dropout,
            tau=parse_distribution(config.tau),
            tau_readout=None if readout is None else parse_distribution(readout),
            learn_decay=config.learn_decay,
            frozen_fraction=config.frozen_fraction,
            decay_parametrization=config.decay_parametrization,
            adaptation=config.adaptation,
            tau_adaptation=config.tau_adaptation,
            tau_reset=config.tau_reset,
            threshold=config.threshold,
            surrogate=surrogate_by_name(config.surrogate),
            dt=config.dt,
            backend=config.backend,
            generator=seeded_generator(config.seed, "network"),
        ).to(config.device)
        with torch.no_grad():
            network.eval()(torch.zeros(1, 1, task.in_features, device=config.device))
    except (ValueError, TypeError, BackendUnavailableError) as error:
        raise ConfigError(str(error)) from error
    return network.train()


BYTES = 16
"""Of each learned number in training: itself, its gradient and two moments of the optimizer."""


def check_memory(config: TrainConfig, task: Task) -> None:
    """Raise ConfigError if the network is larger than the memory of its device."""
    sizes = [task.in_features, *config.hidden]
    synapses = sum(after * (before + after * config.recurrent) for before, after in pairwise(sizes))
    numbers = (synapses + sizes[-1] * task.out_features) * (1 + (config.model == "hetsyn"))
    device = torch.device(config.device)
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
    else:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if BYTES * numbers > memory:
        raise ConfigError(
            f"hidden: expected a network that is trained in {memory / 1e9:,.0f} GB of memory, got "
            f"one that needs {BYTES * numbers / 1e9:,.0f} GB"
        )


def build_optimizer(config: TrainConfig, network: SpikingNetwork) -> torch.optim.Optimizer:
    """Return the optimizer of `config`, with decays in separate groups."""
    groups = parameter_groups(
        network,
        config.lr,
        weight_decay=config.weight_decay,
        decay_lr=config.decay_lr,
        decay_weight_decay=config.decay_weight_decay,
    )
    return OPTIMIZERS[config.optimizer](groups)
