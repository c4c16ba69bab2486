"""What PyTorch itself offers for modules works with layers and networks, and a pass leaves nothing
behind on what the caller has. A file of its own: the tools are PyTorch's, the cases all layers."""

import copy
import io
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.optim.swa_utils import AveragedModel
from torch.utils.flop_counter import FlopCounterMode

from hetsyn_triton import (
    HetNeuLIF,
    HetSynLIF,
    SpikingNetwork,
    clamp_decays_,
    detach_state,
    make_network,
    parameter_groups,
)
from tests.support.layer_cases import ALL, I, J

T, B = 7, 3


def spikes() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return 2 * (torch.rand(T, B, I, generator=generator) < 0.5).double()


def network_of(seed: int = 0) -> SpikingNetwork:
    generator = torch.Generator().manual_seed(seed)
    return make_network(
        "hetsyn", I, [8, 7], 4, frozen_fraction=0.3, generator=generator, dtype=torch.float64
    )


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for part in value if part is not None for t in tensors(part)]


def assert_equal(found: Any, wanted: Any) -> None:
    for a, b in zip(tensors(found), tensors(wanted), strict=True):
        assert torch.equal(a, b)


def through_a_file(save: Any, load: Any, value: Any) -> Any:
    file = io.BytesIO()
    save(value, file)
    file.seek(0)
    return load(file)


# -- nothing is left behind ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_a_pass_leaves_nothing_behind(name: str) -> None:
    """Every tensor that the caller has can still be resized, and what is set for the process or the
    thread is as it was."""
    layer, x = ALL[name].make(), spikes().requires_grad_()
    settings = {
        "threads": torch.get_num_threads,
        "threads between operators": torch.get_num_interop_threads,
        "subnormal numbers": lambda: (torch.tensor(5e-324).double() * 1).item(),
        "dtype": torch.get_default_dtype,
        "gradients": torch.is_grad_enabled,
        "random numbers": lambda: torch.get_rng_state().sum().item(),
        "deterministic": torch.are_deterministic_algorithms_enabled,
    }
    before = {setting: read() for setting, read in settings.items()}
    output, state = layer(x)
    again, _ = layer(x, state)
    (output.sum() + again.sum()).backward()
    assert {setting: read() for setting, read in settings.items()} == before
    gradients = [p.grad for p in (x, *layer.parameters()) if p.grad is not None]
    assert gradients
    for tensor in (x, output, *tensors(state), *gradients, *layer.parameters(), *layer.buffers()):
        assert tensor.untyped_storage().resizable()
        tensor.detach().resize_(tensor.numel() + 1000)


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_states_are_saved_and_loaded(name: str) -> None:
    """With the default `weights_only=True`."""
    _, state = ALL[name].make()(spikes())
    found = through_a_file(torch.save, torch.load, (state, [state]))
    assert type(found[0]) is type(state)
    assert_equal(found, (state, [state]))


@pytest.mark.parametrize("name", ["HetSynLIF, everything", "HomNeuALIF", "HetNeuReadout"])
def test_exported_programs_are_saved_and_loaded(name: str) -> None:
    layer, x = ALL[name].make(), spikes()
    state = detach_state(layer(x)[1])
    program = torch.export.export(layer, (x, state))
    found = through_a_file(torch.export.save, torch.export.load, program)
    assert_equal(found.module()(x, state), layer(x, state))


# -- other parameters ------------------------------------------------------------------------------


@pytest.mark.parametrize("use_buffers", [False, True])
def test_averaged_models(use_buffers: bool) -> None:
    network = network_of()
    average = AveragedModel(network, use_buffers=use_buffers)
    first = [p.detach().clone() for p in network.parameters()]
    average.update_parameters(network)
    with torch.no_grad():
        for p in network.parameters():
            p.mul_(0.5)
    average.update_parameters(network)
    for p, before in zip(average.module.parameters(), first, strict=True):
        torch.testing.assert_close(p, 0.75 * before)
    average(spikes())
    assert_equal([*average.module.buffers()], [*network.buffers()])


