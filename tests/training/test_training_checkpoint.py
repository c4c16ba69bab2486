"""Checkpoints: no damage, wrong content or foreign network passes, and no code in one runs."""

import contextlib
import io
import math
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hetsyn_triton import make_network
from hetsyn_triton.experiments.sealed import seal, unseal
from hetsyn_triton.experiments.training import (
    CheckpointError,
    Run,
    TrainConfig,
    load_run,
    resume,
    train,
)
from hetsyn_triton.experiments.training.checkpoint import read_checkpoint
from hetsyn_triton.experiments.training.restore import load_weights

Louder = Callable[..., TrainConfig]
Content = dict[str, Any]


def content_of(run: Run) -> Content:
    values: Content = torch.load(run.path / "checkpoint.pt", weights_only=True)
    return values


def write(run: Run, content: Any) -> None:
    """A whole file with a right digest, whatever it holds."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    (run.path / "checkpoint.pt").write_bytes(seal(buffer.getvalue()))


@pytest.fixture
def run(louder: Louder, tmp_path: Path) -> Run:
    return train(louder(epochs=2, hidden=(4,)), tmp_path / "run", pictures=False)


def test_what_is_written_is_read(run: Run) -> None:
    write(run, content_of(run))
    assert load_run(run.path).epoch == 2
    resume(run.path, pictures=False)


def test_seal() -> None:
    assert unseal(seal(b"content")) == b"content"
    assert unseal(seal(b"")) == b""
    for sealed in (b"", b"content", seal(b"content") + b"\n", seal(b"content")[1:]):
        with pytest.raises(ValueError, match="digest"):
            unseal(sealed)


def test_missing(run: Run) -> None:
    (run.path / "checkpoint.pt").unlink()
    for read in (load_run, resume):
        with pytest.raises(CheckpointError, match="there is no checkpoint"):
            read(run.path)


def test_truncated(run: Run) -> None:
    path = run.path / "checkpoint.pt"
    content = path.read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        for read in (load_run, resume):
            with pytest.raises(
                CheckpointError, match=r"checkpoint.pt is truncated, damaged or not a"
            ):
                read(run.path)


def test_flipped_bits_and_random_bytes(run: Run) -> None:
    path, device = run.path / "checkpoint.pt", torch.device("cpu")
    content = path.read_bytes()
    read_checkpoint(path, device)
    draw = random.Random(0)
    for _ in range(300):
        flipped = bytearray(content)
        flipped[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError, match="damaged"):
            read_checkpoint(path, device)
    for length in (1, 100, 10_000):
        noise = draw.randbytes(length)
        for bad in (noise, seal(noise)):
            path.write_bytes(bad)
            with pytest.raises(CheckpointError, match="not a checkpoint"):
                read_checkpoint(path, device)


def test_damage_below_a_right_digest(run: Run) -> None:
    """Whatever the reader of pickles makes of it, the error is a CheckpointError."""
    path, device = run.path / "checkpoint.pt", torch.device("cpu")
    content = unseal(path.read_bytes())
    draw = random.Random(0)
    for _ in range(300):
        flipped = bytearray(content)
        flipped[draw.randrange(2000)] ^= 1 << draw.randrange(8)  # most of the pickle is here
        path.write_bytes(seal(bytes(flipped)))
        with contextlib.suppress(CheckpointError):  # and no other; a flip may change nothing
            read_checkpoint(path, device)


class Touch:
    """Makes a file where it is unpickled by a reader that runs code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_is_not_run(run: Run, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    write(run, {**content_of(run), "sums": Touch(trap)})
    for read in (load_run, resume):
        with pytest.raises(CheckpointError, match=r"checkpoint.pt is not a checkpoint"):
            read(run.path)
    assert not trap.exists()
    torch.load(run.path / "checkpoint.pt", weights_only=False)
    assert trap.exists()  # the trap works


def without(name: str) -> Callable[[Content], Content]:
    return lambda content: {key: value for key, value in content.items() if key != name}


def changed(**parts: Any) -> Callable[[Content], Content]:
    return lambda content: {**content, **parts}


def weights(change: Callable[[torch.Tensor], Any]) -> Callable[[Content], Content]:
    name = "layers.0.weight"
    return lambda c: {**c, "model": {**c["model"], name: change(c["model"][name])}}


def optimizer(**parts: Any) -> Callable[[Content], Content]:
    return lambda content: {**content, "optimizer": {**content["optimizer"], **parts}}


def moment(name: str, change: Callable[[torch.Tensor], Any]) -> Callable[[Content], Content]:
    def changing(content: Content) -> Content:
        state = content["optimizer"]["state"]
        first = {**state[0], name: change(state[0][name])}
        return optimizer(state={**state, 0: first})(content)

    return changing


def group(**parts: Any) -> Callable[[Content], Content]:
    def changing(content: Content) -> Content:
        first, *rest = content["optimizer"]["param_groups"]
        return optimizer(param_groups=[{**first, **parts}, *rest])(content)

    return changing


def best(**parts: Any) -> Callable[[Content], Content]:
    return lambda content: {**content, "best": {**content["best"], **parts}}


def best_weights(change: Callable[[torch.Tensor], Any]) -> Callable[[Content], Content]:
    name = "layers.0.weight"
    return lambda c: best(model={**c["best"]["model"], name: change(c["best"]["model"][name])})(c)


def lines(change: Callable[[list[Content]], Any]) -> Callable[[Content], Content]:
    return lambda content: {**content, "history": change(content["history"])}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: [1], "expected a checkpoint of format 3, got None"),
        (changed(format=1), "expected a checkpoint of format 3, got 1"),
        (changed(format=torch.ones(2)), "expected a checkpoint of format 3"),
        (without("model"), "model"),
        (without("optimizer"), "optimizer"),
        (changed(more=1), "more"),
        (changed(config=None), "config: expected"),
        (changed(config={"seed": torch.ones(2)}), "config: expected"),
        (changed(config={}), "belongs to another run: task is None"),
        (
            lambda c: {**c, "config": {**c["config"], "seed": 99}},
            "belongs to another run: seed is 99 in the checkpoint and 0 in",
        ),
        (changed(model=None), "model: expected tensors with names, got None"),
        (changed(model={"layers.0.weight": 1.0}), "model: expected tensors"),
        (changed(model={}), "belongs to another architecture"),
        (weights(lambda w: w.double()), r"\(4, 2\) float64 in .* and \(4, 2\) float32 in"),
        (weights(lambda w: w.half()), r"float16 in"),
        (weights(lambda w: w[:3]), r"\(3, 2\) float32 in .* and \(4, 2\) float32 in"),
        (
            weights(lambda w: w * math.nan),
            "model: expected finite values, got NaN or infinity in layers.0",
        ),
        (weights(lambda w: w + math.inf), "model: expected finite values"),
        (
            lambda c: {**c, "model": {**c["model"], "layers.0.decay.raw": torch.full((4, 2), 2.0)}},
            "contains invalid weights: ",
        ),
        (changed(best=1), "best: expected no value, or epoch and model"),
        (changed(best={}), "best: expected no value, or epoch and model"),
        (changed(best=None), "best: expected epoch [12], got None"),
        (best(epoch=0), "best: expected epoch [12], got 0"),
        (best(epoch=1.0), "best: expected no value, or"),
        (best(model=None), "best: expected no value, or"),
        (best(model={}), "belongs to another architecture"),
        (best(more=1), "best: expected no value, or"),
        (best_weights(lambda w: w[:3]), r"\(3, 2\) float32 in .* and \(4, 2\) float32 in"),
        (
            best_weights(lambda w: w * math.nan),
            "best: expected finite values, got NaN or infinity in lay",
        ),
        (changed(sessions=None), "sessions: expected step and machine of each session, got None"),
        (changed(sessions=[{}]), "sessions: expected"),
        (changed(sessions=[{"step": 0, "cpu": "a", "date": 1}]), "sessions: expected"),
        (changed(sessions=[{"step": -1, "cpu": "a", "date": "b"}]), "sessions: expected"),
        (changed(epoch=99), "history: expected"),
        (changed(epoch=-1), "epoch: expected an integer of at least 0, got -1"),
        (changed(epoch=1.0), "epoch: expected"),
        (changed(epoch=True), "epoch: expected"),
        (changed(batch=None), "batch: expected"),
        (changed(sums=[]), "sums: expected"),
        (changed(sums={"loss": math.nan}), "sums: expected finite numbers"),
        (changed(seconds=-1.0), "seconds: expected a finite number of at least 0"),
        (changed(seconds=math.inf), "seconds: expected a finite number of at least 0"),
        (changed(seconds=True), "seconds: expected a finite number of at least 0"),
        (lines(lambda h: []), "history: expected"),
        (lines(lambda h: None), "history: expected"),
        (lines(lambda h: [{}, {}]), "history: expected"),
        (lines(lambda h: h[::-1]), "history: expected"),
        (lines(lambda h: [h[0], {**h[1], "train_loss": math.inf}]), "history: expected"),
        (
            lambda c: {**lines(lambda h: [*h, {**h[1], "epoch": 3}])(c), "epoch": 3},
            "epoch: expected at most 2, got 3",
        ),
    ],
)
def test_wrong_content(run: Run, change: Callable[[Content], Any], message: str) -> None:
    write(run, change(content_of(run)))
    for read in (load_run, resume):
        with pytest.raises(CheckpointError, match=message) as caught:
            read(run.path)
        assert "checkpoint.pt" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(optimizer={}), "optimizer: expected a state and parameter groups"),
        (changed(optimizer=None), "optimizer: expected a state"),
        (optimizer(param_groups=[]), "the optimizer state does not fit"),
        (optimizer(param_groups=[{}, {}]), "the optimizer state does not fit"),
        (optimizer(state={}), "expected moments after the first step, got none"),
        (optimizer(state={7: {}}), "moments .* of 6 parameters, got other ones for parameter 7"),
        (optimizer(state={0: {}}), "other ones for parameter 0"),
        (moment("exp_avg", lambda m: m[:1]), "other ones for parameter 0"),
        (moment("exp_avg", lambda m: m.double()), "other ones for parameter 0"),
        (moment("exp_avg_sq", lambda m: m * math.nan), "other ones for parameter 0"),
        (moment("step", lambda m: 3), "other ones for parameter 0"),
        (group(weight_decay=0.5), "optimizer: expected groups"),
        (changed(batch=1, sums={"loss": 1.0}), "batch: expected less than 1 after epoch 2, got 1"),
        (changed(sums={"loss": 1.0}), "sums: expected none after 0 batches"),
        (
            lambda c: {**c, "epoch": 1, "history": c["history"][:1], "batch": 5},
            "batch: expected less than 5 after epoch 1, got 5",
        ),
        (
            lambda c: {**c, "epoch": 1, "history": c["history"][:1], "batch": 4},
            "sums: expected values after 4 batches",
        ),
    ],
)
def test_what_a_run_cannot_go_on_from(
    run: Run, change: Callable[[Content], Any], message: str
) -> None:
    write(run, change(content_of(run)))
    with pytest.raises(CheckpointError, match=message):
        resume(run.path)


