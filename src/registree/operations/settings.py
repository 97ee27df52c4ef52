"""`reg config`: this machine's settings, in `.reg/config.yaml` or the user's own file."""

from __future__ import annotations

import os

from registree.config import check_setting
from registree.model.yamltext import decoding, load_mapping, render
from registree.workspace import Workspace


def settings_path(workspace: Workspace | None, config_dir: str) -> str:
    """Return the file that holds the settings: of a repository, or the user's own."""
    return workspace.local("config.yaml") if workspace is not None else os.path.join(config_dir, "config.yaml")


def read_settings(path: str) -> dict[str, str]:
    """Return the settings that a file holds; none when there is no file."""
    try:
        with open(path, encoding="utf-8") as file, decoding(path):
            text = file.read()
    except FileNotFoundError:
        return {}
    return {name: str(value) for name, value in load_mapping(text, path).items()} if text.strip() else {}


def write_setting(path: str, name: str, value: str | None) -> None:
    """Set or unset (None) one setting; what else stands in the file stays as it is.

    Raises
    ------
    InvalidInput
        For a setting that does not exist or a value that cannot be.
    """
    if value is not None:
        check_setting(name, value)
    try:
        with open(path, encoding="utf-8") as file, decoding(path):
            text: str | None = file.read()
    except FileNotFoundError:
        text = None
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(render({name: value}, text if text and text.strip() else None))
    os.replace(temporary, path)
