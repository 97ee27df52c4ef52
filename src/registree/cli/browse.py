"""The verbs of anyone: `list`, `show`, `files`, `cat`, `diff`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from registree.cli.common import Json, Offline, Quiet, Rev, machine, workspace
from registree.cli.output import Output, change_line, count_text, plain, size_text, summary_text, write_json
from registree.model.ids import id_text
from registree.model.manifest import Kind
from registree.model.metafile import ImportFile
from registree.model.paths import DatasetName, printable
from registree.model.targets import Target
from registree.operations.browsing import DatasetDiff, cat, diff, files, list_datasets, open_source, show
from registree.source import RegistrySource
from registree.workspace import Workspace

_KINDS = {Kind.FILE: "file", Kind.EXECUTABLE: "executable", Kind.LINK: "link", Kind.DIRECTORY: "directory"}
_SHOWN = 50
_BATCH = 4096

Registry = Annotated[
    str, typer.Option("--registry", "-r", metavar="REGISTRY", help="Git URL or path (default: this repository).")
]


def register(app: typer.Typer) -> None:
    """Add these verbs."""
    app.command("list")(list_command)
    app.command("show")(show_command)
    app.command("files")(files_command)
    app.command("cat")(cat_command)
    app.command("diff")(diff_command)


def list_command(
    registry: Annotated[
        str, typer.Argument(metavar="[REGISTRY]", help="Git URL or path (default: this repository).")
    ] = "",
    rev: Rev = "",
    offline: Offline = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the datasets of a registry."""
    own = machine(quiet=quiet, offline=offline)
    source = open_source(own, registry, os.getcwd())
    here = Workspace(source.repository, own) if not registry else None
    rows = list_datasets(source, rev, work_tree=here)
    width = max((len(row.name) for row in rows), default=0)
    lines = [
        f"{printable(row.name):<{width}}  {row.version or '-':<8}  "
        f"{count_text(row.files, 'file'):>14}  {size_text(row.size):>9}"
        + (f"  {printable(str(row.meta['title']))}" if "title" in row.meta else "")
        + ("  (import)" if row.kind == "import" else "")
        for row in rows
    ]
    named = f"{registry} " if registry else ""
    Output("list", json, quiet).answer(
        {"registry": source.url, "datasets": plain(rows)},
        lines or ["no datasets"],
        following=f"reg get {named}NAME" if registry else "reg show NAME",
    )


def _open(
    first: str, second: str, registry: str, rev: str, quiet: bool, offline: bool
) -> tuple[RegistrySource, Target]:
    """``reg show NAME`` and ``reg show REGISTRY NAME`` both work."""
    own = machine(quiet=quiet, offline=offline)
    place, text = (first, second) if second else (registry, first)
    return open_source(own, place, os.getcwd()), Target.parse(text).with_selector(rev)


First = Annotated[
    str, typer.Argument(metavar="[REGISTRY] NAME[@REV][:PATH]", help="A target, of this repository or of a registry.")
]
Second = Annotated[str, typer.Argument(hidden=True)]