class Half(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return value / 2


@pytest.mark.parametrize("cls", [HetSynLIF, HetNeuLIF])
def test_pruned(cls: Any) -> None:
    """A mask on weights and decays; the clamp reaches the decays underneath."""
    layer = cls(I, J, recurrent=True, dtype=torch.float64)
    prune.random_unstructured(layer, "weight", 0.5)
    prune.random_unstructured(layer, "recurrent_weight", 0.5)
    prune.random_unstructured(layer.decay, "raw", 0.5)
    with torch.no_grad():
        layer.decay.raw_orig.add_(1)
    with pytest.raises(ValueError, match=r"decays in \[0, 1\]"):
        layer(spikes())
    clamp_decays_(layer)
    assert layer.decay.raw_orig.max() == 1
    layer(spikes())[0].sum().backward()
    assert (layer.weight == 0).sum() == layer.weight.numel() // 2
    assert (layer.decay() == 0).sum() >= layer.decay.raw.numel() // 2
    assert {p for g in parameter_groups(layer, 1e-3) for p in g["params"]} == {*layer.parameters()}
    prune.remove(layer, "weight")
    layer(spikes())


def test_parametrized() -> None:
    layer = HetSynLIF(I, J, dtype=torch.float64)
    parametrize.register_parametrization(layer, "weight", Half())
    parametrize.register_parametrization(layer.decay, "raw", Half())
    original = layer.decay.get_parameter("parametrizations.raw.original")
    with torch.no_grad():
        original.add_(5)
    clamp_decays_(layer)
    assert original.min() == original.max() == 1
    assert_equal(layer.decay(), torch.full_like(original, 0.5))
    layer(spikes())[0].sum().backward()
    assert original.grad is not None


def test_weight_norm() -> None:
    layer = HetSynLIF(I, J, dtype=torch.float64)
    wanted = layer(spikes())
    parametrizations.weight_norm(layer)
    found = layer(spikes())
    torch.testing.assert_close(found[1].trace, wanted[1].trace)
    found[0].sum().backward()
    assert layer.get_parameter("parametrizations.weight.original0").grad is not None


@pytest.mark.parametrize("name", ALL)
def test_made_on_the_meta_device_and_filled(name: str) -> None:
    """`reset_parameters` draws what making the layer draws, and restores thresholds and masks."""
    wanted = ALL[name].make(seed=5)
    layer = ALL[name].make(seed=1, device="meta").to_empty(device="cpu")
    for tensor in (*layer.parameters(), *layer.buffers()):
        tensor.detach().fill_(math.nan)
    layer.reset_parameters(torch.Generator().manual_seed(5))
    if ALL[name].options.get("learn_threshold"):
        assert bool((layer.threshold == layer.threshold[0]).all())  # spread by `make` afterwards
        with torch.no_grad():
            layer.threshold.copy_(wanted.threshold)
    assert_equal([*layer.state_dict().values()], [*wanted.state_dict().values()])
    copied = copy.deepcopy(layer)
    copied.reset_parameters(torch.Generator().manual_seed(6))
    assert not torch.equal(copied.weight, layer.weight)


def test_reset_after_pruning_is_refused() -> None:
    layer = HetSynLIF(I, J)
    prune.random_unstructured(layer, "weight", 0.5)
    with pytest.raises(RuntimeError, match="reset_parameters: expected the parameters that"):
        layer.reset_parameters()


# -- what is assigned ------------------------------------------------------------------------------

FIXED = {"dt": 2.0, "tau_reset": 3.0, "out_features": 9, "in_features": 9, "recurrent": True}


@pytest.mark.parametrize("name", FIXED)
def test_arguments_that_have_no_effect_later(name: str) -> None:
    layer = HetSynLIF(I, J)
    with pytest.raises(AttributeError, match=f"^{name}: expected the value that the layer was"):
        setattr(layer, name, FIXED[name])


def test_arguments_that_have_an_effect_later() -> None:
    layer = HetSynLIF(I, J, dtype=torch.float64)
    layer.batch_first = True
    assert layer(spikes().transpose(0, 1))[0].shape == (B, T, J)
    for name, value in (("backend", "nonsense"), ("surrogate", 5), ("detach_reset", "yes")):
        with pytest.raises((TypeError, ValueError), match=f"^{name}: expected "):
            setattr(layer, name, value)


def test_a_class_derived_elsewhere_sets_what_it_likes() -> None:
    class Own(HetSynLIF):
        def __init__(self, rate: float) -> None:
            super().__init__(I, J)
            self.rate = rate

    layer = Own(0.5)
    layer.rate = 0.25
    layer.note = "mine"
    assert layer.rate == 0.25


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ALL)
def test_inputs_and_states_that_are_not_finite(name: str, value: float) -> None:
    """NaN makes no spike, so outputs would look fine."""
    layer, x = ALL[name].make(), spikes()
    _, state = layer(x)
    bad = x.clone()
    bad[1, 1, 2] = value
    with pytest.raises(ValueError, match=r"^x: expected finite values, got 1 NaN or infinite of"):
        layer(bad)
    for field, tensor in state._asdict().items():
        if tensor is not None:
            broken = tensor.detach().clone()
            broken.view(-1)[0] = value
            with pytest.raises(ValueError, match=rf"^state\.{field}: expected finite values"):
                layer(x, state._replace(**{field: broken}))
    with pytest.raises(ValueError, match=r"^x: expected finite"):
        layer(bad[1:2, 1:2])


