"""Where and when a run was trained is recorded as it trains, in each part it is trained in."""

import datetime
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hetsyn_triton.experiments.sealed import seal
from hetsyn_triton.experiments.training import Run, TrainConfig, resume, train
from hetsyn_triton.experiments.training.machine import cpu_name, provenance
from hetsyn_triton.experiments.training.trainer import Trainer

Louder = Callable[..., TrainConfig]


def summary(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return values


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Gives the machine's CPU another name."""
    return lambda name: monkeypatch.setattr(
        "hetsyn_triton.experiments.training.machine.cpu_name", lambda: name
    )


def forget_sessions(run: Run) -> None:
    """The checkpoint as it was before sessions were recorded in it."""
    path = run.path / "checkpoint.pt"
    content = torch.load(path, weights_only=True)
    del content["sessions"]
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.write_bytes(seal(buffer.getvalue()))


def test_a_run_names_its_machine_and_date(louder: Louder, tmp_path: Path) -> None:
    run = train(louder(), tmp_path / "run", pictures=False)
    found = summary(run.path)
    assert found["environment"]["cpu"] == cpu_name()
    age = datetime.date.today() - datetime.date.fromisoformat(found["environment"]["date"])
    assert abs(age.days) <= 1
    assert "gpu" not in found["environment"]
    assert found["sessions"] == [{"step": 0, **found["environment"]}]


def test_gpus_are_named_where_they_train(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_name", lambda gpu: f"GPU {torch.device(gpu)}")
    assert provenance([torch.device("cuda", 1)])["gpu"] == "GPU cuda:1"
    assert "gpu" not in provenance()


@pytest.mark.gpu
def test_a_run_on_a_gpu_names_it(louder: Louder, tmp_path: Path) -> None:
    run = train(louder(epochs=1, device="cuda"), tmp_path / "run", pictures=False)
    assert summary(run.path)["environment"]["gpu"] == torch.cuda.get_device_name()


def test_parts_on_several_machines(
    louder: Louder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, called: Callable[[str], None]
) -> None:
    """A part that left nothing in the checkpoint is none, and a test alone trains nothing."""
    monkeypatch.setattr("hetsyn_triton.experiments.training.trainer.CHECKPOINT_SECONDS", 0.0)
    train_on, stop = Trainer._train_on, [7]

    def interrupted(self: Trainer, batch: Any) -> None:
        if self.step == stop[0]:
            raise KeyboardInterrupt
        train_on(self, batch)

    monkeypatch.setattr(Trainer, "_train_on", interrupted)
    folder = tmp_path / "run"
    called("first")
    with pytest.raises(KeyboardInterrupt):
        train(louder(), folder, pictures=False)
    called("without a step")
    with pytest.raises(KeyboardInterrupt):
        resume(folder, pictures=False)
    stop[0] = -1
    called("second")
    resume(folder, pictures=False)
    called("where it is tested again")
    resume(folder, pictures=False)
    found = summary(folder)
    assert [(s["step"], s["cpu"]) for s in found["sessions"]] == [(0, "first"), (7, "second")]
    assert found["environment"]["cpu"] == "second"


def test_a_run_of_before_names_no_machine(
    louder: Louder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(louder(), tmp_path / "run", pictures=False)
    forget_sessions(run)
    resume(run.path, pictures=False)
    found = summary(run.path)
    assert found["sessions"] == []
    assert not {"cpu", "gpu", "date"} & found["environment"].keys()
    assert found["environment"]["torch"] == torch.__version__
