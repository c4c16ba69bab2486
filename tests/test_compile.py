"""Layers as PyTorch modules: copied, pickled, saved, moved, compiled, exported, mapped."""

import copy
import inspect
import io
import math
import pickle
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.backends.debugging import aot_eager
from torch._functorch._aot_autograd.utils import make_boxed_func

from hetsyn_triton import (
    MODELS,
    ATan,
    HetNeuLIF,
    HetSynLIF,
    HomNeuLIF,
    clamp_decays_,
    detach_state,
    make_network,
    parameter_groups,
    trial_kernels,
)
from hetsyn_triton.surrogates import MultiGaussian, Sigmoid
from tests.support.layer_cases import ALL, SPIKING, I, normal_like, spikes as random_spikes
from tests.support.tensors import total

T, B = 7, 3
SOME = ["HetSynLIF, recurrent", "HetNeuLIF, everything", "HetSynReadout"]
ALWAYS = [*SOME, "HetSynLIF", "HetSynLIF, everything", "HomNeuLIF, tied", "HetNeuReadout"]
"""Those compiled in every run; the others, which add little, under --full."""
COMPILED = [n if n in ALWAYS else pytest.param(n, marks=pytest.mark.full) for n in ALL]


@pytest.fixture
def fresh_dynamo() -> Iterator[None]:
    """Nothing compiled is left over from, or for, another test."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def flat(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    return [t for part in result if part is not None for t in flat(part)]


def weighted(outputs: list[Tensor]) -> Tensor:
    """A linear function of all outputs, without random numbers, which vmap refuses."""
    total = torch.zeros((), dtype=torch.float64)
    for k, o in enumerate(outputs):
        ramp = torch.linspace(-1, 2, o.numel(), dtype=o.dtype).reshape(o.shape)
        total = total + (o * torch.cos(3 * ramp + k)).sum()
    return total


def everything(call: Any, layer: Any, x: Tensor, state: Any = None) -> list[Tensor]:
    """Outputs, states and all gradients of a linear function of them."""
    x = x.clone().requires_grad_()
    outputs = flat(call(x, state))
    loss = weighted(outputs)
    gradients = torch.autograd.grad(loss, [x, *layer.parameters()])
    return [*(o.detach() for o in outputs), *gradients]


def assert_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


# -- copied, pickled, saved, moved -----------------------------------------------------------------


def saved(layer: nn.Module) -> Any:
    """Through a file, read back without executing code."""
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def reloaded(name: str, layer: nn.Module) -> nn.Module:
    other: nn.Module = ALL[name].make(seed=99)
    other.load_state_dict(saved(layer))
    return other


COPIES: dict[str, Callable[[str, nn.Module], nn.Module]] = {
    "deepcopy": lambda name, layer: copy.deepcopy(layer),
    "pickle": lambda name, layer: pickle.loads(pickle.dumps(layer)),
    "state_dict": reloaded,
    "to and back": lambda name, layer: layer.to(torch.float64).to("cpu"),
}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("name", ALL)
def test_a_copy_is_the_same_layer(name: str, way: str) -> None:
    """Same numbers and gradients, same attributes; and it learns apart from the first."""
    layer, x = ALL[name].make(), random_spikes(T, B, I)
    expected = everything(layer, layer, x)
    state = detach_state(layer(x)[1])
    after = everything(layer, layer, x, state)
    other = COPIES[way](name, layer)
    assert_equal(everything(other, other, x), expected)
    assert_equal(everything(other, other, x, pickle.loads(pickle.dumps(state))), after)
    assert repr(other) == repr(layer)
    assert (other is layer) or not shared_memory(other, layer)


def shared_memory(a: nn.Module, b: nn.Module) -> bool:
    pointers = [{t.data_ptr() for t in m.state_dict().values()} for m in (a, b)]
    return bool(pointers[0] & pointers[1])


@pytest.mark.parametrize("cls", [HetSynLIF, HetNeuLIF])
def test_a_state_dict_fits_learning_and_fixed_decays(cls: Any) -> None:
    """`learn_decay` and `learn_threshold` do not change the names of what is saved."""
    learning = cls(3, 4, recurrent=True, learn_threshold=True)
    fixed = cls(3, 4, recurrent=True, learn_decay=False)
    x = torch.rand(T, B, 3)
    for source, target in ((learning, fixed), (fixed, learning)):
        target.load_state_dict(saved(source))
        assert all(torch.equal(a, b) for a, b in zip(flat(source(x)), flat(target(x)), strict=True))


def test_a_frozen_fraction_travels_with_its_mask() -> None:
    """The layer loaded into freezes what the saved one froze, at the saved values."""
    options: dict[str, Any] = {"frozen_fraction": 0.5, "decay_parametrization": "sigmoid"}
    a, b = (HetSynLIF(6, 5, **options) for _ in range(2))
    assert a.decay.frozen is not None
    assert b.decay.frozen is not None
    assert not torch.equal(a.decay.frozen, b.decay.frozen)
    b.load_state_dict(saved(a))
    assert torch.equal(a.decay.frozen, b.decay.frozen)
    assert torch.equal(a.decay(), b.decay())


@pytest.mark.parametrize("name", ALL)
def test_moved_to_float64(name: str) -> None:
    """`.to(float64)`: every tensor moves, numbers stay, and the layer runs in float64."""
    narrow = ALL[name].make(dtype=torch.float32)
    wide = copy.deepcopy(narrow).double()
    for key, value in wide.state_dict().items():
        assert value.dtype == torch.float64
        assert torch.equal(value, narrow.state_dict()[key].to(value.dtype))
    output, state = wide(random_spikes(T, B, I))
    assert all(t.dtype == torch.float64 for t in flat((output, state)))


@pytest.mark.parametrize("name", ALL)
def test_on_the_meta_device(name: str) -> None:
    """Shapes without numbers: made there, moved there, and run there; then filled from a file."""
    x = random_spikes(T, B, I)
    layer = ALL[name].make()
    for other in (
        copy.deepcopy(layer).to("meta"),
        ALL[name].cls(I, 5, **ALL[name].options, device="meta"),
    ):
        other = other.to(torch.float64)
        assert all(t.is_meta for t in other.state_dict().values())
        for got, want in zip(flat(other(x.to("meta"))), flat(layer(x)), strict=True):
            assert got.is_meta
            assert got.shape == want.shape
        other.load_state_dict(saved(layer), assign=True)
        assert_equal(flat(other(x)), flat(layer(x)))


def test_an_optimizer_carries_on_from_a_file() -> None:
    """Layer and optimizer saved after a step and loaded elsewhere take the same next step."""

    def step(layer: HetSynLIF, optimizer: torch.optim.Optimizer, seed: int) -> None:
        output, _ = layer(random_spikes(T, B, I, seed=seed))
        optimizer.zero_grad()
        (output * normal_like(output, seed)).sum().backward()
        optimizer.step()
        clamp_decays_(layer)

    def fresh() -> tuple[HetSynLIF, torch.optim.Optimizer]:
        layer = SPIKING["HetSynLIF, everything"].make()
        return layer, torch.optim.AdamW(parameter_groups(layer, 0.01, 0.1))

    layer, optimizer = fresh()
    step(layer, optimizer, 0)
    other, again = fresh()
    other.load_state_dict(saved(layer))
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for part in ((layer, optimizer), (other, again)):
        step(*part, 1)
    for a, b in zip(layer.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


# -- compiled and exported -------------------------------------------------------------------------


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_without_graph_breaks(name: str) -> None:
    """Outputs, states and all gradients of torch.compile(fullgraph=True), from no state and from a
    given one."""
    layer, x = ALL[name].make(), random_spikes(T, B, I)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    _, state = layer(x)
    for before in (None, detach_state(state)):
        assert_equal(everything(compiled, layer, x, before), everything(layer, layer, x, before))


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("kind", ["unbatched", "batch first", "bool", "no_grad", "autocast"])
def test_compiled_in_every_way_of_a_call(name: str, kind: str) -> None:
    layer = ALL[name].make(batch_first=kind == "batch first")
    x = random_spikes(T, B, I)
    x = x[:, 0] if kind == "unbatched" else x.bool() if kind == "bool" else x
    compiled: Any = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with (
        torch.set_grad_enabled(kind != "no_grad"),
        torch.autocast("cpu", enabled=kind == "autocast"),
    ):
        assert_equal(flat(compiled(x)), flat(layer(x)))


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize(
    "model", ["hetsyn", *(pytest.param(m, marks=pytest.mark.full) for m in MODELS[1:])]
)
def test_a_network_compiled(model: str) -> None:
    """Two layers and readout, outputs and gradients; one compilation serves further lengths and
    batches."""
    generator = torch.Generator().manual_seed(0)
    options: dict[str, Any] = {"surrogate": ATan(), "dtype": torch.float64, "generator": generator}
    network = make_network(model, I, [8, 7], 4, **options)
    graphs = []

    def counting(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return aot_eager(graph, inputs)

    compiled = torch.compile(network, fullgraph=True, backend=counting)
    for steps, batch in ((5, 3), (8, 4), (11, 2)):
        x = 3 * random_spikes(steps, batch, I)
        assert network(x, return_spikes=True)[2][-1].sum() > 0
        assert_equal(everything(compiled, network, x), everything(network, network, x))
    assert len(graphs) <= 2


@pytest.mark.usefixtures("fresh_dynamo")
def test_dropout_compiled() -> None:
    network = make_network("hetneu", I, [8], 4, dropout=0.5, dtype=torch.float64)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    output, _, spikes = compiled(9 * random_spikes(T, B, I), return_spikes=True)
    output.sum().backward()
    assert len(spikes) == 1


def kept_graphs() -> tuple[list[torch.fx.GraphModule], Any]:
    """A list, and a backend that adds the graphs of forward and backward to it."""
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return make_boxed_func(graph.forward)

    return graphs, aot_autograd(fw_compiler=keep, bw_compiler=keep)


@pytest.mark.usefixtures("fresh_dynamo")
def test_compiled_inside_the_switch_and_outside() -> None:
    """Inside `trial_kernels()` a backward scan and its surrogate are one operator; a graph made
    there is not used outside."""
    graphs, backend = kept_graphs()
    layer = HetSynLIF(I, 4, recurrent=True, dtype=torch.float64)
    compiled: Any = torch.compile(layer, fullgraph=True, backend=backend)
    x = 3 * random_spikes(T, B, I)

    def run() -> tuple[list[Tensor], list[str]]:
        """Gradients, and the backward scans of the graphs that are new."""
        graphs.clear()
        gradients = torch.autograd.grad(compiled(x)[0].sum(), list(layer.parameters()))
        nodes = [str(node.target) for graph in graphs for node in graph.graph.nodes]
        return list(gradients), [n for n in nodes if "scan" in n and "backward" in n]

    plain, operators = run()
    assert operators == ["hetsyn_triton.recurrent_scan_backward.default"]
    with trial_kernels():
        inside, operators = run()
    assert operators == ["hetsyn_triton.recurrent_scan_surrogate_backward.default"]
    again, operators = run()
    assert operators == []
    assert_equal(inside, plain)
    assert_equal(again, plain)


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("name", COMPILED)
def test_what_cuda_graphs_need(name: str) -> None:
    """Forward and backward are one graph each, with no CPU tensor, host read or changed argument.

    The meta device stands in for a GPU: a host read from it raises an error. Whether PyTorch then
    uses CUDA graphs is tested on a GPU (tests/gpu/test_gpu_graphs.py).
    """
    graphs, backend = kept_graphs()
    layer = ALL[name].make().to("meta")
    compiled: Any = torch.compile(layer, fullgraph=True, backend=backend)
    x = torch.empty(T, B, I, dtype=torch.float64, device="meta", requires_grad=True)
    outputs = flat(compiled(x, detach_state(layer(x)[1])))
    torch.autograd.grad(total(o.sum() for o in outputs), [x, *layer.parameters()])
    assert len(graphs) == 2
    nodes = [node for graph in graphs for node in graph.graph.nodes]
    for node in nodes:
        for value in flat(node.meta.get("val", ())):
            assert value.device.type == "meta", node.format_node()
    called = [node.target for node in nodes if node.op == "call_function"]
    operators = [target for target in called if isinstance(target, torch._ops.OpOverload)]
    assert any(operator.namespace == "hetsyn_triton" for operator in operators)
    for operator in operators:
        assert not operator._schema.is_mutable, operator
        assert operator is not torch.ops.aten._local_scalar_dense.default


def own(u: Tensor, threshold: Tensor) -> Tensor:
    """A user's surrogate: `ATan`, relative to the threshold."""
    return 1 / (1 + (math.pi * u / threshold) ** 2)


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("cls", [HetSynLIF, pytest.param(HetNeuLIF, marks=pytest.mark.full)])
def test_a_users_surrogate_compiled(cls: Any) -> None:
    """One Python function, or a closure; and it is used: another gives other gradients."""
    x = 3 * random_spikes(T, B, I)
    scale, found = 0.1, []
    for surrogate in (
        own,
        lambda u, threshold: scale + 0 * u,
    ):
        generator = torch.Generator().manual_seed(0)
        layer = cls(
            I, 5, recurrent=True, surrogate=surrogate, dtype=torch.float64, generator=generator
        )
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        found.append(everything(compiled, layer, x))
        assert_equal(found[-1], everything(layer, layer, x))
    assert not torch.allclose(found[0][-1], found[1][-1])


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # inductor's own
@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("name", SOME)
def test_compiled_by_inductor(name: str) -> None:
    """The default compiler, with generated code around the operators (needs a C++ compiler)."""
    layer, x = ALL[name].make(), random_spikes(T, B, I)
    compiled = torch.compile(layer, fullgraph=True)
    found, expected = everything(compiled, layer, x), everything(layer, layer, x)
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", COMPILED)
def test_exported(name: str) -> None:
    """torch.export: one program for every T and B, with the operators inside."""
    layer, x = ALL[name].make(), random_spikes(T, B, I)
    steps, batch = torch.export.Dim("steps", min=2), torch.export.Dim("batch", min=2)
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: steps, 1: batch},))
    assert "hetsyn_triton." in str(program.graph)
    for shape in ((T, B, I), (T + 4, B + 2, I)):
        x = random_spikes(*shape, seed=4)
        found, expected = program.module()(x), layer(x)
        assert_equal(flat(found), flat(expected))


