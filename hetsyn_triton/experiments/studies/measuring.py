"""The test measures of a trained network on changed inputs."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch

from hetsyn_triton.experiments.tasks import Batch
from hetsyn_triton.experiments.tasks.seeds import seeded_generator
from hetsyn_triton.experiments.training import Run
from hetsyn_triton.experiments.training.build import build_task
from hetsyn_triton.experiments.training.measure import Means, measure, read_numbers
from hetsyn_triton.experiments.training.torch_threads import on_threads

Change = Callable[[Batch, torch.Generator], Iterable[Batch]]
"""Turns a test batch into the batches that replace it, with random numbers of the generator."""


def tested(run: Run, change: Change, *stream: int | str, threads: int) -> dict[str, float]:
    """Return means over the test samples after `change`.

    The random numbers of `change` depend on the run's seed and on `stream`.
    """
    device = torch.device(run.config.device)
    means = Means()
    with on_threads(run.config.threads or threads), torch.no_grad():
        for number, batch in enumerate(run.task.batches("test")):
            generator = seeded_generator(run.config.seed, "study", *stream, number)
            for part in change(batch, generator):
                loss, metrics = measure(run.task, run.network.eval(), part.to(device))
                values = read_numbers({"loss": loss, **metrics})
                means.add(values, part.input.shape[1], "in split test")
    return means.values()


def as_it_is(batch: Batch, generator: torch.Generator) -> Iterable[Batch]:
    """Return `batch` without a change."""
    return [batch]


def with_options(run: Run, **options: Any) -> Run:
    """Return the run with other options of its task, for a test."""
    config = run.config.changed(options={**run.config.options, **options})
    return replace(run, config=config, task=build_task(config))
