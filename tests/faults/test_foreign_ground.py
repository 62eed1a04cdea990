"""Files, links and file systems that somebody else has put where root is to work."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import LONG, Machine, until

from reconciler.base.errors import HostError, UnknownState
from reconciler.host import filesystems, trust
from reconciler.host.archive import archive
from reconciler.host.clock import Clock
from reconciler.host.daemon_log import open_log
from reconciler.host.files import Files
from reconciler.host.openfiles import OpenFiles
from reconciler.host.remove import move
from reconciler.host.rewrite import rewrite
from reconciler.host.scan import Rule, Wanted, scan

SOMEBODY, SOMEBODY_ELSE = 64321, 64322
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user"),
]


@pytest.fixture
def ground(tmp_path: Path) -> Path:
    """A folder of root's that nobody else can exchange."""
    made = tmp_path / "ground"
    made.mkdir(mode=0o755)
    return made


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder on a file system of its own."""
    if not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == os.stat("/dev").st_dev:
        pytest.skip("no file system is mounted on /dev/shm")
    with tempfile.TemporaryDirectory(prefix="rc-", dir="/dev/shm") as made:
        yield Path(made)


@pytest.fixture
def mounted_by(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """The file system of ``elsewhere`` is one that a process of that user answers for."""
    handle = os.open(elsewhere, os.O_PATH)
    number = filesystems.mount_of(handle)
    os.close(handle)
    real = filesystems.mount_lines

    def by(uid: int) -> None:
        def lines() -> Iterator[tuple[list[str], str, str]]:
            for words, kind, options in real():
                if words[0] == number:
                    yield words, "fuse.his", f"rw,user_id={uid},group_id={uid},allow_other"
                else:
                    yield words, kind, options

        monkeypatch.setattr(filesystems, "mount_lines", lines)

    return by


def test_what_a_file_system_says_that_somebody_else_answers_for_is_not_believed(
    elsewhere: Path, mounted_by: Callable[[int], None]
) -> None:
    file = elsewhere / "spec.yaml"
    file.write_text("by its owner and mode it is root's")
    assert trust.is_trusted(str(file))
    mounted_by(0)
    assert trust.is_trusted(str(file))
    mounted_by(SOMEBODY)
    with pytest.raises(trust.Untrusted, match=f"mounted by user {SOMEBODY}, who answers for it"):
        trust.refuse_untrusted(str(file))
    trust.refuse_untrusted(str(file), also=(SOMEBODY,))


def test_nothing_is_asked_of_it(
    elsewhere: Path, mounted_by: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """His process need not answer, and nobody could end the wait."""
    mounted_by(SOMEBODY)
    handle, real = os.open(elsewhere, os.O_PATH), os.fstat
    theirs = filesystems.mount_of(handle)
    os.close(handle)

    def asked(handle: int) -> os.stat_result:
        assert filesystems.mount_of(handle) != theirs
        return real(handle)

    monkeypatch.setattr(filesystems, "served", lambda: frozenset({"/dev/shm"}))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", asked)
        assert not trust.is_trusted(str(elsewhere))


def test_no_link_on_it_is_followed(
    elsewhere: Path, mounted_by: Callable[[int], None], ground: Path
) -> None:
    (elsewhere / "link").symlink_to(ground)
    mounted_by(SOMEBODY)
    files, path = Files(), str(elsewhere / "link" / "new")
    with pytest.raises(UnknownState, match="is a symlink in a folder that somebody else"):
        files.status(path)
    with pytest.raises(HostError, match="is a symlink in a folder that somebody else"):
        files.make_directory(path, 0o777, SOMEBODY, -1)
    assert not list(ground.iterdir())


def test_a_folder_of_root_with_links_in_it_that_somebody_has_moved_leads_nowhere(
    ground: Path,
) -> None:
    inside, his = ground / "inside", ground / "his"
    inside.mkdir()
    (his / "roots" / "below").mkdir(parents=True)
    (his / "roots" / "link").symlink_to(inside)
    (his / "roots" / "below" / "link").symlink_to(inside)
    os.chown(his, SOMEBODY, SOMEBODY)
    (his / "roots").rename(his / "data")
    for name in ("data/link/new", "data/below/link/new"):
        path = str(his / name)
        with pytest.raises(UnknownState, match="is a symlink in a folder that somebody else"):
            Files().status(path)
        with pytest.raises(HostError, match="is a symlink in a folder that somebody else"):
            Files().make_directory(path, 0o700, SOMEBODY, -1)
    assert not list(inside.iterdir())


def test_a_link_of_root_in_a_folder_that_stays_is_followed(ground: Path) -> None:
    (ground / "real").mkdir()
    (ground / "sticky").mkdir()
    (ground / "sticky").chmod(0o1777)
    (ground / "sticky" / "link").symlink_to(ground / "real")
    path = str(ground / "sticky" / "link" / "new")
    assert Files().status(path) is None
    Files().make_directory(path, 0o700, -1, -1)
    assert (ground / "real" / "new").is_dir()


@pytest.fixture(params=["sticky", "of the group", "his"])
def shared(request: pytest.FixtureRequest, ground: Path) -> Path:
    """A folder in which somebody can make files before root does."""
    folder = ground / "shared"
    folder.mkdir()
    if request.param == "his":
        os.chown(folder, SOMEBODY_ELSE, -1)
    elif request.param == "of the group":
        os.chown(folder, -1, SOMEBODY)
        folder.chmod(0o2775)
    else:
        folder.chmod(0o1777)
    return folder


def made_by(uid: int, path: Path) -> Path:
    path.write_text("")
    path.chmod(0o666)
    os.chown(path, uid, uid)
    return path


def test_the_log_of_a_daemon_of_root_is_none_that_somebody_made_before(shared: Path) -> None:
    log = made_by(SOMEBODY, shared / "log")
    with pytest.raises(HostError, match=f"belongs to user {SOMEBODY}, in a folder that others"):
        os.close(open_log(str(log), -1, -1))
    for owner in (0, shared.stat().st_uid):
        os.chown(log, owner, owner)
        os.close(open_log(str(log), -1, -1))


def test_a_file_that_somebody_made_before_is_not_written_to(shared: Path, tmp_path: Path) -> None:
    file = made_by(SOMEBODY, shared / "conf")
    with pytest.raises(HostError, match=f"belongs to user {SOMEBODY}, in a folder that others"):
        rewrite(str(file), lambda _: b"secret", 1000, str(tmp_path))
    assert file.read_bytes() == b""
    for owner in (0, shared.stat().st_uid):
        os.chown(file, owner, owner)
        rewrite(str(file), lambda seen: (seen or b"") + b"x", 1000, str(tmp_path))
        assert file.stat().st_uid == owner
    assert file.read_bytes().strip(b"x") == b""


@pytest.fixture
def taken(ground: Path) -> Path:
    """A folder that somebody has made in one that everybody may write to, and one below it."""
    (ground / "sticky" / "app" / "below").mkdir(parents=True)
    (ground / "sticky").chmod(0o1777)
    for folder in (ground / "sticky" / "app", ground / "sticky" / "app" / "below"):
        os.chown(folder, SOMEBODY, SOMEBODY)
    return ground / "sticky" / "app" / "below"


def test_who_has_made_the_folder_first_is_not_its_rightful_owner(
    taken: Path, ground: Path, tmp_path: Path
) -> None:
    file = made_by(SOMEBODY, taken / "file")
    with pytest.raises(HostError, match=f"belongs to user {SOMEBODY}, in a folder that others"):
        os.close(open_log(str(file), -1, -1))
    with pytest.raises(HostError, match=f"belongs to user {SOMEBODY}, in a folder that others"):
        rewrite(str(file), lambda _: b"secret", 1000, str(tmp_path))
    assert file.read_bytes() == b""
    # His folder in one of root's was given to him.
    (ground / "sticky").chmod(0o755)
    os.close(open_log(str(file), -1, -1))


def test_nothing_is_moved_there(taken: Path, ground: Path, machine: Machine) -> None:
    (ground / "logs").mkdir()
    log = ground / "logs" / "a.log"
    log.write_text("x")
    os.utime(log, (0, 0))
    rule = f"path: {ground}/logs, match: '*.log', older_than: 1d, action: move, to: {taken}"
    spec = machine.spec(f"retention: {{r: {{{rule}}}}}")
    (step,) = machine.once(spec, status=1)["steps"]
    assert f"user {SOMEBODY} has made" in step["error"]
    assert log.exists()
    (ground / "sticky").chmod(0o755)
    machine.once(spec)
    assert (taken / "a.log").exists()


def test_nothing_of_root_is_started_there(taken: Path, machine: Machine) -> None:
    rule = f"command: ['true'], cwd: {taken}"
    (step,) = machine.once(machine.spec(f"processes: {{p: {{{rule}}}}}"), status=1)["steps"]
    assert f"was made by user {SOMEBODY} where everybody may write" in step["error"]


def test_a_log_that_was_another_users_is_begun_anew(machine: Machine) -> None:
    """He may hold it open, and would read what root's process says."""

    def spec(more: str) -> str:
        command = "['sh', '-c', 'echo said; exec sleep 321']"
        return str(machine.spec(f"processes: {{p: {{command: {command}{more}}}}}"))

    machine.once(spec(", user: nobody"))
    (log,) = machine.base.rglob("log/p.log")
    assert log.stat().st_uid == 65534
    with log.open() as held:
        machine.once(spec(""))
        assert log.stat().st_uid == 0
        until(lambda: log.read_text() == "said\n")
        assert held.read() == "said\n"
    assert (log.parent / "p.log.1").stat().st_uid == 65534


