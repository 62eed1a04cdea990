"""A plan in a file, sealed, which a later pass does exactly, or not at all.

It must hold no secret, and nothing of it is believed before its seal was checked. Of what was seen
it holds digests with a key of the state directory, which says nothing to anybody else.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from reconciler import __version__, kinds
from reconciler.base.digests import blake2b
from reconciler.base.errors import HostError
from reconciler.base.text import printable, redacted_json
from reconciler.core.kind import Probed
from reconciler.host import trust
from reconciler.host.command import find, run
from reconciler.host.place import put_at, write_all
from reconciler.host.reading import content
from reconciler.host.remedy import remedy
from reconciler.output.data import plan_document
from reconciler.state.folder import make_folder

if TYPE_CHECKING:
    from reconciler.cli.context import Context
    from reconciler.core.model import Spec, Step
    from reconciler.core.observe import Snapshot

FORMAT = 1
_KEY = "plan-key"
_LONGEST = 256 << 20
_NAMESPACE = "reconcile-plan"
"""What a signature is for, ssh-keygen(1)."""
_TIMEOUT = 60.0
_PASSING = ("now", "seconds")
"""Fields of a state that are another time's by themselves."""


def save(context: Context, look: Snapshot, path: str, sign: str | None) -> None:
    """Write the plan of that look, and its signature beside it. Raises HostError."""
    from reconciler.host.whole_file import write_whole

    folder = context.folder(look.spec)
    key = _key(folder, make=True)
    document = {
        "format": FORMAT,
        "plan": redacted_json(plan_document(look.plan, context.about(look.spec))),
        "saved": {"time": round(time.time(), 3), **_facts(key, look)},
    }
    document["seal"] = _seal(key, document)
    data = json.dumps(document, indent=1).encode() + b"\n"
    path = os.path.abspath(path)
    write_whole(
        path, lambda handle: write_all(handle, data), 0o600, -1, -1, 0o600, lambda new: None
    )
    if sign is not None:
        signature = _keygen("sign", "-f", os.path.abspath(sign), send=data)
        write_whole(
            f"{path}.sig", lambda handle: write_all(handle, signature), 0o600, -1, -1, 0o600,
            lambda new: None,
        )  # fmt: skip


class SavedPlan:
    """A plan that was read from a file, and is to be checked. Raises HostError."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._data = _read(self.path)
        try:
            document = json.loads(self._data)
            version = document["format"]
            if isinstance(version, int) and version > FORMAT:
                raise HostError(f"{self.path} was written by a newer version of this program")
            self._document: dict[str, Any] = document
            self._saved: dict[str, Any] = document["saved"]
            self.spec_path: str = document["plan"]["spec"]["path"]
            self.only: list[str] = [str(one) for one in self._saved["only"]]
            self._steps = [(str(one["id"]), str(one["digest"])) for one in self._saved["steps"]]
            self._states = {str(key): str(one) for key, one in self._saved["states"].items()}
            self._seal = str(document["seal"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            what = printable(str(error), 80)
            raise HostError(f"{self.path} is no whole saved plan ({what}); make it anew") from None

    def refuse_forged(self, context: Context, spec: Spec, signers: str | None) -> None:
        """Raises HostError unless it was made here, and was signed by one of ``signers``."""
        key = _key(context.folder(spec))
        sealed = {name: one for name, one in self._document.items() if name != "seal"}
        from hmac import compare_digest

        if key is None or not compare_digest(self._seal, _seal(key, sealed)):
            raise HostError(
                f"{self.path} was not made here, with this state directory, or was changed since"
            )
        if signers is None:
            return
        signature = f"{self.path}.sig"
        if not os.path.isfile(signature):
            raise HostError(f"{self.path} is not signed: there is no {signature}")
        about = ("-f", os.path.abspath(signers), "-s", signature)
        try:
            found = _keygen("find-principals", *about).decode(errors="replace").split("\n")[0]
            _keygen("verify", *about, "-I", found, send=self._data)
        except HostError as error:
            raise HostError(f"{self.path} is not signed by one of {signers}: {error}") from None

    def moved(self, context: Context, look: Snapshot) -> list[str]:
        """What is not as it was when the plan was made, in words."""
        now = _facts(_key(context.folder(look.spec)), look)
        found = [
            f"the {words}"
            for name, words in (
                ("machine", f"plan was made on another host than {look.plan.host}"),
                ("program", f"program is {__version__}, and was {self._saved.get('program')}"),
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


def _facts(key: bytes | None, look: Snapshot) -> dict[str, Any]:
    """What a plan depends on, as digests; none of them is one without the key."""
    key = key or b""
    spec = look.spec
    declared = [(one.id, one.present, one.skip, one.needs, one.want) for one in spec.resources]
    states = {
        one.id: _digest(key, [look.seen[one.id].unknown is None, look.seen[one.id].state])
        for one in spec.resources
        if one.id in look.seen and not isinstance(kinds.get(one.kind), Probed)
    }
    return {
        "program": __version__,
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
    made = blake2b(key=key, digest_size=16)
    for piece in _canonical(value):
        made.update(piece)
    return made.hexdigest()


def _canonical(value: Any) -> Iterator[bytes]:
    """The same bytes for the same value in every process."""
    if is_dataclass(value) and not isinstance(value, type):
        yield type(value).__name__.encode()
        value = [getattr(value, one.name) for one in fields(value) if one.name not in _PASSING]
    if isinstance(value, Mapping):
        value = sorted(value.items(), key=repr)
    if isinstance(value, Set):
        value = sorted(value, key=repr)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        yield b"("
        for one in value:
            yield from _canonical(one)
        yield b")"
    else:
        yield repr(value).encode("utf-8", "surrogateescape") + b","


def _seal(key: bytes | None, document: Mapping[str, Any]) -> str:
    whole = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return blake2b(whole.encode(), key=key or b"", digest_size=32).hexdigest()


def _key(folder: str, make: bool = False) -> bytes | None:
    path = os.path.join(folder, _KEY)
    key = trust.own_bytes(path, 64)
    if make and (key is None or len(key) != 64):
        make_folder(folder)
        key = os.urandom(64)
        put_at(path, key)
    return key if key is not None and len(key) == 64 else None


def _read(path: str) -> bytes:
    try:
        handle = trust.opened(path, what="what is done by it")
    except OSError as error:
        raise HostError(f"cannot read {path}: {error.strerror}") from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise HostError(f"{path} is no file")
        if status.st_mode & 0o077:
            words = f"{path} could be read by others, to whom it names what they may not see"
            raise HostError(words, remedy=remedy("chmod", "600", path))
        if status.st_size > _LONGEST:
            raise HostError(f"{path} is too long for a plan")
        return content(handle, _LONGEST)
    finally:
        os.close(handle)


def _keygen(verb: str, *options: str, send: bytes = b"") -> bytes:
    program = find("ssh-keygen")
    if program is None:
        raise HostError("there is no ssh-keygen; install openssh-client")
    name = () if verb == "find-principals" else ("-n", _NAMESPACE)
    done = run([program, "-Y", verb, *name, *options], timeout=_TIMEOUT, send=send)
    if done.status != 0:
        raise HostError(f"ssh-keygen -Y {verb}: {done.complaint}")
    return done.output
