"""The command `hetsyn`.

Packages of the `train` extra are imported only after a check that they are installed. PyTorch is
imported only by commands that need it.
"""

import sys

from hetsyn_triton import freed_memory

from . import interrupts


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        interrupts.install()
        freed_memory.keep_freed_memory()
        code = _run()
    except BaseException as error:
        if not interrupts.is_interrupt(error):
            raise
        interrupts.tell()
        code = interrupts.INTERRUPTED
    finally:
        interrupts.loaded()
    sys.exit(code)


def _run() -> int:
    from hetsyn_triton.experiments.extras import MissingExtraError, require_extra

    try:
        require_extra("the command hetsyn", "click", "rich", "pydantic")
        from .commands import run

        return run(sys.argv[1:])
    except MissingExtraError as error:
        print(f"hetsyn: {error}", file=sys.stderr)
        return 2
