"""The public names, pinned: taking one away is a decision."""

from __future__ import annotations

import inspect

import registree
from registree import Registry


def test_exported_names_are_these() -> None:
    assert registree.__all__ == ["Registry", "__version__", "cat", "diff", "files", "get", "list_datasets", "show"]
    for name in registree.__all__:
        assert getattr(registree, name) is not None


def test_registry_has_these_methods() -> None:
    methods = {name for name, _ in inspect.getmembers(Registry) if not name.startswith("_")}
    assert methods == {
        "add", "add_into", "add_remote", "auth_status", "checkout", "commit", "diff", "import_dataset", "init",
        "mirror", "move", "open", "pull", "push", "remotes", "remove", "remove_from", "repair", "root", "status",
        "sync", "update", "verify", "verify_remote",
    }  # fmt: skip


def test_public_docstrings_are_there() -> None:
    for name, member in inspect.getmembers(Registry):
        if not name.startswith("_"):
            assert inspect.getdoc(member), name
