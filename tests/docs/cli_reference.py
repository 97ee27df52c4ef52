"""The command reference, made from `--help`: python -m tests.docs.cli_reference writes docs/cli.md."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stdout
from pathlib import Path

from registree.cli.app import VERBS, run

REFERENCE = Path(__file__).parents[2] / "docs/cli.md"
GROUPS = {
    "Set-up": ("init", "remote", "mirror", "auth", "config", "cache"),
    "Registry": ("add", "commit", "status", "push", "pull", "checkout", "remove", "move", "verify"),
    "Anyone": ("list", "show", "files", "cat", "diff"),
    "Consumer": ("get", "import", "update", "sync"),
}
SUBVERBS = {
    "remote": ("add", "list", "remove", "override"),
    "auth": ("status",),
    "cache": ("dir", "size", "prune", "clean"),
}
CODES = """| exit code | means |
| ---: | --- |
| 0 | done |
| 1 | an expected "no": a check failed, `--exit-code` |
| 2 | usage or configuration |
| 3 | not found |
| 4 | authentication or permission |
| 5 | network or storage: worth a retry |
| 6 | integrity: a hash mismatch, a moved tag, payload missing |
| 7 | conflict: local edits, a lock, histories that have parted, exists already |
| 130 | interrupted |
"""


def help_of(*words: str) -> str:
    """Return what `reg WORDS --help` prints."""
    out = io.StringIO()
    with redirect_stdout(out):
        run([*words, "--help"])
    return "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())


def render() -> str:
    """Return the whole reference."""
    assert {verb for group in GROUPS.values() for verb in group} == set(VERBS)
    os.environ["COLUMNS"] = os.environ["TERMINAL_WIDTH"] = "100"
    parts = ["# The commands\n\nMade from `--help` by `python -m tests.docs.cli_reference`.\n"]
    parts.append(f"```text\n{help_of()}\n```\n\n{CODES}")
    for group, verbs in GROUPS.items():
        parts.append(f"## {group}\n")
        for verb in verbs:
            commands = [(verb, sub) for sub in SUBVERBS.get(verb, ())] or [(verb,)]
            parts += [f"### reg {' '.join(words)}\n\n```text\n{help_of(*words)}\n```\n" for words in commands]
    return "\n".join(parts)


if __name__ == "__main__":
    REFERENCE.write_text(render(), encoding="utf-8")
