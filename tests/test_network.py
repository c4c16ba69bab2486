"""Stacked layers and the four models: sizes, parameter counts, dropout, what comes back."""

from typing import Any

import pytest
import torch
from torch import nn

from hetsyn_triton import (
    MODELS,
    ATan,
    Constant,
    Decay,
    HetNeuLIF,
    HetNeuReadout,
    HetSynLIF,
    HetSynReadout,
    HomNeuALIF,
    HomNeuLIF,
    HomNeuReadout,
    Normal,
    SpikingNetwork,
    Triangular,
    Uniform,
    decay_to_tau,
    make_network,
)

M, N = 13, 7


def counts(module: nn.Module) -> tuple[int, int]:
    """Learned weights and learned decays."""
    decays = sum(
        p.numel() for m in module.modules() if isinstance(m, Decay) for p in m.parameters()
    )
    return sum(p.numel() for p in module.parameters()) - decays, decays


def loud(**options: Any) -> dict[str, Any]:
    return {
        "weight_init": Normal(0.4, 0.4),
        "generator": torch.Generator().manual_seed(0),
    } | options


# -- the paper's table -----------------------------------------------------------------------------


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_parameters_of_one_layer(model: str, recurrent: bool) -> None:
    """MN, or MN + N^2 with recurrence; decays: none, none, one per neuron, one per synapse."""
    layer = make_network(model, M, [N], 2, recurrent=recurrent).layers[0]
    weights = M * N + recurrent * N**2
    decays = {"hetsyn": weights, "hetneu": N, "homneu": 0, "homneu-adaptive": 0}[model]
    assert counts(layer) == (weights, decays)
    total = sum(p.numel() for p in layer.parameters())
    if model == "hetsyn":
        assert total == 2 * weights


@pytest.mark.parametrize(
    ("sizes", "options", "weights"),
    [
        ((700, [128, 64], 20), {}, 119_552),  # SHD
        ((1, [64, 64], 10), {"readout": False}, 12_992),  # S-MNIST: 26 k with the decays
        ((100, [100], 1), {"recurrent": False}, 10_100),  # pattern generation
        ((30, [50], 2), {}, 4_100),  # delayed match-to-sample
    ],
)
def test_parameters_of_the_papers_networks(sizes: Any, options: Any, weights: int) -> None:
    assert counts(make_network("hetsyn", *sizes, **options)) == (weights, weights)
    assert counts(make_network("homneu", *sizes, **options)) == (weights, 0)
    neurons = sum(sizes[1]) + sizes[2]
    assert counts(make_network("hetneu", *sizes, **options)) == (weights, neurons)


def test_models_are_their_layers() -> None:
    expected = {
        "hetsyn": (HetSynLIF, HetSynReadout),
        "homneu": (HomNeuLIF, HomNeuReadout),
        "homneu-adaptive": (HomNeuALIF, HomNeuReadout),
        "hetneu": (HetNeuLIF, HetNeuReadout),
    }
    assert set(MODELS) == set(expected)
    for model, (layer, readout) in expected.items():
        net = make_network(model, 3, [4, 5], 2)
        assert [type(m) for m in net.layers] == [layer, layer]
        assert type(net.readout) is readout
        assert (net.in_features, net.out_features) == (3, 2)
        assert [m.recurrent for m in net.layers] == [True, True]
        spiking = make_network(model, 3, [4, 5], 2, readout=False)
        assert spiking.readout is None
        assert [type(m) for m in spiking.layers] == [layer] * 3
        assert [m.recurrent for m in spiking.layers] == [True, True, False]
        assert spiking.out_features == 2


def test_the_readout_alone_may_spike() -> None:
    net = make_network("hetsyn", 3, [], 2, readout=False)
    assert len(net.layers) == 1


# -- options ---------------------------------------------------------------------------------------


