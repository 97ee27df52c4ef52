"""What the docs say runs, and the command reference is what `--help` says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.cli_reference import REFERENCE, render

ROOT = Path(__file__).parents[2]


def test_command_reference_is_what_help_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert REFERENCE.read_text(encoding="utf-8") == render(), "run: python -m tests.docs.cli_reference"


def _blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_readme_commands_run_in_order(tmp_path: Path) -> None:
    lines = [
        line[2:]
        for block in _blocks(ROOT / "README.md", "console")
        for line in block.splitlines()
        if line.startswith("$ ")
    ]
    assert len(lines) > 10
    bin_folder = str(Path(sys.executable).parent)
    script = "set -e\n" + "\n".join(lines)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "old-cats/1.png").stat().st_size == 20000


def test_python_examples_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    blocks = _blocks(ROOT / "docs/python.md", "python")
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), namespace)


@pytest.mark.parametrize(
    "path", [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"], ids=lambda path: path.name
)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{path} links to {target}"
