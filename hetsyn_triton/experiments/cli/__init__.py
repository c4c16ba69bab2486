"""The command `hetsyn`.

Packages of the `train` extra are imported only after a check that they are installed. PyTorch is
imported only by commands that need it.
"""

import io
import os
import signal
import sys

from hetsyn_triton import freed_memory

from . import interrupts


def main() -> None:
    """Run the command line and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may not know all characters
            stream.reconfigure(errors="backslashreplace")
    try:
        interrupts.install()
        freed_memory.keep_freed_memory()
        code = _run()
        sys.stdout.flush()
    except BrokenPipeError:
        code = 128 + signal.SIGPIPE  # what a shell reports for a program that it ends
        _discard_output()
    except BaseException as error:
        if interrupts.is_interrupt(error):
            interrupts.tell()
            code = interrupts.INTERRUPTED
        elif isinstance(error, OSError):  # a full disk behind the output
            print(f"hetsyn: output: {error.strerror}", file=sys.stderr)
            code = 2
            _discard_output()
        else:
            raise
    finally:
        interrupts.loaded()
    sys.exit(code)


def _discard_output() -> None:
    """What is left in buffers goes nowhere, so that Python does not try again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run() -> int:
    from hetsyn_triton.experiments.extras import MissingExtraError, require_extra

    try:
        require_extra("the command hetsyn", "click", "rich", "pydantic")
        from .commands import run

        return run(sys.argv[1:])
    except MissingExtraError as error:
        print(f"hetsyn: {error}", file=sys.stderr)
        return 2
