"""Examples of the README and the pages run, their links lead somewhere, their lines fit."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    str(page.relative_to(ROOT))
    for folder in (".", "docs", "docs/results", "bench", "kernels", "tests")
    for page in sorted((ROOT / folder).glob("*.md"))
]


def blocks(language: str, page: str = "README.md") -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def test_the_example_runs_and_is_short() -> None:
    (example,) = blocks("python")
    assert len([line for line in example.splitlines() if line.strip()]) <= 12
    exec(compile(example, "README.md", "exec"), {"__name__": "readme"})


def test_the_example_of_the_migration_page_runs() -> None:
    (example,) = blocks("python", "docs/migration.md")
    exec(compile(example, "docs/migration.md", "exec"), {"__name__": "migration"})


def test_the_second_command_is_what_ci_runs() -> None:
    """Step by step the same, but in a virtual environment of its own that is created first."""
    train, check = (block.strip() for block in blocks("bash"))
    assert "\n" not in train + check
    assert train.endswith("hetsyn train")
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    given = dict(re.findall(r"^(venv|extras)=(\S+)$", script, re.MULTILINE))
    for name, value in given.items():
        script = script.replace(f"${name}", value)
    lines = [line.replace('"', "'").replace("'", "").split() for line in script.splitlines()]
    for step in check.replace(".venv", given["venv"]).replace("'", "").split(" && "):
        assert any(line[: len(step.split())] == step.split() for line in lines), step


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """To a file of the checkout, and where a heading is named, to that."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            name, _, heading = target.partition("#")
            file = (ROOT / page).parent / name if name else ROOT / page
            assert file.exists(), target
            if heading:
                titles = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
                words = [re.sub(r"[^\w\s-]", "", title).lower().split() for title in titles]
                assert heading in ["-".join(title) for title in words], target


@pytest.mark.parametrize("page", PAGES)
def test_lines_fit(page: str) -> None:
    """In 100 columns, but for tables, code, commands, and the targets of links."""
    text = (ROOT / page).read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for line in re.sub(r"\]\([^)\s]+\)|`hetsyn [^`\n]*`", "", prose).splitlines():
        assert line.startswith(("|", "    ")) or len(line) <= 100, line
