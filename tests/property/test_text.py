"""What people type and what files say is parsed, or refused with an error of the package's own, whatever the text."""

from __future__ import annotations

import json
import string
import warnings

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from registree.errors import FormatError, InvalidInput, NotFound, RegError
from registree.git.repository import GitRepository
from registree.model.ids import hash_bytes, id_text, parse_id
from registree.model.metafile import DatasetFile, ImportFile, parse_metafile
from registree.model.paths import DatasetName, EntryPath
from registree.model.selection import glob_regex
from registree.model.selectors import RevisionKind, resolve
from registree.model.targets import Target
from registree.model.versions import Version, VersionRange
from tests.property.strategies import any_text

likely = st.one_of(any_text, st.text("0123456789.xX*v^~<>=,- @:/abrc\n", max_size=16))
numbers = st.integers(0, 12)
versions = st.builds(Version, numbers, numbers, numbers, st.sampled_from(["", "", "a", "a.1", "rc.1", "rc.2", "rc.10"]))
stable = st.builds(Version, numbers, numbers, numbers)


@given(likely)
@example("a@")
@example("@a")
@example("a@1:")
@example("a:/")
@example("a@1:../b")
@example("a:b@2x.png")
def test_target_is_parsed_or_refused(text: str) -> None:
    try:
        target = Target.parse(text)
    except RegError:
        return
    assert Target.parse(str(target)) == target


def test_at_sign_of_a_path_begins_no_revision() -> None:
    assert Target.parse("icons:b@2x.png") == Target(DatasetName("icons"), "", EntryPath("b@2x.png"))
    assert Target.parse("icons@^1:b@2x.png") == Target(DatasetName("icons"), "^1", EntryPath("b@2x.png"))


@given(likely)
@example("1٣.0.0")
def test_version_is_parsed_to_what_it_says_or_refused(text: str) -> None:
    try:
        version = Version.parse(text)
    except InvalidInput:
        return
    assert str(version) == text.removeprefix("v")


@given(likely)
def test_range_is_parsed_or_refused(text: str) -> None:
    try:
        found = VersionRange.parse(text)
    except InvalidInput:
        return
    assert found.bounds


@given(likely)
@example("²")
@example("~")
@example("^")
def test_selector_is_resolved_or_not_found(text: str) -> None:
    refs = {"refs/tags/d@v1.0.0": "a" * 40, "refs/heads/main": "b" * 40}
    try:
        found = resolve(text, "d", refs, "refs/heads/main")
    except RegError:
        return
    assert found.ref in refs or found.kind is RevisionKind.COMMIT