@pytest.mark.parametrize("function", [parameter_groups, clamp_decays_])
def test_parameters_in_place_of_a_module(function: Any) -> None:
    options = {"lr": 1e-3} if function is parameter_groups else {}
    with pytest.raises(TypeError, match=r"module: expected a torch.nn.Module, got generator"):
        function(network_of().parameters(), **options)


# -- hooks and counters ----------------------------------------------------------------------------


def test_hooks() -> None:
    """Of a whole backward, and of tensors that are kept for it."""
    network, x = network_of(), spikes().requires_grad_()

    def gradients() -> list[Tensor]:
        return [*torch.autograd.grad(network(x)[0].sum(), [x, *network.parameters()])]

    wanted, seen = gradients(), []
    with torch.autograd.graph.save_on_cpu():
        assert_equal(gradients(), wanted)
    for layer in (*network.layers, network):
        layer.register_full_backward_hook(lambda module, *_: seen.append(type(module).__name__))
    assert_equal(gradients(), wanted)
    assert sorted(seen) == ["HetSynLIF", "HetSynLIF", "SpikingNetwork"]


def test_floating_point_operations() -> None:
    """A multiply-add is two; kernels/README.md says how many a synapse takes."""
    synapses = T * B * I * J
    recurrent = T * B * J * J
    for name, forward, backward in (
        ("HetSynLIF", 2 * synapses, 6 * synapses),
        ("HetSynLIF, recurrent", 2 * (synapses + recurrent), 6 * (synapses + recurrent)),
        ("HomNeuLIF, recurrent", synapses + recurrent, 2 * synapses + 2 * recurrent),
        ("HetSynReadout", 2 * synapses, 6 * synapses),
    ):
        layer, x = ALL[name].make(), spikes().requires_grad_()
        with FlopCounterMode(display=False) as counter:
            output, _ = layer(x)
        assert counter.get_total_flops() == 2 * forward, name
        with FlopCounterMode(display=False) as counter:
            output.sum().backward()
        assert counter.get_total_flops() == 2 * backward, name


# -- sharded ---------------------------------------------------------------------------------------

SHARDED = """
import sys
import torch
import torch.distributed as dist
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from hetsyn_triton import clamp_decays_, make_network, parameter_groups

dist.init_process_group("gloo")
steps = (torch.rand(9, 4, 6, generator=torch.Generator().manual_seed(1)) < 0.5).float() * 3


def network():
    generator = torch.Generator().manual_seed(0)
    return make_network("hetsyn", 6, [8, 8], 4, generator=generator)


def trained(network):
    optimizer = torch.optim.SGD(parameter_groups(network, 0.1))
    for _ in range(3):
        optimizer.zero_grad()
        network(steps)[0].square().mean().backward()
        optimizer.step()
        clamp_decays_(network)
    return network


alone = trained(network()).state_dict()
sharded = network()
for layer in (*sharded.layers, sharded.readout):
    fully_shard(layer)
fully_shard(sharded)
for name, value in trained(sharded).state_dict().items():
    whole = value.full_tensor() if hasattr(value, "full_tensor") else value
    torch.testing.assert_close(whole, alone[name], rtol=1e-5, atol=1e-6)
before = sharded.layers[0].weight.full_tensor()
sharded.layers[0].reset_parameters(torch.Generator().manual_seed(4))
after = sharded.layers[0].weight.full_tensor()
assert not torch.equal(before, after)
whole = FullyShardedDataParallel(network(), use_orig_params=True, device_id=torch.device("cpu"))
trained(whole)
dist.destroy_process_group()
print("same", end="")
"""


def test_sharded_over_processes(tmp_path: Path) -> None:
    program = tmp_path / "sharded.py"
    program.write_text(SHARDED)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *launcher, str(program)],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.stdout == "samesame", done.stdout + done.stderr
