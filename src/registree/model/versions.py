"""Semantic versions of data and the ranges people ask for (https://semver.org, npm's and GTO's grammar)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering
from itertools import takewhile

import msgspec

from registree.errors import InvalidInput

_VERSION = re.compile(
    r"v?(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})(?:-(%s(?:\.%s)*))?\Z"
    % ((r"(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)",) * 2),
    re.ASCII,
)
_PARTIAL = re.compile(r"v?(\d{1,9})(?:\.(\d{1,9}|[xX*]))?(?:\.(\d{1,9}|[xX*]))?\Z", re.ASCII)
_COMPARATOR = re.compile(r"(>=|<=|>|<|=|\^|~)?\s*(.+)\Z")


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """MAJOR.MINOR.PATCH, with an optional pre-release that sorts before it."""

    major: int
    minor: int
    patch: int
    pre: str = ""

    @classmethod
    def parse(cls, text: str) -> Version:
        """Read ``1.2.3`` or ``v1.2.3-rc.1``.

        >>> str(Version.parse("v1.2.3"))
        '1.2.3'

        Raises
        ------
        InvalidInput
            When it is not a version.
        """
        found = _VERSION.match(text)
        if found is None:
            raise InvalidInput(f"{text!r} is not a version (MAJOR.MINOR.PATCH)")
        return cls(int(found[1]), int(found[2]), int(found[3]), found[4] or "")

    @property
    def stable(self) -> bool:
        """Whether it is no pre-release."""
        return not self.pre

    def __str__(self) -> str:
        text = f"{self.major}.{self.minor}.{self.patch}"
        return f"{text}-{self.pre}" if self.pre else text

    def _key(self) -> tuple[tuple[int, int, int], bool, tuple[tuple[int, int, str], ...]]:
        parts = tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in self.pre.split(".")) if self.pre else ()
        return (self.major, self.minor, self.patch), self.stable, parts

    def __lt__(self, other: Version) -> bool:
        return self._key() < other._key()


class VersionRange(msgspec.Struct, frozen=True):
    """Bounds on a version: every pair of an operator and a version must hold."""

    text: str
    bounds: tuple[tuple[str, Version], ...]

    @classmethod
    def parse(cls, text: str) -> VersionRange:
        """Read ``^1.2``, ``~1.2``, ``1.x``, ``1.2`` (= 1.2.x) or ``>=1.2,<2``.

        >>> Version.parse("1.9.0") in VersionRange.parse("^1.2")
        True
        >>> Version.parse("2.0.0") in VersionRange.parse(">=1.2,<2")
        False

        Raises
        ------
        InvalidInput
            When it is not a range.
        """
        bounds: list[tuple[str, Version]] = []
        for part in text.split(","):
            found = _COMPARATOR.match(part.strip())
            if found is None:
                raise InvalidInput(f"{text!r} is not a version range")
            bounds += _bounds(found[1] or "", found[2].strip(), text)
        return cls(text, tuple(bounds))

    def __contains__(self, version: Version) -> bool:
        if not version.stable and not any(
            not bound.stable
            and (bound.major, bound.minor, bound.patch) == (version.major, version.minor, version.patch)
            for _, bound in self.bounds
        ):
            return False
        return all(_holds(version, operator, bound) for operator, bound in self.bounds)


def _holds(version: Version, operator: str, bound: Version) -> bool:
    match operator:
        case ">=":
            return version >= bound
        case ">":
            return version > bound
        case "<":
            return version < bound
        case "<=":
            return version <= bound
    return version == bound


def _bounds(operator: str, text: str, whole: str) -> list[tuple[str, Version]]:
    exact = _VERSION.match(text)
    partial = _PARTIAL.match(text)
    if exact is None and partial is None:
        raise InvalidInput(f"{whole!r} is not a version range")
    if exact is not None:
        low, given = Version.parse(text), 3
    else:
        assert partial is not None  # noqa: S101 -- one of the two matched
        numbers = [int(part) for part in takewhile(lambda part: part and part.isdigit(), partial.groups())]
        given = len(numbers)
        major, minor, patch = (*numbers, 0, 0)[:3]
        low = Version(major, minor, patch)
    if operator in ("", "="):
        return [("=", low)] if given == 3 else [(">=", low), ("<", _bump(low, given - 1))]
    if operator == "~":
        return [(">=", low), ("<", _bump(low, 0 if given == 1 else 1))]
    if operator == "^":
        parts = (low.major, low.minor, low.patch)
        first = next((i for i, part in enumerate(parts[:given]) if part), given - 1)
        return [(">=", low), ("<", _bump(low, first))]
    if operator == ">" and given < 3:
        return [(">=", _bump(low, given - 1))]
    if operator == "<=" and given < 3:
        return [("<", _bump(low, given - 1))]
    return [(operator, low)]


def _bump(version: Version, index: int) -> Version:
    parts = [version.major, version.minor, version.patch]
    parts[index] += 1
    parts[index + 1 :] = [0] * (2 - index)
    return Version(parts[0], parts[1], parts[2])
