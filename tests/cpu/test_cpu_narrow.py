"""What is compiled for a processor without AVX-512 gives the same bits."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from llvmlite import binding

FEATURES = ("avx2", "fma", "avx", "sse4.2", "sse4.1", "ssse3", "sse3", "popcnt", "f16c", "bmi2")

PROGRAM = """
import sys
import torch
from hetsyn_triton import HetNeuLIF, HetSynLIF, HetSynReadout, surrogates
from hetsyn_triton.kernels.cpu.lib.threads import grouped
from hetsyn_triton.kernels.cpu.lib.vectors import WIDE, lanes_of

torch.set_num_threads(1)  # more leave no two blocks to a task
dtype = getattr(torch, sys.argv[1])
print(WIDE, grouped(3, -(-40 // lanes_of(dtype.itemsize)))[0])
for kind in surrogates.SURROGATES:
    for cls, options in ((HetSynLIF, {}), (HetSynLIF, {"recurrent": True}),
                         (HetNeuLIF, {"recurrent": True}), (HetSynReadout, {})):
        if cls is not HetSynReadout:
            options = options | {"surrogate": surrogates.surrogate_by_name(kind)}
        generator = torch.Generator().manual_seed(0)
        layer = cls(70, 40, generator=generator, dtype=dtype, **options)
        x = (torch.rand(29, 3, 70, generator=generator) < 0.3).to(dtype).requires_grad_()
        output, _ = layer(x)
        g = torch.randn(output.shape, generator=generator, dtype=dtype)
        wanted = [x, *(p for p in layer.parameters() if p.requires_grad)]
        for made in (output.detach(), *torch.autograd.grad(output, wanted, g)):
            print(made.numpy().tobytes().hex())
"""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.full)])
@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64")
    or not all(binding.get_host_cpu_features().get(feature) for feature in FEATURES),
    reason="needs a processor with AVX2",
)
def test_narrow_registers_give_the_same_bits(dtype: str, tmp_path: Path) -> None:
    def made(**variables: str) -> tuple[str, list[str]]:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, dtype],
            env={**os.environ, **variables}, capture_output=True, text=True, timeout=400,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        about, *found = done.stdout.splitlines()
        wide, together = about.split()
        assert int(together) >= 3  # two and one
        return wide, found

    features = ",".join(f"+{feature}" for feature in FEATURES)
    wide, narrow = made(
        NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES=features, NUMBA_CACHE_DIR=str(tmp_path)
    )
    assert wide == "False"
    _, own = made()
    assert len(own) > 100
    assert narrow == own
