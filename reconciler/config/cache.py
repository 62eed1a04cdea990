"""The compiled spec on disk, so that a pass over an unchanged spec need not compile it again.

It must stay light: no pydantic, ruamel.yaml, jinja2, nor any module that compiles. What is on
disk is used only when everything it was made from is the same, and anything odd about it means
that it is not used; it can be lost at any time.
"""

from __future__ import annotations

import marshal
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from reconciler import __version__
from reconciler.base.digests import blake2b
from reconciler.base.errors import HostError
from reconciler.base.records import Packer, dataclass, replace, unpacked
from reconciler.base.values import Facts, Secret
from reconciler.host import spec_files, trust
from reconciler.host.walk import closing

if TYPE_CHECKING:
    from reconciler.core.kind import Kind
    from reconciler.core.model import Spec

_MAGIC = b"reconcile spec 2\n"
_DIGEST = 32
_FOLDER = ".compiled"
"""Beside the folders of the specs, none of which can have such a name."""
_KEPT = 64
"""Files that are kept; the oldest go first."""
_ROOT = os.path.dirname(os.path.dirname(__file__))


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a compiled spec is made from, besides the files."""

    path: str
    facts: Facts
    settings: Mapping[str, str]
    environ: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Compiled:
    """What is known of a compiled spec before it is unpacked. ``digest`` is of all there is."""

    name: str
    path: str
    variables: tuple[tuple[str, str], ...]
    digest: str


def file_name(state_dir: str, inputs: Inputs) -> str:
    """Where the compiled form is kept: the name begins with the spec, and ends with settings."""
    spec = _digest(os.path.abspath(inputs.path), size=12)
    settings = _digest(sorted(inputs.settings.items()), size=6)
    return os.path.join(state_dir, _FOLDER, f"{spec.hex()}-{settings.hex()}.bin")


def compiled(file: str, inputs: Inputs, complete: bool) -> Spec | None:
    """The spec in ``file``; None when there is none that fits. Never raises.

    ``complete``: None as well for one that was written without its secrets.
    """

    def fits(head: Mapping[str, Any]) -> bool:
        return (head["complete"] or not complete) and _fits(head, inputs)

    return _spec(_found(file, inputs, fits))


def last_good(file: str, inputs: Inputs) -> Spec | None:
    """The same as it was compiled last, whatever its files hold now; it lacks its secrets."""
    return _spec(_found(file, inputs, lambda head: _made_alike(head, inputs)))


def unchanged(file: str, inputs: Inputs) -> Compiled | None:
    """What is known of the spec in ``file``; None when there is none that fits. Never raises."""
    found = _found(file, inputs, lambda head: _fits(head, inputs))
    if found is None:
        return None
    head, body = found
    # The salt is another one each time that it is written.
    digest = _hash(head["salt"] + body).hex()
    return Compiled(head["name"], head["path"], head["variables"], digest)


def _found(
    file: str, inputs: Inputs, fits: Callable[[Mapping[str, Any]], bool]
) -> tuple[dict[str, Any], bytes] | None:
    """The head and the packed body of what is in ``file``, if it fits."""
    try:
        content = _content(file)
        if content is None:
            return None
        head, body = marshal.loads(content)
        if not fits(head):
            return None
        settings = inputs.settings
        head["variables"] = tuple((name, str(settings[name])) for name in head["set"])
        return head, body
    except Exception:
        return None  # Damage that the digest missed: compiling tells what is wrong.


def _spec(found: tuple[dict[str, Any], bytes] | None) -> Spec | None:
    if found is None:
        return None
    head, body = found
    try:
        spec: Spec = unpacked(marshal.loads(body))
        return replace(spec, complete=head["complete"], variables=head["variables"])
    except Exception:
        return None  # Or a kind that is gone.


def write(
    file: str, inputs: Inputs, spec: Spec, files: Mapping[str, bytes], names: Iterable[str]
) -> None:
    """Keep ``spec``. Does nothing when it cannot be written; the cache is only for speed.

    ``files`` are the digests of its files, and ``names`` what was read of the environment.
    """
    try:
        salt, read = os.urandom(16), sorted(names)
        left_out = []

        def bare(record: Any) -> Any:
            if type(record) is not Secret:
                return record
            left_out.append(record)
            return Secret(None, record.digest)

        body = Packer(bare).packed(replace(spec, secrets=(), variables=()))
        head = {
            "salt": salt,
            "environ": read,
            "made": _made(inputs, read, salt),
            "files": tuple(files.items()),
            "name": spec.name,
            "path": spec.path,
            "complete": not left_out,
            # Only the names: a value is not kept that nothing was made of.
            "set": tuple(name for name, _ in spec.variables),
        }
        payload = marshal.dumps((head, marshal.dumps(body)))
        _replace(file, _MAGIC + _hash(payload) + payload)
    except (OSError, HostError, ValueError, TypeError):
        return


def remove(file: str) -> None:
    """Remove what was kept of that spec, whatever its settings were. Never raises."""
    folder, _, name = file.rpartition("/")
    with suppress(OSError, HostError), closing(trust.opened(folder)) as handle:
        _make_room(handle, name)
        os.unlink(name, dir_fd=handle)


def others(state_dir: str, name: str, most: int) -> Iterator[Spec]:
    """The compiled specs beside ours that have another name, as they were used last."""
    folder = os.path.join(state_dir, _FOLDER)
    try:
        entries = sorted(os.scandir(folder), key=lambda one: -one.stat().st_mtime)
    except OSError:
        return
    seen = {name}
    for entry in entries[:most]:
        try:
            content = _content(entry.path)
            head, body = marshal.loads(content) if content is not None else ({}, b"")
            if head.get("name") in (None, *seen) or not os.path.exists(head["path"]):
                continue
            seen.add(head["name"])
        except Exception:
            continue  # Made by another version, or damaged: it would not be used either.
        spec = _spec(({**head, "variables": ()}, body))
        if spec is not None:
            yield spec


def load(
    path: str,
    *,
    all_kinds: Callable[[], Sequence[Kind[Any, Any]]],
    facts: Facts,
    settings: Callable[[], Mapping[str, str]],
    environ: Mapping[str, str],
    state_dir: str | None,
    write_cache: bool,
    complete: bool = False,
    patience: float | None = None,
    strict: bool = True,
    placed: str | None = None,
) -> Spec:
    """The spec in the file ``path``, compiled or as it was kept in ``state_dir``.

    ``settings`` gives the values of ``--set``, some of which may be from files: they are read once
    more where somebody still writes. ``state_dir`` None: nothing is kept or looked up.
    ``write_cache`` False: nothing is written. ``complete``: never a spec without its secrets.
    ``all_kinds`` is called only to compile. ``patience`` are the seconds for which one who still
    writes a file of it is waited for, None: whatever is there is taken. Not ``strict``: resources
    that contradict one another are held, and not refused. ``placed`` is where the spec will lie; it
    is neither kept nor looked up then. Raises BeingWritten, and SpecError with
    every problem there is; a file that cannot be read, or that root cannot trust, is one too.
    """
    inputs = Inputs(path, facts, settings(), environ)
    state_dir = state_dir if placed is None else None
    if state_dir is not None:
        kept = compiled(file_name(state_dir, inputs), inputs, complete)
        if kept is not None and not (strict and any(one.held for one in kept.resources)):
            return kept
    from reconciler.base.text import FromFile
    from reconciler.config.build import Built, build
    from reconciler.config.errors import SpecError
    from reconciler.config.settled import settled

    def made() -> tuple[Built, Mapping[str, bytes]]:
        nonlocal inputs
        inputs = Inputs(path, facts, settings(), environ)
        given = {
            one.path: one.digest for one in inputs.settings.values() if isinstance(one, FromFile)
        }
        try:
            built = build(path, all_kinds(), facts, inputs.settings, environ, strict, placed=placed)
        except SpecError as error:
            error.files.update(given)
            raise
        return built, {**built.files, **given}

    built = made()[0] if patience is None else settled(made, patience)
    if state_dir is not None and write_cache:
        file = file_name(state_dir, inputs)
        if built.keepable:
            write(file, inputs, built.spec, built.files, built.environ)
        else:
            remove(file)
    return built.spec


def _content(file: str) -> memoryview | None:
    """The payload of a file that is whole and that nobody else could have written."""
    try:
        fd = trust.opened(file, os.O_RDONLY | os.O_NOFOLLOW)
    except (OSError, trust.Untrusted):
        return None
    try:
        status = os.fstat(fd)
        private = stat.S_ISREG(status.st_mode) and not status.st_mode & 0o077
        if not private or status.st_uid != os.geteuid():
            return None
        content = os.read(fd, status.st_size)
    finally:
        os.close(fd)
    start = len(_MAGIC) + _DIGEST
    payload = memoryview(content)[start:]
    whole = content.startswith(_MAGIC) and _hash(payload) == content[len(_MAGIC) : start]
    return payload if whole else None


def _hash(data: bytes | memoryview) -> bytes:
    return blake2b(data, digest_size=_DIGEST).digest()


def _digest(value: object, salt: bytes = b"", size: int = _DIGEST) -> bytes:
    return blake2b(repr(value).encode(), key=salt, digest_size=size).digest()


def _made(inputs: Inputs, read: Iterable[str], salt: bytes) -> bytes:
    """What compiles (this program, its files, the interpreter), and from what besides the files.

    ``read`` are the variables of the environment that were asked for.
    """
    environ = [(name, inputs.environ.get(name)) for name in read]
    program = __version__, sys.version, _fingerprint()
    return _digest((program, inputs.facts, sorted(inputs.settings.items()), environ), salt)


def _fingerprint() -> tuple[tuple[str, int, int], ...]:
    """Name, time and size of every source file that has a part in compiling."""
    found = []
    todo = ["base", "config", "core", "kinds"]
    while todo:
        folder = todo.pop()
        with os.scandir(os.path.join(_ROOT, folder)) as entries:
            for entry in entries:
                name = f"{folder}/{entry.name}"
                if name.endswith(".py"):
                    status = entry.stat()
                    found.append((name, status.st_mtime_ns, status.st_size))
                elif folder == "kinds" and entry.is_dir() and entry.name[0] != "_":
                    todo.append(name)
    return tuple(sorted(found))


def _fits(head: Mapping[str, Any], inputs: Inputs) -> bool:
    files = head["files"]
    return _made_alike(head, inputs) and all(_unchanged(path, digest) for path, digest in files)


def _made_alike(head: Mapping[str, Any], inputs: Inputs) -> bool:
    """Was it compiled as it would be now, but for what its files hold?"""
    made = os.path.abspath(inputs.path), _made(inputs, head["environ"], head["salt"])
    return made == (head["path"], head["made"])


def _unchanged(path: str, digest: bytes) -> bool:
    """Is the file as it was, and still one that can be trusted?"""
    if not digest:
        return not os.path.lexists(path)
    try:
        return spec_files.digest_now(path) == digest
    except spec_files.ReadError:
        return False


def _replace(file: str, content: bytes) -> None:
    """Write a whole file, readable by its owner alone. Raises OSError or HostError."""
    from reconciler.host.place import put

    folder, _, name = file.rpartition("/")
    with closing(trust.opened(folder, make=0o700)) as handle:
        _make_room(handle, name)
        put(handle, name, content)


def _make_room(folder: int, new: str) -> None:
    """Remove the oldest files of ours, and what a write that was killed left behind.

    So are those of the spec of ``new`` with other settings: what was set is in them.
    """
    found = {}
    spec = new.partition("-")[0]
    for name in os.listdir(folder):
        if name.endswith(".bin") and name != new and name.partition("-")[0] in (spec, name):
            os.unlink(name, dir_fd=folder)
        elif name.endswith((".bin", ".tmp")):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            found[name] = status.st_mtime_ns
    for name in sorted(found, key=found.__getitem__)[: max(0, len(found) - _KEPT + 1)]:
        os.unlink(name, dir_fd=folder)
