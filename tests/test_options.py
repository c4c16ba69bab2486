"""What would have no effect, or another than it says, is refused when a layer is made."""

from typing import Any

import numpy as np
import pytest
import torch

from hetsyn_triton import (
    Constant,
    Decay,
    HetNeuLIF,
    HetSynLIF,
    HomNeuLIF,
    Triangular,
    functional,
    make_network,
)

FLAGS = ["recurrent", "self_connections", "learn_threshold", "detach_reset", "batch_first"]


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("cls", [HetSynLIF, HomNeuLIF, HetNeuLIF])
@pytest.mark.parametrize("value", ["no", 1, None])
def test_flags_are_true_or_false(cls: Any, flag: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"{flag}: expected True or False, got {value!r}"):
        cls(3, 2, **{flag: value})


def test_learn_decay_is_true_or_false() -> None:
    with pytest.raises(TypeError, match="learn_decay: expected True or False, got 'no'"):
        HetSynLIF(3, 2, learn_decay="no")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options", [{"tau_recurrent": 5.0}, {"recurrent_weight_init": Constant(0.0)}]
)
def test_recurrent_options_of_a_feedforward_layer(options: Any) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=f"{name}: expected None for a feedforward layer"):
        HetSynLIF(3, 2, **options)
    # A network hands them to its recurrent layers and not to its feedforward output.
    net = make_network("hetsyn", 3, [4], 2, readout=False, **options)
    assert net.layers[0].recurrent_weight is not None
    assert net.layers[1].recurrent_weight is None
    with pytest.raises(ValueError, match=f"{name}: expected None for a feedforward layer"):
        make_network("hetsyn", 3, [4], 2, recurrent=False, **options)


def test_a_frozen_fraction_where_nothing_learns() -> None:
    with pytest.raises(ValueError, match=r"frozen_fraction: expected 0 .* got 0.5"):
        HetSynLIF(3, 2, learn_decay=False, frozen_fraction=0.5)


def test_decays_are_floating_tensors() -> None:
    with pytest.raises(TypeError, match=r"decay: expected a torch\.Tensor, got list"):
        Decay([0.5])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="decay: expected dtype float32, float64, got int64"):
        Decay(torch.tensor([0, 1]))


@pytest.mark.parametrize("surrogate", ["triangular", Triangular, None])
def test_a_surrogate_is_checked_before_the_forward(surrogate: Any) -> None:
    c, square = torch.zeros(3, 2, 4), torch.zeros(4, 4)
    for call in (
        lambda: functional.spike_scan(c, 1.0, 0.9, surrogate=surrogate),
        lambda: functional.recurrent_scan(c, square, square, 1.0, 0.9, surrogate=surrogate),
        lambda: functional.leaky_recurrent_scan(c, square, 0.9, 1.0, 0.9, surrogate=surrogate),
        lambda: HetSynLIF(3, 2, surrogate=surrogate),
    ):
        with pytest.raises(TypeError, match="surrogate: expected a function"):
            call()


def test_numbers_of_the_functional_api() -> None:
    c = torch.zeros(3, 2, 4)
    functional.spike_scan(c, np.float32(1), np.float64(0.5))
    with pytest.raises(TypeError, match=r"threshold: expected a torch\.Tensor, got bool"):
        functional.spike_scan(c, True, 0.5)
