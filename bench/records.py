"""Write and read files of results, and align columns of text."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class Refused(Exception):
    """The result cannot be stored; the message says why."""


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of columns as wide as their contents; all but the first are right-aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for first, *rest in rows:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return lines


def write(file: Path, content: str) -> None:
    """Write a file atomically: readers see the old or the new content."""
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_suffix(f".{os.getpid()}.tmp")
    scratch.write_text(content, encoding="utf-8")
    os.replace(scratch, file)


def append(file: Path, record: Mapping[str, Any]) -> None:
    """Append one line to a JSON lines file and flush it to the disk."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def lines(file: Path) -> list[Record]:
    """Read the lines that `append` wrote."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def rounded(value: Any) -> Any:
    """Round all floats in a value to 5 digits; more would be noise."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, Mapping):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [rounded(v) for v in value]
    return value
