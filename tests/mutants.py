"""Breaks one line of the library at a time, in a copy of the checkout; the tests must notice.

    python -m tests.mutants                 all of them, about half an hour on 2 cores
    python -m tests.mutants spike_scan      those whose file has this in its path

Prints a line for each: the test that failed, or MISSED. Results of past runs are in tests/HUNTS.md.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = "hetsyn_triton/"


@dataclass(frozen=True)
class Mutant:
    """`right`, which stands once in a file of the library, becomes `wrong`; `tests` must notice."""

    file: str
    right: str
    wrong: str
    tests: str = "tests"


MUTANTS = (
    Mutant(
        "kernels/cpu/lib/parameter_gradient.py",
        "            dr = fma(g, y, dr)\n            dw = fma(g, x, dw)\n    else:",
        "            dr = fma(g, x, dr)\n            dw = fma(g, x, dw)\n    else:",
        "tests/operators",
    ),
    Mutant(
        "kernels/gpu/lib/neuron.py",
        "b_potential > b_threshold",
        "b_potential >= b_threshold",
        "tests/operators",
    ),
    Mutant(
        "kernels/gpu/lib/neuron.py",
        "        if not DETACH_RESET:",
        "        if DETACH_RESET:",
        "tests/operators",
    ),
    Mutant(
        "reference/lib/steps.py",
        "(distance > 0)",
        "(distance >= 0)",
        "tests/operators",
    ),
    Mutant(
        "reference/lib/steps.py",
        "return current - feedback.sum(1)",
        "return current - feedback[:, 0]",
    ),
    Mutant(
        "reference/leaky_recurrent_scan.py",
        "        d_current = row_decay * at_step",
        "        d_current = at_step",
        "tests/operators",
    ),
    Mutant(
        "ops/feedforward_scan.py",
        "*g_neuron, slope, spikes, *own, ctx.detach_reset",
        "*g_neuron, slope, spikes, *own, False",
    ),
    Mutant(
        "ops/dispatch.py",
        "        return tuple(unfold(o) for o in outputs), (0,) * len(outputs)",
        "        return tuple(unfold(o) for o in outputs[::-1]), (0,) * len(outputs)",
    ),
    Mutant(
        "surrogates.py",
        "        return self.slope * sigma * (1 - sigma)",
        "        return sigma * (1 - sigma)",
    ),
    Mutant(
        "timeconstants.py",
        "    return torch.exp(-dt / tau)",
        "    return 1 - dt / tau",
    ),
    Mutant(
        "optim.py",
        "decay_lr = 2 * lr if",
        "decay_lr = lr if",
    ),
    Mutant(
        "graphed_step.py",
        "torch.where(bad.any() & ~earlier, now",
        "torch.where(bad.any(), now",
        "tests/test_graphed_step.py",
    ),
    Mutant(
        "graphed_step.py",
        '                rate.fill_(group["lr"])',
        "                pass",
        "tests/test_graphed_step.py",
    ),
    Mutant(
        "ops/branches.py",
        "        learned = [(t, g) for t, g in self.found if t.requires_grad]",
        "        learned = [(t, g) for t, g in self.found[:1] if t.requires_grad]",
        "tests/test_graphed_step.py",
    ),
    Mutant(
        "kernels/gpu/lib/launch.py",
        "data_ptr() % 16 == 0",
        "data_ptr() % 2 == 0",
        "tests/gpu/test_gpu_launch.py",
    ),
    Mutant(
        "kernels/gpu/lib/feedback_gradient.py",
        "tl.fma(b_decays[k], b_qs[k], b_at_step)",
        "tl.fma(b_decays[k], b_qs[k], -b_g_v)",
        "tests/operators",
    ),
    Mutant(
        "ops/surrogate.py",
        "if trial.allowed() else None",
        "if not trial.allowed() else None",
        "tests/gpu/test_gpu_dispatch.py",
    ),
    Mutant(
        "modules/decay.py",
        '        if self.parametrization == "clamp":',
        '        if self.parametrization == "sigmoid":',
    ),
    Mutant(
        "experiments/training/restore.py",
        "        optimizer.load_state_dict(state)",
        "        pass",
        "tests/training",
    ),
    Mutant(
        "experiments/studies/statistics.py",
        "inv_cdf(0.975)",
        "inv_cdf(0.95)",
        "tests/studies",
    ),
)


def copy_of_checkout(folder: Path) -> Path:
    """Copy what git lists to `folder` and return it."""
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    )
    for name in filter(None, names.stdout.split("\0")):
        if (ROOT / name).is_file() or (ROOT / name).is_symlink():  # kernels and reference are links
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target, follow_symlinks=False)
    return folder


def first_failure(checkout: Path, tests: str) -> str | None:
    """Run the tests until one fails, and return its name."""
    paths = [str(checkout), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-xq", "-rf", "--tb=no", "-pno:cacheprovider", tests],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
    )
    found = re.search(r"^FAILED (.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    if done.returncode not in (0, 1) or (done.returncode == 1 and found is None):
        raise SystemExit(f"pytest {tests} ended with {done.returncode}: {done.stdout[-2000:]}")
    return found.group(1) if found else None


def main() -> int:
    """Run the mutants; return the number that no test noticed."""
    names = sys.argv[1:] or [""]
    chosen = [m for m in MUTANTS if any(name in m.file for name in names)]
    missed = 0
    with tempfile.TemporaryDirectory() as made:
        checkout = copy_of_checkout(Path(made))
        for tests in {mutant.tests for mutant in chosen}:
            broken = first_failure(checkout, tests)
            if broken:
                raise SystemExit(f"fails without a mutant: {broken}")
        for mutant in chosen:
            file = checkout / LIBRARY / mutant.file
            text = file.read_text()
            if text.count(mutant.right) != 1:
                raise SystemExit(
                    f"{mutant.file}: expected {mutant.right!r} once, got it "
                    f"{text.count(mutant.right)} times"
                )
            file.write_text(text.replace(mutant.right, mutant.wrong))
            found = first_failure(checkout, mutant.tests)
            file.write_text(text)
            missed += found is None
            change = f"{mutant.right.strip()!r} -> {mutant.wrong.strip()!r}"
            print(f"{mutant.file}: {change}: {found or 'MISSED'}", flush=True)
    return missed


if __name__ == "__main__":
    raise SystemExit(main())
