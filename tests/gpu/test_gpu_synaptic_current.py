"""How the Triton kernels of synapses choose their launches: path, tiles, chunks of time."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from hetsyn_triton.kernels import parallel_in_time
from hetsyn_triton.kernels.gpu import feedforward_scan as layer, synaptic_current as kernel
from hetsyn_triton.kernels.gpu.lib import configs, launch, time_chunks
from tests.support.bounds import sparse
from tests.support.implementations import TRITON, TRITON_SPLIT
from tests.support.operators import Size
from tests.support.tensors import same
from tests.support.truth import check

pytestmark = pytest.mark.usefixtures("poisoned")


@pytest.mark.parametrize("size", [Size(T=7, B=3, I=17, J=5, K=3), Size(R=2, T=5, B=1, I=71, J=20)])
def test_chunks_of_the_fused_layer(size: Size) -> None:
    """States parked between chunks of 4 steps change no bit."""
    given = TRITON.given("feedforward_scan", size)
    assert same(layer.fused(**given, chunk=4), TRITON_SPLIT("feedforward_scan", given))


def test_layer_takes_the_path_of_its_size(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`path` decides, and the choice is what runs; both give the same bits."""
    size = Size(R=1, T=3, B=2, I=9, J=4, K=1)
    moved = TRITON.given("feedforward_scan", size)
    outputs = {}
    for name in ("fused", "split"):
        monkeypatch.setattr(layer, "path", lambda *a, name=name, **k: layer.Path(name, 1.0, 1.0))
        outputs[name] = layer.feedforward_scan(**moved)
        with launch.recording() as calls:
            layer.feedforward_scan(**moved)
        assert calls[0].name.startswith("feedforward") is (name == "fused")
    for got, want in zip(outputs["fused"], outputs["split"], strict=True):
        assert torch.equal(got, want)


def test_path_by_size() -> None:
    """As measured on an H200 (bench/results): several blocks of inputs are faster side by side, one
    block is worth a launch less where samples are few. Within a fifth of the times that are not
    the host's."""
    fused, split = 1612.0, 1219.0
    large = layer.path(1, 250, 256, 700, 128)
    assert large.name == "split"
    assert large.fused_us == pytest.approx(fused, rel=0.2)
    assert large.split_us == pytest.approx(split, rel=0.2)
    assert layer.path(1, 250, 32, 700, 128).name == "split"
    assert layer.path(1, 250, 32, 700, 128).fused_us == pytest.approx(1224.0, rel=0.2)
    assert layer.path(1, 250, 8, 700, 128).name == "split"
    assert layer.path(1, 250, 32, 128, 64).name == "fused"
    assert layer.path(1, 784, 256, 1, 64).name == "split"


@pytest.mark.parametrize("transposed", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("summed", [61, 100, 203])
def test_no_configuration_changes_a_bit(
    summed: int, transposed: bool, device: torch.device
) -> None:
    size = Size(R=1, T=3, B=1, I=summed, J=100, K=1)
    if transposed:
        size = Size(R=1, T=3, B=1, I=100, J=summed, K=1)
    tensors = TRITON.given("synaptic_current", size)
    g = torch.randn(1, 3, 1, size.J, device=device)

    def run() -> tuple[Tensor, ...]:
        if transposed:
            return kernel.synaptic_current_backward(g, None, tensors["weight"], tensors["decay"])
        return kernel.synaptic_current(**tensors)

    seen: list[tuple[Tensor, ...]] = []
    depth = {61: 64, 100: 128, 203: 64}[summed]
    for name in ("outputs128", "outputs64", "outputs32"):
        with configs.pinned({f"synaptic_current/S{depth}_O128": name}):
            with launch.recording() as calls:
                run()
            assert f"outputs{calls[0].constants['BO']}" == name
            seen.append(run())
    for other in seen[1:]:
        for got, want in zip(other, seen[0], strict=True):
            assert torch.equal(got, want)


def test_offsets_beyond_32_bits(device: torch.device, tmp_path: Path) -> None:
    """Strides over time, samples and replicas that no 32-bit number holds, in and out."""
    size = Size(R=2, T=2, B=2, I=20, J=6, K=1)
    tensors = TRITON.given("synaptic_current", size)
    far = 2**31 + 4
    memory = sparse(far + 1000, device, tmp_path)
    weight, decay = (tensors[n].mT.contiguous() for n in ("weight", "decay"))
    expected = kernel.synaptic_current(tensors["z"], tensors["weight"], tensors["decay"])
    for strides in ((400, far, 40), (40, 200, far), (far, 200, 40)):
        z = memory.as_strided((2, 2, 2, 20), (*strides, 1))
        z.copy_(tensors["z"])
        last = torch.empty(2, 2, 6, 20, device=device)
        out = torch.empty(1, 2, 2, 2, 6, device=device)
        apart = memory.as_strided((1, 2, 2, 2, 6), (1, *strides, 1), storage_offset=20)
        for result in (out, apart):
            kernel.launch_tiles(
                z, weight, decay, None, result, last, kernel.tile(20, 6), False, False
            )
            assert torch.equal(result[0], expected[0])
            assert torch.equal(last, expected[1])


@pytest.mark.parametrize("operator", ["synaptic_current", "synaptic_current_backward"])
@pytest.mark.parametrize("replicas", [1, 2])
def test_chunks_of_time_side_by_side(
    replicas: int, operator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If allowed, a long sequence of few samples runs in chunks; the numbers stay within bounds."""
    monkeypatch.setattr(time_chunks, "LEAST_STEPS", 3)
    given = TRITON.given(operator, Size(R=replicas, T=14, B=1, I=5, J=4, K=1)) | {"g_trace": None}
    given["decay"].clamp_(max=0.99)
    meta = {n: None if t is None else t.to("meta") for n, t in given.items()}
    plain = TRITON(operator, given)
    with parallel_in_time.parallel_in_time():
        with launch.recording() as calls:
            TRITON(operator, meta)
        assert len([c for c in calls if c.name == "synaptic_current_kernel"]) == 3
        found = TRITON(operator, given)
        torch.use_deterministic_algorithms(True)
        try:
            assert same(TRITON(operator, given), plain)
        finally:
            torch.use_deterministic_algorithms(False)
    check(operator, given, found)


def test_chunks_only_where_they_pay() -> None:
    assert time_chunks.chunks(10_000, 8, 132) == 33
    assert time_chunks.chunks(10_000, 132, 132) == 1
    assert time_chunks.chunks(100, 1, 132) == 1


def test_default_dtype_does_not_matter(device: torch.device) -> None:
    size = Size(R=1, T=3, B=2, I=5, J=4, K=1)
    moved = TRITON.given("feedforward_scan", size)
    expected = layer.fused(**moved)
    torch.set_default_dtype(torch.float64)
    try:
        found = layer.fused(**moved)
    finally:
        torch.set_default_dtype(torch.float32)
    for got, want in zip(found, expected, strict=True):
        assert got.dtype == torch.float32
        assert torch.equal(got, want)