def test_of_another_architecture(run: Run, louder: Louder, tmp_path: Path) -> None:
    big = train(louder(epochs=2, hidden=(20,)), tmp_path / "big", pictures=False)
    (run.path / "checkpoint.pt").write_bytes((big.path / "checkpoint.pt").read_bytes())
    for read in (load_run, resume):
        with pytest.raises(
            CheckpointError, match=r"another run: hidden is \[20\] in the checkpoint and \[4\]"
        ):
            read(run.path)
    write(run, {**content_of(big), "config": run.config.to_json()})
    with pytest.raises(
        CheckpointError,
        match=r"another architecture: .*\(20, 20\) float32 in .* and \(4, 4\) float32 in",
    ):
        load_run(run.path)


def test_masks_of_older_checkpoints(tmp_path: Path) -> None:
    """They were bool."""
    network = make_network("hetsyn", 3, [4], 2, frozen_fraction=0.5)
    wanted = network.state_dict()
    older = {n: w.bool() if n.endswith(".frozen") else w.clone() for n, w in wanted.items()}
    assert any(w.dtype == torch.bool for w in older.values())
    other = make_network("hetsyn", 3, [4], 2, frozen_fraction=0.5)
    load_weights(tmp_path, older, other)
    assert all(torch.equal(w, wanted[n]) for n, w in other.state_dict().items())


