"""The spike scan, its reverse and the gradients of the feedback currents against float64.

Forward: teacher-forced, V recomputed in float64 from the kernel's own spikes. Gradients: linear in
what arrives, given the spikes. A feedback current after T steps has at most 2 T roundings on the
way of any term, V another K + 1; the reverse at most (K + 5) T + 1, sums over samples B more.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hetsyn_triton.kernels.gpu import spike_scan as kernel
from hetsyn_triton.kernels.gpu.lib import configs, feedback_gradient as gradient
from hetsyn_triton.kernels.gpu.lib.launch import recording
from hetsyn_triton.reference import closed_form
from tests.support.bounds import assert_spikes_follow, assert_within, sparse
from tests.support.problems import Size, Tensors, problem

pytestmark = pytest.mark.usefixtures("poisoned")

SIZES = [
    Size(R=1, T=1, B=1, J=1, K=1),
    Size(R=3, T=5, B=2, J=3, K=2),
    Size(R=1, T=16, B=3, J=5, K=3),
    Size(R=2, T=33, B=3, J=13, K=1),
    Size(R=1, T=15, B=7, J=11, K=2),
    Size(R=3, T=35, B=1, J=37, K=2),
]
GIVEN = [(True, True, True), (True, False, False), (False, True, False), (False, False, True)]


def scan_problem(size: Size, seed: int = 0, *, states: bool = True) -> Tensors:
    """Float32 numbers; the initial spikes of some sizes are analog."""
    made = problem("spike_scan", size, seed, states=states, dtype=torch.float32)
    if states and size.R == 3:
        made["spike"] = torch.randn(made["spike"].shape, generator=torch.Generator().manual_seed(9))
    return made


def reverse_problem(
    size: Size, given: tuple[bool, bool, bool], *, states: bool = True
) -> dict[str, Any]:
    """Arguments of the backward, but for detach_reset."""
    tensors = scan_problem(size, states=states)
    generator = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    steps = (size.R, size.T, size.B, size.J)
    g = (normal(*steps), normal(*steps), normal(size.R, size.K, size.B, size.J))
    made: dict[str, Any] = {
        name: t if there else None
        for name, t, there in zip(("g_spikes", "g_potential", "g_feedback"), g, given, strict=True)
    }
    made["derivative"] = normal(*steps)
    made["spikes"] = (normal(*steps) > 0.3).float()
    names = ("feedback_decay", "feedback_strength", "feedback", "spike")
    return made | {n: tensors[n] for n in names}


def on(device: torch.device, arguments: dict[str, Any]) -> dict[str, Any]:
    return {n: t.to(device) if isinstance(t, Tensor) else t for n, t in arguments.items()}


def exact(arguments: dict[str, Any]) -> dict[str, Any]:
    return {n: t.double() if isinstance(t, Tensor) else t for n, t in arguments.items()}


def forced(tensors: Tensors, spikes: Tensor, sign: int) -> tuple[Tensor, Tensor]:
    """V and the final feedback in float64 with the spikes given."""
    previous = torch.cat([tensors["spike"].unsqueeze(1), spikes], 1)
    decay, strength = (tensors[n].unsqueeze(2) for n in ("feedback_decay", "feedback_strength"))
    state, potentials = tensors["feedback"], []
    for t in range(spikes.shape[1]):
        state = decay * state + strength * previous[:, t].unsqueeze(1)
        potentials.append(tensors["current"][:, t] - sign * state.sum(1))
    return torch.stack(potentials, 1), state


def reverse_magnitude(arguments: dict[str, Any], detach: bool) -> tuple[Tensor, ...]:
    """The reverse on absolute values, every term added: what cancels in the operator does not."""
    a = {n: t.double().abs() if isinstance(t, Tensor) else t for n, t in arguments.items()}
    decay, strength = (a[n].unsqueeze(2) for n in ("feedback_decay", "feedback_strength"))
    d_feedback = torch.zeros_like(a["feedback"]) if a["g_feedback"] is None else a["g_feedback"]
    d_spike = torch.zeros_like(a["spike"])
    d_threshold = torch.zeros_like(d_spike)
    g_v = torch.zeros_like(a["derivative"])
    for t in reversed(range(g_v.shape[1])):
        if a["g_spikes"] is not None:
            d_spike = d_spike + a["g_spikes"][:, t]
        g = a["derivative"][:, t] * d_spike
        d_threshold = d_threshold + g
        if a["g_potential"] is not None:
            g = g + a["g_potential"][:, t]
        g_v[:, t] = g
        at_step = d_feedback + g.unsqueeze(1)
        d_feedback = decay * at_step
        d_spike = torch.zeros_like(d_spike) if detach else (strength * at_step).sum(1)
    # The sweep of the gradients subtracts g and adds g_feedback: with -g all is added.
    previous = torch.cat([a["spike"].unsqueeze(1), a["spikes"][:, :-1]], 1)
    x, y, f = (torch.zeros_like(a["feedback"]) for _ in range(3))
    f = a["feedback"]
    to_decay, to_strength = torch.zeros_like(f), torch.zeros_like(f)
    for t in range(g_v.shape[1]):
        s, g = previous[:, t].unsqueeze(1), g_v[:, t].unsqueeze(1)
        x, y, f = decay * x + s, decay * y + f, decay * f + strength * s
        to_decay, to_strength = to_decay + g * y, to_strength + g * x
    if a["g_feedback"] is not None:
        to_decay = to_decay + a["g_feedback"] * y
        to_strength = to_strength + a["g_feedback"] * x
    return g_v, d_threshold.sum(1), to_decay.sum(2), to_strength.sum(2), d_feedback, d_spike


@pytest.mark.parametrize("states", [True, False], ids=["states", "zero"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_forward(size: Size, states: bool, device: torch.device) -> None:
    tensors = scan_problem(size, states=states)
    before = {n: t.clone() for n, t in tensors.items()}
    moved = on(device, tensors)
    found = kernel.spike_scan(**moved)
    assert all(o.is_contiguous() and o.dtype == torch.float32 for o in found)
    assert all(torch.equal(moved[n].cpu(), before[n]) for n in before)
    spikes, potential, feedback = (o.cpu() for o in found)
    v, last = forced(exact(tensors), spikes.double(), 1)
    absolute = {n: t.abs() for n, t in exact(tensors).items()}
    v_large, last_large = forced(absolute, spikes.double(), -1)
    n = 2 * size.T + size.K + 1
    assert_within(potential, v, v_large, n, "V")
    assert_within(feedback, last, last_large, n, "feedback")
    assert_spikes_follow(spikes, v, v_large, tensors["threshold"], n)
    assert size.T * size.B * size.J < 50 or 0 < spikes.mean() < 1


def test_threshold_is_strict(device: torch.device) -> None:
    one = torch.ones(1, 1, 1, 1, device=device)
    zero = torch.zeros_like(one)[0]
    spikes, potential, _ = kernel.spike_scan(one, one[0, 0], zero, zero, zero[None], zero)
    assert potential.item() == 1.0
    assert spikes.item() == 0.0


@pytest.mark.parametrize(
    ("given", "detach"), [(given, False) for given in GIVEN] + [(GIVEN[0], True)], ids=str
)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_backward(
    size: Size, given: tuple[bool, bool, bool], detach: bool, device: torch.device
) -> None:
    arguments = reverse_problem(size, given, states=size.T != 15)
    found = kernel.spike_scan_backward(**on(device, arguments), detach_reset=detach)
    expected = closed_form.spike_scan_backward(**exact(arguments), detach_reset=detach)
    n = (size.K + 5) * size.T + 2 * size.T + size.B + 4
    names = ("d_current", "d_threshold", "d_decay", "d_strength", "d_feedback", "d_spike")
    magnitudes = reverse_magnitude(arguments, detach)
    for got, want, magnitude, what in zip(found, expected, magnitudes, names, strict=True):
        assert got.is_contiguous()
        assert_within(got.cpu(), want, magnitude, n, what)
    addresses = {got.data_ptr() for got in found}
    assert len(addresses) == len(found)


def test_no_gradient_at_all(device: torch.device) -> None:
    arguments = on(device, reverse_problem(SIZES[1], (False, False, False)))
    assert not any(o.any() for o in kernel.spike_scan_backward(**arguments))


@pytest.mark.parametrize(
    "size", [Size(R=2, T=0, B=2), Size(R=2, T=3, B=0), Size(R=0, T=3, B=2)], ids=str
)
def test_no_steps_and_no_samples(size: Size, device: torch.device) -> None:
    tensors = on(device, scan_problem(size))
    spikes, potential, last = kernel.spike_scan(**tensors)
    assert spikes.shape == potential.shape == tensors["current"].shape
    assert torch.equal(last, tensors["feedback"])
    arguments = on(device, reverse_problem(size, (True, True, True)))
    found = kernel.spike_scan_backward(**arguments)
    expected = closed_form.spike_scan_backward(**arguments)
    for got, want in zip(found, expected, strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float16, torch.bfloat16])
def test_input_types(dtype: torch.dtype, device: torch.device) -> None:
    arguments = on(device, reverse_problem(SIZES[1], (True, True, True)))
    arguments["spike"] = (arguments["spike"] > 0).float()
    typed = arguments | {n: arguments[n].to(dtype) for n in ("spikes", "spike")}
    for got, want in zip(
        kernel.spike_scan_backward(**typed), kernel.spike_scan_backward(**arguments), strict=True
    ):
        assert torch.equal(got, want)
    tensors = on(device, scan_problem(SIZES[1]))
    current = tensors["current"].to(dtype)
    for got, want in zip(
        kernel.spike_scan(**(tensors | {"current": current})),
        kernel.spike_scan(**(tensors | {"current": current.float()})),
        strict=True,
    ):
        assert torch.equal(got, want)


def strided(steps: Tensor, kind: str) -> Tensor:
    if kind == "batch first":
        return steps.transpose(1, 2).contiguous().transpose(1, 2)
    if kind == "gaps":
        wide = torch.full((*steps.shape[:3], 2 * steps.shape[3] + 1), torch.nan).to(steps)
        return wide[..., 1::2].copy_(steps)
    if kind == "features first":
        return steps.permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0)
    long = torch.full((steps.numel() + 1,), torch.nan).to(steps)
    return long[1:].view(steps.shape).copy_(steps)


@pytest.mark.parametrize("kind", ["batch first", "gaps", "features first", "offset"])
def test_strides(kind: str, device: torch.device) -> None:
    size = Size(R=2, T=18, B=3, J=7, K=2)
    tensors = on(device, scan_problem(size))
    moved = tensors | {"current": strided(tensors["current"], kind)}
    moved |= {n: moved[n].mT.contiguous().mT for n in ("feedback", "feedback_decay", "spike")}
    for got, want in zip(kernel.spike_scan(**moved), kernel.spike_scan(**tensors), strict=True):
        assert got.is_contiguous()
        assert torch.equal(got, want)
    arguments = on(device, reverse_problem(size, (True, True, True)))
    steps = ("g_spikes", "g_potential", "derivative", "spikes")
    moved = arguments | {n: strided(arguments[n], kind) for n in steps}
    moved |= {n: moved[n].mT.contiguous().mT for n in ("g_feedback", "feedback", "spike")}
    for got, want in zip(
        kernel.spike_scan_backward(**moved), kernel.spike_scan_backward(**arguments), strict=True
    ):
        assert torch.equal(got, want)


def test_expanded_gradients(device: torch.device) -> None:
    """The gradient of a plain sum has no strides at all."""
    arguments = on(device, reverse_problem(Size(R=2, T=5, B=3, J=7, K=1), (True, True, True)))
    ones = torch.ones((), device=device).expand(2, 5, 3, 7)
    found = kernel.spike_scan_backward(**(arguments | {"g_spikes": ones}))
    wanted = kernel.spike_scan_backward(**(arguments | {"g_spikes": ones.contiguous()}))
    assert all(torch.equal(got, want) for got, want in zip(found, wanted, strict=True))


def test_a_sample_does_not_depend_on_its_batch_nor_on_chunks(device: torch.device) -> None:
    size = Size(R=2, T=37, B=5, J=13, K=2)
    tensors = on(device, scan_problem(size))
    whole = kernel.spike_scan(**tensors)
    again = kernel.spike_scan(**tensors)
    assert all(torch.equal(got, want) for got, want in zip(again, whole, strict=True))
    alone = kernel.spike_scan(
        **{n: t[1:] for n, t in tensors.items() if n not in ("current", "feedback", "spike")},
        current=tensors["current"][1:, :, 3:4],
        feedback=tensors["feedback"][1:, :, 3:4],
        spike=tensors["spike"][1:, 3:4],
    )
    assert torch.equal(alone[0], whole[0][1:, :, 3:4])
    assert torch.equal(alone[1], whole[1][1:, :, 3:4])
    assert torch.equal(alone[2], whole[2][1:, :, 3:4])
    current = tensors.pop("current")
    for cut in (1, 16, 21):
        first = kernel.spike_scan(current[:, :cut], **tensors)
        states = {"feedback": first[2], "spike": first[0][:, -1]}
        second = kernel.spike_scan(current[:, cut:], **(tensors | states))
        assert torch.equal(torch.cat([first[0], second[0]], 1), whole[0])
        assert torch.equal(torch.cat([first[1], second[1]], 1), whole[1])
        assert torch.equal(second[2], whole[2])


def test_the_reverse_of_a_sample_does_not_depend_on_its_batch(device: torch.device) -> None:
    arguments = on(device, reverse_problem(Size(R=2, T=21, B=5, J=13, K=2), (True, True, True)))
    whole = kernel.spike_scan_backward(**arguments)
    by_sample = {"g_spikes": 2, "g_potential": 2, "g_feedback": 2, "derivative": 2, "spikes": 2}
    by_sample |= {"feedback": 2, "spike": 1}
    alone = kernel.spike_scan_backward(
        **{n: t.narrow(by_sample[n], 3, 1) if n in by_sample else t for n, t in arguments.items()}
    )
    assert torch.equal(alone[0], whole[0][:, :, 3:4])
    assert torch.equal(alone[4], whole[4][:, :, 3:4])
    assert torch.equal(alone[5], whole[5][:, 3:4])


def test_no_configuration_changes_a_bit(device: torch.device) -> None:
    size = Size(R=2, T=37, B=4, J=13, K=2)
    tensors = on(device, scan_problem(size))
    arguments = on(device, reverse_problem(size, (True, True, True)))
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
    tensors = on(device, scan_problem(size))
    expected = kernel.spike_scan(**tensors)
    neuron = {n: tensors[n] for n in tensors if n != "current"}
    current, spikes, potential = places[:3]
    current.copy_(tensors["current"])
    last = kernel.launch_scan(current, **neuron, spikes=spikes, potential=potential)
    for got, want in zip((spikes, potential, last), expected, strict=True):
        assert torch.equal(got, want)

    arguments = on(device, reverse_problem(size, (True, True, True)))
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
    tensors = {n: t.to("meta") for n, t in scan_problem(size).items()}
    with recording() as calls:
        kernel.spike_scan(**tensors)
        kernel.spike_scan_backward(
            **on(torch.device("meta"), reverse_problem(size, (True, False, True)))
        )
    assert [c.name for c in calls] == [
        "spike_scan_kernel",
        "spike_scan_backward_kernel",
        "add_partials_kernel",
        "feedback_gradient_kernel",
        "add_partials_kernel",
        "add_partials_kernel",
    ]


def test_cost() -> None:
    assert kernel.cost(1, 250, 256, 128, 1).hbm == 4 * 256 * 128 * (3 * 250 + 3)
    assert kernel.cost(1, 250, 256, 128, 1, backward=True).hbm == 4 * 256 * 128 * (4 * 250 + 5)
    assert gradient.cost(1, 250, 256, 128, 1).hbm == 4 * 256 * 128 * (2 * 250 + 7)
