"""The test measures of a trained network on inputs that a study changes."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch

from hetsyn_triton.tasks import Batch
from hetsyn_triton.tasks.seeds import seeded_generator
from hetsyn_triton.training import Run
from hetsyn_triton.training.build import build_task
from hetsyn_triton.training.measure import Means, measure
from hetsyn_triton.training.threads import on_threads

Change = Callable[[Batch, torch.Generator], Iterable[Batch]]
"""From a test batch to what takes its place, drawn from the generator."""


def tested(run: Run, change: Change, *stream: int | str, threads: int) -> dict[str, float]:
    """Means over the test samples after `change`; `stream` names its random numbers, which depend
    on the run's seed besides."""
    device = torch.device(run.config.device)
    means = Means()
    with on_threads(run.config.threads or threads), torch.no_grad():
        for number, batch in enumerate(run.task.batches("test")):
            generator = seeded_generator(run.config.seed, "study", *stream, number)
            for part in change(batch, generator):
                loss, metrics = measure(run.task, run.network.eval(), part.to(device))
                means.add({"loss": loss.item(), **metrics}, part.input.shape[1], "of test")
    return means.values()


def as_it_is(batch: Batch, generator: torch.Generator) -> Iterable[Batch]:
    """No change."""
    return [batch]


def with_options(run: Run, **options: Any) -> Run:
    """The same network, to be tested on its task with other options."""
    config = replace(run.config, options={**run.config.options, **options})
    return replace(run, config=config, task=build_task(config))
