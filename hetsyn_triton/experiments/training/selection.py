"""The three results of a run: last epoch, validation-selected and test-selected."""

import copy
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from hetsyn_triton.experiments.tasks import Task
from hetsyn_triton.modules import SpikingNetwork

from .measure import measure_split
from .parallel import ALONE, Ranks


def best_epoch(task: Task, history: Sequence[dict[str, Any]], split: str) -> int | None:
    """Return the epoch (from 1) with the best score on `split`; the first wins a tie.

    The score is that of the task, or else the loss. None if nothing was measured on `split`.
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
    """Return the test measures of the last, the best validation and the best test epoch.

    The best test epoch is not a held-out result, because the test samples selected it.

    Args:
        task: The task.
        network: The network with the weights of the last epoch.
        history: The records of all epochs.
        best: "epoch" and "model" of the best validation epoch. None if no samples are held out.
        test: The test measures of `network`.
        ranks: Ranks that share the work.

    Returns:
        "last", "validation" and "test", each with its "epoch" and "test" measures. "test" also has
        the number "of" test measurements. "validation" is None without held-out samples, and "test"
        is None if the test came only at the end.
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
    """Return why a run has no validation-selected result, or None if it has one."""
    if chosen["validation"] is not None:
        return None
    line = "No validation-selected result: no samples were held out of training"
    option = task.options.get("validation")
    if option is None:
        return line
    return f"{line}. To hold samples out, use --set validation=N (N: {option.expected})"


def _measure(
    task: Task, network: SpikingNetwork, weights: dict[str, Tensor], ranks: Ranks
) -> dict[str, float]:
    """Measure the test of a copy of `network` with other `weights`."""
    other = copy.deepcopy(network)
    other.load_state_dict(weights)
    device = next(iter(weights.values())).device
    return measure_split(task, other, "test", device, ranks)


def _measures(line: dict[str, Any], split: str) -> dict[str, float]:
    prefix = f"{split}_"
    return {
        name.removeprefix(prefix): value for name, value in line.items() if name.startswith(prefix)
    }
