"""Results of two programs that `pytest --benchmark` replaced, in the form of its rows.

`cpu-*.json` has layers, operators and memory; `gpu-*.json` has layers and kernels. In both a row
has its rivals inside.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, replace

from bench.plain_lif import DIFFERENCE
from bench.records import Record
from bench.registry import NETWORK, OPERATOR_FMA, OURS, PLAIN, Work


def read(found: Record) -> Record:
    """One of these files as if it had been measured now."""
    rows, missing = [], {}
    for old in [*found.get("layers", []), *found.get("operators", []), *found.get("rows", [])]:
        work = _work(old)
        for row in _rows(old, work):
            if row["ms"] is None:
                missing[f"{row['group']}, {row['label']}"] = row["reason"]
            else:
                rows.append(row)
    memory = {_memory_name(old): old for old in found.get("memory", [])}
    for row in rows:
        taken = memory.get(row["group"], {})
        of = taken.get({OURS: "ours", "loop": "loop"}.get(row["contender"], ""), {})
        names = {"peak": "peak_bytes", "saved": "saved_bytes", "first_ms": "first_ms"}
        row |= {new: of[old] for old, new in names.items() if of.get(old) is not None}
    on_a_cpu = "layers" in found
    rates = found.get("rates") or {"fma": found["machine"]["fma_rate"]}
    return {
        "machine": found["machine"],
        "set": "full",
        "memory": "from a process for each call" if on_a_cpu else "of the allocator",
        "rates": rates,
        "missing": missing,
        "wrong": {},
        "rows": rows,
        "gate": found["gate"],
    }


def _rows(old: Record, work: Work) -> Iterator[Record]:
    """A row for each contender."""
    fields = ("ms", "low_ms", "high_ms", "sets", "peak_bytes", "predicted", "reason")
    own = {k: v for k, v in old.items() if k != "rivals"} | {"bytes": old.get("bytes")}
    for who, given in {OURS: own, **old["rivals"]}.items():
        row: Record = {"group": work.name, "label": who, "contender": who, "work": asdict(work)}
        row["check"] = DIFFERENCE if who in PLAIN else "equal"
        row["fma"] = work.fma if row["check"] == "equal" and "z and w" not in who else 0
        row |= {k: given[k] for k in fields if given.get(k) is not None}
        row |= {"ms": given.get("ms"), "rounds": given.get("repeats")}
        if who == OURS and work.operator:
            row["bytes"] = given.get("hbm_bytes") or given.get("bytes")
        yield row


def _work(old: Record) -> Work:
    name, part, sizes = old["name"], old["part"], {n: old[n] for n in "TBIJ"}
    if part == "step":
        return replace(NETWORK, T=old["T"], B=old["B"])
    if name.startswith("recurrent synapses"):
        return Work("synapses", **sizes, recurrent=True)
    if old.get("group") == "kernel":
        return Work("kernel", **sizes, part=part, operator=part)
    if part not in ("gradients", "forward", "backward", "both"):
        sizes["I"] = sizes["I"] if part in OPERATOR_FMA else sizes["J"]
        return Work("operator", **sizes, part=part, operator=part)
    recurrent = bool(old.get("recurrent") or re.search(r"->\d+r ", name))
    return Work("layer", **sizes, recurrent=recurrent, part="both" if part == "gradients" else part)


def _memory_name(old: Record) -> str:
    """The group of a line of memory, all of 250 steps: "700->128 recurrent, B 8"."""
    if old["part"] == "step":
        return NETWORK.name
    I, J, recurrent, B = re.fullmatch(r"(\d+)->(\d+)( recurrent)?, B (\d+)", old["name"]).groups()  # type: ignore[union-attr]  # noqa: E741
    return Work("layer", NETWORK.T, int(B), int(I), int(J), bool(recurrent)).name
