"""Which epoch a result is of: the last, the best on held-out samples, or the best on test."""

import copy
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from hetsyn_triton.modules import SpikingNetwork
from hetsyn_triton.tasks import Task

from .measure import measure_split
from .parallel import ALONE, Ranks


def best_epoch(task: Task, history: Sequence[dict[str, Any]], split: str) -> int | None:
    """The epoch (from 1) with the best score on `split`, the first of equals.

    The score is the task's own, or the loss. None where nothing was measured on `split`.
    """
    name = f"{split}_{task.score or 'loss'}"
    sign = 1 if task.score is None or task.score_falls else -1
    measured = [(sign * line[name], line["epoch"]) for line in history if name in line]
    return min(measured)[1] if measured else None


def selection(
    task: Task,
    network: SpikingNetwork,
    history: Sequence[dict[str, Any]],
    best: dict[str, Any] | None,
    test: dict[str, float],
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Test measures of the last epoch, of the best validation epoch and of the best test epoch.

    `network` has the last weights and `test` their test measures; `best` holds "epoch" and "model"
    of the best validation epoch, None where nothing is held out. The best test epoch is the best of
    `of` measurements, None where the test was left to the end; it is no held-out result, for the
    test samples chose it.
    """
    chosen: dict[str, Any] = {"last": {"epoch": len(history), "test": test}}
    chosen |= {"validation": None, "test": None}
    if best is not None:
        epoch = best["epoch"]
        chosen["validation"] = {
            "epoch": epoch,
            "validation": _measures(history[epoch - 1], "validation"),
            "test": test
            if epoch == len(history)
            else _measure(task, network, best["model"], ranks),
        }
    epoch = best_epoch(task, history, "test")
    if epoch is not None:
        measured = sum(bool(_measures(line, "test")) for line in history)
        chosen["test"] = {
            "epoch": epoch,
            "of": measured,
            "test": _measures(history[epoch - 1], "test"),
        }
    return chosen


def why_no_validation(task: Task, chosen: dict[str, Any]) -> str | None:
    """Why a run has no validation-selected result, and how it would; None where it has."""
    if chosen["validation"] is not None:
        return None
    line = "No validation-selected result: no samples were held out of training"
    option = task.options.get("validation")
    return (
        line if option is None else f"{line} (--set validation=N holds some out: {option.expected})"
    )


def _measure(
    task: Task, network: SpikingNetwork, weights: dict[str, Tensor], ranks: Ranks
) -> dict[str, float]:
    """Test measures of other weights of `network`, which keeps its own."""
    other = copy.deepcopy(network)
    other.load_state_dict(weights)
    device = next(iter(weights.values())).device
    return measure_split(task, other, "test", device, ranks)


def _measures(line: dict[str, Any], split: str) -> dict[str, float]:
    prefix = f"{split}_"
    return {
        name.removeprefix(prefix): value for name, value in line.items() if name.startswith(prefix)
    }
