"""The files that one spec is made of, and what stands in them above the sections.

That is include, version, name, vars and loop. It must not look into the sections.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator, Mapping, Sequence

from reconciler.base.records import dataclass, field, replace
from reconciler.base.text import censored
from reconciler.base.values import Remembered
from reconciler.config import yaml
from reconciler.config.errors import Problems, closest
from reconciler.config.nodes import Map, Node, Seq, Source, SourceMark, Text, is_null
from reconciler.config.scope import FIXED, Scope, is_secret_setting
from reconciler.config.validate import Validator
from reconciler.core import order
from reconciler.core.fields import Duration, Path
from reconciler.core.policy import PlanPolicy
from reconciler.host import spec_files
from reconciler.host.spec_files import folder

MAX_DEPTH = 16
MAX_FILES = 1000
_ONCE = "state"
"""The variable by which specs are removed; it counts for one call."""
_MAIN = ("version", "name", "loop", "policy")
_KEYWORDS = ("and", "or", "not", "in", "is", "if", "else", "true", "false", "none")


@dataclass(slots=True)
class SpecFiles:
    """What is in them, in the order in which they count: included ones first.

    ``main`` is the one that the user has named; None: it is broken. ``digests`` has the content
    of every file that was read, by absolute path.
    """

    roots: list[Map] = field(default_factory=list)
    main: Map | None = None
    digests: dict[str, bytes] = field(default_factory=dict)
    inner: dict[str, set[str]] = field(default_factory=dict)
    """The paths of what each file includes, and what these include."""
    broken: bool = False
    """Some file could not be read as YAML, so that not all is known."""


def gather(
    path: str, problems: Problems, text: bytes | None = None, shown: str | None = None
) -> SpecFiles:
    """Read the spec at ``path``, or take ``text`` for what stands there, and what it includes.

    ``shown`` is where problems say that it lies.
    """
    files = SpecFiles()
    _add(shown or path, os.path.abspath(path), None, (), files, problems, text)
    return files


def _add(
    shown: str,
    path: str,
    at: SourceMark | None,
    chain: tuple[Source, ...],
    files: SpecFiles,
    problems: Problems,
    data: bytes | None = None,
) -> None:
    here = Source(shown, path)
    try:
        if data is None:
            data = spec_files.read(path, "the spec" if at is None else f"the included file {shown}")
    except spec_files.ReadError as error:
        files.broken = True
        problems.files.setdefault(path, b"")
        if at is None:
            problems.add_file(shown, error.message, error.hint)
        else:
            problems.add(at, error.message, error.hint)
        return
    files.digests[path] = problems.files[path] = spec_files.digest(data)
    root = yaml.load(data, here, problems, at is None)
    if root is None:
        files.broken = True
        return
    _follow(here, root, (*chain, here), files, problems)
    files.roots.append(root)
    if at is None:
        files.main = root


def _follow(
    here: Source, root: Map, chain: tuple[Source, ...], files: SpecFiles, problems: Problems
) -> None:
    entries = root.get("include")
    if entries is None or is_null(entries):
        return
    if not isinstance(entries, Seq):
        problems.add(entries.at, "include needs a list of files", "write include: [other.yaml]")
        return
    found: list[tuple[Text, str, str]] = []
    for entry in entries:
        if not isinstance(entry, Text) or is_null(entry) or not entry:
            problems.add(entry.at, "an entry of include is the name of a file")
        elif "{{" in entry:
            problems.add(entry.at, "include takes no templates")
        else:
            found += ((entry, *names) for names in _named(entry, here, files))
    names = [source.path for source in chain]
    for entry, path, shown in found:
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
            _add(shown, path, entry.at, chain, files, problems)
        for name in names:
            files.inner.setdefault(name, set()).update((path, *files.inner.get(path, ())))


def _named(entry: Text, here: Source, files: SpecFiles) -> Iterator[tuple[str, str]]:
    """The paths that an entry of include names, and what they are called.

    That is a file beside the one in which it stands, or what a pattern for its name matches, or,
    by its bare name, a file that comes with this program.
    """
    path = os.path.normpath(os.path.join(os.path.dirname(here.path), entry))
    shown = os.path.join(os.path.dirname(here.shown), entry)
    beside, _, pattern = path.rpartition("/")
    shipped = os.path.join(folder("specs"), f"{entry.removesuffix('.yaml')}.yaml")
    if os.path.lexists(path):
        yield path, shown
    elif any(sign in pattern for sign in "*?[") and os.path.isdir(beside):
        # With the names in it a new file is noticed.
        files.digests[f"{beside}/"] = spec_files.digest_now(f"{beside}/")
        for name in fnmatch.filter(sorted(os.listdir(beside)), pattern):
            if not name.startswith("."):
                yield f"{beside}/{name}", os.path.join(os.path.dirname(shown), name)
    elif "/" not in entry and os.path.isfile(shipped):
        files.digests[path] = b""  # One beside it would be taken.
        yield shipped, shipped
    else:
        yield path, shown


@dataclass(frozen=True, slots=True)
class LoopFields:
    """How ``reconcile --loop`` works."""

    every: Duration = 30.0
    """The time between two passes."""
    metrics: Path | None = None
    """A file, such as /var/lib/prometheus/node-exporter/NAME.prom, that the watchdog writes
    after every full pass, for node_exporter."""
    stop_timeout: Duration | None = None
    """As process 1 of a container: the time that its runtime gives between SIGTERM and SIGKILL,
    within which all processes are stopped. By default 10 s, or the longest stop.timeout."""


class HeadReader:
    """Reads what stands above the sections, in all the files of a spec.

    ``variables`` are those that were set: see model.Spec.
    """

    def __init__(self, files: SpecFiles, sections: Sequence[str], problems: Problems) -> None:
        self.files = files
        self.sections = sections
        self.problems = problems
        self.name = ""
        self.loop = LoopFields()
        self.variables: tuple[tuple[str, str], ...] = ()

    def read_head(self) -> None:
        """Check the top level of every file, and read ``version`` and ``name``."""
        for root in self.files.roots:
            self._known_keys(root)
        main = self.files.main
        if main is None:
            return
        version, name = main.get("version"), main.get("name")
        if version is None:
            self.problems.add(main.at, "'version' is missing", "write version: 1")
        elif not isinstance(version, Text) or version != "1":
            said = f", not {str(version)[:20]}" if isinstance(version, Text) else ""
            what = f"the version of the spec format is 1{said}"
            self.problems.add(version.at, what, "write version: 1")
        if name is None:
            self.problems.add(main.at, "'name' is missing", "write name: and a short word")
        elif not isinstance(name, Text) or not re.fullmatch(spec_files.NAME, name):
            self.problems.add(
                name.at,
                "the name of a spec is made of a to z, 0 to 9, '_' and '-', begins with a "
                "letter or digit, and has at most 64 characters",
            )
        else:
            self.name = str(name)

    def _known_keys(self, root: Map) -> None:
        allowed = ["include", "vars", "notify", *self.sections]
        if root is self.files.main:
            allowed = [*_MAIN, *allowed]
        for key, _, at in root.entries():
            if key in allowed:
                continue
            if key in _MAIN:
                self.problems.add(at, f"{key!r} belongs into the main file only")
                continue
            self.problems.add(
                at,
                f"there is no section {key!r}",
                f"the sections are {', '.join(self.sections)}",
                near=(key, allowed),
            )

    def read_vars(self, settings: Mapping[str, str], scope: Scope) -> None:
        """Evaluate all variables, each after those that it uses."""
        found: dict[str, tuple[SourceMark, Node]] = {}
        for root in self.files.roots:
            node = root.get("vars")
            if node is None or is_null(node):
                continue
            if not isinstance(node, Map):
                self.problems.add(node.at, "vars needs names with values: name: value")
                continue
            for name, value, at in node.entries():
                if self._variable_name(name, at, found):
                    found[name] = at, value
        for name, setting in settings.items():
            if not (name in found or isinstance(setting, Remembered) or self.files.broken):
                near = closest(name, found)
                self.problems.add_file(
                    f"--set {name}",
                    f"the spec has no variable {name!r}",
                    f"did you mean {near!r}?" if near else "only a variable under vars can be set",
                )
        before = {
            name: scope.names(node) & found.keys()
            for name, (_, node) in found.items()
            if name not in settings
        }
        scope.uses = {name: set(before.get(name, ())) for name in found}
        try:
            names = order.in_order(list(found), before)
        except order.Cycle as cycle:
            first = found[cycle.ids[0]][0]
            self.problems.add(first, f"variables use one another: {cycle}")
            self.problems.stop_if_any()
            raise
        for name in names:
            if name in settings:
                scope.define(name, str(settings[name]), is_secret_setting(name, settings[name]))
                continue
            result = scope.value(found[name][1])
            if result is None:
                scope.failed.add(name)
                continue
            scope.define(name, *result, found[name][1])
        self.variables = tuple(
            (name, str(value))
            for name, value in sorted(settings.items())
            if name in found and name != _ONCE and self._lasts(name, value, found[name][1], scope)
        )

    def _lasts(self, name: str, value: str, own: Node, scope: Scope) -> bool:
        """Is it worth remembering, and may it be? Not what the file says anyway, nor a secret."""
        secret = name in scope.secrets or censored(value, most=None) != value
        return not secret and not scope.gives(own, value)

    def _variable_name(
        self, name: str, at: SourceMark, found: Mapping[str, tuple[SourceMark, Node]]
    ) -> bool:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", name) or name.lower() in _KEYWORDS:
            wrong = "is not a name for a variable: letters, digits and '_' make one"
        elif name in FIXED:
            wrong = "has a fixed meaning in templates; take another name"
        elif name in found and found[name][0].source.path in self.files.inner.get(
            at.source.path, ()
        ):
            return True  # Who includes a file knows better.
        elif name in found:
            self.problems.add(at, f"the variable {name!r} is set twice; first in {found[name][0]}")
            return False
        else:
            return True
        self.problems.add(at, f"{name!r} {wrong}")
        return False

    def read_loop(self, scope: Scope, validator: Validator) -> None:
        """Read ``loop`` of the main file."""
        loop = self.files.main.get("loop") if self.files.main is not None else None
        if loop is None or is_null(loop):
            return
        if isinstance(loop, Map):
            node = scope.node(loop)
            assert isinstance(node, Map)
            found = validator.read(LoopFields, node, "loop", node.at)
            self.loop = found or self.loop
        else:
            self.problems.add(loop.at, "loop needs fields", "write loop: {every: 30s}")

    def read_policy(self, scope: Scope, validator: Validator) -> PlanPolicy | None:
        """``policy`` of the main file: no file that is included may loosen it."""
        given = self.files.main.get("policy") if self.files.main is not None else None
        if given is None or is_null(given):
            return None
        if not isinstance(given, Map):
            self.problems.add(given.at, "policy needs fields", "write policy: {max_deletes: 100}")
            return None
        node = scope.node(given)
        assert isinstance(node, Map)
        found: PlanPolicy | None = validator.read(PlanPolicy, node, "policy", node.at)
        if found is None:
            return None
        if found == PlanPolicy():
            self.problems.add(
                node.at, "policy forbids nothing; give it protect, max_deletes or deny"
            )
        kinds = [kind.name for kind in validator.kinds]
        home = validator.home
        protect = [
            home + one[1:] if one == "~" or one.startswith("~/") else one for one in found.protect
        ]
        for pattern in protect:
            kind, colon, _ = pattern.partition(":")
            if pattern.startswith("/") or (colon and (kind in kinds or not kind.isalpha())):
                continue
            what = f"policy: protect: {pattern!r} is neither a path nor an id, such as process:db"
            self.problems.add(node.place("protect"), what, near=(kind, kinds))
        return replace(found, protect=tuple(protect))
