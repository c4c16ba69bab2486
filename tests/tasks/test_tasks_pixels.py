"""Images pixel by pixel: the order of the pixels, sizes and classes as the files have them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hetsyn_triton.experiments.tasks import DataError, IdxImages, PermutedMNIST, SequentialMNIST
from hetsyn_triton.experiments.tasks.pixels import pixel_order
from hetsyn_triton.experiments.training import default_config
from hetsyn_triton.experiments.training.build import build_network, build_task
from tests.support.idx_files import idx_bytes
from tests.support.learning import assert_falls, losses

Write = Callable[..., Path]


def test_the_order_is_one_permutation_for_ever() -> None:
    order = pixel_order(784)
    assert torch.equal(order.sort().values, torch.arange(784))
    assert order[:8].tolist() == [273, 747, 779, 125, 601, 735, 126, 599]
    assert not torch.equal(order, torch.arange(784))


def test_permuted_mnist(images: Write) -> None:
    """The pixels of smnist in another order, which no setting of the run changes."""
    folder = images("mnist")
    plain = SequentialMNIST(data_dir=folder, seed=1).splits["test"]
    rows = [
        PermutedMNIST(data_dir=folder, seed=seed, validation=held_out)
        for seed, held_out in ((1, 0), (2, 10))
    ]
    for task in rows:
        samples = task.splits["test"]
        assert torch.equal(samples.values, plain.values)
        shown = task.encode(samples.values)
        assert shown.shape == (25, 20, 1)
        pixels = plain.values.flatten(1)[:, pixel_order(25)].float() / 255
        assert torch.equal(shown[:, :, 0].t(), pixels)
    assert {name: len(part.labels) for name, part in rows[1].splits.items()} == {
        "train": 30,
        "validation": 10,
        "test": 20,
    }
    smnist, psmnist = default_config("smnist"), default_config("psmnist")
    assert {**smnist.to_json(), "task": "psmnist"} == psmnist.to_json()


@pytest.mark.parametrize(
    ("size", "classes", "prefix", "test"),
    [((28, 28), 10, "", "t10k"), ((4, 7), 5, "", "t10k"), ((6, 3), 20, "emnist-balanced-", "test")],
)
def test_other_sizes_and_classes(
    images: Write, size: tuple[int, int], classes: int, prefix: str, test: str
) -> None:
    folder = images("other", size, classes, prefix, test)
    for permuted in (False, True):
        options = {"classes": classes, "permuted": permuted, "limit": 20}
        config = default_config("idx", data_dir=str(folder), batch_size=4, options=options)
        task = build_task(config)
        assert isinstance(task, IdxImages)
        batch = next(task.batches("test"))
        assert batch.input.shape == (size[0] * size[1], 20, 1)
        assert torch.equal(batch.target, torch.arange(20) % classes)
        order = pixel_order(size[0] * size[1]) if permuted else torch.arange(size[0] * size[1])
        image = task.splits["test"].values[3].flatten()[order].float() / 255
        assert torch.equal(batch.input[:, 3, 0], image)
        assert len(task.splits["train"].labels) == 20
        output, _ = build_network(config, task)(batch.input)
        assert output.shape[2] == classes


def test_the_unpacked_file_of_two_is_read(images: Write) -> None:
    folder = images("both")
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(torch.zeros(40)))
    assert IdxImages(data_dir=folder).splits["train"].labels.sum() == 0


def test_what_does_not_fit_is_named(images: Write, tmp_path: Path) -> None:
    def message(folder: Path | None, **options: int) -> str:
        with pytest.raises(DataError) as caught:
            IdxImages(data_dir=folder, **options).load()
        return str(caught.value)

    named = "names contain train or test"
    assert message(None).startswith(
        "data_dir: expected a folder of idx files, got none: give --data-dir"
    )
    assert named in message(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    found = message(tmp_path / "empty")
    assert "empty: expected one file of train images, got none" in found
    assert named in found
    folder = images("more", classes=12)
    assert message(folder).endswith("expected one or more labels from 0 to 9, got one of 11")
    assert "validation: expected 0 to 39 training images, got 40" in message(
        folder, classes=12, validation=40
    )
    (folder / "qmnist-test-images-idx3-ubyte").touch()
    twice = "test or t10k images, got qmnist-test-images-idx3-ubyte, t10k-images-idx3-ubyte"
    assert twice in message(folder, classes=12)
    (folder / "qmnist-test-images-idx3-ubyte").unlink()
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(torch.zeros(20, 5, 6)))
    assert message(folder, classes=12).endswith(
        "more: expected test images of 5 x 5 pixels as in training, got 5 x 6"
    )


@pytest.mark.parametrize("name", ["psmnist", "idx"])
def test_is_learned(images: Write, name: str) -> None:
    folder = images("mnist", (4, 6), 5)
    config = default_config(
        name,
        data_dir=str(folder),
        hidden=(16,),
        batch_size=20,
        lr=1e-2,
        threads=1,
        options={"classes": 5, "permuted": True} if name == "idx" else {},
    )
    assert_falls(losses(config, 60))


@pytest.mark.skipif("HETSYN_DATA" not in os.environ, reason="needs real MNIST: set HETSYN_DATA")
def test_real_mnist_as_any_idx_files() -> None:
    """The same files under two names of a task: one kind of batch."""
    folder = Path(os.environ["HETSYN_DATA"]) / "mnist"
    one = next(PermutedMNIST().batches("test"))
    other = next(IdxImages(data_dir=folder, permuted=True).batches("test"))
    assert torch.equal(one.input, other.input)
    assert torch.equal(one.target, other.target)
    assert one.input.shape == (784, 256, 1)
