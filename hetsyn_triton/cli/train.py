"""`hetsyn train`: a new run, or on with an old one."""

from pathlib import Path
from typing import Any

from rich.console import Console

from hetsyn_triton.training import ConfigError, NonFiniteError, resume, train
from hetsyn_triton.training.folder import check_new_folder, free_folder

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
    given = {name: value for name, value in options.items() if value is not None}
    reporter = RichReporter(Console(), None if resumed is None else Path(resumed))
    try:
        if resumed is None:
            config, named = configured(task or "digits", given, more)
            for note in notes(config, named):
                reporter.note(note)
            folder = free_folder(config) if out is None else Path(out)
            check_new_folder(folder)
            reporter.announce(config, folder)
            train(config, out, reporter=reporter)
        else:
            data_dir = given.pop("data_dir", None)
            if given or more or out is not None or task is not None:
                raise ConfigError(
                    "resume: expected no setting beside it but --data-dir; "
                    "the run's own configuration holds"
                )
            resume(resumed, data_dir=data_dir, reporter=reporter)
    except NonFiniteError as error:
        reporter.close()
        reporter.note(f"{error}; training cannot go on.{reporter.kept()}")
        return 1
    except (Exception, KeyboardInterrupt) as error:
        if not interrupts.is_interrupt(error):
            raise
        reporter.close()
        interrupts.tell(f"Stopped.{reporter.way_on()}")
        return interrupts.INTERRUPTED
    finally:
        reporter.close()
    return 0
