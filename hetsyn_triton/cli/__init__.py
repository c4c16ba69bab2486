"""The command `hetsyn`. Nothing of the `train` extra is imported before it is known to be there."""

import sys

INTERRUPTED = 130  # 128 + SIGINT, what a shell reports for Ctrl-C


def main() -> None:
    """Run the command line and leave with its exit code."""
    try:
        sys.exit(_run())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _run() -> int:
    from hetsyn_triton.extras import MissingExtraError, require_extra

    try:
        require_extra("the command hetsyn", "click", "rich")
        from .commands import run

        return run(sys.argv[1:])
    except MissingExtraError as error:
        print(f"hetsyn: {error}", file=sys.stderr)
        return 1
