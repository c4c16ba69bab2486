"""Processes that answer a line of JSON with a line of JSON."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from bench import ROOT

OUT_OF_TIME = "out of time"


class Server:
    """Runs `command` at the first question, and again after it has ended."""

    def __init__(self, command: Sequence[str], threads: int, **environment: str) -> None:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
        self.command = list(command)
        self.environment = os.environ | dict.fromkeys(names, str(threads)) | environment
        self.process: subprocess.Popen[bytes] | None = None

    def ask(self, question: Any, seconds: float | None = None) -> dict[str, Any]:
        """Return the answer, or the `reason` why there is none, after at most `seconds`."""
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(
                self.command,
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(question).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return {"reason": f"its process ended with {self.close()}"}
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            self.process.kill()
            self.close()
            return {"reason": OUT_OF_TIME}
        line = self.process.stdout.readline()
        if not line:
            return {"reason": f"its process ended with {self.close()}"}
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> int | None:
        """End the process; return its exit status."""
        if self.process is None:
            return None
        process, self.process = self.process, None
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):  # a question that nobody read
                stream.close()
        return process.wait()


def serve(answer: Callable[[Any], dict[str, Any]], prepare: Callable[[], None]) -> None:
    """Answer every line of stdin. What else is printed goes to stderr."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        prepare()
        for line in sys.stdin:
            answers.write(json.dumps(answer(json.loads(line))) + "\n")
            answers.flush()
