"""What all layers share: weights, layout, threshold, and one step at a time."""

from __future__ import annotations

import inspect
from abc import ABCMeta, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Self, Unpack

from hetsyn_triton import ops, validation as check
from hetsyn_triton.initializers import FanInNormal, Initializer, draw
from hetsyn_triton.ops.neuron import Neuron, stacked
from hetsyn_triton.surrogates import Surrogate, Triangular
from hetsyn_triton.timeconstants import TimeConstant, draw_tau, tau_to_decay

from .decay import Decay, register_present
from .layer_options import LayerOptions, full_signature
from .loading import Loadable, check_loaded


class _Made(ABCMeta):
    """Notes what a layer was made with, once it is complete."""

    def __call__(cls, *args: Any, **options: Any) -> Any:
        layer = super().__call__(*args, **options)
        options.pop("generator", None)  # cannot be copied
        vars(layer)["_made_with"] = (cls, args, options)
        ops.register_flops()
        return layer


class SequenceLayer(Loadable, metaclass=_Made):
    """A layer over time with weights [J, I]: `output, state = layer(x, state)`; hides no state.

    Subclasses give `state_type`, `_state_axes` and `_run`, which sees checked [1, T, B, N] tensors.
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
        self.batch_first = batch_first
        self.backend = backend
        self._device = torch.get_default_device() if device is None else device
        self._dtype = torch.get_default_dtype() if dtype is None else dtype
        check.check_parameter_dtype("dtype", self._dtype)
        drawn = self._drawn("weight_init", weight_init, (out_features, in_features), generator)
        self.weight = nn.Parameter(drawn)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._settable:
            self._settable[name](name, value)
        elif name in self._arguments and "_made_with" in vars(self):
            raise AttributeError(
                f"{name}: expected the value that the layer was made with, got an assignment of "
                f"{value!r}; of a layer's arguments {', '.join(self._settable)} can be assigned"
            )
        super().__setattr__(name, value)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew and restore all buffers, as when the layer was made.

        Also fills a layer that was made on the meta device, after `to_empty`.

        Args:
            generator: Draws weights and time constants. Default: PyTorch's own.

        Raises:
            RuntimeError: If the layer has parameters that it was not made with, as after pruning.

        Example:
            >>> layer = HetSynLIF(8, 4, device="meta").to_empty(device="cpu")
            >>> layer.reset_parameters()
        """
        cls, args, options = self._made_with
        options = {**options, "device": "cpu"}
        options |= {"dtype": self.weight.dtype, "generator": generator}
        made = cls(*args, **options).state_dict()
        own = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        if own.keys() != made.keys():
            raise RuntimeError(
                f"reset_parameters: expected the parameters that the layer was made with, got "
                f"{', '.join(sorted(own.keys() ^ made.keys()))}"
            )
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(_like(made[name], tensor))

    _made_with: tuple[type[Self], tuple[Any, ...], dict[str, Any]]
    _settable: ClassVar[dict[str, Callable[[str, Any], object]]] = {
        "batch_first": check.check_flag,
        "backend": lambda name, value: check.check_choice(name, value, ops.BACKENDS),
        "surrogate": lambda name, value: check.check_surrogate(value),
        "detach_reset": check.check_flag,
        "threshold": lambda name, value: None,  # a tensor
    }
    _arguments: ClassVar[frozenset[str]]
    __signature__: ClassVar[inspect.Signature]
    _loaded: ClassVar[dict[str, Callable[[str, Tensor], None]]] = {
        "weight": check.check_finite,
        "recurrent_weight": check.check_finite,
        "threshold": check.check_positive,
        "reset_decay": check.check_unit_interval,
        "adaptation_decay": check.check_unit_interval,
        "adaptation_strength": check.check_finite,
    }

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        if check_loaded(state_dict, prefix, self._loaded, rest[-1]):
            super()._load_from_state_dict(state_dict, prefix, *rest)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__signature__ = full_signature(cls)
        if cls.__module__.startswith("hetsyn_triton."):  # a class derived elsewhere has its own
            cls._arguments = frozenset(cls.__signature__.parameters)

    @abstractmethod
    def _state_axes(self) -> dict[str, str | None]:
        """Axes of every tensor of a state but for the batch, as in "J, I"; None: absent."""

    @abstractmethod
    def _run(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """x [1, T, B, in_features] in the parameters' dtype, state or None -> output, state; all
        with the replica axis in front."""

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Run a sequence.

        Args:
            x: Input [T, B, in_features], [B, T, in_features] with `batch_first`, or without B. T or
                B may be 0.
            state: The state that an earlier call returned. Default: zeros.

        Returns:
            The output in the layout of `x`, and the state after the last step.

        Raises:
            ValueError: If a shape, device or parameter value does not fit, or on a CPU `x` or the
                state has NaN or infinity.
            TypeError: If a dtype or the kind of the state does not fit.
        """
        steps, seen = _read(x, self.in_features, self.batch_first)
        check.check_parameter_dtype("weight", self.weight.dtype)
        check.check_device("x", steps, "the layer", self.weight)
        steps = check.as_input("x", steps, self.weight.dtype)
        if state is not None:
            _check_state_type(state, self.state_type)
            sizes = {"B": steps.shape[1], "I": self.in_features, "J": self.out_features}
            seen.check_state(state, self._state_axes(), sizes, self.weight)
        output, after = self._run(steps.unsqueeze(0), seen.read_state(state))
        return seen.restore(output), seen.restore_state(after)

    def step(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Run one time step, a sequence of length 1.

        Args:
            x: Input [B, in_features] or [in_features].
            state: The state that an earlier call returned. Default: zeros.

        Returns:
            Output and state, as `forward` returns them, without the time axis.
        """
        time = time_axis(x, self.batch_first)
        output, state = self(x.unsqueeze(time), state)
        return output.squeeze(time), state

    def _check_given(self, steps: Tensor, x: Tensor, state: Any) -> None:
        """ValueError if x or the state has NaN or infinity, which never leave `steps` [1, T, B, J]:
        potentials, or currents. Spikes alone would only stop."""
        if steps.shape[1] == 0 or check.sums_to_finite(steps[:, -1]):
            return
        check.check_finite("x", x)
        for field, value in ({} if state is None else state._asdict()).items():
            if value is not None:
                check.check_finite(f"state.{field}", value)

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
        """The decays of submodule `name` with the replica axis, checked before any work."""
        decay: Tensor = getattr(self, name)()
        check.check_unit_interval(name, decay)
        return decay.unsqueeze(0)

    def _synapses(self) -> tuple[Tensor, Tensor]:
        """Weights and decays of the input synapses with the replica axis, checked."""
        check.check_finite("weight", self.weight)
        return self.weight.unsqueeze(0), self._decays("decay")

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
        check.check_flag("self_connections", self_connections)
        check.check_flag("learn_threshold", learn_threshold)
        if recurrent_weight_init is not None and not check.check_flag("recurrent", recurrent):
            raise ValueError("recurrent_weight_init: expected None for a feedforward layer")
        super().__init__(in_features, out_features, generator=generator, **options)
        self.recurrent = check.check_flag("recurrent", recurrent)
        self.surrogate = surrogate
        self.detach_reset = detach_reset
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
        """The recurrent weights with the replica axis, checked; without self-connections their
        diagonal is zero."""
        assert self.recurrent_weight is not None
        check.check_finite("recurrent_weight", self.recurrent_weight)
        if self.self_mask is None:
            return self.recurrent_weight.unsqueeze(0)
        return (self.recurrent_weight * self.self_mask).unsqueeze(0)

    def _neuron(self, reset_decay: Tensor, state: Any, like: Tensor) -> Neuron:
        """Check the neurons' parameters and stack them; `like` [1, T, B, N]."""
        check.check_positive("threshold", self.threshold)
        check.check_unit_interval("reset_decay", reset_decay)
        decay, strength = self.adaptation_decay, self.adaptation_strength
        if decay is not None and strength is not None:
            check.check_unit_interval("adaptation_decay", decay)
            check.check_finite("adaptation_strength", strength)
        if state is None:
            zeros = like.new_zeros(1, like.shape[2], self.out_features)
            reset, adaptation, spike = zeros, None if decay is None else zeros, zeros
        else:
            reset, adaptation, spike = state.reset, state.adaptation, state.spike
        return stacked(
            self.threshold.unsqueeze(0),
            reset_decay.unsqueeze(0),
            None if decay is None else decay.unsqueeze(0),
            None if strength is None else strength.unsqueeze(0),
            reset,
            adaptation,
            spike,
        )

    def _neuron_axes(self) -> dict[str, str | None]:
        adaptation = None if self.adaptation_decay is None else "J"
        return {"reset": "J", "adaptation": adaptation, "spike": "J"}

    @property
    def _scan(self) -> tuple[Surrogate, bool, str]:
        """What every scan takes behind its tensors."""
        return self.surrogate, self.detach_reset, self.backend

    def extra_repr(self) -> str:
        recurrent = ", recurrent" if self.recurrent else ""
        return super().extra_repr() + recurrent + f", surrogate={self.surrogate}"


def _like(value: Tensor, other: Tensor) -> Tensor:
    """`value`, sharded as `other` is (`torch.distributed.fsdp.fully_shard`)."""
    if hasattr(other, "device_mesh"):
        from torch.distributed.tensor import distribute_tensor

        mesh, placements = other.device_mesh, other.placements  # type: ignore[attr-defined]
        return distribute_tensor(value, mesh, placements)
    return value


# -- layouts ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    """How a caller's input was laid out; made by `_read`."""

    batched: bool
    batch_first: bool

    def restore(self, output: Tensor) -> Tensor:
        """[1, T, B, N] -> the caller's layout."""
        steps = output.squeeze(0)
        if not self.batched:
            return steps.squeeze(1)
        return steps.transpose(0, 1) if self.batch_first else steps

    def check_state(
        self, state: Any, axes: dict[str, str | None], sizes: dict[str, int], like: Tensor
    ) -> None:
        """TypeError or ValueError, naming the field, unless every tensor of a caller's `state` has
        its axes in `axes` (behind the batch) and dtype and device of `like`."""
        for field, value in zip(state._fields, state, strict=True):
            name, expected = f"state.{field}", axes[field]
            if expected is None or value is None:
                if expected is not None or value is not None:
                    wanted, got = ("None", "a tensor") if expected is None else ("a tensor", "None")
                    raise ValueError(f"{name}: expected {wanted}, got {got}")
                continue
            expected = f"B, {expected}" if self.batched else expected
            check.check_like(name, value, "the layer", like)
            shape = [sizes[axis] for axis in expected.split(", ")]
            check.check_shape(name, value, shape, f"[{expected}]")

    def read_state(self, state: Any) -> Any:
        """Add the replica axis, and the batch axis of an unbatched state."""
        if state is None:
            return None
        axes = (None,) if self.batched else (None, None)
        return type(state)(*[None if t is None else t[axes] for t in state])

    def restore_state(self, state: Any) -> Any:
        """Remove what `read_state` adds. The backward of `squeeze` copies nothing."""
        axes = (0,) if self.batched else (0, 1)
        return type(state)(*[None if t is None else t.squeeze(axes) for t in state])


def _read(x: Tensor, in_features: int, batch_first: bool) -> tuple[Tensor, _Layout]:
    """The input as [T, B, N] and its layout.

    Raises TypeError for what is no tensor, ValueError for other than 2 or 3 dimensions or a last
    one that is not `in_features`.
    """
    check.check_tensor("x", x)
    if x.dim() not in (2, 3):
        batched = "[B, T, in_features]" if batch_first else "[T, B, in_features]"
        raise ValueError(
            f"x: expected {batched} or unbatched [T, in_features], got shape {tuple(x.shape)}"
        )
    if x.shape[-1] != in_features:
        raise ValueError(
            f"x: expected a last dimension of in_features = {in_features}, "
            f"got shape {tuple(x.shape)}"
        )
    layout = _Layout(batched=x.dim() == 3, batch_first=batch_first)
    if not layout.batched:
        return x.unsqueeze(1), layout
    return (x.transpose(0, 1) if batch_first else x), layout


def time_axis(x: Tensor, batch_first: bool) -> int:
    """Where time goes in the input of a single step, [B, in_features] or [in_features]."""
    check.check_tensor("x", x)
    if x.dim() not in (1, 2):
        raise ValueError(
            f"x: expected [B, in_features] or [in_features], got shape {tuple(x.shape)}"
        )
    return 1 if batch_first and x.dim() == 2 else 0


def _check_state_type(state: Any, expected: type) -> None:
    """TypeError unless `state` is None or of the layer's own state type."""
    if state is not None and not isinstance(state, expected):
        raise TypeError(f"state: expected {expected.__name__}, got {type(state).__name__}")
