"""What all layers share: weights, layout, threshold, and one step at a time."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from hetsyn_triton import ops
from hetsyn_triton import validation as check
from hetsyn_triton.initializers import FanInNormal, Initializer, draw
from hetsyn_triton.states import NeuronState
from hetsyn_triton.surrogates import Surrogate, Triangular
from hetsyn_triton.timeconstants import TimeConstant, draw_tau, tau_to_decay

from . import layout
from .decay import Decay, register_present
from .loading import check_loaded
from .options import full_signature

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import LayerOptions


class SequenceLayer(nn.Module, ABC):
    """A layer over time with weights [J, I]: `output, state = layer(x, state)`; hides no state.

    Subclasses give `state_type`, `_state_axes` and `_run`, which sees checked [T, B, N] tensors.
    """

    state_type: type
    weight: nn.Parameter
    decay: Decay

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        weight_init: Initializer = FanInNormal(),  # noqa: B008 - frozen
        dt: float = 1.0,
        batch_first: bool = False,
        backend: str = "auto",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **unknown: object,
    ) -> None:
        super().__init__()
        if unknown:
            raise TypeError(
                f"{type(self).__name__}: unexpected arguments {', '.join(unknown)}; "
                f"expected {', '.join(self.__signature__.parameters)}"
            )
        self.in_features = check.check_size("in_features", in_features)
        self.out_features = check.check_size("out_features", out_features)
        self.dt = check.check_positive_number("dt", dt)
        self.batch_first = check.check_flag("batch_first", batch_first)
        check.check_choice("backend", backend, ops.BACKENDS)
        self.backend = backend
        self._device = torch.get_default_device() if device is None else device
        self._dtype = torch.get_default_dtype() if dtype is None else dtype
        check.check_parameter_dtype("dtype", self._dtype)
        drawn = self._drawn("weight_init", weight_init, (out_features, in_features), generator)
        self.weight = nn.Parameter(drawn)

    __signature__: ClassVar[inspect.Signature]
    _loaded: ClassVar[dict[str, Callable[[str, Tensor], None]]] = {
        "weight": check.check_finite,
        "recurrent_weight": check.check_finite,
        "threshold": check.check_positive,
        "reset_decay": check.check_unit_interval,
        "adaptation_decay": check.check_unit_interval,
        "adaptation_strength": check.check_finite,
    }

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        check_loaded(state_dict, prefix, self._loaded)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__signature__ = full_signature(cls)

    @abstractmethod
    def _state_axes(self) -> dict[str, str | None]:
        """Axes of every tensor of a state but for the batch, as in "J, I"; None: absent."""

    @abstractmethod
    def _run(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """x [T, B, in_features] in the parameters' dtype, state or None -> output, state."""

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Runs a sequence.

        x: [T, B, in_features], [B, T, in_features] with `batch_first`, or unbatched
        [T, in_features]; state: what an earlier call returned, or None for zeros.
        Returns (output in the layout of x, state). T or B may be 0.

        Raises ValueError for a wrong shape, device or parameter value, TypeError for a wrong dtype
        or kind of state.
        """
        steps, seen = layout.read(x, self.in_features, self.batch_first)
        check.check_parameter_dtype("weight", self.weight.dtype)
        check.check_device("x", steps, "the layer", self.weight)
        steps = check.as_input("x", steps, self.weight.dtype)
        if state is not None:
            layout.check_state_type(state, self.state_type)
            sizes = {"B": steps.shape[1], "I": self.in_features, "J": self.out_features}
            seen.check_state(state, self._state_axes(), sizes, self.weight)
        output, state = self._run(steps, seen.read_state(state))
        return seen.restore(output), seen.restore_state(state)

    def step(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """One time step, a sequence of length 1: x [B, in_features] or [in_features]."""
        time = layout.time_axis(x, self.batch_first)
        output, state = self(x.unsqueeze(time), state)
        return output.squeeze(time), state

    def _placed(self, value: Tensor) -> Tensor:
        return value.to(device=self._device, dtype=self._dtype).contiguous()

    def _drawn(
        self,
        name: str,
        initializer: Initializer,
        shape: tuple[int, ...],
        generator: torch.Generator | None,
    ) -> Tensor:
        drawn = draw(name, initializer, shape, generator)
        check.check_finite(name, drawn)
        return self._placed(drawn)

    def _made_decay(
        self,
        name: str,
        tau: TimeConstant,
        shape: tuple[int, ...],
        *,
        learn_decay: bool = False,
        frozen_fraction: float = 0.0,
        decay_parametrization: str = "clamp",
        generator: torch.Generator | None,
    ) -> Decay:
        """Decays of time constants drawn from `tau`."""
        made = tau_to_decay(draw_tau(name, tau, shape, generator), self.dt).to(self._dtype)
        return Decay(
            made.contiguous(),
            learn=learn_decay,
            frozen_fraction=frozen_fraction,
            parametrization=decay_parametrization,
            generator=generator,
        ).to(self._device)

    def _decays(self, name: str) -> Tensor:
        """The decays of submodule `name`, checked before any work."""
        decay: Tensor = getattr(self, name)()
        check.check_unit_interval(name, decay)
        return decay

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


class SpikingLayer(SequenceLayer):
    """Threshold, reset and adaptation current, and the weights of recurrent synapses."""

    threshold: Tensor
    recurrent_weight: nn.Parameter | None
    self_mask: Tensor | None
    reset_decay: Tensor | None
    adaptation_decay: Tensor | None
    adaptation_strength: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        recurrent: bool = False,
        self_connections: bool = True,
        recurrent_weight_init: Initializer | None = None,
        threshold: float = 1.0,
        learn_threshold: bool = False,
        tau_reset: float | str = 20.0,
        adaptation: float | None = None,
        tau_adaptation: float | None = None,
        surrogate: Surrogate = Triangular(),  # noqa: B008 - frozen
        detach_reset: bool = False,
        generator: torch.Generator | None = None,
        **options: Unpack[LayerOptions],
    ) -> None:
        check.check_positive_number("threshold", threshold)
        if tau_reset != "tied":
            if isinstance(tau_reset, str):
                raise ValueError(
                    f"tau_reset: expected a positive, finite number or 'tied', got {tau_reset!r}"
                )
            check.check_positive_number("tau_reset", tau_reset)
        check.check_surrogate(surrogate)
        check.check_flag("self_connections", self_connections)
        check.check_flag("learn_threshold", learn_threshold)
        if recurrent_weight_init is not None and not check.check_flag("recurrent", recurrent):
            raise ValueError("recurrent_weight_init: expected None for a feedforward layer")
        super().__init__(in_features, out_features, generator=generator, **options)
        self.recurrent = check.check_flag("recurrent", recurrent)
        self.surrogate = surrogate
        self.detach_reset = check.check_flag("detach_reset", detach_reset)
        self._make_recurrent_weight(
            recurrent_weight_init or options.get("weight_init", FanInNormal()),
            self_connections,
            generator,
        )
        theta = self._per_neuron(threshold)
        if learn_threshold:
            self.threshold = nn.Parameter(theta)
        else:
            self.register_buffer("threshold", theta)
        fixed = None if isinstance(tau_reset, str) else self._decay_of(tau_reset)
        register_present(self, "reset_decay", fixed)
        self._make_adaptation(adaptation, tau_adaptation)

    def _make_recurrent_weight(
        self, init: Initializer, self_connections: bool, generator: torch.Generator | None
    ) -> None:
        weight, mask = None, None
        if self.recurrent:
            square = (self.out_features, self.out_features)
            weight = nn.Parameter(self._drawn("recurrent_weight_init", init, square, generator))
            if not self_connections:
                mask = self._placed(1 - torch.eye(self.out_features, device="cpu"))
        self.register_parameter("recurrent_weight", weight)
        register_present(self, "self_mask", mask)

    def _make_adaptation(self, strength: float | None, tau: float | None) -> None:
        decay, filled = None, None
        if strength is not None and tau is not None:
            decay = self._decay_of(check.check_positive_number("tau_adaptation", tau))
            filled = self._per_neuron(check.check_finite_number("adaptation", strength))
        elif strength is not None or tau is not None:
            raise ValueError(
                "adaptation and tau_adaptation: expected both or neither, "
                f"got adaptation={strength!r}, tau_adaptation={tau!r}"
            )
        register_present(self, "adaptation_decay", decay)
        register_present(self, "adaptation_strength", filled)

    def _per_neuron(self, value: float) -> Tensor:
        filled = torch.full((self.out_features,), float(value), dtype=torch.float64, device="cpu")
        return self._placed(filled)

    def _decay_of(self, tau: float) -> Tensor:
        return self._per_neuron(tau_to_decay(tau, self.dt).item())

    def _recurrent_weight_in_use(self) -> Tensor:
        """The recurrent weights; without self-connections their diagonal is zero."""
        assert self.recurrent_weight is not None
        check.check_finite("recurrent_weight", self.recurrent_weight)
        if self.self_mask is None:
            return self.recurrent_weight
        return self.recurrent_weight * self.self_mask

    def _neuron_options(self) -> dict[str, Any]:
        return {
            "adaptation_decay": self.adaptation_decay,
            "adaptation_strength": self.adaptation_strength,
            "surrogate": self.surrogate,
            "detach_reset": self.detach_reset,
            "backend": self.backend,
        }

    def _neuron_axes(self) -> dict[str, str | None]:
        adaptation = None if self.adaptation_decay is None else "J"
        return {"reset": "J", "adaptation": adaptation, "spike": "J"}

    @staticmethod
    def _neuron_state(state: Any) -> NeuronState | None:
        return None if state is None else NeuronState(state.reset, state.adaptation, state.spike)

    def extra_repr(self) -> str:
        recurrent = ", recurrent" if self.recurrent else ""
        return super().extra_repr() + recurrent + f", surrogate={self.surrogate}"