# -- mapped ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("inputs", ["shared", "own"])
@pytest.mark.parametrize("name", ALL)
def test_replicas_by_vmap(name: str, inputs: str) -> None:
    """vmap of functional_call over stacked parameters: outputs and gradients of a loop over layers
    of different seeds, as in a study of many seeds."""
    layers = [ALL[name].make(seed) for seed in range(4)]
    parameters, buffers = torch.func.stack_module_state(layers)
    x = random_spikes(4, T, B, I) if inputs == "own" else random_spikes(T, B, I)
    base = copy.deepcopy(layers[0]).to("meta")

    def loss(parameters: Any, buffers: Any, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        outputs = flat(torch.func.functional_call(base, (parameters, buffers), (x,)))
        return weighted(outputs), outputs

    in_dims = (0, 0, 0 if inputs == "own" else None)
    gradients, outputs = torch.func.vmap(torch.func.grad(loss, has_aux=True), in_dims)(
        parameters, buffers, x
    )
    for index, layer in enumerate(layers):
        one = x[index] if inputs == "own" else x
        total, expected = loss(dict(layer.named_parameters()), dict(layer.named_buffers()), one)
        names = [n for n, _ in layer.named_parameters()]
        wanted = torch.autograd.grad(total, list(layer.parameters()))
        assert_equal([o[index] for o in outputs], [o.detach() for o in expected])
        for key, want in zip(names, wanted, strict=True):
            torch.testing.assert_close(gradients[key][index], want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", SOME)
def test_a_gradient_per_sample(name: str) -> None:
    """vmap over the batch of grad: as a loop over unbatched calls."""
    layer, x = ALL[name].make(), random_spikes(T, B, I)
    parameters = {n: p.detach() for n, p in layer.named_parameters()}

    def loss(parameters: Any, x: Tensor) -> Tensor:
        output, _ = torch.func.functional_call(layer, parameters, (x,))
        return weighted([output])

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 1))(parameters, x)
    for b in range(B):
        one = torch.func.grad(loss)(parameters, x[:, b])
        for key in parameters:
            torch.testing.assert_close(found[key][b], one[key], rtol=1e-11, atol=1e-11)


