"""Kinds that exist only here, and a folder with a spec in it, for tests of the spec room."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path as File
from typing import Annotated, Any

import pytest

from reconciler.base.values import Facts
from reconciler.config import load
from reconciler.config.errors import Problem, SpecError
from reconciler.core.claims import Claim, Declarations, Key
from reconciler.core.fields import (
    Command,
    Duration,
    Environment,
    Flag,
    Mode,
    Name,
    Path,
    Regex,
    Text,
    integer,
)
from reconciler.core.kind import Completed, Kind, Modifying
from reconciler.core.model import Spec


@pytest.fixture(scope="session")
def by_schema() -> Callable[[Any], list[str]]:
    """What the JSON Schema of all kinds finds wrong with a document."""
    import jsonschema

    from reconciler import kinds
    from reconciler.config.schema import json_schema

    validator = jsonschema.Draft202012Validator(json_schema(kinds.all_kinds()))
    return lambda document: [error.message for error in validator.iter_errors(document)]


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder."""

    path: Path
    mode: Mode | None = None
    owner: Name | None = None
    recursive: Flag = False
    born: Name | None = field(default=None, metadata={"written": False})


class Folders(Kind[Folder, Any]):
    section = "folders"
    resource = Folder

    def claims(self, want: Folder) -> Iterable[Claim]:
        yield Claim(Key("path", want.path), {"mode": want.mode} if want.mode else {})

    def uses(self, want: Folder) -> Iterable[Key]:
        yield Key("path", want.path)  # Never itself: the nearest other one at or above it.


@dataclass(frozen=True, slots=True)
class Grant:
    """Permission on what is there."""

    path: Path
    mode: Mode | None = None


class Grants(Kind[Grant, Any], Modifying):
    section = "grants"
    resource = Grant

    def check(self, want: Grant) -> Iterable[tuple[str, str]]:
        if want.mode is None:
            yield "path", f"nothing is asked for {want.path}"

    def claims(self, want: Grant) -> Iterable[Claim]:
        yield Claim(Key("path", want.path), {"mode": want.mode} if want.mode else {})

    def uses(self, want: Grant) -> Iterable[Key]:
        yield Key("path", want.path)


@dataclass(frozen=True, slots=True)
class Match:
    """How it is known."""

    cmdline: Regex | None = None
    exe: Path | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """One part."""

    label: Name
    cwd: Path | None = None
    command: Command | None = None


@dataclass(frozen=True, slots=True)
class Worker:
    """Something that runs."""

    command: Command
    title: Name | None = None
    note: Text | None = None
    cwd: Path | None = None
    env: Environment = ()
    match: Match | None = None
    parts: tuple[Part, ...] = ()
    every: Duration = 1.5
    count: Annotated[int, integer(1, 100)] = 1
    folder: Name | None = None
    lead: Part | None = field(default=None, metadata={"written": False})


class Workers(Kind[Worker, Any], Completed):
    section = "workers"
    resource = Worker

    def named(self, want: Worker, name: str) -> Worker:
        return want if want.title else replace(want, title=name)

    def linked(self, want: Worker, declared: Declarations) -> Worker:
        if want.folder is not None and f"folder:{want.folder}" not in declared.wants:
            raise ValueError("folder", f"there is no folder {want.folder!r}")
        return replace(want, lead=want.parts[0]) if want.parts else want

    def claims(self, want: Worker) -> Iterable[Claim]:
        yield Claim(Key("title", want.title or ""))

    def uses(self, want: Worker) -> Iterable[Key]:
        if want.cwd is not None:
            yield Key("path", want.cwd)
        if want.folder is not None:
            yield Key("id", f"folder:{want.folder}")


KINDS: dict[str, Kind[Any, Any]] = {kind.name: kind for kind in (Folders(), Grants(), Workers())}
FACTS = Facts("ann", "/home/ann", 1000, "box", True, False, True, "/var/lib/x")
HEAD = "version: 1\nname: demo\n"


class Room:
    """A folder with spec files, and what loads them."""

    def __init__(self, base: File) -> None:
        self.base = base
        self.state = base / "state"
        self.compiled = 0

    def write(self, text: str | bytes, name: str = "spec.yaml") -> File:
        path = self.base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def kinds(self) -> Sequence[Kind[Any, Any]]:
        self.compiled += 1
        return tuple(KINDS.values())

    def load(self, text: str | bytes | None = None, **options: Any) -> Spec:
        """Load ``text`` as spec.yaml, by default without a cache."""
        if text is not None:
            self.write(text)
        given = {
            "facts": FACTS,
            "settings": {},
            "environ": {},
            "state_dir": None,
            "write_cache": False,
            "path": str(self.base / "spec.yaml"),
            **options,
        }
        settings = given.pop("settings")
        given["settings"] = lambda: settings
        return load(given.pop("path"), all_kinds=self.kinds, **given)

    def cached(self, text: str | bytes | None = None, **options: Any) -> tuple[Spec, bool]:
        """As ``load`` with a cache; says too whether it had to compile."""
        before = self.compiled
        options = {"state_dir": str(self.state), "write_cache": True, **options}
        spec = self.load(text, **options)
        return spec, self.compiled > before

    def body(self, text: str, **options: Any) -> dict[str, Any]:
        """The resources of a spec without its head, by id."""
        return {r.id: r for r in self.load(HEAD + text, **options).resources}

    def fails(self, text: str | bytes, **options: Any) -> list[Problem]:
        """The problems of a spec that must not be valid."""
        with pytest.raises(SpecError) as caught:
            self.load(text, **options)
        assert caught.value.problems
        assert str(caught.value).replace("\n", "").isprintable()
        return list(caught.value.problems)


@pytest.fixture
def room(tmp_path: File) -> Room:
    return Room(tmp_path)


@pytest.fixture
def told() -> Any:
    """``line:column message = hint`` of a problem."""

    def tell(problem: Problem) -> str:
        hint = f" = {problem.hint}" if problem.hint else ""
        return f"{problem.line}:{problem.column} {problem.message}{hint}"

    return tell


@pytest.fixture
def values() -> Any:
    """A want as a dictionary of the fields that differ from their defaults."""

    def of(want: Any) -> dict[str, Any]:
        pairs = ((entry, getattr(want, entry.name)) for entry in fields(want))
        return {entry.name: value for entry, value in pairs if value != entry.default}

    return of
