"""Selectors: what a person types after `@` or `--rev`, and which Git revision it means.

Deciding is pure: the refs of a registry come in, a `Resolution` goes out. Only what needs the history itself (a short
commit, ``main~2``) is left to the Git layer, as a `Resolution` of kind ``commit``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from enum import Enum

import msgspec

from registree.errors import InvalidInput, NotFound
from registree.model.versions import Version, VersionRange

TAGS = "refs/tags/"
HEADS = "refs/heads/"


class RevisionKind(Enum):
    """What a selector turned out to be."""

    DEFAULT = "default branch"
    BRANCH = "branch"
    RANGE = "version range"
    VERSION = "version"
    TAG = "tag"
    COMMIT = "commit"

    @property
    def moves(self) -> bool:
        """Whether the same selector may mean something newer tomorrow."""
        return self in (RevisionKind.DEFAULT, RevisionKind.BRANCH, RevisionKind.RANGE)


class Resolution(msgspec.Struct, frozen=True):
    """A selector, resolved against the refs of a registry.

    `ref` is the full ref name, or the text for the Git layer when `kind` is COMMIT. `version` and `tag` are empty
    when the selector is none. `note` says what the reader should know (a name that is branch and tag).
    """

    kind: RevisionKind
    ref: str
    tag: str = ""
    version: str = ""
    note: str = ""


def release_tags(refs: Mapping[str, str], dataset: str) -> dict[Version, str]:
    """Return the versions released of a dataset with their full tag refs."""
    prefix = f"{TAGS}{dataset}@v"
    return all_releases(ref for ref in refs if ref.startswith(prefix)).get(dataset, {})


def all_releases(refs: Iterable[str]) -> dict[str, dict[Version, str]]:
    """Return the versions released of each dataset with their full tag refs (`NAME@vX.Y.Z`, GTO's grammar)."""
    found: dict[str, dict[Version, str]] = {}
    for ref in refs:
        name, mark, version = ref.removeprefix(TAGS).rpartition("@v")
        if mark and ref.startswith(TAGS):
            try:
                found.setdefault(name, {})[Version.parse(version)] = ref
            except InvalidInput:
                continue  # a tag of somebody's that only looks like a release
    return found


def resolve(selector: str, dataset: str, refs: Mapping[str, str], default: str) -> Resolution:
    """Decide which revision a selector means for one dataset.

    Parameters
    ----------
    selector
        What was typed; empty means the registry's default branch.
    dataset
        The dataset's name, for its releases and labels.
    refs
        Full ref names of the registry and the commits they point to.
    default
        The full ref name of the registry's default branch.

    Raises
    ------
    NotFound
        When no release lies in a version range.
    """
    if selector in ("", "HEAD"):
        return Resolution(RevisionKind.DEFAULT, default)
    releases = release_tags(refs, dataset)
    if selector == "latest":
        stable = [version for version in releases if version.stable]
        if not stable and f"{TAGS}latest" not in refs and f"{HEADS}latest" not in refs:
            raise NotFound(
                f"{dataset} has no released version", hint=f"reg get REGISTRY {dataset} takes the default branch"
            )
        if stable:
            return _release(RevisionKind.RANGE, max(stable), releases)
    for tag in (f"{TAGS}{dataset}@{selector}", f"{TAGS}{dataset}@v{selector}", f"{TAGS}{selector}"):
        if tag in refs:
            return _tag(tag, dataset, selector, refs)
    if f"{HEADS}{selector}" in refs:
        return Resolution(RevisionKind.BRANCH, f"{HEADS}{selector}")
    try:
        wanted = VersionRange.parse(selector)
    except InvalidInput:
        return Resolution(RevisionKind.COMMIT, selector)
    matching = [version for version in releases if version in wanted]
    if matching:
        return _release(RevisionKind.RANGE, max(matching), releases)
    if selector[0].isdigit() and len(selector) >= 4 and selector.isalnum():
        return Resolution(RevisionKind.COMMIT, selector)  # a short commit of digits alone looks like a version
    there = ", ".join(str(version) for version in sorted(releases)[-5:]) or "none"
    raise NotFound(f"no release of {dataset} is in {selector!r} (there are: {there})", hint="reg show NAME lists them")


def _release(kind: RevisionKind, version: Version, releases: Mapping[Version, str]) -> Resolution:
    ref = releases[version]
    return Resolution(kind, ref, tag=ref.removeprefix(TAGS), version=str(version))


def _tag(ref: str, dataset: str, selector: str, refs: Mapping[str, str]) -> Resolution:
    tag = ref.removeprefix(TAGS)
    note = f"{selector} is a branch and a tag; the tag is used" if f"{HEADS}{selector}" in refs else ""
    try:
        version = str(Version.parse(tag.removeprefix(f"{dataset}@v"))) if tag.startswith(f"{dataset}@v") else ""
    except InvalidInput:
        version = ""
    return Resolution(RevisionKind.VERSION if version else RevisionKind.TAG, ref, tag=tag, version=version, note=note)


def nearest(wanted: str, there: list[str]) -> tuple[str, ...]:
    """Return up to three names most like the one that was not found."""
    by_name = {name.rsplit("/", 1)[-1]: name for name in there}
    close = get_close_matches(wanted, there, 3, 0.5) or [
        by_name[name] for name in get_close_matches(wanted.rsplit("/", 1)[-1], list(by_name), 3, 0.6)
    ]
    return tuple(close)


def not_found(what: str, wanted: str, place: str, there: list[str]) -> NotFound:
    """Make the error for a name that is not there, with the nearest that are."""
    close = nearest(wanted, there)
    hint = f"did you mean {' or '.join(close)}?" if close else ""
    return NotFound(f"{place} has no {what} {wanted!r}", hint=hint, paths=close)
