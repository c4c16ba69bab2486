"""Stacked layers with dropout on the spikes between them, and the four models of the paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from hetsyn_triton import validation as check
from hetsyn_triton.initializers import Uniform
from hetsyn_triton.timeconstants import TimeConstant

from .base import SequenceLayer, SpikingLayer, time_axis
from .decay import PARAMETRIZATIONS
from .hetsyn import HetSynLIF, HetSynReadout
from .layer_options import LayerOptions
from .leaky import HetNeuLIF, HetNeuReadout, HomNeuALIF, HomNeuLIF, HomNeuReadout
from .loading import Loadable


class SpikingNetwork(Loadable):
    """Spiking layers in a row, dropout on the spikes between them, then a readout.

    Args:
        layers: Spiking layers; the outputs of each are the inputs of the next.
        readout: Last layer, usually without threshold. Default: none, so the last of `layers` gives
            the output.
        dropout: Probability that a spike between two layers is dropped in training. The others are
            scaled by 1 / (1 - dropout), as in `torch.nn.Dropout`. Default: 0.

    Raises:
        ValueError: If there are no layers, sizes do not fit, or layouts (`batch_first`) differ.
        TypeError: If something else than a layer is given.

    Example:
        >>> network = SpikingNetwork([HetSynLIF(8, 32, recurrent=True)], HetSynReadout(32, 10))
        >>> output, state = network(torch.rand(20, 2, 8))
        >>> output.shape, len(state)
        (torch.Size([20, 2, 10]), 2)
    """

    def __init__(
        self,
        layers: Sequence[SpikingLayer],
        readout: SequenceLayer | None = None,
        *,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if isinstance(layers, nn.Module) and not isinstance(layers, (nn.ModuleList, nn.Sequential)):
            raise TypeError(f"layers: expected a list of layers, got one {type(layers).__name__}")
        if not layers:
            raise ValueError("layers: expected at least one spiking layer, got none")
        for layer in layers:
            if not isinstance(layer, SpikingLayer):
                raise TypeError(f"layers: expected spiking layers, got {type(layer).__name__}")
        if readout is not None and not isinstance(readout, SequenceLayer):
            raise TypeError(f"readout: expected a layer over time, got {type(readout).__name__}")
        row: list[SequenceLayer] = [*layers, *([] if readout is None else [readout])]
        for before, after in pairwise(row):
            name = "readout" if after is readout else "layers"
            if before.out_features != after.in_features:
                raise ValueError(
                    f"{name}: expected in_features = {before.out_features} after a layer of as "
                    f"many neurons, got {after.in_features}"
                )
            if before.batch_first != after.batch_first:
                raise ValueError(
                    f"{name}: expected batch_first={before.batch_first} as the layer before, "
                    f"got {after.batch_first}"
                )
        self.layers = nn.ModuleList(layers)
        self.readout = readout
        self.dropout = nn.Dropout(check.check_fraction("dropout", dropout))

    @property
    def in_features(self) -> int:
        return self._row()[0].in_features

    @property
    def out_features(self) -> int:
        return self._row()[-1].out_features

    def _row(self) -> list[SequenceLayer]:
        row: list[Any] = list(self.layers)
        return row if self.readout is None else [*row, self.readout]

    def forward(
        self, x: Tensor, state: Sequence[Any] | None = None, *, return_spikes: bool = False
    ) -> Any:
        """Run a sequence.

        Args:
            x: Input [T, B, in_features], [B, T, in_features] with `batch_first`, or without B.
            state: The state that an earlier call returned. Default: zeros.
            return_spikes: Whether to return the spikes of the layers too. Default: False.

        Returns:
            The output in the layout of `x`, and the state: a tuple with one entry for each layer
            and the readout. With `return_spikes` also a list of the spikes of each spiking layer,
            before dropout.

        Raises:
            ValueError: If a shape, device or parameter value does not fit.
            TypeError: If a dtype or the kind of a state does not fit.
        """
        row = self._row()
        if state is None:
            state = [None] * len(row)
        if not isinstance(state, Sequence) or hasattr(state, "_fields"):
            raise TypeError(
                f"state: expected a sequence with one state per layer, got {type(state).__name__}"
            )
        if len(state) != len(row):
            raise ValueError(
                f"state: expected one per layer and readout, {len(row)}, got {len(state)}"
            )
        after: list[Any] = []
        spikes: list[Tensor] = []
        for index, (layer, before) in enumerate(zip(row, state, strict=True)):
            x, last = layer(self.dropout(x) if index else x, before)
            after.append(last)
            if index < len(self.layers):
                spikes.append(x)
        return (x, tuple(after), spikes) if return_spikes else (x, tuple(after))

    def step(self, x: Tensor, state: Sequence[Any] | None = None) -> tuple[Tensor, tuple[Any, ...]]:
        """Run one time step, a sequence of length 1.

        Args:
            x: Input [B, in_features] or [in_features].
            state: The state that an earlier call returned. Default: zeros.

        Returns:
            Output and state, as `forward` returns them, without the time axis.
        """
        time = time_axis(x, self._row()[0].batch_first)
        output, after = self(x.unsqueeze(time), state)
        return output.squeeze(time), after


_LAYERS: dict[str, tuple[Callable[..., SpikingLayer], Callable[..., SequenceLayer]]] = {
    "hetsyn": (HetSynLIF, HetSynReadout),
    "homneu": (HomNeuLIF, HomNeuReadout),
    "homneu-adaptive": (HomNeuALIF, HomNeuReadout),
    "hetneu": (HetNeuLIF, HetNeuReadout),
}

_RECURRENT_ONLY = frozenset({"tau_recurrent", "recurrent_weight_init"})
_SHARED = frozenset(LayerOptions.__annotations__)

MODELS = tuple(_LAYERS)
"""Names of the paper's models: HetSynLIF, HomNeuLIF, HomNeuALIF, HetNeuLIF."""


