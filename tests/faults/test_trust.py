"""Whether a path is believed: owners, modes, access lists, links, and what is swapped meanwhile."""

from __future__ import annotations

import errno
import grp
import marshal
import os
import pwd
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import LONG

from reconciler.host import filesystems, trust, writers

NOBODY, SOMEBODY = 65534, 64321
root = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user"),
]


def both(test: Any) -> Any:
    for mark in root:
        test = mark(test)
    return test


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that is believed, two folders below one that is."""
    path = tmp_path / "a" / "b" / "file"
    path.parent.mkdir(parents=True)
    path.write_text("ours")
    return path


@pytest.fixture
def reachable(free: None) -> Iterator[Path]:
    """A folder that other users can enter, and none of which is theirs."""
    with tempfile.TemporaryDirectory(prefix="rc-", dir="/tmp") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """No groups and no owners are remembered from another test."""
    yield
    writers._groups.clear()
    trust._more_owners.clear()


def reason(path: Path) -> str:
    with pytest.raises(trust.Untrusted) as caught:
        trust.refuse_untrusted(str(path))
    return str(caught.value)


def as_user(uid: int, work: Callable[[], Any]) -> Any:
    """What ``work`` gives in a child that belongs to that user."""
    got, put = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.write(put, marshal.dumps(work()))
        finally:
            os._exit(0)
    os.close(put)
    with os.fdopen(got, "rb") as answer:
        data = answer.read()
    os.waitpid(child, 0)
    return marshal.loads(data)


def asked(path: Path) -> Callable[[], tuple[str, list[str]]]:
    """The refusal, or nothing, and the notes."""

    def work() -> tuple[str, list[str]]:
        notes: list[trust.Untrusted] = []
        try:
            trust.refuse_untrusted(str(path), notes=notes)
        except trust.Untrusted as error:
            return str(error), [note.reason for note in notes]
        return "", [note.reason for note in notes]

    return work


def acl(path: Path, *entries: tuple[int, int, int]) -> None:
    """Set an access list: (tag, rights, id), acl(5)."""
    usual = [(0x01, 6, 0xFFFFFFFF), (0x04, 4, 0xFFFFFFFF), (0x20, 4, 0xFFFFFFFF)]
    given = {tag for tag, *_ in entries}
    found = sorted([*entries, *(one for one in usual if one[0] not in given)])
    data = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *one) for one in found)
    try:
        os.setxattr(path, "system.posix_acl_access", data)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            pytest.skip("no access lists on this file system")
        raise


USER, GROUP, MASK, NONE = 0x02, 0x08, 0x10, 0xFFFFFFFF


def test_what_is_ours_is_believed(file: Path) -> None:
    assert trust.refuse_untrusted(str(file))
    assert not trust.refuse_untrusted(str(file.parent / "missing"))
    assert trust.is_trusted(str(file))
    assert not trust.is_trusted(str(file.parent / "missing"))


@pytest.mark.parametrize("at", [0, 1, 2], ids=["file", "folder", "above"])
def test_what_everybody_may_write_to_is_not(at: int, file: Path) -> None:
    part = (file, *file.parents)[at]
    part.chmod(part.stat().st_mode | 0o002)
    assert reason(file).endswith(f"everybody may write to {part}; fix it with: chmod o-w {part}")


def test_an_access_list_counts_as_the_mode_does(file: Path) -> None:
    acl(file, (USER, 6, SOMEBODY), (MASK, 6, NONE))
    assert f"user {SOMEBODY} may write to {file}; fix it with: setfacl -x u:{SOMEBODY}" in reason(
        file
    )
    acl(file, (GROUP, 6, SOMEBODY), (MASK, 6, NONE))
    assert f"group {SOMEBODY} may write to {file}; fix it with: setfacl -x g:{SOMEBODY}" in reason(
        file
    )
    acl(file, (USER, 6, SOMEBODY), (MASK, 4, NONE))  # The mask takes the right away.
    assert trust.refuse_untrusted(str(file))
    acl(file, (USER, 6, os.geteuid()), (USER, 4, SOMEBODY), (MASK, 6, NONE))
    assert trust.refuse_untrusted(str(file))
    acl(file.parent, (USER, 7, SOMEBODY), (MASK, 7, NONE))
    assert f"user {SOMEBODY} may write to {file.parent}" in reason(file)


def databases(monkeypatch: pytest.MonkeyPatch, members: list[str], listed: bool = True) -> None:
    """A group ``team`` (64000) with these members besides; ``me`` is the caller's account."""

    def account(name: str, uid: int, gid: int) -> Any:
        return SimpleNamespace(pw_name=name, pw_uid=uid, pw_gid=gid)

    me = account("me", os.geteuid(), 64000 if "me" in members else 64001)
    known = [me, account("bob", SOMEBODY, 64000 if "bob first" in members else 64002)]
    by_name = {one.pw_name: one for one in known}
    by_uid = {one.pw_uid: one for one in known}
    more = [name for name in members if name in ("bob", "gone")]
    group = SimpleNamespace(gr_name="me" if "private" in members else "team", gr_mem=more)
    monkeypatch.setattr(grp, "getgrgid", {64000: group}.__getitem__)
    monkeypatch.setattr(pwd, "getpwnam", by_name.__getitem__)
    monkeypatch.setattr(pwd, "getpwuid", by_uid.__getitem__)
    monkeypatch.setattr(pwd, "getpwall", lambda: known if listed else [])


