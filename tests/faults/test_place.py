"""What gets a name in the file system, while somebody else may write to the folder it gets it in.

What he would do in the meantime is done by a hook, at the moment at which it would hurt most.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import struct
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from support import Machine

from reconciler.base.errors import HostError
from reconciler.host import kernel, place, private_folder, refusals, remove
from reconciler.host.found import File
from reconciler.host.tree import Tree

NOBODY = 65534
OTHERS = 12345
"""A group that nobody who runs this is in."""
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def acl(group: int, mask: int, named: int, others: int = 0) -> bytes:
    """An ACL that gives ``named`` to the user nobody, as xattr(7) holds it, acl(5)."""
    anyone = 0xFFFFFFFF
    entries = (
        (1, 6, anyone), (2, named, NOBODY), (4, group, anyone), (16, mask, anyone),
        (32, others, anyone),
    )  # fmt: skip
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@pytest.fixture
def open_to_nobody(tmp_path: Path) -> Path:
    """A folder that hands down rights for the user nobody, and its group as far as we may."""
    folder = tmp_path / "handed"
    folder.mkdir()
    try:
        os.setxattr(folder, DEFAULT, acl(7, 7, 7))
    except OSError:
        pytest.skip("no ACLs here")
    groups = [group for group in (OTHERS, *os.getgroups()) if group != os.getegid()]
    for group in groups:
        try:
            os.chown(folder, -1, group)
            break
        except PermissionError:
            continue
    folder.chmod(0o2777)
    return folder


def rights(path: Path | int) -> tuple[int, int, list[str]]:
    status = os.stat(path)
    named = [name for name in os.listxattr(path) if name in (ACCESS, DEFAULT)]
    return stat.S_IMODE(status.st_mode), status.st_gid, named


@contextmanager
def opened(folder: Path) -> Iterator[int]:
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield handle
    finally:
        os.close(handle)


def without_unnamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that has no files without a name."""
    real = os.open

    def refuse(path: Any, flags: int, *more: Any, **options: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not supported")
        return real(path, flags, *more, **options)

    monkeypatch.setattr(os, "open", refuse)


def before(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, act: Callable[..., None]
) -> list[bool]:
    """Do something right before the first call of that function; tells whether that was."""
    real = getattr(where, name)
    done: list[bool] = []

    def hooked(*arguments: Any, **options: Any) -> Any:
        if not done:
            done.append(True)
            act(*arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(where, name, hooked)
    return done


def test_a_new_file_has_its_rights_before_it_has_a_name(
    open_to_nobody: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    before(monkeypatch, os, "link", lambda link, *_: seen.append(rights(int(link.split("/")[-1]))))
    with opened(open_to_nobody) as folder:
        place.put(folder, "new", b"secret", 0o640, replace=False)
    assert seen == [(0o640, os.getegid(), [])]
    assert rights(open_to_nobody / "new") == seen[0]
    with opened(open_to_nobody) as folder:
        os.close(place.new_log(folder, "log", 0o640))
        os.close(place.make_folder(folder, "below", 0o750, gid=os.getegid()))
        place.put(folder, "new", b"another", 0o644)
    assert rights(open_to_nobody / "log") == (0o640, os.getegid(), [])
    assert rights(open_to_nobody / "below") == (0o750, os.getegid(), [])
    assert rights(open_to_nobody / "new") == (0o644, os.getegid(), [])
    assert sorted(os.listdir(open_to_nobody)) == ["below", "log", "new"]


def test_a_folder_has_its_rights_before_it_has_a_name(
    open_to_nobody: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def look(private: int, name: str, *_: Any) -> None:
        seen.append(rights(Path(f"/proc/self/fd/{private}/{name}")))

    before(monkeypatch, kernel, "rename_new", look)
    with opened(open_to_nobody) as folder:
        os.close(place.make_folder(folder, "below", 0o700, gid=os.getegid()))
    assert seen == [(0o700, os.getegid(), [])]


def test_what_is_archived_moved_and_logged_is_not_opened_by_its_folder(
    machine: Machine, open_to_nobody: Path
) -> None:
    source = machine.base / "from"
    (source / "below").mkdir(parents=True, mode=0o700)
    for name in ("a.log", "below/b.log"):
        (source / name).write_text("secret")
        (source / name).chmod(0o640)
        os.utime(source / name, (0, 0))
    rule = f'path: {source}, older_than: 1d, recursive: true, match: "{{}}", action: {{}}'
    into = f"to: {open_to_nobody}/"
    archived = rule.format("a.log", "archive")
    moved = rule.format("b.log", "move")
    log = f"processes: {{p: {{command: sleep 1077.5, log: {open_to_nobody}/p.log}}}}\n"
    rules = f"a: {{ {archived}, {into}a.tar.gz }}, m: {{ {moved}, {into}in }}"
    made = f'directories: {{d: {{path: {open_to_nobody}/d, mode: "0750"}}}}\n'
    machine.once(machine.spec(f"retention: {{ {rules} }}\n{log}{made}"))
    mine = os.getegid()
    assert rights(open_to_nobody / "a.tar.gz") == (0o640, mine, [])
    assert rights(open_to_nobody / "in/below") == (0o700, mine, [])
    assert rights(open_to_nobody / "in/below/b.log") == (0o640, mine, [])
    assert rights(open_to_nobody / "p.log") == (0o640, mine, [])
    mode, _, named = rights(open_to_nobody / "d")
    assert (mode, named) == (0o750, [])


def test_an_archive_is_not_for_whom_an_acl_shuts_out(machine: Machine) -> None:
    source = machine.base / "from"
    source.mkdir()
    (source / "a.log").write_text("secret")
    (source / "a.log").chmod(0o644)
    try:
        os.setxattr(source / "a.log", ACCESS, acl(0, 4, 4))  # Its mode is 0640 now: the mask.
    except OSError:
        pytest.skip("no ACLs here")
    os.utime(source / "a.log", (0, 0))
    goal = machine.base / "a.tar.gz"
    machine.once(
        machine.spec(
            f'retention: {{a: {{path: {source}, match: "*", older_than: 1d, action: archive, '
            f"to: {goal}}}}}"
        )
    )
    assert rights(goal)[0] == 0o600
    with tarfile.open(goal) as tar:
        assert tar.getnames() == ["a.log"]


@pytest.mark.parametrize("unnamed", [True, False])
def test_nothing_that_can_be_exchanged_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unnamed: bool
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of root's")
    shared = tmp_path / "shared"
    shared.mkdir()
    if not unnamed:
        without_unnamed(monkeypatch)
    with opened(shared) as folder, place.draft(folder, "app.log.1") as made:
        os.write(made.handle, b"whole")
        names = os.listdir(shared)
        if unnamed:
            assert names == []
        else:
            # Who may write to the folder can take this one away, and put his own there.
            (aside,) = names
            assert stat.S_IMODE((shared / aside).stat().st_mode) == 0o700
            (shared / aside).rename(shared / "his")
            (shared / aside).mkdir()
            for name in os.listdir(shared / "his"):
                (shared / aside / name).symlink_to(secret)
        made.publish()
    assert (shared / "app.log.1").read_text() == "whole"
    assert secret.stat().st_nlink == 1


@pytest.mark.parametrize("exchange", ["replace", "publish"])
def test_what_is_exchanged_as_soon_as_it_is_there_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: str
) -> None:
    (tmp_path / "his").write_text("his")
    real = os.stat

    def swapped(path: Any, *more: Any, **options: Any) -> os.stat_result:
        if path == "new" and (tmp_path / "his").exists():
            os.rename(tmp_path / "his", tmp_path / "new")
        return real(path, *more, **options)

    monkeypatch.setattr(os, "stat", swapped)
    with (
        opened(tmp_path) as folder,
        pytest.raises(HostError, match="replaced by somebody else"),
        place.draft(folder, "new") as made,
    ):
        getattr(made, exchange)()


@pytest.mark.parametrize("saved", [True, False])
def test_what_has_taken_the_place_of_a_link_keeps_it(tmp_path: Path, saved: bool) -> None:
    """Somebody has saved a file there, or led the link elsewhere, since it was looked at."""
    path = tmp_path / "folder/link"
    path.parent.mkdir()
    if saved:
        path.write_text("a person's")
    else:
        path.symlink_to("elsewhere")
    with opened(path.parent) as folder:
        assert not place.put_link(folder, "link", "ours", "old")
    assert path.read_text() == "a person's" if saved else os.readlink(path) == "elsewhere"
    assert os.listdir(path.parent) == ["link"]


@pytest.mark.root
@as_root
def test_a_folder_that_is_not_ours_is_not_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He takes our folder away as soon as it is made, and makes one of that name."""
    real = os.mkdir

    def swapped(path: Any, *more: Any, **options: Any) -> None:
        real(path, *more, **options)
        if path == ".below.reconcile.d":
            os.rename(tmp_path / path, tmp_path / "taken")
            real(tmp_path / path, 0o700)
            os.chown(tmp_path / path, NOBODY, NOBODY)

    monkeypatch.setattr(os, "mkdir", swapped)
    with opened(tmp_path) as folder:
        there = place.make_folder(folder, "below", 0o700, NOBODY, NOBODY)
        os.close(there)
    assert (tmp_path / "below").stat().st_uid == NOBODY
    assert (tmp_path / "taken").stat().st_uid == 0
    assert list((tmp_path / ".below.reconcile.d").iterdir()) == []


@pytest.mark.root
@as_root
def test_a_folder_that_is_exchanged_before_it_has_its_name_is_not_given_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He moves a folder of root's to the name that is to be his, at the last moment."""
    shared = tmp_path / "shared"
    (shared / "of-root").mkdir(parents=True)

    def swap(*_: Any) -> None:
        os.rename(shared / "of-root", shared / "below")

    before(monkeypatch, kernel, "rename_new", swap)
    with opened(shared) as folder, pytest.raises(FileExistsError):
        place.make_folder(folder, "below", 0o755, NOBODY, NOBODY)
    assert (shared / "below").stat().st_uid == 0
    assert os.listdir(shared) == ["below"]


def chosen(folder: Path, name: str) -> File:
    status = os.stat(folder / name)
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return File(0, "", name, status.st_dev, status.st_ino, status.st_size, *times, status.st_size)


def test_what_is_exchanged_for_the_file_that_is_moved_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, goal = tmp_path / "source", tmp_path / "goal"
    source.mkdir()
    goal.mkdir()
    (source / "a.log").write_text("mine")
    file = chosen(source, "a.log")

    def swap(*_: Any) -> None:
        os.rename(source / "a.log", source / "b.log")
        (source / "a.log").symlink_to("/nowhere")

    done = before(monkeypatch, remove, "link", swap)
    with Tree(str(source)) as tree, opened(goal) as there:
        remove._move(tree, tree.top, there, file, "a.log")
    assert done
    assert (source / "a.log").is_symlink()
    assert (goal / "a.log").read_text() == "mine"


def test_a_move_that_was_killed_between_its_two_steps_goes_on(tmp_path: Path) -> None:
    source, goal = tmp_path / "source", tmp_path / "goal"
    source.mkdir()
    goal.mkdir()
    (source / "a.log").write_text("mine")
    os.link(source / "a.log", goal / "a.log")
    with Tree(str(source)) as tree, opened(goal) as there:
        remove._move(tree, tree.top, there, chosen(source, "a.log"), "a.log")
    assert (os.listdir(source), os.listdir(goal)) == ([], ["a.log"])


def test_a_copy_that_cannot_keep_its_group_opens_to_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    like = tmp_path / "like"
    like.write_text("x")
    like.chmod(0o4654)
    real_stat, real_chown = os.fstat, os.fchown
    source = os.open(like, os.O_RDONLY)

    def foreign(handle: int) -> os.stat_result:
        status = real_stat(handle)
        if handle != source:
            return status
        fields = list(status)
        fields[5] = OTHERS
        return os.stat_result(fields)

    def refuse(handle: int, uid: int, gid: int) -> None:
        if gid == OTHERS:
            raise PermissionError(errno.EPERM, "not permitted")
        real_chown(handle, uid, gid)

    monkeypatch.setattr(os, "fstat", foreign)
    monkeypatch.setattr(os, "fchown", refuse)
    with opened(tmp_path) as folder, place.draft(folder, "new") as made:
        made.settle(0o4654, like=source)
        made.publish()
    os.close(source)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o604


@pytest.mark.parametrize("declared", [False, True])
def test_a_new_log_gets_no_set_id_bit_for_whose_log_lay_there(
    machine: Machine, declared: bool
) -> None:
    log = machine.base / "logs/a.log"
    log.parent.mkdir()
    log.write_text("x" * 5000)
    who = f", owner: '{os.geteuid()}', group: '{os.getegid()}'" if declared else ""
    machine.once(
        machine.spec(
            f"retention: {{l: {{path: {log.parent}, match: a.log, max_file: 1B, action: rotate, "
            f"create: {{mode: '6640'{who}}}}}}}"
        )
    )
    assert (log.read_text(), rights(log)[0]) == ("", 0o6640 if declared else 0o640)


def test_what_is_written_anew_keeps_its_acl(machine: Machine) -> None:
    """A whole file, and one with a block; nobody gains by it, and nobody loses."""
    text, rc = machine.base / "text", machine.base / "rc"
    for path in (text, rc):
        path.write_text("one\n")
        path.chmod(0o640)
        try:
            os.setxattr(path, ACCESS, acl(0, 4, 4))  # Its mode is 0640 still: the mask.
        except OSError:
            pytest.skip("no ACLs here")
    before = [path.stat().st_ino for path in (text, rc)]
    spec = machine.spec(
        f"files: {{x: {{path: {text}, content: two, mode: '0640'}}}}\n"
        f"blocks: {{y: {{path: {rc}, content: two}}}}\n"
    )
    machine.once(spec)
    machine.converged(spec)
    assert text.read_text() == "two" and "two\n" in rc.read_text()
    assert text.stat().st_ino != before[0] or rc.stat().st_ino != before[1]
    assert [os.getxattr(path, ACCESS) for path in (text, rc)] == [acl(0, 4, 4)] * 2


def test_a_copy_without_the_acl_does_not_take_its_mask_for_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    like = tmp_path / "like"
    like.write_text("x")
    try:
        os.setxattr(like, ACCESS, acl(0, 6, 6))
    except OSError:
        pytest.skip("no ACLs here")
    with opened(tmp_path) as folder, open(like, "rb") as source:
        mode = stat.S_IMODE(like.stat().st_mode)
        assert mode == 0o660
        with place.draft(folder, "same") as made:
            made.settle(mode, like=source.fileno())
            made.publish()
        assert os.getxattr(tmp_path / "same", ACCESS) == os.getxattr(like, ACCESS)

        def refuse(*_: Any) -> None:
            raise OSError(errno.EOPNOTSUPP, "another file system")

        monkeypatch.setattr(os, "setxattr", refuse)
        with place.draft(folder, "other") as made:
            made.settle(mode, like=source.fileno())
            made.publish()
    assert rights(tmp_path / "other")[0] == 0o600


def test_an_archive_that_another_pass_has_replaced_keeps_what_that_has_put_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goal = tmp_path / "a.tar.gz"
    goal.write_bytes(b"old")
    before_it = goal.stat()

    def replace(*_: Any) -> None:
        (tmp_path / "other").write_bytes(b"of another pass")
        os.rename(tmp_path / "other", goal)

    def same(now: os.stat_result) -> bool:
        return os.path.samestat(now, before_it)

    before(monkeypatch, kernel, "exchange", replace)
    with opened(tmp_path) as folder, place.draft(folder, "a.tar.gz") as made:
        place.write_all(made.handle, b"ours")
        assert not made.exchange(same)
    assert goal.read_bytes() == b"of another pass"
    assert sorted(os.listdir(tmp_path)) == ["a.tar.gz", "home"]


@pytest.mark.parametrize("method", ["rename", "copytruncate", "move"])
def test_a_copy_of_a_log_is_for_those_whom_the_log_was_for(machine: Machine, method: str) -> None:
    folder = machine.base / "logs"
    folder.mkdir()
    log = folder / "app.log"
    log.write_bytes(b"secret\n" * 2000)
    for group in (OTHERS, *os.getgroups()):
        with suppress(PermissionError):
            os.chown(log, -1, group)
            break
    # Those of its group may not read it; its mode, which shows the mask, looks as if they might.
    try:
        os.setxattr(log, ACCESS, acl(0, 4, 4))
    except OSError:
        pytest.skip("no ACLs here")
    os.utime(log, (0, 0))
    was = log.stat()
    goal = folder
    how = f"max_file: 1KiB, action: rotate, method: {method}"
    if method == "move":
        if not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == was.st_dev:
            pytest.skip("one file system only")
        goal = Path(tempfile.mkdtemp(dir="/dev/shm"))
        how = f"older_than: 1d, action: move, to: {goal}"
    try:
        machine.once(machine.spec(f"retention: {{r: {{path: {folder}, match: app.log, {how}}}}}"))
        copy = goal / "app.log" if method == "move" else folder / "app.log.1.gz"
        now = copy.stat()
        assert os.getxattr(copy, ACCESS) == acl(0, 4, 4)
        assert (now.st_mode, now.st_uid, now.st_gid) == (was.st_mode, was.st_uid, was.st_gid)
    finally:
        if method == "move":
            shutil.rmtree(goal)


def test_all_of_it_works_where_no_file_is_without_a_name(
    open_to_nobody: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_unnamed(monkeypatch)
    mine = os.getegid()
    with opened(open_to_nobody) as folder:
        place.put(folder, "new", b"one", 0o640, replace=False)
        with pytest.raises(FileExistsError):
            place.put(folder, "new", b"two", replace=False)
        assert (open_to_nobody / "new").read_bytes() == b"one"
        place.put(folder, "new", b"two", 0o600)
        os.close(place.new_log(folder, "log", 0o640))
        with place.draft(folder, "copy") as made:
            made.settle(0o640)
            made.publish("copy.1", ".copy.reconcile")
        with place.draft(folder, "new") as made:
            made.settle(0o604)
            assert not made.exchange(lambda _: False)
            assert (open_to_nobody / "new").read_bytes() == b"two"
        with place.draft(folder, "new") as made:
            made.settle(0o604)
            assert made.exchange(lambda _: True)
    names = {"new": 0o604, "log": 0o640, "copy.1": 0o640, ".copy.reconcile": 0o640}
    assert set(os.listdir(open_to_nobody)) == names.keys()
    for name, mode in names.items():
        assert rights(open_to_nobody / name) == (mode, mine, [])
    assert (open_to_nobody / "copy.1").stat().st_nlink == 2


@pytest.mark.parametrize("writable", [False, True])
def test_a_file_system_without_rights_is_written_where_only_we_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writable: bool
) -> None:
    """As FAT is, where every folder looks the same: /boot/firmware of a Raspberry Pi."""
    folder = tmp_path / "firmware"
    folder.mkdir()
    (folder / "config.txt").write_bytes(b"old")
    folder.chmod(0o777 if writable else 0o755)
    without_unnamed(monkeypatch)
    real = os.mkdir

    def mkdir(path: Any, mode: int = 0o777, **options: Any) -> None:
        real(path, 0o755, **options)

    monkeypatch.setattr(os, "mkdir", mkdir)
    monkeypatch.setattr(os, "chmod", lambda *_, **__: None)
    with opened(folder) as there:
        if writable:
            with pytest.raises(HostError, match="cannot make a private folder"):
                place.put(there, "config.txt", b"new")
        else:
            place.put(there, "config.txt", b"new")
    assert (folder / "config.txt").read_bytes() == (b"old" if writable else b"new")


def test_a_private_folder_is_one_passs_at_a_time(tmp_path: Path) -> None:
    """Two that are at one name get two, and what is in the first stays there."""
    folder = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    try:
        with private_folder.private_folder(folder, "name") as first:
            new = tmp_path / first.name / private_folder.NEW
            new.write_text("half done")
            with private_folder.private_folder(folder, "name") as second:
                assert second.name != first.name
                assert os.listdir(second.handle) == []
            assert new.read_text() == "half done"
        assert not new.parent.exists()
    finally:
        os.close(folder)


MOUNTED = """
import os, sys
from reconciler.host import private_folder
folder = os.open(sys.argv[1], os.O_PATH | os.O_DIRECTORY)
with private_folder.private_folder(folder, "name") as private:
    print(private.name)
"""


@pytest.mark.namespaces
@pytest.mark.root
@as_root
def test_a_private_folder_is_none_that_somebody_has_mounted(
    machine: Machine, tmp_path: Path
) -> None:
    """Whoever answers for a file system may say of its owners what he likes."""
    work = tmp_path / "work"
    usual = work / private_folder.private_name("name")
    usual.mkdir(parents=True, mode=0o700)
    script = (
        f"mount -t tmpfs -o mode=700 none {usual} && echo his >{usual}/{private_folder.NEW} && "
        f'{machine.bin}/python -c "$1" {work} && cat {usual}/{private_folder.NEW}'
    )
    done = machine.run("unshare", "--mount", "sh", "-c", script, "sh", MOUNTED)
    if "permission denied" in done.stderr.lower():
        pytest.skip("nothing can be mounted here")
    name, his = done.stdout.splitlines()
    assert (name != usual.name, his) == (True, "his"), done.stderr


@pytest.mark.parametrize(
    ("uid", "gid", "is_refused"),
    [(-1, -1, False), (0, 0, False), (-1, OTHERS, True), (NOBODY, -1, True), (NOBODY, 0, True)],
)
def test_what_is_root_s_own_in_a_folder_of_another_gets_no_other_owner_or_group(
    monkeypatch: pytest.MonkeyPatch, uid: int, gid: int, is_refused: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    his = os.stat_result((stat.S_IFDIR | 0o755, 1, 1, 2, NOBODY, NOBODY, 0, 0, 0, 0))
    own = os.stat_result((stat.S_IFREG | 0o644, 2, 1, 1, 0, 0, 0, 0, 0, 0))
    found = refusals.refused("/his/file", own, his, None, uid, gid, named=False)
    assert (found is not None and "no other owner or group" in found.reason) is is_refused
