"""The events that a training reports."""

from pathlib import Path
from typing import Any

from .config import TrainConfig


class Reporter:
    """Report nothing. Override the methods whose events should be shown."""

    def preparing(self, what: str, done: int, total: int) -> None:
        """Report that data is prepared: `what` is done to `done` of `total` pieces."""

    def started(self, config: TrainConfig, folder: Path, steps: int, done: int) -> None:
        """Report the start of training; `done` of `steps` steps are already done."""

    def stepped(self, epoch: int, done: int, means: dict[str, float]) -> None:
        """Report that `done` steps are done; `means` are those of `epoch` (from 0) so far."""

    def epoch_ended(self, record: dict[str, Any]) -> None:
        """Report the metrics of an epoch, after they are written."""

    def finishing(self) -> None:
        """Report that training is finished, before test and pictures."""

    def finished(self, summary: dict[str, Any], folder: Path) -> None:
        """Report that the run folder is complete."""
