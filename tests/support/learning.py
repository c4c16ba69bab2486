"""Whether training lowers the loss, seen in its first steps."""

from hetsyn_triton.experiments.training import TrainConfig
from hetsyn_triton.experiments.training.trainer import Trainer


def losses(config: TrainConfig, steps: int) -> list[float]:
    """Training losses of the first steps."""
    trainer = Trainer(config)
    values: list[float] = []
    while len(values) < steps:
        for batch in trainer.task.batches("train", trainer.epoch):
            before = trainer.means.sums.get("loss", 0.0)
            trainer._train_on(batch)
            values.append((trainer.means.sums["loss"] - before) / batch.input.shape[1])
            trainer.batch += 1
        trainer.epoch, trainer.batch = trainer.epoch + 1, 0
    return values[:steps]


def assert_falls(values: list[float]) -> None:
    """The mean of the last third is a tenth below that of the first."""
    third = len(values) // 3
    assert sum(values[-third:]) < 0.9 * sum(values[:third]), values
