"""Optimizer groups: decays at twice the rate, in the weight decay or out of it."""

from typing import Any

import pytest
import torch

from hetsyn_triton import (
    MODELS,
    Decay,
    HetNeuLIF,
    HetSynLIF,
    clamp_decays_,
    make_network,
    parameter_groups,
)


def network(model: str = "hetsyn", **options: Any) -> torch.nn.Module:
    return make_network(model, 4, [5], 3, generator=torch.Generator().manual_seed(0), **options)


@pytest.mark.parametrize("model", MODELS)
def test_every_learned_parameter_is_in_one_group(model: str) -> None:
    net = network(model, learn_threshold=True)
    groups = parameter_groups(net, 1e-3)
    ids = [id(p) for group in groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in net.parameters())
    by_name = {group["name"]: group for group in groups}
    decays = {id(p) for m in net.modules() if isinstance(m, Decay) for p in m.parameters()}
    assert {id(p) for p in by_name.get("decays", {"params": []})["params"]} == decays
    assert ("decays" in by_name) == model.startswith("het")
    names = {n for n, p in net.named_parameters() if id(p) not in decays}
    assert any("threshold" in n for n in names)
    assert len(by_name["weights"]["params"]) == len(names)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (1e-3, 0.0, 2e-3, 0.0)),
        ({"weight_decay": 0.1}, (1e-3, 0.1, 2e-3, 0.1)),
        ({"weight_decay": 0.1, "decay_weight_decay": 0.0}, (1e-3, 0.1, 2e-3, 0.0)),
        ({"decay_lr": 7e-3, "decay_weight_decay": 0.2}, (1e-3, 0.0, 7e-3, 0.2)),
    ],
)
def test_rates_and_weight_decays(options: Any, expected: tuple[float, ...]) -> None:
    weights, decays = parameter_groups(network(), 1e-3, **options)
    found = (weights["lr"], weights["weight_decay"], decays["lr"], decays["weight_decay"])
    assert found == expected


@pytest.mark.parametrize("exempt", [False, True])
def test_exempt_from_weight_decay(exempt: bool) -> None:
    """With zero gradients AdamW shrinks what it is to shrink: decays only unless exempt."""
    net = network()
    options: dict[str, Any] = {"decay_weight_decay": 0.0} if exempt else {}
    optimizer = torch.optim.AdamW(parameter_groups(net, 0.01, weight_decay=0.5, **options))
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in net.named_parameters():
        rate = (0.0 if exempt else 0.02) if "decay" in name else 0.01
        torch.testing.assert_close(p.detach(), before[name] * (1 - rate * 0.5))


def test_twice_the_rate_in_a_step() -> None:
    """The first step of Adam is the rate itself, whatever the gradient."""
    net = network()
    optimizer = torch.optim.Adam(parameter_groups(net, 1e-3))
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    for name, p in net.named_parameters():
        rate = 2e-3 if "decay" in name else 1e-3
        torch.testing.assert_close(
            before[name] - p.detach(), torch.full_like(p, rate), atol=1e-6, rtol=0
        )


def test_what_does_not_learn_is_in_no_group() -> None:
    frozen = network(learn_decay=False)
    assert [group["name"] for group in parameter_groups(frozen, 1e-3)] == ["weights"]
    layer = HetNeuLIF(3, 4)
    layer.weight.requires_grad_(False)
    assert [group["name"] for group in parameter_groups(layer, 1e-3)] == ["decays"]
    layer.requires_grad_(False)
    assert parameter_groups(layer, 1e-3) == []


def test_other_modules_join_in() -> None:
    """A layer inside a user's own module; shared layers are counted once."""
    layer = HetSynLIF(3, 3)
    mixed = torch.nn.ModuleList([torch.nn.Linear(2, 3), layer, layer])
    weights, decays = parameter_groups(mixed, 0.1)
    assert len(weights["params"]) == 3
    assert len(decays["params"]) == 1
    clamp_decays_(mixed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": 0}, "lr: expected a positive, finite number, got 0"),
        ({"lr": "fast"}, "lr: expected a positive, finite number, got 'fast'"),
        ({"lr": 1, "decay_lr": -1.0}, "decay_lr: expected a positive, finite number, got -1.0"),
        ({"lr": 1, "weight_decay": -0.1}, "weight_decay: expected a finite number >= 0, got -0.1"),
        ({"lr": 1, "weight_decay": "0"}, "weight_decay: expected a finite number >= 0, got '0'"),
        (
            {"lr": 1, "decay_weight_decay": float("nan")},
            "decay_weight_decay: expected a finite number >= 0, got nan",
        ),
    ],
)
def test_bad_values(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match="expected") as error:
        parameter_groups(network(), **arguments)
    assert str(error.value) == message
