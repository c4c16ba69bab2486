"""The command `hetsyn`. Nothing of the `train` extra is imported before it is known to be there,
and PyTorch only by a command that needs it."""

import sys

from hetsyn_triton import freed_memory

from . import interrupts


def main() -> None:
    """Run the command line and leave with its exit code."""
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
    from hetsyn_triton.extras import MissingExtraError, require_extra

    try:
        require_extra("the command hetsyn", "click", "rich")
        from .commands import run

        return run(sys.argv[1:])
    except MissingExtraError as error:
        print(f"hetsyn: {error}", file=sys.stderr)
        return 2