def test_options_reach_the_layers() -> None:
    net = make_network(
        "hetsyn", 3, [4], 2, threshold=0.5, tau_reset=7.0, surrogate=Triangular(width=2.0), dt=0.5,
        batch_first=True, backend="reference", dtype=torch.float64, decay_parametrization="sigmoid",
        frozen_fraction=0.5, self_connections=False, tau_recurrent=3.0, learn_threshold=True,
        detach_reset=True, weight_init=Constant(0.3), recurrent_weight_init=Constant(0.1),
    )  # fmt: skip
    layer, readout = net.layers[0], net.readout
    assert isinstance(layer, HetSynLIF)
    assert isinstance(readout, HetSynReadout)
    for part in (layer, readout):
        assert (part.dt, part.batch_first, part.backend) == (0.5, True, "reference")
        assert part.weight.dtype == torch.float64
        assert (part.weight == 0.3).all()
        assert part.decay.parametrization == "sigmoid"
        assert part.decay.frozen is not None
    assert (layer.threshold == 0.5).all()
    assert isinstance(layer.threshold, nn.Parameter)
    assert layer.reset_decay is not None
    assert decay_to_tau(layer.reset_decay, 0.5)[0].item() == pytest.approx(7.0)
    assert layer.recurrent_decay is not None
    assert decay_to_tau(layer.recurrent_decay(), 0.5)[0, 0].item() == pytest.approx(3.0)
    assert layer.surrogate == Triangular(width=2.0)
    assert layer.detach_reset
    assert layer.self_mask is not None
    assert layer.recurrent_weight is not None
    assert (layer.recurrent_weight == 0.1).all()


@pytest.mark.parametrize("model", ["homneu", "homneu-adaptive"])
def test_homogeneous_models_take_the_mean(model: str) -> None:
    def tau(part: Any) -> float:
        found = decay_to_tau(part.decay()).unique()
        assert len(found) == 1
        return float(found.item())

    net = make_network(model, 3, [4], 2, tau=Uniform(5.0, 20.0), dtype=torch.float64)
    assert tau(net.layers[0]) == pytest.approx(12.5)
    assert tau(net.readout) == pytest.approx(12.5)
    options: dict[str, Any] = {"tau_readout": Constant(50.0), "dtype": torch.float64}
    net = make_network(model, 3, [4], 2, tau=Normal(20.0, 5.0), **options)
    assert tau(net.layers[0]) == pytest.approx(20.0)
    assert tau(net.readout) == pytest.approx(50.0)
    net = make_network(model, 3, [4], 2, tau=9, readout=False, **options)
    assert tau(net.layers[1]) == pytest.approx(50.0)


def test_adaptation_is_of_one_model_only() -> None:
    options: dict[str, Any] = {"adaptation": 0.2, "tau_adaptation": 40.0, "dtype": torch.float64}
    for model in MODELS:
        layer: Any = make_network(model, 3, [4], 2, **options).layers[0]
        if model == "homneu-adaptive":
            assert (layer.adaptation_strength == 0.2).all()
            assert decay_to_tau(layer.adaptation_decay)[0].item() == pytest.approx(40.0)
        else:
            assert layer.adaptation_strength is None


@pytest.mark.parametrize("model", MODELS)
def test_a_seed_is_a_network(model: str) -> None:
    a, b, c = (
        make_network(model, 3, [4], 2, generator=torch.Generator().manual_seed(s)).state_dict()
        for s in (0, 0, 1)
    )
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["layers.0.weight"], c["layers.0.weight"])


# -- a call ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_network_is_its_layers_in_a_row(batch_first: bool) -> None:
    net = make_network("hetsyn", 3, [6, 5], 2, **loud(batch_first=batch_first))
    x = (torch.rand(4, 9, 3) < 0.5).float() if batch_first else (torch.rand(9, 4, 3) < 0.5).float()
    first, first_state = net.layers[0](x)
    second, second_state = net.layers[1](first)
    assert isinstance(net.readout, HetSynReadout)
    expected, readout_state = net.readout(second)
    output, state, spikes = net(x, return_spikes=True)
    assert torch.equal(output, expected)
    assert [torch.equal(a, b) for a, b in zip(spikes, [first, second], strict=True)] == [True, True]
    assert first.sum() > 0
    assert second.sum() > 0
    assert isinstance(state, tuple)
    for got, want in zip(state, [first_state, second_state, readout_state], strict=True):
        assert type(got) is type(want)
        for a, b in zip(got, want, strict=True):
            assert (a is None and b is None) or torch.equal(a, b)
    assert len(net(x)) == 2


