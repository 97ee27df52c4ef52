"""Targets: ``NAME@REV:PATH``, as people name a dataset, a version of it and a part of it in one word."""

from __future__ import annotations

import msgspec

from registree.errors import FormatError, InvalidInput
from registree.model.paths import DatasetName, EntryPath, check_entry_path, parse_dataset_name


class Target(msgspec.Struct, frozen=True):
    """A dataset (or a path in the registry's Git), a selector (empty: the default branch) and a part of it.

    `part` is empty for the whole. `name` is empty for the registry as a whole.
    """

    name: DatasetName
    selector: str = ""
    part: EntryPath = EntryPath("")

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read a target.

        >>> Target.parse("images/cats-dogs@^1.2:train/cats")
        Target(name='images/cats-dogs', selector='^1.2', part='train/cats')

        Raises
        ------
        InvalidInput
            When no dataset, revision or path can be meant.
        """
        versioned, colon, part = text.partition(":")  # an '@' behind it is the path's own
        name, at, selector = versioned.partition("@")
        if at and not selector:
            raise InvalidInput(f"{text!r} names no revision after '@'")
        return cls(parse_dataset_name(name), selector, parse_part(part) if colon else EntryPath(""))

    def with_selector(self, selector: str) -> Target:
        """Return it with the selector of `--rev`, which must not contradict one typed after `@`.

        Raises
        ------
        InvalidInput
            When both are given and differ.
        """
        if self.selector and selector and selector != self.selector:
            raise InvalidInput(f"{self} and --rev {selector} name two revisions", hint="name one of them")
        return Target(self.name, selector or self.selector, self.part)

    def __str__(self) -> str:
        text = self.name + (f"@{self.selector}" if self.selector else "")
        return f"{text}:{self.part}" if self.part else text


def parse_part(text: str) -> EntryPath:
    """Read a path inside a dataset as a person types it (a trailing slash is taken).

    Raises
    ------
    InvalidInput
        When no dataset can hold it.
    """
    part = text.strip("/") if text != "/" else ""
    if not part:
        return EntryPath("")
    try:
        return check_entry_path(part)
    except FormatError as error:
        raise InvalidInput(error.message) from None
