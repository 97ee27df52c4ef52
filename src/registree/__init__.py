"""Registree: a package manager for data, on plain Git and a plain bucket.

>>> from registree import Registry                                        # doctest: +SKIP
>>> Registry.open(".").import_dataset("https://git.example.org/acme/registry", "images/cats-dogs")  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registree.registry import Registry, cat, diff, files, get, list_datasets, show

__version__ = "0.1.0"
__all__ = ["Registry", "__version__", "cat", "diff", "files", "get", "list_datasets", "show"]


def __getattr__(name: str) -> object:
    """Import the API when it is first asked for, so that `reg --version` need not."""
    if name in __all__:
        return getattr(importlib.import_module("registree.registry"), name)
    raise AttributeError(f"module 'registree' has no attribute {name!r}")
