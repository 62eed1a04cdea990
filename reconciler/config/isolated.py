"""A spec for a process that runs for years: compiled in a child, so that it stays small.

It must not import what compiles into the process that asks, nor look at a file there.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from reconciler import config as room
from reconciler.base.errors import BeingWritten
from reconciler.base.records import Packer, replace, unpacked
from reconciler.base.text import FromFile
from reconciler.base.values import Secret
from reconciler.core.model import Spec
from reconciler.host.child import Child
from reconciler.host.environment import note, on_note

_TIMEOUT = 120.0


class Invalid(Exception):
    """The spec is not valid: ``text`` says why to people, ``errors`` as JSON values.

    ``files`` are those that it was made from.
    """

    def __init__(self, text: str, errors: list[dict[str, Any]], files: tuple[str, ...]) -> None:
        super().__init__(text)
        self.text = text
        self.errors = errors
        self.files = files


class Asked(Exception):
    """What the command line asks for cannot be; the message says what and why."""


class Loading:
    """A complete spec, loaded by a child.

    ``inputs`` gives what ``spec.load`` takes; it is called there, since it looks at files too.
    ``refused`` is what it raises for a command line that cannot be accepted. Raises OSError where
    no child can be made.
    """

    def __init__(self, inputs: Callable[[], Mapping[str, Any]], refused: type[Exception]) -> None:
        self.child = Child(partial(_loaded, inputs, refused), _TIMEOUT)

    def wait(self) -> Spec:
        """The spec. Raises Asked, Invalid, BeingWritten, and UnknownState when it hangs."""
        return self._spec(self.child.wait())

    def collect(self) -> Spec | None:
        """The same, without waiting for it; None: it is not there yet."""
        answer = self.child.collect()
        return None if answer is None else self._spec(answer)

    def _spec(self, answer: bytes) -> Spec:
        end, noted, *more = marshal.loads(answer)
        for words in noted:
            note(words)
        if end == "asked":
            raise Asked(*more)
        if end == "written":
            raise BeingWritten(*more)
        if end == "invalid":
            raise Invalid(*more)
        (packed,) = more
        spec: Spec = unpacked(packed)
        return spec


def _loaded(inputs: Callable[[], Mapping[str, Any]], refused: type[Exception]) -> bytes:
    """The child's side."""
    from reconciler.config.errors import SpecError, document

    noted: list[str] = []
    on_note(noted.append)
    from_files: set[str] = set()

    def settings() -> Mapping[str, str]:
        found: Mapping[str, str] = given["settings"]()
        from_files.update(str(one) for one in found.values() if isinstance(one, FromFile))
        return found

    try:
        given = inputs()
        more = {"settings": settings, "write_cache": True, "complete": True, "strict": False}
        spec = room.load(**{**given, **more})
    except refused as error:
        return marshal.dumps(("asked", noted, str(error)))
    except SpecError as error:
        files = tuple(error.files)
        return marshal.dumps(("invalid", noted, f"{error}\n", document(error), files))
    except BeingWritten as error:
        return marshal.dumps(("written", noted, str(error)))
    spec = replace(spec, secrets=(*spec.secrets, *map(Secret.of, from_files)))
    return marshal.dumps(("valid", noted, Packer().packed(spec)))
