"""`hetsyn train`: start or resume a run."""

from pathlib import Path
from typing import Any

from rich.console import Console

from hetsyn_triton.experiments.training import ConfigError, NonFiniteError, resume, train
from hetsyn_triton.experiments.training.parallel import Ranks, joined_ranks
from hetsyn_triton.experiments.training.restore import MOVABLE
from hetsyn_triton.experiments.training.run_folder import check_new_folder, free_folder

from . import interrupts
from .configure import configured, notes
from .progress import RichReporter


def run(
    task: str | None,
    more: tuple[str, ...],
    out: str | None,
    resumed: str | None,
    file: str | None,
    **options: Any,
) -> int:
    """Train a network; an option that is not given is None."""
    with joined_ranks() as ranks:
        console = Console(quiet=not ranks.first)  # only the first rank prints
        reporter = RichReporter(console, None if resumed is None else Path(resumed))
        return _run(task, more, out, resumed, file, options, reporter, ranks)


def _run(
    task: str | None,
    more: tuple[str, ...],
    out: str | None,
    resumed: str | None,
    file: str | None,
    options: dict[str, Any],
    reporter: RichReporter,
    ranks: Ranks,
) -> int:
    given = {name: value for name, value in options.items() if value is not None}
    try:
        if resumed is None:
            with ranks.together():
                config, named = configured(task, given, more, file)
                folder = free_folder(config) if out is None else Path(out)
                if ranks.first:
                    check_new_folder(folder)
            for note in notes(config, named):
                reporter.note(note)
            reporter.expect(config, folder)
            train(config, out, reporter=reporter)
        else:
            moved = {name: given.pop(name, None) for name in MOVABLE}
            if given or more or any(value is not None for value in (out, task, file)):
                named = ["the task"] if task is not None else []
                named += ["--out"] if out is not None else []
                named += ["--config"] if file is not None else []
                named += ["--set"] if more else []
                allowed = ", ".join(_option(name) for name in MOVABLE)
                raise ConfigError(
                    f"resume: expected only {allowed} with it because a run keeps its settings, "
                    f"got {', '.join([*named, *map(_option, given)])}"
                )
            resume(resumed, **moved, reporter=reporter)
    except NonFiniteError as error:
        reporter.close()
        reporter.note(f"{error}; training has diverged and stops.{reporter.kept()}")
        ranks.wait_for_report()
        return 1
    except (Exception, KeyboardInterrupt) as error:
        if not interrupts.is_interrupt(error):
            raise
        reporter.close()
        if ranks.first:
            interrupts.tell(f"Stopped.{reporter.how_to_resume()}")
        return interrupts.INTERRUPTED
    finally:
        reporter.close()
    return 0


def _option(name: str) -> str:
    """Return a setting as it is written on the command line."""
    return f"--{name.replace('_', '-')}"