def test_without_a_readout_the_output_is_spikes() -> None:
    net = make_network("hetneu", 3, [6], 2, readout=False, **loud())
    output, state, spikes = net(torch.rand(9, 4, 3), return_spikes=True)
    assert len(spikes) == len(state) == 2
    assert torch.equal(output, spikes[-1])
    assert set(output.unique().tolist()) <= {0.0, 1.0}


def test_dropout_falls_on_spikes_between_layers_in_training_only() -> None:
    """Spikes are zero or 1 / (1 - p) behind it; the input, the output and `return_spikes` are
    before it."""
    seen: list[torch.Tensor] = []

    class Watching(HetSynReadout):
        def forward(self, x: torch.Tensor, state: Any = None) -> Any:
            seen.append(x)
            return super().forward(x, state)

    layers = [HetSynLIF(3, 40, **loud()), HetSynLIF(40, 50, **loud())]
    net = SpikingNetwork(layers, Watching(50, 2, **loud()), dropout=0.25)
    x = torch.ones(30, 8, 3)
    torch.manual_seed(0)
    _, _, spikes = net(x, return_spikes=True)
    (behind,) = seen
    assert torch.equal(spikes[0], layers[0](x)[0])
    fired = spikes[1] == 1
    assert fired.sum() > 1000
    assert (behind[~fired] == 0).all()
    kept = behind[fired]
    torch.testing.assert_close(kept.unique(), torch.tensor([0.0, 4 / 3]))
    assert (kept == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    net.eval()
    seen.clear()
    output, _, spikes = net(x, return_spikes=True)
    assert torch.equal(seen[0], spikes[1])
    assert torch.equal(output, net(x)[0])
    net.train()
    assert not torch.equal(net(x)[0], net(x)[0])


def test_steps_with_dropout() -> None:
    net = make_network("hetsyn", 3, [6], 2, dropout=0.5, **loud()).eval()
    output, state = net.step(torch.rand(4, 3))
    output, state = net.step(torch.rand(4, 3), state)
    assert output.shape == (4, 2)
    assert net.step(torch.rand(3))[0].shape == (2,)


def test_gradients_reach_every_parameter() -> None:
    for model in MODELS:
        net = make_network(model, 3, [20, 20], 4, **loud(learn_threshold=True, surrogate=ATan()))
        output, _ = net((torch.rand(25, 6, 3) < 0.5).float())
        output.square().sum().backward()
        for name, p in net.named_parameters():
            assert p.grad is not None, name
            assert p.grad.abs().max() > 0, f"{model} {name}"


def test_mixed_layers() -> None:
    """Any spiking layers in a row, one of a kind of its own included."""
    net = SpikingNetwork([HetSynLIF(3, 4), HomNeuALIF(4, 5), HetNeuLIF(5, 6)], HomNeuReadout(6, 2))
    output, state = net(torch.ones(5, 2, 3))
    assert output.shape == (5, 2, 2)
    assert net(torch.ones(5, 2, 3), state)[0].shape == (5, 2, 2)


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SpikingNetwork([]), ValueError, "layers: expected at least one spiking layer"),
        (
            lambda: SpikingNetwork([nn.Linear(3, 4)]),  # type: ignore[list-item]
            TypeError,
            "layers: expected spiking layers, got Linear",
        ),
        (
            lambda: SpikingNetwork([HetSynReadout(3, 4)]),  # type: ignore[list-item]
            TypeError,
            "layers: expected spiking layers, got HetSynReadout",
        ),
        (
            lambda: SpikingNetwork(HetSynLIF(3, 4)),  # type: ignore[arg-type]
            TypeError,
            "layers: expected a list of layers, got one HetSynLIF",
        ),
        (
            lambda: SpikingNetwork([HetSynLIF(3, 4)], nn.Linear(4, 2)),  # type: ignore[arg-type]
            TypeError,
            "readout: expected a layer over time, got Linear",
        ),
        (
            lambda: SpikingNetwork([HetSynLIF(3, 4), HetSynLIF(5, 6)]),
            ValueError,
            "layers: expected in_features = 4 after a layer of as many neurons, got 5",
        ),
        (
            lambda: SpikingNetwork([HetSynLIF(3, 4)], HetSynReadout(5, 6)),
            ValueError,
            "readout: expected in_features = 4 after a layer of as many neurons, got 5",
        ),
        (
            lambda: SpikingNetwork([HetSynLIF(3, 4)], HetSynReadout(4, 6, batch_first=True)),
            ValueError,
            "readout: expected batch_first=False as the layer before, got True",
        ),
        (
            lambda: SpikingNetwork([HetSynLIF(3, 4)], dropout=1.5),
            ValueError,
            r"dropout: expected a number in \[0, 1\], got 1.5",
        ),
    ],
)
def test_what_makes_no_network(make: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        make()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("lif", 3, [4], 2), ValueError, "model: expected one of hetsyn, .*, got 'lif'"),
        (("hetsyn", 0, [4], 2), ValueError, "in_features: expected a whole number >= 1, got 0"),
        (("hetsyn", 3, [4], 2.5), ValueError, "out_features: expected a whole .*, got 2.5"),
        (("hetsyn", 3, [4, 0], 2), ValueError, "hidden: expected a whole number >= 1, got 0"),
        (("hetsyn", 3, 64, 2), TypeError, "hidden: expected a sequence of sizes .*, got 64"),
        (("hetsyn", 3, "64", 2), TypeError, "hidden: expected a sequence of sizes .*, got '64'"),
        (("hetsyn", 3, [], 2), ValueError, "hidden: expected at least one size .*, got none"),
    ],
)
def test_bad_sizes_and_models(arguments: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        make_network(*arguments)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tau": torch.tensor(5.0)}, TypeError, "tau: expected a number or a distribution"),
        ({"tau": -5.0}, ValueError, "tau: expected a positive, finite number, got -5.0"),
        ({"tau_readout": "5"}, TypeError, "tau_readout: expected a number or a distribution"),
        ({"adaptation": "x"}, ValueError, "adaptation: expected a finite number, got 'x'"),
        ({"tau_adaptation": 0}, ValueError, "tau_adaptation: expected a positive, .*, got 0"),
        ({"frozen_fraction": 2}, ValueError, r"frozen_fraction: .* \[0, 1\], got 2"),
        ({"decay_parametrization": "x"}, ValueError, "decay_parametrization: .* got 'x'"),
        ({"backend": "gpu"}, ValueError, "backend: expected one of auto, .*, got 'gpu'"),
        ({"treshold": 1.0}, TypeError, ".*: unexpected arguments treshold; expected .*threshold"),
    ],
)
def test_bad_options_of_a_homogeneous_model(options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        make_network("homneu-adaptive", 3, [4], 2, **options)


def test_bad_states() -> None:
    net = make_network("hetsyn", 3, [4], 2)
    x = torch.zeros(5, 2, 3)
    _, state = net(x)
    with pytest.raises(ValueError, match=r"^state: expected one per layer and readout, 2, got 1"):
        net(x, state[:1])
    with pytest.raises(TypeError, match=r"^state: expected HetSynState, got HetSynReadoutState"):
        net(x, state[::-1])
    with pytest.raises(TypeError, match=r"^state: expected a sequence with one state per layer"):
        net(x, state[0])
    with pytest.raises(TypeError, match=r"^state: expected a sequence with one state per layer"):
        net(x, torch.zeros(2, 2))
    with pytest.raises(
        ValueError, match=r"^x: expected \[B, in_features\] or \[in_features\], got"
    ):
        net.step(x)