def test_nor_is_one_that_he_makes_between_the_look_and_the_write(
    ground: Path,
) -> None:
    folder = ground / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    calls: list[bytes | None] = []

    def edit(seen: bytes | None) -> bytes:
        calls.append(seen)
        if seen is None:
            made_by(SOMEBODY, folder / "conf")
        return b"secret"

    with pytest.raises(HostError, match=f"belongs to user {SOMEBODY}, in a folder that others"):
        rewrite(str(folder / "conf"), edit, 1000, str(ground))
    assert calls == [None, b""]
    assert (folder / "conf").read_bytes() == b""


def test_a_mount_point_with_an_odd_name_is_one_line(ground: Path, free: None) -> None:
    point = ground / "a\rb c\r"
    point.mkdir()
    script = (
        "import sys\n"
        "from reconciler.host.filesystems import mounts\n"
        "print(sum(point == sys.argv[1] for point, _, _ in mounts()))\n"
    )
    mount = 'mount -t tmpfs none "$1" || exit 77; exec "$2" -c "$3" "$1"'
    argv = ["unshare", "--mount", "sh", "-c", mount, "sh", str(point), sys.executable, script]
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=LONG)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"cannot mount here: {done.stderr}")
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_one_user_s_many_mounts_that_are_mute_are_waited_for_but_a_few_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever may mount one may mount a thousand."""

    def lines() -> Iterator[tuple[list[str], str, str]]:
        for at in range(40):
            yield ["9", "1", "0:9", "/", f"/his/m{at}"], "fuse.his", "rw,user_id=77,group_id=77"
        yield ["9", "1", "0:9", "/", "/hers"], "fuse.hers", "rw,user_id=78,group_id=78"
        for at in range(5):
            yield ["9", "1", "0:9", "/", f"/net/n{at}"], "nfs4", "rw,hard"

    asked: list[str] = []

    def answers(point: str) -> bool:
        asked.append(point)
        filesystems.silence(point, os.getpid())
        return False

    monkeypatch.setattr(filesystems, "mount_lines", lines)
    monkeypatch.setattr(filesystems, "_served", (-9.0, frozenset()))
    monkeypatch.setattr(filesystems, "_mounted_by", {})
    monkeypatch.setattr(filesystems, "_silent", {})
    monkeypatch.setattr(filesystems, "_answers", answers)
    for point in sorted(filesystems.served()):
        with pytest.raises(UnknownState, match="does not answer"):
            filesystems.refuse_silent(f"{point}/file")
    assert len([one for one in asked if one.startswith("/his/")]) == 3
    assert "/hers" in asked  # Another one's are asked all the same, and so are the host's own.
    assert len([one for one in asked if one.startswith("/net/")]) == 5


CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


@pytest.mark.parametrize("server", [None, SOMEBODY])
def test_what_gives_no_rights_where_it_is_gives_none_where_it_is_copied_to(
    ground: Path,
    elsewhere: Path,
    mounted_by: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    server: int | None,
) -> None:
    """Of a file system that somebody has brought he says himself whose a program is."""
    for name, deep in (("moved", "tool"), ("archived", "other")):
        (elsewhere / name).mkdir()
        (elsewhere / name).chmod(0o2755)
        tool = elsewhere / name / deep
        tool.write_text("his work")
        tool.chmod(0o6755)
        os.setxattr(tool, "security.capability", CAPABILITY)
        os.utime(tool, (1, 1))
    if server is None:
        whole = os.fstatvfs

        def nosuid(handle: int) -> os.statvfs_result:
            found = list(whole(handle))
            found[8] |= os.ST_NOSUID
            return os.statvfs_result(found)

        monkeypatch.setattr(os, "fstatvfs", nosuid)
    else:
        mounted_by(server)
    held = OpenFiles(Clock())
    for name, act, to in (("moved", move, "out"), ("archived", archive, "x.tar.gz")):
        top = str(elsewhere / name)
        files = scan(Wanted(top, Rule(None, 2 * 10**18, None, 10))).chosen.files
        assert act(top, files, str(ground / to), held) == []
    with tarfile.open(ground / "x.tar.gz") as tar:
        packed = tar.getmember("other")
    # Of a folder it says whose group is that of what is made there: not where that is root's.
    assert bool((ground / "out").stat().st_mode & stat.S_ISGID) == (server is None)
    moved = (ground / "out/tool").stat()
    assert (stat.S_IMODE(moved.st_mode), packed.mode) == (0o755, 0o755)
    owner = server or 0
    assert (moved.st_uid, packed.uid, (ground / "out").stat().st_uid) == (owner, owner, owner)
    assert (ground / "x.tar.gz").stat().st_uid == owner
    assert "security.capability" not in os.listxattr(ground / "out/tool")


def test_what_gives_rights_where_it_is_keeps_them(ground: Path, elsewhere: Path) -> None:
    tool = elsewhere / "tool"
    tool.write_text("root's work")
    tool.chmod(0o4755)
    os.setxattr(tool, "security.capability", CAPABILITY)
    os.utime(tool, (1, 1))
    if os.statvfs(elsewhere).f_flag & os.ST_NOSUID:
        pytest.skip("no such thing has an effect there")
    files = scan(Wanted(str(elsewhere), Rule(None, 2 * 10**18, None, 10))).chosen.files
    assert move(str(elsewhere), files, str(ground / "out"), OpenFiles(Clock())) == []
    assert stat.S_IMODE((ground / "out/tool").stat().st_mode) == 0o4755
    assert "security.capability" in os.listxattr(ground / "out/tool")
