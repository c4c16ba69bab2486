"""Values are checked as they are loaded, on every device: a call reads them on the CPU only."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor


def check_loaded(
    state_dict: Mapping[str, Any], prefix: str, checks: Mapping[str, Callable[[str, Tensor], None]]
) -> None:
    """Runs each check on what `state_dict` holds under `prefix` and its name, before any
    copy into that module (`load_state_dict` goes module by module)."""
    for name, check in checks.items():
        value = state_dict.get(prefix + name)
        if isinstance(value, Tensor) and not value.is_meta:
            check(prefix + name, value.detach().to("cpu"))