def show_command(
    first: First,
    second: Second = "",
    registry: Registry = "",
    rev: Rev = "",
    offline: Offline = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Describe a dataset: its size, folders, versions and labels."""
    source, target = _open(first, second, registry, rev, quiet, offline)
    found = show(source, target)
    file = found.metafile
    if isinstance(file, ImportFile):
        rows = [
            ("import", f"{file.dataset} of {file.registry}"),
            ("wants", file.want),
            ("locked", file.lock.tag or file.lock.commit[:10]),
        ]
        files_count, size, manifest = file.lock.files, file.lock.size, file.lock.manifest
    else:
        rows = [(name, str(value)) for name, value in file.meta.items()]
        files_count, size, manifest = file.files, file.size, file.manifest
    lines = [f"{printable(found.name)} at {found.commit[:10]}"]
    lines += [f"  {name}: {printable(text)}" for name, text in rows]
    lines += [f"  {count_text(files_count, 'file')}, {size_text(size)}", f"  manifest: {id_text(manifest)}"]
    if not isinstance(file, ImportFile):
        lines += [
            f"    {printable(folder)}: {count_text(row.files, 'file')}, {size_text(row.size)}"
            for folder, row in file.contents.items()
        ]
    lines += [f"  version {version} at {commit[:10]}" for version, commit in found.versions.items()]
    lines += [f"  label {printable(label)} at {commit[:10]}" for label, commit in found.labels.items()]
    Output("show", json, quiet).answer(plain(found), lines, following=f"reg files {found.name}")


def files_command(
    first: First,
    second: Second = "",
    registry: Registry = "",
    rev: Rev = "",
    offline: Offline = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the files in a dataset, without fetching them."""
    source, target = _open(first, second, registry, rev, quiet, offline)
    if json:
        rows = [
            {
                "path": entry.path,
                "kind": _KINDS[Kind(entry.kind)],
                "size": entry.size,
                **({"id": id_text(entry.content)} if entry.is_file else {}),
                **({"target": entry.target} if entry.kind == Kind.LINK else {}),
            }
            for entry in files(source, target)
        ]
        write_json({"schema": "reg.files/1", "target": str(target), "files": rows})
        return
    batch: list[str] = []
    for entry in files(source, target):
        tail = (
            f" -> {printable(entry.target)}" if entry.kind == Kind.LINK else "/" if entry.kind == Kind.DIRECTORY else ""
        )
        batch.append(
            f"{entry.size:>12}  {printable(entry.path or os.path.basename(target.part or target.name))}{tail}\n"
        )
        if len(batch) >= _BATCH:
            sys.stdout.write("".join(batch))
            batch.clear()
    if not quiet:
        sys.stdout.write("".join(batch))


def cat_command(
    first: First,
    second: Second = "",
    registry: Registry = "",
    rev: Rev = "",
    offline: Offline = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write one file of a dataset to stdout, verified."""
    source, target = _open(first, second, registry, rev, quiet, offline)
    size = 0
    for piece in cat(source, target):
        size += len(piece)
        if not json:
            sys.stdout.buffer.write(piece)
    if json:
        write_json({"schema": "reg.cat/1", "target": str(target), "size": size})
    sys.stdout.buffer.flush()


def diff_command(
    before: Annotated[str, typer.Argument(metavar="[A]", help="A revision (default: HEAD).")] = "",
    after: Annotated[str, typer.Argument(metavar="[B]", help="A revision (default: the files on this disk).")] = "",
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Datasets (default: all).")] = None,
    format_: Annotated[str, typer.Option("--format", metavar="text|markdown", help="How to write it.")] = "text",
    fail: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 when anything differs.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare two revisions of datasets, file by file."""
    if format_ not in ("text", "markdown"):
        raise typer.BadParameter("text or markdown", param_hint="--format")
    found = workspace(quiet=quiet)
    words = [word for word in (before, after, *(names or [])) if word]
    revisions, chosen = _split_words(found, words)
    result = diff(found, *revisions, names=chosen)
    lines = _markdown(result) if format_ == "markdown" else _text(result)
    Output("diff", json, quiet).answer(
        {"before": revisions[0], "after": revisions[1], "datasets": plain(result)}, lines
    )
    if fail and result:
        raise typer.Exit(1)


def _split_words(found: Workspace, words: Sequence[str]) -> tuple[tuple[str, str], list[str]]:
    """Revisions come first; a word that names a dataset, and every word after it, is a dataset."""
    there = set(found.metafile_names())
    revisions: list[str] = []
    rest = list(words)
    while rest and len(revisions) < 2 and DatasetName(rest[0].rstrip("/")) not in there:
        revisions.append(rest.pop(0))
    revisions += [""] * (2 - len(revisions))
    return (revisions[0], revisions[1]), [name.rstrip("/") for name in rest]


def _text(result: Sequence[DatasetDiff]) -> list[str]:
    lines = []
    for row in result:
        word = " (new)" if row.before is None else " (removed)" if row.after is None else ""
        lines.append(f"{printable(row.name)}{word}: {summary_text(row.summary)}")
        lines += [change_line(change, row.name) for change in row.changes[:_SHOWN]]
        if len(row.changes) > _SHOWN:
            lines.append(f"  … and {len(row.changes) - _SHOWN} more (--json lists all)")
    return lines or ["no differences"]


def _markdown(result: Sequence[DatasetDiff]) -> list[str]:
    if not result:
        return ["No differences."]
    lines = ["| dataset | added | removed | modified | renamed | bytes |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for row in result:
        s = row.summary
        name = printable(row.name).replace("|", "\\|")
        lines.append(f"| {name} | {s.added} | {s.removed} | {s.modified} | {s.renamed} | {s.growth:+,} |")
    for row in result:
        lines += ["", f"**{printable(row.name)}**", ""]
        lines += [f"- {change.kind.value} `{printable(change.path or row.name)}`" for change in row.changes[:_SHOWN]]
        if len(row.changes) > _SHOWN:
            lines.append(f"- … and {len(row.changes) - _SHOWN} more")
    return lines