def compressed(values: Content) -> bytes:
    """A file of `torch.save` as another program would pack it."""
    plain, packed = io.BytesIO(), io.BytesIO()
    torch.save(values, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            new.writestr(part.filename, old.read(part))
    return packed.getvalue()


def plain(values: Content) -> bytes:
    file = io.BytesIO()
    torch.save(values, file)
    return file.getvalue()


def laughing(levels: int) -> list[Any]:
    """Each list has the one before ten times: 10^levels numbers in a few hundred bytes."""
    found: list[Any] = [1]
    for _ in range(levels):
        found = [found] * 10
    return found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: compressed({"format": 3, "model": torch.zeros(20_000_000)}), "is compressed"),
        (lambda: plain({"format": 3, "model": torch.zeros(1).expand(10**10)}), "more than 8 times"),
        (lambda: plain({"format": 3, "model": laughing(9)}), "more than 8 times"),
        (lambda: plain({"format": 3, "model": ["x" * 10**5] * 10**4}), "more than 8 times"),
    ],
    ids=["compressed", "one number often", "lists of lists", "one text often"],
)
def test_a_checkpoint_may_not_expand(content: Callable[[], bytes], message: str, run: Run) -> None:
    """Its digest fits, and it is small: what it asks for is refused before it takes memory."""
    path = run.path / "checkpoint.pt"
    path.write_bytes(seal(content()))
    assert path.stat().st_size < 2_000_000
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path, torch.device("cpu"))
