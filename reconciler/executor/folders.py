"""The folders of a home, as descriptors that nobody else has put there.

Whoever may write to one of them, or exchange one on the way, decides what is run. So a worker of
root's works only where nobody else may; one of another user refuses what everybody may write to,
and notes what a group may. It must not open a file in them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.base.errors import HostError
from reconciler.host import trust, walk

Note = trust.Untrusted
"""Who else may write to a folder, where that is not refused."""
_MODE = 0o755
"""Of a folder that is missing, as `specs/executor.yaml` declares it; the umask narrows it."""
_PATH_ONLY = os.O_PATH | os.O_DIRECTORY


class UntrustedFolder(OSError):
    """Somebody else could decide what is run; the message names the folder and the remedy."""


def opened(
    path: str,
    *,
    make: bool = False,
    readable: bool = False,
    notes: list[Note] | None = None,
) -> int:
    """A descriptor of a folder of one's own home, whose whole way has been looked at.

    `readable`: its names can be read through it. `notes` takes what may be written to by others
    and is only noted. Raises Untrusted, and OSError as open(2) has it.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY if readable else _PATH_ONLY
    try:
        return trust.opened(
            path,
            flags,
            what="what is run",
            make=_MODE if make else None,
            shared=True,
            notes=notes,
        )
    except trust.Untrusted as error:
        raise UntrustedFolder(
            f"whoever may write to a queue decides what is run: {error}"
        ) from None
    except OSError as error:
        error.filename = path
        raise


@contextmanager
def held(path: str, *, make: bool = False, readable: bool = False) -> Iterator[int]:
    """As `opened`, for the length of the block."""
    handle = opened(path, make=make, readable=readable)
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def reached(path: str) -> Iterator[int]:
    """A descriptor of a folder of any home, to give a command to it or take one back.

    It may be somebody else's home, so no symbolic link of others is followed. Raises OSError.
    """
    with _as_oserror(), walk.opened(path) as handle:
        yield handle


def provide(paths: tuple[str, ...]) -> None:
    """Make those of `paths` that are missing, parents first; the mode of others stays.

    What root makes in a folder of somebody else's belongs to that user. Raises OSError.
    """
    for path in paths:
        if os.path.isdir(path):
            continue
        parent, name = os.path.split(path)
        with _as_oserror(), walk.opened(parent, make=True) as above:
            try:
                _make(above, name)
            except FileExistsError:
                if not os.path.isdir(path):
                    raise NotADirectoryError(f"{path} is not a directory; move it away") from None


def _make(above: int, name: str) -> None:
    status = os.fstat(above)
    if os.geteuid() != 0 or status.st_uid == 0:
        os.mkdir(name, _MODE, dir_fd=above)
        return
    from reconciler.host import place

    os.close(place.make_folder(above, name, _MODE, status.st_uid, status.st_gid))


@contextmanager
def _as_oserror() -> Iterator[None]:
    try:
        yield
    except HostError as error:
        raise OSError(str(error)) from None
