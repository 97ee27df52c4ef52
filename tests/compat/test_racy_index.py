"""A file that changes in the second in which Git last looked at it (gitformat-index(5), "racy Git").

Git compares times in whole seconds; so whoever writes the index later has to mark what may have changed unseen.
"""

from __future__ import annotations

import time
from itertools import count
from pathlib import Path

from tests.conftest import Reg, git, write


def change_within_a_second(registry: Path) -> int:
    """Commit a file with Git and change it again, both in one second of the clock; return that second."""
    for attempt in count():
        while time.time() % 1 > 0.1:
            time.sleep(0.01)
        write(registry, {"notes.txt": f"one {attempt % 10}\n"})
        second = int((registry / "notes.txt").stat().st_mtime)
        git(registry, "add", "notes.txt")
        git(registry, "commit", "-q", "-m", "Change notes")
        write(registry, {"notes.txt": f"two {attempt % 10}\n"})
        if int((registry / "notes.txt").stat().st_mtime) == second:
            return second
    raise AssertionError


def test_file_that_changed_in_the_second_of_its_commit_is_still_seen_by_git_after_an_add(
    registry: Path, reg: Reg
) -> None:
    second = change_within_a_second(registry)
    while int(time.time()) == second:
        time.sleep(0.01)
    write(registry, {"cats/1.png": "one"})
    reg(registry, "add", "cats", "-m", "Add cats")
    assert git(registry, "status", "--porcelain") == " M notes.txt\n"
