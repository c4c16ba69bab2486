"""Compile kernels ahead of time, without a GPU, and count the instructions of their loops.

The `cuobjdump` in the Triton wheel disassembles the machine code. A loop is the code between a
backward branch and its target; each instruction counts once, those of inner loops too.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from hetsyn_triton.kernels.gpu.lib.launch import Launch

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}

_PACKAGED = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
CUOBJDUMP = str(_PACKAGED) if _PACKAGED.exists() else None
"""The disassembler in the Triton wheel, if any; otherwise the one on the PATH is used."""

_POINTERS = {
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.uint8: "*u8",
}


def fma(counts: Counter[str]) -> int:
    """Return the scalar multiply-adds of FFMA and two-wide FFMA2 (sm_100)."""
    return counts["FFMA"] + 2 * counts["FFMA2"]


def spills(counts: Counter[str]) -> int:
    """Return the loads from and stores to local memory."""
    return counts["LDL"] + counts["STL"]


@dataclass(frozen=True)
class Instruction:
    """An instruction of the machine code, as `cuobjdump -sass` prints it."""

    address: int
    predicate: str
    name: str
    """With modifiers, as in LDG.E.128."""
    operands: str
    control: int
    """Bits 105 to 125 of the encoding: stall count, barriers, wait mask; 0 if not printed."""

    @property
    def operation(self) -> str:
        """The name without modifiers."""
        return self.name.split(".")[0]

    @property
    def target(self) -> int | None:
        """The address that a branch jumps to; None if this is no branch."""
        found = re.search(r"0x([0-9a-f]+)", self.operands) if self.operation == "BRA" else None
        return int(found[1], 16) if found else None


@dataclass(frozen=True)
class Loop:
    """The number of each instruction in a loop of the machine code."""

    counts: Counter[str]
    """With inner loops, as if each ran once."""
    own: Counter[str]
    """Without inner loops."""
    innermost: bool = True
    first: int = 0
    last: int = 0
    """Addresses of the first and last instruction."""

    @property
    def share(self) -> float:
        """Multiply-adds per instruction, an upper bound on the fraction of the FP32 peak."""
        return fma(self.counts) / self.counts.total()


@dataclass(frozen=True)
class Code:
    """The compiled code of a launch."""

    name: str
    target: str
    registers: int
    shared: int
    loops: list[Loop] = field(default_factory=list)
    sass: str = ""

    @property
    def hot(self) -> Loop | None:
        """The loop with the most multiply-adds of its own: the loop over time, if there is one.

        It may contain a loop that waits for other programs. None if no loop has multiply-adds.
        """
        best = max(self.loops, key=lambda loop: fma(loop.own), default=None)
        return best if best and fma(best.counts) else None

    @property
    def spills(self) -> int:
        """Spills of all loops; each instruction counts once."""
        return sum(spills(loop.own) for loop in self.loops)

    @property
    def spills_over_time(self) -> int:
        """Spills of the loops over time: the hot loop and all innermost loops."""
        over_time = (loop for loop in self.loops if loop.innermost or loop is self.hot)
        return sum(spills(loop.own) for loop in over_time)


def compile_launch(call: Launch, target: str) -> Code:
    """Compile exactly what `call` would run: its types, constants, warps and options."""
    kernel, chosen = call.kernel, TARGETS[target]
    constants = call.constants
    if chosen.backend != "cuda":  # PTX does not run there: see `steps_ahead`
        off = {"AHEAD": 0, "RELAXED": False}
        constants = constants | {name: off[name] for name in off.keys() & constants.keys()}
    signature, attributes = {}, {}
    annotations = {p.name: p.annotation for p in kernel.params}
    for place, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
            continue
        value: Any = call.arguments[name]
        if isinstance(value, Tensor):
            signature[name] = _POINTERS[value.dtype]
            attributes[(place,)] = [["tt.divisibility", 16]]  # as torch allocates
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = annotations[name] or "i32"
    source = ASTSource(kernel, signature, constexprs=constants, attrs=attributes)
    options = {"num_warps": call.num_warps, "enable_fp_fusion": True, **call.options}
    compiled = triton.compile(source, target=chosen, options=options)
    if chosen.backend != "cuda":
        text = compiled.asm["amdgcn"]
        registers = _number(r"\.vgpr_count:\s+(\d+)", text)
        spilled = _number(r"\.vgpr_spill_count:\s+(\d+)", text)
        counts = Counter({"LDL": spilled})
        return Code(call.name, target, registers, compiled.metadata.shared, [Loop(counts, counts)])
    usage, sass = _disassembled(compiled.asm["cubin"])
    registers = _number(r"REG:(\d+)", usage)
    return Code(call.name, target, registers, compiled.metadata.shared, loops_of(sass), sass)


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found is not None, pattern
    return int(found[1])


def _disassembled(cubin: bytes) -> tuple[str, str]:
    tool = CUOBJDUMP or shutil.which("cuobjdump")
    if tool is None:
        raise FileNotFoundError(
            "cuobjdump: neither in the Triton package nor on the PATH;"
            " Triton's Linux wheels and the CUDA toolkit have it"
        )
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "kernel.cubin")
        Path(file).write_bytes(cubin)
        usage, sass = (
            subprocess.run([tool, flag, file], capture_output=True, text=True, check=True).stdout
            for flag in ("-res-usage", "-sass")
        )
    return usage, sass


_INSTRUCTION = re.compile(
    r"/\*([0-9a-f]{4,})\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][\w.]*)([^;]*);"
    r"(?:\s*/\* 0x[0-9a-f]{16} \*/\s*/\* 0x([0-9a-f]{16}) \*/)?"
)


def parse(sass: str) -> list[Instruction]:
    """Return all instructions of a disassembly."""
    found = []
    for address, predicate, name, operands, high in _INSTRUCTION.findall(sass):
        control = int(high, 16) >> 41 if high else 0
        found.append(Instruction(int(address, 16), predicate, name, operands.strip(), control))
    return found


def loops_of(sass: str) -> list[Loop]:
    """Return all loops of a disassembly, ordered by their last instructions."""
    code = parse(sass)
    spans: dict[int, int] = {}  # several branches to one target are one loop
    for i in code:
        # The jump to itself at the end of a kernel is not a loop.
        if i.target is not None and i.target < i.address:
            spans[i.target] = i.address

    def counted(low: int, high: int) -> Loop:
        inside = [(a, b) for a, b in spans.items() if low <= a and b <= high and a != low]
        body = [(i.address, i.operation) for i in code if low <= i.address <= high]
        own = Counter(op for at, op in body if not any(a <= at <= b for a, b in inside))
        return Loop(Counter(op for _, op in body), own, not inside, low, high)

    return [counted(low, high) for low, high in spans.items()]