@given(likely)
@example("main~" + "9" * 5000)
@example("main^" + "9" * 20)
@example("main\0")
@example("\udc80")
@example("-1")
@example("@{1}")
@example("main:reg.yaml")
@example("main^{tree}")
@example("HEAD:")
def test_any_revision_is_a_commit_or_not_found(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    repository = _repository(tmp_path_factory)
    try:
        found = repository.commit_of(text)
    except NotFound:
        return
    assert found == repository.head()


_made: list[GitRepository] = []


def _repository(factory: pytest.TempPathFactory) -> GitRepository:
    if not _made:
        repository = GitRepository.init(str(factory.mktemp("revisions") / "r"))
        repository.edit({"reg.yaml": b"reg: 1\n"}, "One")
        _made.append(repository)
    return _made[0]


@given(versions, versions, versions)
def test_versions_are_ordered_totally(a: Version, b: Version, c: Version) -> None:
    assert (a < b) + (b < a) + (a == b) == 1
    if a < b and b < c:
        assert a < c


@pytest.mark.parametrize("text", ["1.0.0-01", "1.0.0-a..b", "1.0.0-.", "01.0.0", "1.0", "1.0.0-", "1.0.0 ", "1.0.0\n"])
def test_what_semver_does_not_allow_is_no_version(text: str) -> None:
    with pytest.raises(InvalidInput):
        Version.parse(text)


@given(stable, stable)
def test_caret_keeps_the_leftmost_number_that_is_not_zero(base: Version, other: Version) -> None:
    allowed = VersionRange.parse(f"^{base}")
    key = (base.major,) if base.major else (0, base.minor) if base.minor else (0, 0, base.patch)
    same = (other.major, other.minor, other.patch)[: len(key)] == key
    assert (other in allowed) == (other >= base and same)


@given(stable, stable)
def test_tilde_keeps_the_minor_number(base: Version, other: Version) -> None:
    same = (other.major, other.minor) == (base.major, base.minor)
    assert (other in VersionRange.parse(f"~{base}")) == (other >= base and same)


@given(stable, stable)
def test_partial_version_means_all_below_it(base: Version, other: Version) -> None:
    minor = (other.major, other.minor) == (base.major, base.minor)
    for text in (f"{base.major}.{base.minor}", f"{base.major}.{base.minor}.x", f"v{base.major}.{base.minor}.*"):
        assert (other in VersionRange.parse(text)) == minor
    for text in (f"{base.major}", f"{base.major}.x", f"{base.major}.x.x"):
        assert (other in VersionRange.parse(text)) == (other.major == base.major)


@given(stable, stable, stable)
def test_bounds_hold_together(low: Version, high: Version, other: Version) -> None:
    assert (other in VersionRange.parse(f">={low},<{high}")) == (low <= other < high)
    assert (other in VersionRange.parse(f">{low}, <={high}")) == (low < other <= high)


def test_number_after_a_wildcard_is_refused_or_means_nothing() -> None:
    try:
        found = VersionRange.parse("1.x.3")
    except InvalidInput:
        return
    assert Version(1, 5, 0) in found
    assert Version(1, 3, 0) in found


def test_prerelease_of_another_version_is_not_wanted_by_a_range() -> None:
    allowed = VersionRange.parse("^1.2.3-beta")
    assert Version.parse("1.2.3-rc.1") in allowed
    assert Version.parse("1.3.0") in allowed
    assert Version.parse("1.3.0-rc.1") not in allowed
    assert Version.parse("2.0.0-rc.1") not in allowed


@given(
    st.lists(versions, min_size=1, max_size=6, unique=True), st.sampled_from(["latest", "^1", "1.x", "2.1", ">=1,<3"])
)
def test_range_resolves_to_the_highest_release_in_it(there: list[Version], selector: str) -> None:
    refs = {f"refs/tags/d@v{version}": "a" * 40 for version in there}
    wanted = None if selector == "latest" else VersionRange.parse(selector)
    fitting = [version for version in there if (version in wanted if wanted else version.stable)]
    try:
        found = resolve(selector, "d", refs, "refs/heads/main")
    except NotFound:
        assert not fitting
    else:
        assert found.version == str(max(fitting))


@given(likely)
def test_only_an_id_is_an_id(text: str) -> None:
    with pytest.raises(FormatError):
        parse_id(text)


@given(st.binary(min_size=32, max_size=32))
def test_id_is_read_as_it_was_written(raw: bytes) -> None:
    assert parse_id(id_text(raw)) == raw


@given(st.text("*?[]!a/\\^-", max_size=12), st.text("ab/[]!\\^-", max_size=8))
@example("[b-a]", "a")
@example("[[a]", "[")
def test_any_glob_can_be_used(pattern: str, path: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        glob_regex(pattern).fullmatch(path)


@pytest.mark.parametrize(
    ("pattern", "fits", "does_not"),
    [
        ("[a-c]x", ["ax", "d/bx"], ["dx", "-x"]),
        ("[!a-c]x", ["dx"], ["ax", "d//x"]),
        ("[^a]x", ["bx"], ["ax", "^a"]),
        ("[]a]x", ["]x", "ax"], ["x"]),
        ("[!]]x", ["ax", "!x"], ["]x"]),
        ("[--0]x", ["-x", ".x", "0x"], ["/x", "1x"]),
        ("[^]x", ["[^]x"], ["^x"]),
        ("[!]x", ["[!]x"], ["!x", "ax"]),
        ("[b-a]x", [], ["ax", "bx", "-x"]),
        ("a/[", ["a/["], ["a/"]),
        (r"[\d]x", ["dx"], ["1x"]),
    ],
)
def test_set_in_a_glob_is_one_of_its_members(pattern: str, fits: list[str], does_not: list[str]) -> None:
    glob = glob_regex(pattern)
    assert [path for path in fits + does_not if glob.fullmatch(path)] == fits


NAMES = st.text(string.printable, max_size=20)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), any_text, st.lists(st.integers(), max_size=2))
MANIFEST = id_text(hash_bytes(b"m"))


@given(st.one_of(any_text, st.text("reg: 1\npathman{}[],&*!'\"#-|>%@`", max_size=60)))
@example("reg: 1\npath: d\nmanifest: *a\n")
@example("[" * 5000)
@example("? {a: 1}\n: 2\n")
@example("reg: 0x" + "1" * 5000)
@example("reg: " + "1" * 5000)
@example("reg: 1:60:60:" + "1" * 5000)
@example("reg: 2001-13-45\n")
@example("reg: !!python/object:os.system x\n")
@example("reg: !!binary ü\n")
@example("<<: 1\n")
@example("reg: .inf\n")
@example("a: !!timestamp x\n")
@example("\ufeff")
@example("a: \ud800")
def test_any_text_is_a_metafile_or_a_format_error(text: str) -> None:
    with pytest.raises(FormatError):
        parse_metafile(text, "d.reg.yaml")


@given(st.dictionaries(st.sampled_from(["manifest", "files", "size", "contents", "meta", "import", "locked"]), scalars))
def test_metafile_with_wrong_values_is_a_format_error(values: dict[str, object]) -> None:
    fields = {"reg": 1, "path": "d", "manifest": MANIFEST, "files": 1, "size": 1} | values
    try:
        found = parse_metafile(json.dumps(fields), "d.reg.yaml")
    except FormatError:
        return
    assert isinstance(found, DatasetFile | ImportFile)
