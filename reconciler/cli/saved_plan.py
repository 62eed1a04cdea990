"""A plan in a file, sealed, which a later pass does exactly, or not at all.

It must hold no secret, and nothing of it is believed before its seal was checked. Of what was seen
it holds digests with a key of the state directory, which says nothing to anybody else.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from reconciler import __version__, kinds
from reconciler.base.digests import blake2b
from reconciler.base.errors import HostError
from reconciler.base.text import printable, redacted_json
from reconciler.core.kind import Probed
from reconciler.host import trust
from reconciler.host.command import find, run
from reconciler.host.place import put_at, write_all
from reconciler.host.program import code
from reconciler.host.reading import content
from reconciler.host.remedy import remedy
from reconciler.host.walk import closing
from reconciler.output.data import laid_out, plan_document
from reconciler.state.folder import make_folder

if TYPE_CHECKING:
    from reconciler.cli.context import Context
    from reconciler.core.model import Step
    from reconciler.core.observe import Snapshot

FORMAT = 1
_KEY = "plan-key"
_LENGTH = 64
"""Bytes of that key."""
_LONGEST = 256 << 20
_END = 200
"""Bytes in which the seal stands, which is the last in a file."""
_NAMESPACE = "reconcile-plan"
"""What a signature is for, ssh-keygen(1)."""
_TIMEOUT = 60.0
_PASSING = ("now", "seconds")
"""Fields of a state that are another time's by themselves."""


def save(context: Context, look: Snapshot, path: str, sign: str | None) -> None:
    """Write the plan of that look, and its signature beside it. Raises HostError."""
    from reconciler.host.whole_file import WholeFileWriter

    path = os.path.abspath(path)
    _refuse_other(path)
    folder = context.folder(look.spec)
    key = _key(folder, make=True)
    if key is None:
        raise HostError(f"cannot use the key {folder}/{_KEY}; remove it")
    document = {
        "format": FORMAT,
        "plan": redacted_json(plan_document(look.plan, context.about(look.spec))),
        "saved": {"time": round(time.time(), 3), **_facts(key, look)},
    }
    document["seal"] = _seal(key, document)
    data = laid_out(document).encode() + b"\n"
    # It tells what others may not see, so it is nobody else's, whosever was there before.
    rights = 0o600, os.geteuid(), os.getegid()
    WholeFileWriter(path, lambda handle: write_all(handle, data), *rights).write()
    if sign is not None:
        signature = _keygen("sign", "-f", os.path.abspath(sign), send=data)
        WholeFileWriter(f"{path}.sig", lambda handle: write_all(handle, signature), *rights).write()


