"""The memory of a call, as `pytest --benchmark` stores it: of no order, and none that cannot be."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench import registry, turns
from bench.apart import Apart, plausible
from bench.registry import CLOSED, LOOP, OURS, Entry, Work

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc"
)
PAGES = 64 * 4096
"""What Linux's counters may be off on two cores."""


@pytest.fixture(scope="module")
def apart() -> Iterator[Apart]:
    asked = Apart(1)
    yield asked
    asked.close()


@pytest.mark.slow
@needs_proc
def test_growth_does_not_depend_on_what_was_asked_before(apart: Apart) -> None:
    work = registry.CURRENT
    first, *_, third = (apart.ask(work, who, False)["peak"] for who in (LOOP, CLOSED, LOOP))
    assert third == pytest.approx(first, abs=PAGES)
    steps_and_their_stack = 2 * 4 * work.T * work.B * work.J
    assert min(first, third) > steps_and_their_stack - PAGES


@needs_proc
@pytest.mark.parametrize("part", registry.PARTS)
def test_growth_is_at_least_what_is_returned(apart: Apart, part: str) -> None:
    """Spikes [T, B, J], or the gradients of input and weights; little more than both."""
    work = Work("layer", 250, 8, 300, 64, part=part)
    found = apart.ask(work, OURS, False)
    outputs = 4 * work.T * work.B * work.J
    returned = outputs if part == "forward" else 4 * work.T * work.B * work.I
    assert returned <= found["peak"] < 6 * (outputs + 4 * work.T * work.B * work.I)


def test_who_breaks_costs_no_other_answer(apart: Apart) -> None:
    tiny = Work("layer", 4, 2, 5, 4)
    assert "nobody" in apart.ask(tiny, "nobody", False)["reason"]
    assert apart.ask(tiny, OURS, True)["saved"] > 0


def test_a_peak_below_what_is_returned_is_no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plausible(4096, 4000) == {"peak": 4096}
    assert plausible(None, 0)["peak"] is None
    refused = plausible(0, 1_024_000)
    assert refused["peak"] is None
    entry = Entry("g", OURS, replace(registry.CURRENT, T=4), OURS)
    taken = turns.Turns(turns.Plan(torch.device("cpu"), 1, 0.0, 3), [entry], print, 0.0)
    monkeypatch.setattr(taken.apart, "ask", lambda *_: {"fresh_ms": 1.0, **refused})
    info = taken._memory(entry)
    assert info["fresh_ms"] == 1.0
    assert "peak_bytes" not in info
    assert info["memory"].startswith("not measured: a growth of 0 bytes is less than the 1024000")
