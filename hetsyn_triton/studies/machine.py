"""What a study's figures depend on besides its settings: machine, versions, date."""

from typing import Any

import torch

from hetsyn_triton.training import machine


def provenance() -> dict[str, Any]:
    """Processors, all GPUs among them, versions and the date (UTC)."""
    return machine.provenance(range(torch.cuda.device_count()))
