"""What `torchrun` starts on two CPU processes for test_training_parallel.py."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

import hetsyn_triton.experiments.training.parallel as parallel
import hetsyn_triton.experiments.training.trainer as training_loop
from hetsyn_triton.experiments.tasks import DataError
from hetsyn_triton.experiments.training import (
    RanksError,
    TrainConfig,
    default_config,
    resume,
    train,
)
from hetsyn_triton.experiments.training.parallel import ALONE, Ranks, joined_ranks
from hetsyn_triton.experiments.training.trainer import Trainer


class Case(NamedTuple):
    task: str
    changes: dict[str, Any]

    def config(self) -> TrainConfig:
        spiking = {"hidden": (6, 4), "threshold": 0.2}  # enough for a gradient in every layer
        return default_config(self.task, **{**spiking, "threads": 1, **self.changes})


HOLD = {"options": {"hold": 1}}
CASES = {
    "even": Case("digits", {"batch_size": 8, **HOLD}),
    "uneven": Case("digits", {"batch_size": 5, "model": "hetneu", **HOLD}),
    "fewer samples than ranks": Case("digits", {"batch_size": 1, **HOLD}),
    "spike count": Case("digits", {"batch_size": 5, "readout": "spike-count", **HOLD}),
    "adaptive": Case("digits", {"batch_size": 3, "model": "homneu-adaptive", **HOLD}),
    "rate penalty": Case("pattern-generation", {"batch_size": 3}),
    "feedforward": Case("pattern-generation", {"batch_size": 1, "recurrent": False}),
}
RUN = Case("digits", {"hidden": (6, 6), "dropout": 0.3, "batch_size": 117, "epochs": 2, **HOLD})
PLAIN = Case(  # the last batch: 3 samples
    "digits", {"hidden": (8,), "batch_size": 117, "epochs": 1, "clip": 0.1, **HOLD}
)

TRAIN_ON = Trainer._train_on


def gradients(case: Case, ranks: Ranks = ALONE) -> dict[str, Any]:
    """Loss, metrics and gradients of the first batch, in float64."""
    trainer = Trainer(case.config(), ranks)
    trainer.network.double()
    batch = next(trainer.task.batches("train"))
    results = trainer.train_step(*batch)
    named = trainer.network.named_parameters()
    return {
        "loss": results["loss"].item(),
        "metrics": {name: value.item() for name, value in results.items() if name != "loss"},
        "gradients": {name: p.grad for name, p in named if p.requires_grad},
    }


def mask(ranks: Ranks) -> torch.Tensor:
    """What dropout in the first step lets through of some more values."""
    trainer = Trainer(RUN.config(), ranks)
    seen: list[torch.Tensor] = []
    handle = trainer.network.dropout.register_forward_hook(
        lambda *_: seen.append(torch.nn.functional.dropout(torch.ones(500), 0.3))
    )
    with handle:
        trainer._train_on(next(trainer.task.batches("train")))
    return seen[0]


def stop_at(step: int | None) -> None:
    """Interrupt training before that step, with a checkpoint after each."""
    training_loop.CHECKPOINT_SECONDS = 0.0 if step is not None else 60.0

    def interrupted(self: Trainer, batch: Any) -> None:
        if self.step == step:
            raise KeyboardInterrupt
        TRAIN_ON(self, batch)

    Trainer._train_on = interrupted  # type: ignore[method-assign]


def equal(ranks: Ranks, out: Path) -> None:
    """Gradients, dropout and runs, for the test to look at."""
    found = {name: gradients(case, ranks) for name, case in CASES.items()}
    torch.save(found, out / f"gradients-{ranks.rank}.pt")
    torch.save(mask(ranks), out / f"mask-{ranks.rank}.pt")
    train(PLAIN.config(), out / "plain", pictures=False)
    train(RUN.config(), out / "whole", pictures=False)
    stop_at(15)
    with suppress(KeyboardInterrupt):
        train(RUN.config(), out / "parts", pictures=False)
    stop_at(None)
    run = resume(out / "parts", pictures=False)
    torch.save(run.network.state_dict(), out / f"weights-{ranks.rank}.pt")


def fails(ranks: Ranks, out: Path) -> None:
    """Problems of one rank, told to all; then one that nobody was told of."""
    told = []
    parallel.SECONDS_TO_SPEAK = 0.0
    for failing, error in ((1, DataError("file lost")), (0, DataError("disk full"))):
        try:
            with ranks.together():
                if ranks.rank == failing:
                    raise error
        except (RanksError, DataError) as raised:
            told.append(f"{type(raised).__name__}: {raised}")
    trainer = Trainer(PLAIN.config(), ranks)
    if ranks.rank == 1:
        with torch.no_grad():
            next(trainer.network.parameters())[0] += 1
    try:
        ranks.check_alike(trainer.network, "now")
    except RanksError as raised:
        told.append(str(raised))
    (out / f"told-{ranks.rank}.txt").write_text("\n".join(told))
    if ranks.rank == 1:

        def lost(self: Trainer, batch: Any) -> None:
            if self.step == 3:
                raise MemoryError("rank 1 is lost")
            TRAIN_ON(self, batch)

        Trainer._train_on = lost  # type: ignore[method-assign]
    train(RUN.config(), out / "run", pictures=False)
    (out / f"done-{ranks.rank}.txt").write_text("")


if __name__ == "__main__":
    with joined_ranks() as all_ranks:
        equal(all_ranks, Path(sys.argv[1]))
        fails(all_ranks, Path(sys.argv[1]))
