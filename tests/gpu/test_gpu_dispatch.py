"""From the public API down to the kernels: what PyTorch's dispatcher would call on a GPU.

Without a GPU the same functions that are registered for CUDA are put under the CPU's key for the
length of a test, so that layers, autograd and vmap run on interpreted kernels.
"""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from hetsyn_triton import (
    HetNeuLIF,
    HetSynLIF,
    HetSynReadout,
    HomNeuALIF,
    HomNeuLIF,
    SpikingNetwork,
    trial_kernels,
)
from hetsyn_triton.kernels.gpu.lib import launch
from hetsyn_triton.ops.dispatch import _NEEDED, BackendUnavailableError, resolve
from hetsyn_triton.surrogates import Triangular
from tests.support.operators import Size
from tests.support.random_arguments import apply, problem


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels that ran."""
    names: list[str] = []
    run = launch._run

    def noted(call: launch.Launch) -> None:
        names.append(call.name)
        run(call)

    monkeypatch.setattr(launch, "_run", noted)
    monkeypatch.setattr(launch, "_run_again", noted)
    return names


def trained(module: torch.nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    output, _ = module(x)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(0))
    (output * weights.to(output)).sum().backward()
    return output.detach(), {n: p.grad for n, p in module.named_parameters()}  # type: ignore[misc]


ADAPTIVE: dict[str, Any] = {"adaptation": 0.1, "tau_adaptation": 30.0}
LAYERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "HetSynLIF": (HetSynLIF, {}),
    "HetSynLIF adaptive": (HetSynLIF, ADAPTIVE),
    "HetNeuLIF": (HetNeuLIF, {}),
    "HomNeuLIF": (HomNeuLIF, {"tau": 6.0}),
    "HomNeuALIF": (HomNeuALIF, ADAPTIVE),
}


@pytest.mark.parametrize("recurrent", [False, True], ids=["feedforward", "recurrent"])
@pytest.mark.parametrize("layer_name", LAYERS)
@pytest.mark.usefixtures("on_kernels")
def test_a_network_trains_on_the_kernels(
    recurrent: bool, layer_name: str, device: torch.device, launched: list[str]
) -> None:
    """Outputs and gradients of float32 kernels and float64 closed forms, at equal spikes. Those of
    layers with a decay per neuron are on trial."""
    leaky = not layer_name.startswith("HetSyn")

    def network(dtype: torch.dtype) -> SpikingNetwork:
        generator = torch.Generator().manual_seed(1)
        cls, options = LAYERS[layer_name]
        layer = cls(
            5,
            9,
            recurrent=recurrent,
            learn_threshold=True,
            generator=generator,
            dtype=dtype,
            **options,
        )
        readout = HetSynReadout(9, 3, generator=generator, dtype=dtype)
        return SpikingNetwork([layer], readout)

    single = network(torch.float32).to(device)
    double = network(torch.float64)
    with torch.no_grad():  # the same numbers, those of float32
        for p, q in zip(double.parameters(), single.parameters(), strict=True):
            p.copy_(q)
    x = 2 * torch.rand(9, 2, 5, generator=torch.Generator().manual_seed(2)).round()
    with trial_kernels() if leaky else nullcontext():
        output, grads = trained(single, x.to(device))
    scan = ("leaky_" if leaky else "") + "recurrent_scan"
    if recurrent:
        assert {f"{scan}_kernel", f"{scan}_backward_kernel"} <= set(launched)
    elif leaky:
        assert {"leaky_current_kernel", "leaky_current_backward_kernel"} <= set(launched)
    else:
        assert {"feedforward_scan_kernel", "spike_scan_kernel"} & set(launched)
    assert any("gradient" in name for name in launched)
    expected, expected_grads = trained(double, x.double())
    scale = expected.abs().max()
    assert (output.cpu() - expected).abs().max() < 1e-5 * scale
    for name, want in expected_grads.items():
        got = grads[name].cpu()
        assert (got - want).abs().max() <= 2e-5 * want.abs().max() + 1e-6, name


@pytest.mark.parametrize("recurrent", [False, True], ids=["feedforward", "recurrent"])
@pytest.mark.usefixtures("on_kernels")
def test_a_backward_on_trial_is_one_launch(
    recurrent: bool, device: torch.device, launched: list[str]
) -> None:
    """Inside `trial_kernels()` a scan computes its surrogate and the gradients of its feedback
    currents. Those of a user's surrogate, which is data to the scan, are the same."""

    def gradients(surrogate: Any) -> dict[str, Tensor]:
        layer = HetSynLIF(
            5,
            9,
            recurrent=recurrent,
            learn_threshold=True,
            surrogate=surrogate,
            generator=torch.Generator().manual_seed(1),
            device=device,
            **ADAPTIVE,
        )
        x = 2 * torch.rand(9, 2, 5, generator=torch.Generator().manual_seed(2)).round()
        launched.clear()
        return trained(layer, x.to(device))[1]

    expected = gradients(Triangular())
    two = {"surrogate_kernel", "feedback_gradient_kernel"}
    assert two < set(launched)
    with trial_kernels():
        inside = gradients(Triangular())
        assert not two & set(launched)
        own = gradients(lambda u, threshold: Triangular()(u, threshold))
        assert not two & set(launched)
    for name, want in expected.items():
        assert want.any(), name
        for found in (inside[name], own[name]):
            torch.testing.assert_close(found, want, rtol=2e-5, atol=2e-5 * float(want.abs().max()))