@pytest.mark.parametrize(
    ("members", "listed", "refused"),
    [
        (["me"], True, False),
        (["me", "gone"], True, False),
        (["me", "bob"], True, True),
        (["me", "bob first"], True, True),
        ([], True, True),  # Nobody knows who is in it.
        (["me", "private"], False, False),  # A directory service lists nobody.
        (["me"], False, True),
    ],
)
def test_a_group_may_write_where_it_has_no_other_member(
    members: list[str], listed: bool, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    databases(monkeypatch, members, listed)
    assert writers._has_others(64000, frozenset((0, os.geteuid()))) is refused


@both
def test_a_group_with_others_is_refused_for_a_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    databases(monkeypatch, ["me", "bob"])
    os.chown(file, 0, 64000)
    file.chmod(0o664)
    assert reason(file).endswith(f"group 64000 may write to {file}; fix it with: chmod g-w {file}")
    acl(file, (0x04, 4, NONE), (USER, 6, 0), (MASK, 6, NONE))
    assert trust.refuse_untrusted(str(file))  # The mode shows the mask, not the group's right.


@pytest.mark.parametrize(("uid", "gid", "refused"), [(4, 0, False), (1000, 0, True)])
def test_the_group_of_root(
    uid: int, gid: int, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Some systems give sync and halt the group of root; a person in it may write.
    accounts = [SimpleNamespace(pw_name="x", pw_uid=uid, pw_gid=gid)]
    monkeypatch.setattr(pwd, "getpwall", lambda: accounts)
    monkeypatch.setattr(grp, "getgrgid", lambda gid: SimpleNamespace(gr_name="root", gr_mem=[]))
    assert writers._has_others(0, frozenset((0,))) is refused


@both
@pytest.mark.parametrize("at", [0, 1, 2], ids=["file", "folder", "above"])
def test_what_is_somebody_elses_is_not_believed_by_root(at: int, file: Path) -> None:
    part = (file, *file.parents)[at]
    os.chown(part, SOMEBODY, -1)
    assert f"{part} belongs to user {SOMEBODY}" in reason(file)
    # Nobody is told to take a folder from the one whose it is.
    remedy = f"fix it with: chown root {part}" if at == 0 else f"add: --trust {SOMEBODY}"
    assert reason(file).endswith(remedy)
    assert trust.refuse_untrusted(str(file), also=(SOMEBODY,))
    trust.trust_owner(SOMEBODY)
    assert trust.refuse_untrusted(str(file))


@both
def test_a_link_of_somebody_else_is_not_followed_by_root(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("a/b/../b")
    assert trust.refuse_untrusted(str(link / "file"))
    os.lchown(link, SOMEBODY, -1)
    assert f"the symbolic link {link} belongs to user {SOMEBODY}" in reason(link / "file")
    assert f"chown -h root {link}" in reason(link / "file")


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to("y")
    (tmp_path / "y").symlink_to("x")
    with pytest.raises(OSError, match="symbolic links"):
        trust.refuse_untrusted(str(tmp_path / "x"))


def test_dots_after_a_link_lead_where_the_kernel_goes(file: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("a/b")
    (tmp_path / "a" / "other").write_text("other")
    with os.fdopen(trust.opened(f"{tmp_path}/link/../other")) as opened:
        assert opened.read() == "other"


@both
def test_a_sticky_folder_keeps_only_what_is_ours(reachable: Path) -> None:
    shared = reachable / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "mine").write_text("")
    (shared / "his").mkdir()
    (shared / "his" / "file").write_text("")
    assert trust.refuse_untrusted(str(shared / "mine"))
    os.chown(shared / "his", SOMEBODY, -1)
    assert f"{shared}/his belongs to user {SOMEBODY}" in reason(shared / "his" / "file")
    # Not only by root: whoever made it first is nobody's administrator.
    said, notes = as_user(NOBODY, asked(shared / "his" / "file"))
    assert f"{shared}/his belongs to user {SOMEBODY}" in said
    assert notes == []
    # As the end of a way it is nobody's own.
    assert reason(shared).endswith(f"everybody may write to {shared}")


@both
def test_who_is_not_root_notes_whose_folders_his_are_below(reachable: Path) -> None:
    file = reachable / "a" / "b" / "file"
    file.parent.mkdir(parents=True)
    file.write_text("his")
    for part in (file.parent, file):
        os.chown(part, NOBODY, NOBODY)
    os.chown(reachable / "a", SOMEBODY, SOMEBODY)
    said, notes = as_user(NOBODY, asked(file))
    assert said == ""
    assert notes == [
        f"the directory {reachable}/a belongs to user {SOMEBODY}, who could change what it says"
    ]
    os.chown(file, SOMEBODY, SOMEBODY)
    said, _ = as_user(NOBODY, asked(file))
    assert said.startswith(f"not trusted by user {NOBODY}: {file} belongs to user {SOMEBODY}")
    assert said.endswith(f"add: --trust {SOMEBODY}")
    os.chown(file, NOBODY, SOMEBODY)
    file.chmod(0o664)
    said, _ = as_user(NOBODY, asked(file))
    assert f"group {SOMEBODY} may write to {file}" in said


def test_what_was_looked_at_is_what_is_opened(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = trust._Way._check

    def swapped(self: Any, step: str, *rest: Any) -> None:
        check(self, step, *rest)
        if step == str(file):
            file.rename(file.parent / "before")
            file.write_text("his")

    monkeypatch.setattr(trust._Way, "_check", swapped)
    with os.fdopen(trust.opened(str(file))) as opened:
        assert opened.read() == "ours"
    assert file.read_text() == "his"


def test_a_folder_swapped_for_a_link_is_not_gone_through(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("his")
    check = trust._Way._check

    def swapped(self: Any, step: str, *rest: Any) -> None:
        check(self, step, *rest)
        if step == str(file.parent):
            file.parent.rename(tmp_path / "before")
            file.parent.symlink_to(other)

    monkeypatch.setattr(trust._Way, "_check", swapped)
    with os.fdopen(trust.opened(str(file))) as opened:
        assert opened.read() == "ours"


def test_what_is_made_meanwhile_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mkdir(name: str, mode: int, dir_fd: int) -> None:
        os.symlink("/etc", name, dir_fd=dir_fd)
        raise FileExistsError

    monkeypatch.setattr(trust.os, "mkdir", mkdir)
    with pytest.raises(OSError, match="symbolic links"):
        trust.opened(str(tmp_path / "state"), os.O_PATH | os.O_NOFOLLOW, make=0o700)


@pytest.mark.skipif(not shutil.which("unshare"), reason="wants unshare")
@both
def test_in_a_user_namespace_an_unknown_owner_of_a_folder_is_root(file: Path, free: None) -> None:
    code = (
        "import sys; from reconciler.host import trust; trust.refuse_untrusted(sys.argv[1]); "
        "print('believed')"
    )
    argv = ["unshare", "--user", "--map-root-user", sys.executable, "-c", code, str(file)]
    os.chown(file.parent, SOMEBODY, SOMEBODY)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=LONG)
    if "unshare failed" in done.stderr:
        pytest.skip(done.stderr)
    assert done.stdout == "believed\n", done.stderr
    os.chown(file, SOMEBODY, SOMEBODY)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=LONG)
    assert f"{file} belongs to user 65534" in done.stderr
    os.chown(file, 0, 0)
    # Nor for a symlink on the way, which names what another one likes.
    link = file.parent / "link"
    link.symlink_to(".")
    os.chown(link, SOMEBODY, SOMEBODY, follow_symlinks=False)
    done = subprocess.run(
        [*argv[:-1], f"{link}/{file.name}"], capture_output=True, text=True, timeout=LONG
    )
    assert f"{link} belongs to user 65534" in done.stderr
    # Outside, that number is an account like any other.
    os.chown(file.parent, NOBODY, NOBODY)
    assert f"{file.parent} belongs to user {NOBODY}" in reason(file)


@pytest.mark.parametrize("sort", ["fifo", "link", "folder"])
def test_a_file_of_our_state_is_a_file(sort: str, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    if sort == "fifo":
        os.mkfifo(path)
    elif sort == "link":
        path.symlink_to("/etc/passwd")
    else:
        path.mkdir()
    with pytest.raises((trust.HostError, OSError)):
        trust.own_file(str(path))


def nfs_list(*entries: tuple[int, int, int, str]) -> bytes:
    """An NFSv4 access list of these types, flags, masks and names, RFC 7530, section 6.2.1."""
    data = struct.pack(">I", len(entries))
    for sort, flags, mask, who in entries:
        name = who.encode()
        data += struct.pack(">IIII", sort, flags, mask, len(name)) + name + bytes(-len(name) % 4)
    return data


PLAIN = (0, 0, 0x1601FF, "OWNER@"), (0, 0x40, 0x120089, "GROUP@"), (0, 0, 0x120089, "EVERYONE@")


@pytest.mark.parametrize(
    ("entry", "who"),
    [
        ((0, 0, 0x1200A9, "stranger@here"), ""),
        ((0, 0, 0x2, "stranger@here"), "user 'stranger@here'"),
        ((0, 0, 0x80000, "stranger@here"), "user 'stranger@here'"),
        ((0, 0, 0x2, "64399"), "user '64399'"),
        ((0, 0, 0x2, "root@here"), ""),
        ((1, 0, 0x2, "stranger@here"), ""),
        ((0, 0x8, 0x2, "stranger@here"), ""),
        ((0, 0x40, 0x2, "strangers@here"), "group 'strangers@here'"),
    ],
)
def test_an_access_list_of_nfs_counts_though_the_mode_does_not_show_it(
    entry: tuple[int, int, int, str], who: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inode = os.stat(file).st_ino
    real = os.getxattr

    def getxattr(path: Any, name: str, **options: Any) -> bytes:
        if name != "system.nfs4_acl":
            return real(path, name, **options)
        return nfs_list(*PLAIN, *((entry,) if os.stat(path).st_ino == inode else ()))

    monkeypatch.setattr(os, "getxattr", getxattr)
    monkeypatch.setattr(os, "major", lambda device: 0)
    monkeypatch.setattr(filesystems, "_nfs", {})
    handle = os.open(file, os.O_RDONLY)
    alone = trust.only_ours(os.fstat(handle), handle)
    os.close(handle)
    assert alone == (who == "")
    if who:
        assert reason(file).endswith(f"{who}, by an NFSv4 access list, may write to {file}")
    else:
        assert trust.is_trusted(str(file))


def test_an_access_list_that_claims_millions_of_entries_is_read_to_its_end(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever answers for a file system says of it what he likes."""
    looks = []

    class Claiming(bytes):
        def __getitem__(self, part: Any) -> Any:
            looks.append(part)
            return super().__getitem__(part)

    lists = Claiming(struct.pack(">I", 10**6) + nfs_list(*PLAIN)[4:])
    monkeypatch.setattr(os, "getxattr", lambda *_, **__: lists)
    monkeypatch.setattr(os, "major", lambda device: 0)
    monkeypatch.setattr(filesystems, "_nfs", {})
    with file.open() as opened:
        assert trust.only_ours(os.fstat(opened.fileno()), opened.fileno())
    assert 0 < len(looks) < 50


def test_a_small_file_of_ours_is_read_only_where_it_is_one(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"0123456789")
    assert trust.own_bytes(str(plain), 4, 3) == b"3456"
    (tmp_path / "link").symlink_to(plain)
    os.mkfifo(tmp_path / "fifo")  # It must not be waited for.
    for name in ("link", "fifo", "missing", "."):
        assert trust.own_bytes(str(tmp_path / name), 4) is None
