"""`hetsyn train`: a new run, or on with an old one."""

from pathlib import Path
from typing import Any

from rich.console import Console

from hetsyn_triton.training import ConfigError, NonFiniteError, resume, train
from hetsyn_triton.training.folder import check_new_folder, free_folder
from hetsyn_triton.training.parallel import Ranks, joined_ranks
from hetsyn_triton.training.restore import MOVABLE

from . import interrupts
from .progress import RichReporter
from .settings import configured, notes


def run(
    task: str | None,
    more: tuple[str, ...],
    out: str | None,
    resumed: str | None,
    **options: Any,
) -> int:
    """Train; `options` are those of the command line, None where not given."""
    with joined_ranks() as ranks:
        console = Console(quiet=not ranks.first)  # the first speaks for all
        reporter = RichReporter(console, None if resumed is None else Path(resumed))
        return _run(task, more, out, resumed, options, reporter, ranks)


def _run(
    task: str | None,
    more: tuple[str, ...],
    out: str | None,
    resumed: str | None,
    options: dict[str, Any],
    reporter: RichReporter,
    ranks: Ranks,
) -> int:
    given = {name: value for name, value in options.items() if value is not None}
    try:
        if resumed is None:
            with ranks.together():
                config, named = configured(task or "digits", given, more)
                folder = free_folder(config) if out is None else Path(out)
                if ranks.first:
                    check_new_folder(folder)
            for note in notes(config, named):
                reporter.note(note)
            reporter.expect(config, folder)
            train(config, out, reporter=reporter)
        else:
            moved = {name: given.pop(name, None) for name in MOVABLE}
            if given or more or out is not None or task is not None:
                named = ["the task"] if task is not None else []
                named += ["--out"] if out is not None else []
                named += ["--set"] if more else []
                allowed = ", ".join(_option(name) for name in MOVABLE)
                raise ConfigError(
                    f"resume: expected no setting beside it but {allowed}, for the run's own "
                    f"configuration holds, got {', '.join([*named, *map(_option, given)])}"
                )
            resume(resumed, **moved, reporter=reporter)
    except NonFiniteError as error:
        reporter.close()
        reporter.note(f"{error}; training cannot go on.{reporter.kept()}")
        ranks.let_the_first_speak()
        return 1
    except (Exception, KeyboardInterrupt) as error:
        if not interrupts.is_interrupt(error):
            raise
        reporter.close()
        if ranks.first:
            interrupts.tell(f"Stopped.{reporter.way_on()}")
        return interrupts.INTERRUPTED
    finally:
        reporter.close()
    return 0


def _option(name: str) -> str:
    """A setting as it is written on the command line."""
    return f"--{name.replace('_', '-')}"
