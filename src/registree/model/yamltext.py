"""Canonical YAML that people edit too: read it bounded and safe, rewrite only the keys that are ours.

A rewrite keeps every byte that is not a value of ours: comments, order, the user's own fields, line ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import yaml

from registree.errors import FormatError

MAX_YAML_BYTES = 1 << 20

try:
    from yaml import CSafeDumper as _Dumper
    from yaml import CSafeLoader as _Loader
except ImportError:  # PyYAML built without libyaml: slower, same result
    from yaml import SafeDumper as _Dumper  # type: ignore[assignment]
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]


MAX_DEPTH = 64
MAX_EVENTS = 100_000
_UNCHECKED = 4096
"""Texts up to this many characters cannot nest deep enough to matter."""


@contextmanager
def decoding(place: str) -> Iterator[None]:
    """Say of a file that is no UTF-8 that it is not.

    Raises
    ------
    FormatError
        Naming it.
    """
    try:
        yield
    except UnicodeDecodeError:
        raise FormatError(f"{place} is not UTF-8") from None


def _check_events(text: str, place: str) -> None:
    """Refuse what would cost more than it says: deep nesting, aliases, a flood of values. The parser of events does
    not recurse; what makes values of them does."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
        if isinstance(event, yaml.AliasEvent):
            raise FormatError(f"{place} uses YAML aliases, which no metafile needs")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH or count > MAX_EVENTS:
            raise FormatError(f"{place} is nested too deep or holds too much")


def load_mapping(text: str, place: str) -> dict[str, Any]:
    """Read a YAML mapping with string keys.

    Parameters
    ----------
    text
        The document.
    place
        Where it stands, for the error.

    Raises
    ------
    FormatError
        When it is larger than 1 MiB, uses anchors, is not YAML or not a mapping.
    """
    if len(text) > MAX_YAML_BYTES:
        raise FormatError(f"{place} is larger than {MAX_YAML_BYTES} bytes")
    try:
        if len(text) > _UNCHECKED or "*" in text:
            _check_events(text, place)
        root = yaml.compose(text, Loader=_Loader)
        found = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, AttributeError, TypeError, OverflowError, RecursionError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 1})" if where is not None else ""
        raise FormatError(
            f"{place} is not valid YAML{line}", hint=f"mend {place} by hand, or take it from Git"
        ) from None
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise FormatError(f"{place} does not hold a mapping of names to values")
    names = [key.value for key, _ in root.value] if isinstance(root, yaml.MappingNode) else []
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise FormatError(f"{place} has {twice!r} twice", hint=f"take one of them out of {place}")
    return found


_BREAK = re.compile("[\n\r\x85\u2028\u2029]")


class _LineDumper(_Dumper):
    """Keeps a text with line breaks on one line, by escapes."""


def _represent(dumper: Any, text: str) -> yaml.Node:
    node: yaml.Node = dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if _BREAK.search(text) else None)
    return node


_LineDumper.add_representer(str, _represent)


def inline(value: object) -> str:
    """Write a value in one line of YAML: ``{files: 3, size: 12}``."""
    text: str = yaml.dump(
        value, Dumper=_LineDumper, default_flow_style=True, sort_keys=False, width=1 << 30, allow_unicode=True
    )
    return text.removesuffix("\n").removesuffix("\n...").rstrip("\n")


def _block(key: str, value: object, rows: bool) -> list[str]:
    if rows and isinstance(value, Mapping) and value:
        return [f"{key}:", *(f"  {inline(name)}: {inline(row)}" for name, row in value.items())]
    return [f"{key}: {inline(value)}"]


class _Span(NamedTuple):
    """Lines of a key and its value: first, last; and the value's columns when it stands on the key's own line."""

    first: int
    last: int
    start: int
    end: int


def _last_line(node: yaml.Node) -> int:
    if isinstance(node, yaml.CollectionNode) and not node.flow_style:
        children = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
        return max((_last_line(child) for child in children), default=node.start_mark.line)
    mark = node.end_mark
    return int(mark.line if mark.column or mark.line == node.start_mark.line else mark.line - 1)


def _spans(text: str) -> dict[str, _Span] | None:
    root = yaml.compose(text, Loader=_Loader)
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        return None
    spans = {}
    for key, value in root.value:
        last = max(_last_line(value), key.start_mark.line)
        one_line = value.start_mark.line == key.start_mark.line == last
        start, end = (value.start_mark.column, value.end_mark.column) if one_line else (-1, -1)
        spans[key.value] = _Span(key.start_mark.line, last, start, end)
    return spans


def render(owned: Mapping[str, object], original: str | None, rows: frozenset[str] = frozenset()) -> str:
    """Write our keys into a document, keeping everything else of it byte for byte.

    Parameters
    ----------
    owned
        Our keys in canonical order; a value of None takes the key out.
    original
        The document so far; None writes a new one.
    rows
        Keys whose mapping is written one row a line.
    """
    if original is None:
        return "".join(
            line + "\n" for key, value in owned.items() if value is not None for line in _block(key, value, key in rows)
        )
    before = load_mapping(original, "the metafile")
    spans = _spans(original)
    if spans is None:
        return render({**before, **owned}, None, rows)
    lines = original.splitlines(keepends=True)
    end = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += end
    edits: list[tuple[int, int, list[str]]] = []  # first line, line after the last, what stands there now
    position = 0
    for key, value in owned.items():
        span = spans.get(key)
        if span is None:
            if value is not None:
                edits.append((position, position, [line + end for line in _block(key, value, key in rows)]))
            continue
        position = span.last + 1
        if value is None:
            edits.append((span.first, position, []))
        elif before[key] != value:
            new = _block(key, value, key in rows)
            if len(new) == 1 and span.start >= 0:
                line = lines[span.first]
                new = [line[: span.start] + inline(value) + line[span.end :].rstrip("\r\n")]
            edits.append((span.first, position, [line + end for line in new]))
    for first, after, new in reversed(edits):
        lines[first:after] = new
    return "".join(lines)
