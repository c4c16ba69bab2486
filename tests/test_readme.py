"""What the README shows is what runs."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def test_the_example_runs_and_is_short() -> None:
    (example,) = blocks("python")
    assert len([line for line in example.splitlines() if line.strip()]) <= 12
    exec(compile(example, "README.md", "exec"), {"__name__": "readme"})


def test_the_second_command_is_what_ci_runs() -> None:
    """Step by step the same, but in a virtual environment of its own that is made anew."""
    train, check = (block.strip() for block in blocks("bash"))
    assert "\n" not in train + check
    assert train.endswith("hetsyn train")
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    lines = [line.split() for line in script.splitlines()]
    for step in check.replace(".venv", ".venv-ci").split(" && "):
        assert any(line[: len(step.split())] == step.split() for line in lines), step
