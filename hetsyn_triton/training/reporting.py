"""What a running training tells whoever watches it."""

from pathlib import Path
from typing import Any

from .config import TrainConfig


class Reporter:
    """Says nothing. Override what should be shown."""

    def preparing(self, what: str, done: int, total: int) -> None:
        """Before training `what` is done to the data: `done` of `total` pieces so far."""

    def started(self, config: TrainConfig, folder: Path, steps: int, done: int) -> None:
        """Training begins: `done` of `steps` steps were made before."""

    def stepped(self, epoch: int, done: int, means: dict[str, float]) -> None:
        """`done` steps are made; `means` are those of `epoch` (from 0) so far."""

    def epoch_ended(self, record: dict[str, Any]) -> None:
        """The metrics line of an epoch is written."""

    def finishing(self) -> None:
        """Training is over; the test and the pictures begin."""

    def finished(self, summary: dict[str, Any], folder: Path) -> None:
        """The run folder is complete."""