class SavedPlan:
    """A plan that was read from a file; its seal is right. Raises HostError where it is not, or
    where it was not signed by one of ``signers``."""

    def __init__(self, context: Context, path: str, signers: str | None) -> None:
        self.path = os.path.abspath(path)
        self._data = _read(self.path)
        try:
            document = json.loads(self._data)
            version = document["format"]
            if isinstance(version, int) and version > FORMAT:
                raise HostError(f"{self.path} was written by a newer version of this program")
            name, seal = document["plan"]["spec"]["name"], document.pop("seal")
            if not isinstance(name, str) or name in ("", ".", "..") or {"/", "\0"} & set(name):
                raise ValueError("no name of a spec")
            if not self._is_sealed(context.folder_of(name), document, str(seal)):
                raise HostError(
                    f"{self.path} was not made here, with this state directory, or was changed "
                    "since"
                )
            self._saved: dict[str, Any] = document["saved"]
            self.spec_path: str = document["plan"]["spec"]["path"]
            self.only: list[str] = self._saved["only"]
            self._steps = [(one["id"], one["digest"]) for one in self._saved["steps"]]
            self._states: dict[str, str] = self._saved["states"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            what = printable(str(error), 80)
            raise HostError(f"{self.path} is no whole saved plan ({what}); make it anew") from None
        if signers is not None:
            self._refuse_unsigned(signers)

    def _is_sealed(self, folder: str, document: Mapping[str, Any], seal: str) -> bool:
        from hmac import compare_digest

        key = _key(folder)
        return key is not None and compare_digest(seal.encode(), _seal(key, document).encode())

    def _refuse_unsigned(self, signers: str) -> None:
        signature, signers = f"{self.path}.sig", os.path.abspath(signers)
        if not os.path.isfile(signature):
            raise HostError(f"{self.path} is not signed: there is no {signature}")
        try:
            there = trust.refuse_untrusted(signers, "whose signature counts")
        except OSError as error:
            raise HostError(f"cannot read {signers}: {error.strerror}") from None
        if not there:
            raise HostError(f"there is no {signers}, which says whose signature counts")
        about = ("-f", signers, "-s", signature)
        why = ""
        try:
            found = _keygen("find-principals", *about).decode(errors="replace").splitlines()
        except HostError as error:
            found, why = [], str(error)
        for one in found:
            try:
                _keygen("verify", *about, "-I", one, send=self._data)
            except HostError as error:
                why = str(error)
            else:
                return
        raise HostError(f"{self.path} is not signed by one of {signers}: {why}")

    def moved(self, context: Context, look: Snapshot) -> list[str]:
        """What is not as it was when the plan was made, in words."""
        now = _facts(_key(context.folder(look.spec)) or b"", look)
        was = str(self._saved.get("program")).partition(" ")[0]
        other = f"{__version__}, it was {was}" if was != __version__ else "its files have changed"
        found = [
            f"the {words}"
            for name, words in (
                ("machine", f"plan was made on another host than {look.plan.host}"),
                ("program", f"program is another one: {other}"),
                ("spec", "spec is another one, or its variables are"),
            )
            if now[name] != self._saved.get(name)
        ]
        why = {step.id: step.why for step in look.plan.steps}
        states = now["states"]
        for ident in sorted(states.keys() | self._states.keys()):
            if states.get(ident) != self._states.get(ident):
                found.append(f"{ident} is not as it was: {why.get(ident, 'no step is due now')}")
        steps = [(one["id"], one["digest"]) for one in now["steps"]]
        if not found and steps != self._steps:
            differing = sorted({ident for ident, _ in set(steps) ^ set(self._steps)})
            words = f"of {', '.join(differing)}" if differing else "in their order"
            found.append(f"the steps {words} are others now")
        return found


def _facts(key: bytes, look: Snapshot) -> dict[str, Any]:
    """What a plan depends on, as digests; none of them is one without the key."""
    spec = look.spec
    declared = [(one.id, one.present, one.skip, one.needs, one.want) for one in spec.resources]
    states = {
        one.id: _digest(key, [look.seen[one.id].unknown is None, look.seen[one.id].state])
        for one in spec.resources
        if one.id in look.seen and not isinstance(kinds.get(one.kind), Probed)
    }
    return {
        "program": f"{__version__} {code()}",
        "machine": _digest(key, _machine()),
        "only": list(look.only),
        "spec": _digest(key, [spec.name, spec.path, declared]),
        "states": states,
        "steps": [{"id": one.id, "digest": _digest(key, _step(one))} for one in look.plan.steps],
    }


def _step(step: Step) -> Sequence[Any]:
    changes = [(one.field, one.have, one.want) for one in step.changes if one.field != "oldest"]
    return [step.id, step.verb, changes, [action.describe() for action in step.actions]]


def _machine() -> str:
    try:
        with open("/etc/machine-id", encoding="ascii", errors="replace") as file:
            return file.read(64) + os.uname().nodename
    except OSError:
        return os.uname().nodename


def _digest(key: bytes, value: Any) -> str:
    whole = repr(_canonical(value)).encode("utf-8", "surrogateescape")
    return blake2b(whole, key=key, digest_size=16).hexdigest()


_PLAIN = frozenset((str, int, float, bool, bytes, type(None)))


def _canonical(value: Any) -> Any:
    """Plain tuples, whose ``repr`` is the same for the same value in every process."""
    kind: Any = type(value)
    if kind in _PLAIN:
        return value
    if kind is tuple or kind is list:
        return tuple([_canonical(one) for one in value])
    if isinstance(value, Mapping):
        return "map", sorted([_canonical(pair) for pair in value.items()], key=repr)
    if isinstance(value, Set):
        return "set", sorted(map(_canonical, value), key=repr)
    if is_dataclass(value) and not isinstance(value, type):
        named = _fields(kind)
        return kind.__name__, [_canonical(getattr(value, name)) for name in named]
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return tuple([_canonical(one) for one in value])
    return repr(value)


@cache
def _fields(kind: Any) -> tuple[str, ...]:
    return tuple(one.name for one in fields(kind) if one.name not in _PASSING)


def _seal(key: bytes, document: Mapping[str, Any]) -> str:
    whole = json.dumps(document, sort_keys=True, separators=(",", ":"))
    import hmac

    return hmac.digest(key, whole.encode(), "sha256").hex()


def _key(folder: str, make: bool = False) -> bytes | None:
    """The key of the seals; one that others could read, or have put there, is none."""
    path = os.path.join(folder, _KEY)
    if make:
        make_folder(folder)
    for _ in range(2 if make else 1):
        with suppress(OSError, HostError):
            with closing(trust.own_file(path)) as handle:
                private = not os.fstat(handle).st_mode & 0o077
                key = os.read(handle, _LENGTH + 1)
            if private and len(key) == _LENGTH:
                return key
        if make:
            # Of two that make it at once, both go by that of the first.
            there = os.path.lexists(path)
            with suppress(FileExistsError):
                put_at(path, os.urandom(_LENGTH), replace=there)
    return None


def _refuse_other(path: str) -> None:
    """Raise HostError where something else than a saved plan would be lost."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        raise HostError(f"cannot write {path}: {error.strerror}") from None
    with closing(handle):
        known = _looks_like_one(handle, os.fstat(handle))
    if not known:
        raise HostError(f"{path} is there, and is no saved plan; name another file")


def _looks_like_one(handle: int, status: os.stat_result) -> bool:
    """Does a seal stand at its end?"""
    if not stat.S_ISREG(status.st_mode):
        return False
    return b'"seal": "' in os.pread(handle, _END, max(0, status.st_size - _END))


def _read(path: str) -> bytes:
    try:
        handle = trust.opened(path, what="what is done by it")
    except OSError as error:
        raise HostError(f"cannot read {path}: {error.strerror}") from None
    with closing(handle):
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise HostError(f"{path} is no file")
        if status.st_mode & 0o077:
            if not _looks_like_one(handle, status):
                raise HostError(f"{path} is no saved plan; make one with: --plan SPEC --out FILE")
            words = f"others may read {path}, and it may name what they may not see"
            raise HostError(words, remedy=remedy("chmod", "600", path))
        if status.st_size > _LONGEST:
            raise HostError(f"{path} is too long for a plan")
        return content(handle, _LONGEST)


def _keygen(verb: str, *options: str, send: bytes = b"") -> bytes:
    program = find("ssh-keygen")
    if program is None:
        raise HostError("there is no ssh-keygen; install openssh-client")
    name = () if verb == "find-principals" else ("-n", _NAMESPACE)
    done = run([program, "-Y", verb, *name, *options], timeout=_TIMEOUT, send=send)
    if done.status != 0:
        raise HostError(f"ssh-keygen -Y {verb}: {done.complaint}")
    return done.output