@pytest.mark.usefixtures("on_kernels")
def test_vmap_folds_replicas_into_one_launch(device: torch.device, launched: list[str]) -> None:
    tensors = problem("synaptic_current", Size(R=2, T=3, B=2), dtype=torch.float32, states=False)
    z, weight, decay = (tensors[n].to(device) for n in ("z", "weight", "decay"))
    sets = torch.stack([weight, 2 * weight, -weight])
    together, _ = torch.func.vmap(lambda w: apply("synaptic_current", z, w, decay, None))(sets)
    assert launched == ["synaptic_current_kernel"]
    for got, factor in zip(together, (1, 2, -1), strict=True):
        assert torch.equal(got, factor * together[0])


@pytest.mark.usefixtures("on_kernels")
def test_float64_takes_the_closed_form(device: torch.device, launched: list[str]) -> None:
    """`auto` runs it, `triton` says why it cannot."""
    tensors: dict[str, Any] = problem("synaptic_current", Size(T=3))
    tensors = {n: t.to(device) for n, t in tensors.items()}
    current, _ = apply("synaptic_current", **tensors)
    assert current.dtype == torch.float64
    assert launched == []
    with pytest.raises(
        BackendUnavailableError, match=r"compute in float32, the parameters are float64"
    ):
        resolve("triton", torch.device("cuda"), "synaptic_current", torch.float64)


@pytest.mark.parametrize("operator", _NEEDED)
def test_triton_is_there_or_says_why(operator: str) -> None:
    """Every operator has a kernel; those not tested on a GPU yet say how they are chosen."""
    if operator.startswith("leaky"):
        with pytest.raises(BackendUnavailableError, match=r"it runs inside trial_kernels\(\)"):
            resolve("triton", torch.device("cuda"), operator)
    with trial_kernels():
        assert resolve("triton", torch.device("cuda"), operator) == "dispatcher"


@pytest.mark.usefixtures("on_kernels")
def test_kernels_on_trial_run_inside_the_switch_only(
    device: torch.device, launched: list[str]
) -> None:
    tensors = problem("leaky_current", Size(T=3), dtype=torch.float32)
    given: dict[str, Any] = {n: t.to(device) for n, t in tensors.items()}
    (expected,) = apply("leaky_current", **given)
    assert launched == []
    with trial_kernels():
        (found,) = apply("leaky_current", **given)
    assert launched == ["leaky_current_kernel"]
    torch.testing.assert_close(found, expected)
