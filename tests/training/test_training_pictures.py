"""The pictures of a run: spikes over the shading of spans, ticks and markers, names of classes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from hetsyn_triton.experiments.drawing import SHADE
from hetsyn_triton.experiments.tasks import DelayedMatch, Digits, Task
from hetsyn_triton.experiments.training import default_config, run_pictures
from hetsyn_triton.experiments.training.build import build_network, build_task

CUE = slice(10, 30)  # steps of the first cue


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures made, not saved."""
    figures: list[Figure] = []
    monkeypatch.setattr(run_pictures, "save_figure", lambda figure, path: figures.append(figure))
    return figures


def sample(delay: int, figures: list[Figure]) -> tuple[Task, Figure]:
    config = default_config("delayed-match", options={"delay": delay}, hidden=(8,), backend="cpu")
    task = DelayedMatch(delay=delay)
    run_pictures.draw_sample(task, build_network(config, task), torch.device("cpu"), Path("unused"))
    return task, figures[-1]


@pytest.mark.parametrize("delay", [400, 800])  # filled cells, and dots for 210 steps
def test_spikes_are_seen_over_a_span(delay: int, drawn: list[Figure]) -> None:
    task, figure = sample(delay, drawn)
    canvas: Any = FigureCanvasAgg(figure)
    figure.set_dpi(300)
    canvas.draw()
    pixels: np.ndarray[Any, Any] = np.asarray(canvas.buffer_rgba())[::-1, :, :3] / 255
    axes, spikes = figure.axes[0], task.sample().input[:, 0]
    assert spikes[CUE].sum() > 20

    def color(step: int, channel: int) -> np.ndarray[Any, Any]:
        x, y = axes.transData.transform((step + 0.5, channel + 0.5))
        found: np.ndarray[Any, Any] = pixels[round(y - 0.5), round(x - 0.5)]
        return found

    for step in range(CUE.start, CUE.stop):
        for channel in range(1, 29):
            if spikes[step, channel]:
                assert color(step, channel).max() < 0.7, (step, channel)
            elif not spikes[step - 1 : step + 2, channel - 1 : channel + 2].any():
                assert np.allclose(color(step, channel), to_rgb(SHADE), atol=0.01)


@pytest.mark.parametrize("name", ["delayed-match", "multi-timescale-xor", "pattern-generation"])
def test_the_output_is_drawn_at_each_step(
    name: str, drawn: list[Figure], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is, or on the XOR as the probability of class 1."""
    config = default_config(name, hidden=(2,))
    task = build_task(config)
    steps = len(task.sample().input)
    output = torch.randn(steps, 1, task.out_features, generator=torch.Generator().manual_seed(0))
    hidden = [torch.zeros(steps, 1, 2)]
    monkeypatch.setattr(run_pictures, "run_network", lambda *_: (output, hidden))
    network = build_network(config, task)
    run_pictures.draw_sample(task, network, torch.device("cpu"), Path("unused"))
    curves = output[:, 0].T
    if name == "multi-timescale-xor":
        curves = torch.sigmoid(output[:, 0, 1:] - output[:, 0, :1]).T
    lines = drawn[-1].axes[-1].lines[-len(curves) :]
    for line, curve in zip(lines, curves, strict=True):
        assert np.allclose(np.asarray(line.get_ydata()), curve, atol=1e-6)
        assert curve.std() > 0.1


def test_classes_have_names(drawn: list[Figure]) -> None:
    _, figure = sample(400, drawn)
    legend = figure.axes[-1].get_legend()
    assert legend is not None
    shown = [text.get_text() for text in legend.get_texts()]
    assert sorted(text.removesuffix(" (true)") for text in shown) == ["match", "mismatch"]
    assert Digits().class_name(3) == "3"


@pytest.mark.parametrize(
    ("epochs", "ticks"), [(1, [1]), (2, [1, 2]), (20, [*range(2, 21, 2)]), (150, None)]
)
def test_ticks_of_the_epochs(epochs: int, ticks: list[int] | None, drawn: list[Figure]) -> None:
    history = [
        {"epoch": epoch, **{f"{part}_{name}": 0.5 for part in PARTS for name in NAMES}}
        for epoch in range(1, epochs + 1)
    ]
    run_pictures.draw_learning_curve(Digits(), history, dict.fromkeys(NAMES, 0.5), Path("unused"))
    for axes in drawn[-1].axes:
        low, high = axes.get_xlim()
        assert 0 < low < 1
        assert epochs < high < epochs + 1
        found = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert found
        assert all(tick == round(tick) for tick in found)
        assert ticks is None or found == ticks
        sizes = [line.get_markersize() for line in axes.lines[:3]]
        assert sizes[0] > sizes[1] > sizes[2]  # points that coincide are rings
        assert axes.lines[3].get_markerfacecolor() == "none"


PARTS = ("train", "validation", "test")
NAMES = ("loss", "accuracy")
