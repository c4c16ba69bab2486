"""How the Triton kernels of neurons are launched: tiles, far strides, what is launched."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hetsyn_triton.kernels.gpu import spike_scan as kernel
from hetsyn_triton.kernels.gpu.lib import configs, feedback_gradient as gradient
from hetsyn_triton.kernels.gpu.lib.launch import recording
from tests.support.bounds import sparse
from tests.support.implementations import TRITON
from tests.support.operators import Size

pytestmark = pytest.mark.usefixtures("poisoned")


def test_no_configuration_changes_a_bit(device: torch.device) -> None:
    size = Size(R=2, T=37, B=4, J=13, K=2)
    tensors = TRITON.given("spike_scan", size)
    arguments = TRITON.given("spike_scan_backward", size)
    seen = []
    for name in ("warps1_steps16", "warps1_steps8", "warps4_steps16", "warps4_steps8"):
        kernels = ("spike_scan", "spike_scan_backward", "feedback_gradient")
        with configs.pinned({f"{k}/few": name for k in kernels}):
            with recording() as calls:
                kernel.spike_scan(**tensors)
            assert f"warps{calls[0].num_warps}_steps{calls[0].constants['U']}" == name
            seen.append((*kernel.spike_scan(**tensors), *kernel.spike_scan_backward(**arguments)))
    for other in seen[1:]:
        assert all(torch.equal(got, want) for got, want in zip(other, seen[0], strict=True))


@pytest.mark.parametrize("far_axis", [0, 1, 2], ids=["replica", "time", "sample"])
def test_offsets_beyond_32_bits(far_axis: int, device: torch.device, tmp_path: Path) -> None:
    size = Size(R=2, T=2, B=2, J=6, K=1)
    far = 2**31 + 4
    memory = sparse(far + 1000, device, tmp_path)
    near = [80, 40]
    strides = [far if axis == far_axis else near.pop() for axis in range(3)]
    # Six tensors beside one another, six elements apart.
    places = [memory.as_strided((2, 2, 2, 6), (*strides, 1), 6 * place) for place in range(6)]
    tensors = TRITON.given("spike_scan", size)
    expected = kernel.spike_scan(**tensors)
    neuron = {n: tensors[n] for n in tensors if n != "current"}
    current, spikes, potential = places[:3]
    current.copy_(tensors["current"])
    last = kernel.launch_scan(current, **neuron, spikes=spikes, potential=potential)
    for got, want in zip((spikes, potential, last), expected, strict=True):
        assert torch.equal(got, want)

    arguments = TRITON.given("spike_scan_backward", size)
    wanted = kernel.spike_scan_backward(**arguments)
    names = ("g_spikes", "g_potential", "derivative", "spikes")
    for name, place in zip(names, places, strict=False):
        place.copy_(arguments[name])
    moved = arguments | dict(zip(names, places, strict=False))
    g_v = places[5]
    _, d_feedback, d_spike = kernel.launch_reverse(
        **{n: moved[n] for n in ("g_spikes", "g_potential", "g_feedback", "derivative")},
        **{n: moved[n] for n in ("feedback_decay", "feedback_strength")},
        g_v=g_v,
        detach_reset=False,
    )
    last_four = ("feedback_decay", "feedback_strength", "feedback", "spike")
    d_decay, d_strength = gradient.feedback_gradient(
        g_v, moved["g_feedback"], moved["spikes"], *(moved[n] for n in last_four)
    )
    found = (g_v, d_decay, d_strength, d_feedback, d_spike)
    for got, want in zip(found, (wanted[0], *wanted[2:]), strict=True):
        assert torch.equal(got, want)


def test_launches_without_reading() -> None:
    """Sizes decide everything: the launches can be recorded on the meta device."""
    size = Size(R=1, T=7, B=3, J=5, K=2)
    meta = replace(TRITON, device=torch.device("meta"))
    with recording() as calls:
        for operator in ("spike_scan", "spike_scan_backward"):
            meta(operator, meta.given(operator, size) | {"g_potential": None})
    assert [c.name for c in calls] == [
        "spike_scan_kernel",
        "spike_scan_backward_kernel",
        "add_partials_kernel",
        "feedback_gradient_kernel",
        "add_partials_kernel",
        "add_partials_kernel",
    ]
