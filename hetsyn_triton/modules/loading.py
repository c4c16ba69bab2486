"""Loading a state: values are checked on every device (a call reads them on the CPU only), and a
state that does not fit changes nothing."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Loadable(nn.Module):
    """A module whose `load_state_dict` loads all or, if it raises, nothing."""

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **options: Any) -> Any:
        tensors = [(t, t.detach().clone()) for t in (*self.parameters(), *self.buffers())]
        dicts = [d for m in self.modules() for d in (vars(m), m._parameters, m._buffers)]
        kept = [(d, dict(d)) for d in dicts]
        try:
            return super().load_state_dict(state_dict, *args, **options)
        except Exception:
            for own, before in kept:  # marks of decays; with `assign=True` other tensors
                own.clear()
                own.update(before)
            with torch.no_grad():
                for tensor, value in tensors:
                    tensor.copy_(value)
            raise


def check_loaded(
    state_dict: Mapping[str, Any],
    prefix: str,
    checks: Mapping[str, Callable[[str, Tensor], None]],
    errors: list[str],
) -> bool:
    """Check what `state_dict` has under `prefix` and each name; add to `errors`, as PyTorch does,
    and return whether there was none."""
    before = len(errors)
    for name, check in checks.items():
        value = state_dict.get(prefix + name)
        if isinstance(value, Tensor) and not value.is_meta:
            try:
                check(prefix + name, value.detach().to("cpu"))
            except ValueError as error:
                errors.append(str(error))
    return len(errors) == before