# -- read by people --------------------------------------------------------------------------------


def test_signatures_name_every_argument() -> None:
    """help() of a layer lists what its bases take, too, each with its default."""

    found = inspect.signature(HetSynLIF).parameters
    assert "options" not in found
    assert list(found)[:2] == ["in_features", "out_features"]
    defaults: dict[str, Any] = {
        "recurrent": False,
        "threshold": 1.0,
        "dt": 1.0,
        "batch_first": False,
    }
    defaults |= {"self_connections": True, "tau_reset": 20.0, "dtype": None, "backend": "auto"}
    assert {k: found[k].default for k in defaults} == defaults
    assert inspect.signature(HomNeuLIF).parameters["self_connections"].default is False
    for case in ALL.values():
        given = {name: p.default for name, p in inspect.signature(case.cls).parameters.items()}
        options = {k: v for k, v in given.items() if v is not inspect.Parameter.empty}
        case.cls(3, 4, **options)
        documented: Any = HetSynLIF.__doc__ if case.cls is HetSynLIF else given
        assert all(name in documented for name in given)


@pytest.mark.parametrize("surrogate", [MultiGaussian, Sigmoid, ATan])
def test_surrogates_that_differ_in_a_parameter(surrogate: Any, fresh_dynamo: None) -> None:
    """Dynamo traces a number that has changed once as a symbol."""
    x = random_spikes(T, B, 5).float()
    for value in (0.5, 0.6, 0.7):
        parameters = {field.name: value for field in fields(surrogate)}
        layer = HetSynLIF(5, 4, surrogate=surrogate(**parameters))
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        found, expected = (
            torch.autograd.grad(call(x)[0].sum(), list(layer.parameters()))
            for call in (compiled, layer)
        )
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)
