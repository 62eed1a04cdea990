"""The files that one spec is made of: the one named, and those that it includes.

It must not look at anything but the ``include`` key of a file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from reconciler.base.records import dataclass, field
from reconciler.config import reading, yaml
from reconciler.config.errors import Problems
from reconciler.config.nodes import Map, Seq, Source, SourceMark, Text, is_null, texts

MAX_DEPTH = 16
MAX_FILES = 1000


class Document(NamedTuple):
    """One file. ``main`` is the one that was named by the user."""

    root: Map
    main: bool


@dataclass(slots=True)
class SpecFiles:
    """Documents in the order in which they count, included ones before what includes them.

    ``digests`` has the content of every file that was read, by absolute path.
    """

    documents: list[Document] = field(default_factory=list)
    digests: dict[str, bytes] = field(default_factory=dict)
    broken: bool = False
    """Some file could not be read as YAML, so that not all is known."""


def gather(path: str, problems: Problems) -> SpecFiles:
    """Read the spec at ``path`` and what it includes."""
    files = SpecFiles()
    _add(path, os.path.abspath(path), None, (), files, problems)
    return files


def without_templates(document: Document, sections: Sequence[str]) -> Document:
    """The same file without the resources that hold a template."""
    root = document.root
    found = dict(root)
    for section in sections:
        entries = root.get(section)
        if isinstance(entries, Map):
            kept = {
                key: body
                for key, body in entries.items()
                if not any("{{" in text for text in texts(body))
                and not (isinstance(body, Map) and "when" in body)
            }
            found[section] = entries.but(kept)
    return Document(root.but(found), document.main)


def _add(
    shown: str,
    path: str,
    at: SourceMark | None,
    chain: tuple[Source, ...],
    files: SpecFiles,
    problems: Problems,
) -> None:
    here = Source(shown, path)
    try:
        data = reading.read(path, "the spec" if at is None else f"the included file {shown}")
    except reading.ReadError as error:
        files.broken = True
        problems.files.setdefault(path, b"")
        if at is None:
            problems.add_file(shown, error.message, error.hint)
        else:
            problems.add(at, error.message, error.hint)
        return
    files.digests[path] = problems.files[path] = reading.digest(data)
    root = yaml.load(data, here, problems, at is None)
    if root is None:
        files.broken = True
        return
    _follow(here, root, (*chain, here), files, problems)
    files.documents.append(Document(root, at is None))


def _follow(
    here: Source, root: Map, chain: tuple[Source, ...], files: SpecFiles, problems: Problems
) -> None:
    entries = root.get("include")
    if entries is None or is_null(entries):
        return
    if not isinstance(entries, Seq):
        problems.add(entries.at, "include needs a list of files", "write include: [other.yaml]")
        return
    for entry in entries:
        if not isinstance(entry, Text) or is_null(entry) or not entry:
            problems.add(entry.at, "an entry of include is the name of a file")
            continue
        if "{{" in entry:
            problems.add(entry.at, "include takes no templates")
            continue
        path = os.path.normpath(os.path.join(os.path.dirname(here.path), entry))
        names = [source.path for source in chain]
        if path in names:
            circle = [source.shown for source in chain[names.index(path) :]]
            problems.add(
                entry.at, f"files include one another: {' -> '.join([*circle, circle[0]])}"
            )
        elif len(chain) >= MAX_DEPTH:
            problems.add(entry.at, f"includes are nested more than {MAX_DEPTH} deep")
        elif len(files.digests) >= MAX_FILES:
            problems.add(entry.at, f"more than {MAX_FILES} files are included")
            return
        elif path not in files.digests:
            shown = os.path.join(os.path.dirname(here.shown), entry)
            _add(shown, path, entry.at, chain, files, problems)
