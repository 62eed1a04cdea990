"""What the caller has handed down, environment and descriptors, and what of it is not believed.

sudo, su and cron hand down what belongs to another account: its home, its runtime directory, its
locale, its folders of PATH. This must not run anything, nor decide where a program lies: that is
``command.find``.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Mapping
from typing import NoReturn

from reconciler.host.trust import Untrusted, refuse_untrusted

_listeners: list[Callable[[str], None]] = []
_noted: list[str] = []


def on_note(listener: Callable[[str], None]) -> None:
    """Have ``listener`` called with each note; those that are there already are told at once."""
    _listeners[:] = [listener]
    for text in _noted:
        listener(text)


def note(text: str) -> None:
    """Tell people once what was not believed, and what is done instead."""
    if text not in _noted:
        _noted.append(text)
        for listener in _listeners:
            listener(text)


def use_utf8() -> None:
    """Start this program again in UTF-8 mode where the locale would have names in another encoding.

    Names in a spec are UTF-8, and so they are on the host, whoever calls. Python takes the
    encoding of names from the locale when it starts, and cannot change it later,
    https://docs.python.org/3/library/os.html#utf8-mode. Returns where it is UTF-8 already.
    """
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        start_again(b"-X", b"utf8")


def start_again(*options: bytes, environ: Mapping[bytes, bytes] | None = None) -> NoReturn:
    """Become the program that is installed now, called as we were. Raises OSError.

    ``options`` are for Python, ``environ`` is more for its environment. What we have open and have
    not handed on is closed.
    """
    # As bytes: decoded, they may not come back.
    with open("/proc/self/cmdline", "rb") as file:
        called, *rest = file.read().split(b"\0")[:-1]
    with open("/proc/self/environ", "rb") as file:
        pairs = (word.partition(b"=") for word in file.read().split(b"\0") if b"=" in word)
        given = {name: value for name, _, value in pairs}
    os.execve(sys.executable, [called, *options, *rest], {**given, **(environ or {})})


def called(pid: int) -> list[bytes]:
    """The words that a process was called with; none where it is not there."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().split(b"\0")[:-1]
    except OSError:
        return []


def container_loop() -> str:
    """The command line of process 1 where that is our watchdog, as in a container; else empty."""
    words = called(1)
    ours = (b"reconcile", b"reconciler")  # The command, or python -m.
    if b"--loop" in words and any(os.path.basename(word) in ours for word in words):
        return b" ".join(words).decode(errors="replace")
    return ""


def clean() -> None:
    """Take out of our own environment what belongs to somebody else. To be called first.

    ``HOME`` then is the one of the user database. Without the caller's own ``XDG_RUNTIME_DIR``
    no bus of a session is believed either.
    """
    home = os.environ.get("HOME", "")
    if home and not (home.startswith("/") and _believed(home)):
        del os.environ["HOME"]
        own = _home()
        if own is not None:
            os.environ["HOME"] = own
        if os.path.abspath(home) != own:
            note(f"HOME={home} is ignored: others may write there; HOME is {own or '/'}")
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        folder = os.environ.get(name, "")
        if folder.startswith("/") and not _believed(folder):
            del os.environ[name]
            note(f"{name}={folder} is ignored: others may write there")
    given = os.environ.get("XDG_RUNTIME_DIR")
    if given is not None and not _is_runtime(given):
        del os.environ["XDG_RUNTIME_DIR"]
        os.environ.pop("DBUS_SESSION_BUS_ADDRESS", None)


def runtime_folder() -> str | None:
    """The caller's own folder for sockets, pam_systemd(8); None where there is none."""
    # cron, for one, does not name it.
    for folder in (os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{os.geteuid()}"):
        if _is_runtime(folder):
            return folder
    return None


def search_path(path: str, uid: int) -> str:
    """A ``PATH`` that a spec gives to a process of ``uid``, without what others could fill.

    Folders that are relative, or that somebody besides root, the caller and ``uid`` may write to,
    are left out, with a note.
    """
    folders = []
    for folder in path.split(":"):
        if not folder.startswith("/"):
            note(f"PATH: the folder {folder!r} is skipped: it is relative; write the whole path")
        elif not _believed(folder, uid):
            note(f"PATH: the folder {folder} is skipped: others may write there")
        else:
            folders.append(folder)
    return ":".join(folders)


def _believed(folder: str, uid: int | None = None) -> bool:
    """May only root, the caller and ``uid`` decide what is in the folder, also once it is made?"""
    also = () if uid is None else (uid,)
    folder = os.path.abspath(folder)
    try:
        while not refuse_untrusted(folder, also=also, notes=[]):
            folder = os.path.dirname(folder)  # Who may write there could make it.
    except (Untrusted, OSError):
        return False
    return True


def _is_runtime(folder: str) -> bool:
    """Is that the caller's own, and nobody else's? The XDG Base Directory Specification's rule."""
    try:
        status = os.lstat(folder)
    except OSError:
        return False
    own = folder.startswith("/") and status.st_uid == os.geteuid()
    return own and _believed(folder)


def _home() -> str | None:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_dir or None
    except KeyError:
        return None


def open_standard_streams() -> None:
    """A caller may have closed them; then the next file opened would become standard output."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a letter is no reason to stop.
            stream.reconfigure(errors="backslashreplace")


def keep_descriptors() -> None:
    """What our caller left open is not for those whom we start, such as a tmux server."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                os.set_inheritable(int(name), False)
            except OSError:
                continue
