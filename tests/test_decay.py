"""Learnable decays: parametrisations, the clamp, frozen fractions."""

from typing import Any

import pytest
import torch
from torch import Tensor

from hetsyn_triton import (
    Decay,
    HetNeuLIF,
    HetNeuReadout,
    HetSynLIF,
    HetSynReadout,
    HomNeuLIF,
    clamp_decays_,
    parameter_groups,
)

LEARNING = [HetSynLIF, HetSynReadout, HetNeuLIF, HetNeuReadout]


def train(layer: Any, steps: int = 5, lr: float = 0.05, weight_decay: float = 0.1) -> None:
    """AdamW with weight decay on everything, towards a target that moves every decay."""
    optimizer = torch.optim.AdamW(parameter_groups(layer, lr, weight_decay))
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        output, _ = layer(torch.rand(8, 4, layer.in_features, generator=generator))
        loss = (output * torch.randn(output.shape, generator=generator)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        clamp_decays_(layer)


@pytest.mark.parametrize("parametrization", ["clamp", "sigmoid"])
@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.8, 1.0])
def test_frozen_decays_do_not_move(fraction: float, parametrization: str) -> None:
    """Exactly round(fraction * n) of them, under AdamW with weight decay; all others move."""
    layer = HetSynLIF(
        20,
        15,
        recurrent=True,
        frozen_fraction=fraction,
        decay_parametrization=parametrization,
        generator=torch.Generator().manual_seed(0),
    )
    assert layer.recurrent_decay is not None
    decays = (layer.decay, layer.recurrent_decay)
    before = [d().detach().clone() for d in decays]
    train(layer)
    for decay, start in zip(decays, before, strict=True):
        same = decay() == start
        assert int(same.sum()) == round(fraction * start.numel())
        if decay.frozen is None:
            assert fraction == 0
        else:
            assert torch.equal(decay.frozen, same)


def test_which_ones_freeze_is_drawn_and_repeats() -> None:
    def frozen(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        decay = HetSynLIF(20, 15, frozen_fraction=0.5, generator=generator).decay
        assert decay.frozen is not None
        return decay.frozen

    assert torch.equal(frozen(0), frozen(0))
    assert not torch.equal(frozen(0), frozen(1))
    assert 0.2 < frozen(0)[:7].float().mean() < 0.8


@pytest.mark.parametrize("cls", LEARNING)
def test_not_learning(cls: Any) -> None:
    """`learn_decay=False`: no parameter, no gradient, and nothing moves."""
    layer = cls(6, 5, learn_decay=False)
    before = layer.decay().clone()
    assert not list(layer.decay.parameters())
    train(layer)
    assert torch.equal(layer.decay(), before)
    assert not HomNeuLIF(6, 5, recurrent=True).decay().requires_grad


@pytest.mark.parametrize("cls", LEARNING)
def test_the_clamp(cls: Any) -> None:
    """A step of the optimizer may leave [0, 1]; a call then raises, and the clamp puts it right."""
    layer = cls(2, 3)
    with torch.no_grad():
        layer.decay.raw.flatten()[0] = -0.5
        layer.decay.raw.flatten()[-1] = 1.25
    kept = layer.decay().flatten()[1].item()
    with pytest.raises(ValueError, match=r"^decay: .*\[0, 1\], got values from -0.5 to 1.25"):
        layer(torch.zeros(1, 1, 2))
    clamp_decays_(layer)
    assert layer.decay().flatten()[0] == 0.0
    assert layer.decay().flatten()[-1] == 1.0
    assert layer.decay().flatten()[1].item() == kept
    output, _ = layer(torch.ones(3, 1, 2))
    output.sum().backward()


@pytest.mark.parametrize("cls", LEARNING)
def test_the_clamp_reaches_every_decay_of_a_network(cls: Any) -> None:
    options: dict[str, Any] = {"recurrent": True} if "LIF" in cls.__name__ else {}
    module = torch.nn.ModuleDict({"a": cls(2, 3, **options), "b": torch.nn.Sequential(cls(3, 2))})
    decays = [m for m in module.modules() if isinstance(m, Decay)]
    assert len(decays) == (3 if cls is HetSynLIF else 2)
    for decay in decays:
        decay.raw.data += 3
    clamp_decays_(module)
    assert all((d() == 1).all() for d in decays)


@pytest.mark.parametrize("cls", LEARNING)
def test_sigmoid(cls: Any) -> None:
    """Starts at the same decays, has the gradient of sigmoid, stays inside whatever is added."""
    made = []
    for name in ("clamp", "sigmoid"):
        generator = torch.Generator().manual_seed(0)
        made.append(cls(3, 4, decay_parametrization=name, generator=generator, dtype=torch.float64))
    clamp, sigmoid = made
    r = clamp.decay()
    torch.testing.assert_close(sigmoid.decay(), r, rtol=1e-14, atol=0)
    x = torch.rand(9, 2, 3, dtype=torch.float64)
    weights = torch.randn(9, 2, 4, dtype=torch.float64)
    for layer in made:
        (layer(x)[0] * weights).sum().backward()
    expected = clamp.decay.raw.grad * (r * (1 - r))
    torch.testing.assert_close(sigmoid.decay.logit.grad, expected, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        sigmoid.decay.logit += torch.linspace(-30, 30, r.numel(), dtype=r.dtype).view_as(r)
    sigmoid(x)
    assert ((sigmoid.decay() > 0) & (sigmoid.decay() < 1)).all()
    kept = sigmoid.decay().clone()
    clamp_decays_(sigmoid)
    assert torch.equal(kept, sigmoid.decay())


def test_an_untrained_network_may_have_decays_of_exactly_0_and_1() -> None:
    """tau far below or far above a step; allowed under "clamp", refused under "sigmoid"."""
    for tau, r in ((1e-4, 0.0), (1e12, 1.0)):
        layer = HetSynLIF(2, 2, tau=tau)
        assert (layer.decay() == r).all()
        layer(torch.ones(3, 1, 2))[0].sum().backward()
        with pytest.raises(ValueError, match=r"^decay: expected values strictly between 0 and 1"):
            HetSynLIF(2, 2, tau=tau, decay_parametrization="sigmoid")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frozen_fraction": 1.5}, "frozen_fraction: expected a number in [0, 1], got 1.5"),
        ({"frozen_fraction": -0.1}, "frozen_fraction: expected a number in [0, 1], got -0.1"),
        ({"frozen_fraction": "all"}, "frozen_fraction: expected a number in [0, 1], got 'all'"),
        ({"frozen_fraction": True}, "frozen_fraction: expected a number in [0, 1], got True"),
        (
            {"decay_parametrization": "exp"},
            "decay_parametrization: expected one of clamp, sigmoid, got 'exp'",
        ),
    ],
)
@pytest.mark.parametrize("cls", LEARNING)
def test_bad_options(cls: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match="expected") as error:
        cls(3, 4, **options)
    assert str(error.value) == message


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan")])
def test_a_decay_outside_its_range(value: float) -> None:
    with pytest.raises(ValueError, match=r"^decay: expected decays in \[0, 1\], got values from"):
        Decay(torch.tensor([0.5, value]))


def test_it_says_what_it_is() -> None:
    assert "learned, 6 of 12 frozen" in repr(HetSynLIF(3, 4, frozen_fraction=0.5).decay)
    assert "shape=(4,), fixed" in repr(HomNeuLIF(3, 4).decay)
    assert "'sigmoid'" in repr(HetNeuLIF(3, 4, decay_parametrization="sigmoid").decay)