def make_network(
    model: str,
    in_features: int,
    hidden: Sequence[int],
    out_features: int,
    *,
    recurrent: bool = True,
    readout: bool = True,
    dropout: float = 0.0,
    tau: TimeConstant = Uniform(5.0, 20.0),  # noqa: B008 - frozen
    tau_readout: TimeConstant | None = None,
    adaptation: float = 0.05,
    tau_adaptation: float = 100.0,
    learn_decay: bool = True,
    frozen_fraction: float = 0.0,
    decay_parametrization: str = "clamp",
    generator: torch.Generator | None = None,
    **options: Any,
) -> SpikingNetwork:
    """Create a network of one of the paper's models.

    Args:
        model: One of `MODELS`.
        in_features: Number of inputs.
        hidden: Sizes of the hidden layers; may be empty if the output spikes.
        out_features: Number of outputs.
        recurrent: Whether the hidden layers are recurrent. Default: True.
        readout: Whether the output is a readout without threshold. If not, it is a feedforward
            spiking layer. Default: True.
        dropout: Probability that a spike between two layers is dropped in training. Default: 0.
        tau: Time constants of the hidden layers. A homogeneous model has one fixed number: the mean
            of a distribution. Default: uniform from 5 to 20.
        tau_readout: Time constants of the output. Default: `tau`.
        adaptation: Strength of the adaptation current of "homneu-adaptive". The other models have
            no such current. Default: 0.05.
        tau_adaptation: Time constant of that current. Default: 100.
        learn_decay: As in `HetSynLIF`; so are `frozen_fraction` and `decay_parametrization`. In the
            homogeneous models no decay learns.
        generator: Draws weights and time constants. Default: PyTorch's own.
        options: Further arguments of the layers as in `HetSynLIF`. The readout takes `dt`,
            `weight_init`, `batch_first`, `backend`, `device` and `dtype` of them.

    Returns:
        The network.

    Raises:
        ValueError: If a value is not allowed; the message names the argument.
        TypeError: If a type does not fit.

    Example:
        >>> network = make_network("hetneu", 8, [32, 16], 10)
        >>> [layer.out_features for layer in network.layers]
        [32, 16]
    """
    check.check_choice("model", model, MODELS)
    check.check_fraction("frozen_fraction", frozen_fraction)
    check.check_choice("decay_parametrization", decay_parametrization, PARAMETRIZATIONS)
    if isinstance(hidden, str) or not isinstance(hidden, Sequence):
        raise TypeError(f"hidden: expected a sequence of sizes such as [64, 64], got {hidden!r}")
    hidden = [check.check_size("hidden", size) for size in hidden]
    if readout and not hidden:
        raise ValueError("hidden: expected at least one size in front of a readout, got none")
    layer_type, readout_type = _LAYERS[model]
    shared: dict[str, Any] = {"generator": generator}
    shared |= {name: options.pop(name) for name in list(options) if name in _SHARED}
    tau_last = tau if tau_readout is None else tau_readout
    if model.startswith("homneu"):
        tau, tau_last = _mean("tau", tau), _mean("tau_readout", tau_last)
    else:
        shared["learn_decay"] = learn_decay
        shared["frozen_fraction"] = frozen_fraction
        shared["decay_parametrization"] = decay_parametrization
    if model == "homneu-adaptive":
        options |= {"adaptation": adaptation, "tau_adaptation": tau_adaptation}
    sizes = [in_features, *hidden]
    layers = [
        layer_type(before, after, tau=tau, recurrent=recurrent, **shared, **options)
        for before, after in zip(sizes, hidden, strict=False)
    ]
    if readout:
        last = readout_type(sizes[-1], out_features, tau=tau_last, **shared)
        return SpikingNetwork(layers, last, dropout=dropout)
    # The spiking output layer is feedforward: it has no use for these.
    options = {name: v for name, v in options.items() if name not in _RECURRENT_ONLY}
    layers.append(layer_type(sizes[-1], out_features, tau=tau_last, **shared, **options))
    return SpikingNetwork(layers, dropout=dropout)


def _mean(name: str, tau: TimeConstant) -> float:
    if check.is_number(tau):
        return tau
    mean = getattr(tau, "mean", None)
    if not check.is_number(mean):
        raise TypeError(
            f"{name}: expected a number or a distribution with a mean for a homogeneous model, "
            f"got {type(tau).__name__}"
        )
    return mean
