"""As root, nothing is read that somebody else could have written."""

from __future__ import annotations

import os
import pwd
from typing import Any

import pytest

from reconciler.config.errors import SpecError

HEAD = "version: 1\nname: demo\n"
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="trust is a matter of root: run as root"),
]


@pytest.fixture
def nobody() -> int:
    return pwd.getpwnam("nobody").pw_uid


def refused(room: Any, **options: Any) -> str:
    with pytest.raises(SpecError) as caught:
        room.load(**options)
    return str(caught.value)


def test_a_file_of_somebody_else(room: Any, nobody: int) -> None:
    path = room.write(HEAD)
    os.chown(path, nobody, 0)
    assert refused(room) == (
        f"{path}: error: not trusted by root: {path} belongs to user {nobody}, who could change "
        f"what it says\n      = chown root {path}"
    )
    os.chown(path, 0, 0)
    room.load()


@pytest.mark.parametrize(
    ("mode", "gid", "mend"),
    [(0o666, 0, "o-w"), (0o664, 1, "g-w"), (0o666, 1, "go-w"), (0o664, 0, None), (0o644, 1, None)],
)
def test_a_file_that_others_may_write(mode: int, gid: int, mend: str | None, room: Any) -> None:
    path = room.write(HEAD)
    os.chown(path, 0, gid)
    os.chmod(path, mode)
    if mend is None:
        room.load()
    else:
        assert f"chmod {mend} {path}" in refused(room)
        os.chmod(path, mode & ~0o022)
        room.load()


def test_a_folder_that_others_may_write(room: Any) -> None:
    path = room.write(HEAD, "it's here/x/spec.yaml")
    folder = path.parent.parent
    os.chmod(folder, 0o777)
    assert refused(room, path=str(path)).endswith(f"= chmod o-w '{room.base}/it'\"'\"'s here'")
    os.chmod(folder, 0o1777)  # Sticky, as /tmp is: others cannot replace what is root's.
    room.load(path=str(path))


def test_a_link_that_somebody_else_may_turn(room: Any, nobody: int) -> None:
    path = room.write(HEAD)
    link = room.base / "link.yaml"
    link.symlink_to(path)
    room.load(path=str(link))
    os.chown(link, nobody, 0, follow_symlinks=False)
    assert f"chown -h root {link}" in refused(room, path=str(link))


def test_a_link_through_a_folder_that_others_may_write(room: Any) -> None:
    path = room.write(HEAD, "safe/spec.yaml")
    loose = room.base / "loose"
    loose.mkdir()
    (loose / "link").symlink_to(path.parent)
    outer = room.base / "outer.yaml"
    outer.symlink_to("loose/link/spec.yaml")
    room.load(path=str(outer))
    os.chmod(loose, 0o777)
    assert f"chmod o-w {loose}" in refused(room, path=str(outer))


def test_an_include_of_somebody_else_is_told_at_its_entry(
    room: Any, nobody: int, told: Any
) -> None:
    path = room.write("", "b.yaml")
    os.chown(path, nobody, 0)
    (problem,) = room.fails(HEAD + "include: [b.yaml]\n")
    assert told(problem).startswith(f"3:11 not trusted by root: {path} belongs to")


def test_trust_counts_for_what_is_compiled_too(room: Any, nobody: int) -> None:
    included = room.write("folders: {a: {path: /a}}\n", "b.yaml")
    room.cached(HEAD + "include: [b.yaml]\n")
    assert not room.cached()[1]
    os.chown(included, nobody, 0)
    with pytest.raises(SpecError, match="not trusted"):
        room.cached()
