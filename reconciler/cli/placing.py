"""A spec that lies elsewhere is put to where it belongs, with the files that it is made of.

It must not touch a file that it has not put there, besides those that it replaces.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError
from reconciler.host import trust
from reconciler.host.place import put, put_at
from reconciler.host.spec_files import ReadError, digest, folder, lies_elsewhere, lying, read
from reconciler.host.walk import closing

if TYPE_CHECKING:
    from reconciler.cli.context import Context
    from reconciler.core.model import Spec

_PUT = "placed"
"""In the state directory: the digests of the files that were put there."""
_MOST = 1 << 20


def files_of(spec: Spec, path: str) -> dict[str, bytes]:
    """What the files hold that the spec in the file ``path`` is made of, by their names from its
    folder. The files of the program are not among them. Raises HostError."""
    found = {}
    top = os.path.dirname(os.path.abspath(path))
    ours = tuple(f"{folder(name)}/" for name in ("specs", "templates"))
    sources = (getattr(one.want, "origin", None) for one in spec.resources)
    named = (lying(one) for one in sources if isinstance(one, str))
    for file in (os.path.abspath(path), *spec.files, *named):
        if file.endswith("/") or not os.path.isfile(file) or file.startswith(ours):
            continue
        name = os.path.relpath(file, top)
        if name.startswith("../"):
            raise HostError(
                f"{file} is not below {top}, the folder of the spec, with which it goes elsewhere; "
                "put it there"
            )
        try:
            found[name] = read(file, f"the file {file}")
        except ReadError as error:
            hint = f"; fix it with: {error.hint}" if error.hint else ""
            raise HostError(f"{error.message}{hint}") from None
    return found


def put_in_place(context: Context, spec: Spec) -> None:
    """Put the spec to the path of ``--as``, with its files; from now on it is the one there.

    The main file is the last. What was put there before, belongs to it no more and has not been
    changed by anybody is removed. Raises HostError.
    """
    options = context.options
    top, main = os.path.split(options.placed)
    given = context.spec_path()
    files = files_of(spec, given)
    whole = files.pop(os.path.basename(given))  # It has the name that it is to have there, alone.
    if main in files:
        raise HostError(
            f"{main} is a file that the spec is made of, and not its name; name another"
        )
    files = {**files, main: whole}
    # Where they were, and not only here: the spec may be put somewhere else later.
    paths = {os.path.join(top, name): data for name, data in files.items()}
    record = os.path.join(context.folder(spec), _PUT)
    before = dict(_before(record))
    for path, data in paths.items():
        _put(path, data)
    for path in before.keys() - paths.keys():
        with suppress(ReadError, OSError):
            if digest(read(path)).hex() == before[path]:
                os.unlink(path)
    from reconciler.state.folder import make_folder

    make_folder(os.path.dirname(record))
    put_at(record, json.dumps({path: digest(data).hex() for path, data in paths.items()}).encode())
    options.spec, options.placed = options.placed, None
    lies_elsewhere(top, top)


def _before(record: str) -> Iterator[tuple[str, str]]:
    with suppress(ValueError):
        found = json.loads(trust.own_bytes(record, _MOST) or b"{}")
        if isinstance(found, Mapping):
            yield from ((str(path), str(one)) for path, one in found.items())


def _put(path: str, data: bytes) -> None:
    """Write it, readable to its owner alone, or to whom the one before was."""
    parent, name = os.path.split(path)
    try:
        handle = trust.opened(parent, os.O_PATH | os.O_DIRECTORY, what="a spec", make=0o755)
        with closing(handle):
            mode = 0o600
            with suppress(FileNotFoundError):
                mode = os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode & 0o777
                with suppress(ReadError):
                    if read(path) == data:
                        return
            put(handle, name, data, mode)
    except trust.Untrusted as error:
        words = f"cannot put {name} into {parent}, where others could change it: {error.reason}"
        raise HostError(words, remedy=error.remedy) from None
    except OSError as error:
        raise HostError(f"cannot write {path}: {error.strerror}") from None
