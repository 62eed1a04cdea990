"""Folders that somebody else may write to, while root works in them."""

from __future__ import annotations

import gzip
import os
import stat
import subprocess
import sys
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from support import Machine

from reconciler.base.errors import HostError, UnknownState
from reconciler.host.files import Files
from reconciler.host.gzipped import Gunzip
from reconciler.host.progress import working
from reconciler.host.tar import members

NOBODY = 65534


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that others may write to, with an outside that must stay as it is."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o700)
    (outside / "secret").write_text("x")
    (outside / "secret").chmod(0o600)
    return folder


def modes(folder: Path) -> list[tuple[str, int]]:
    return [(path.name, path.stat().st_mode) for path in [folder, *folder.iterdir()]]


def test_a_link_in_a_shared_folder_is_not_followed(shared: Path) -> None:
    outside = shared.parent / "outside"
    (shared / "link").symlink_to(outside)
    before = modes(outside)
    files = Files()
    for path in (shared / "link", shared / "link/secret", shared / "link/new/deep"):
        with pytest.raises(UnknownState, match="symlink in a folder that somebody else"):
            files.status(str(path))
        with pytest.raises(HostError, match="symlink in a folder that somebody else"):
            files.make_directory(str(path), 0o777, -1, -1)
        with pytest.raises(HostError, match="symlink in a folder that somebody else"):
            files.set_attributes(str(path), 0o777, -1, -1)
    assert modes(outside) == before


def test_a_link_in_a_folder_of_our_own_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "chain").symlink_to("../" + tmp_path.name + "/link")
    files = Files()
    status = files.status(str(tmp_path / "chain"))
    assert status is not None
    assert stat.S_ISDIR(status.st_mode)
    files.set_attributes(str(tmp_path / "chain"), 0o711, -1, -1)
    files.make_directory(str(tmp_path / "chain/a/b"), 0o700, -1, -1)
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o711
    assert stat.S_IMODE((tmp_path / "real/a/b").stat().st_mode) == 0o700


@pytest.mark.parametrize("target", ["nowhere", "self", "/dev/null"])
def test_links_that_lead_nowhere_are_unknown(tmp_path: Path, target: str) -> None:
    (tmp_path / "self").symlink_to(target)
    with pytest.raises(UnknownState):
        Files().status(str(tmp_path / "self/below"))
    with pytest.raises(HostError):
        Files().make_directory(str(tmp_path / "self/below"), None, -1, -1)


def test_a_hard_link_in_a_shared_folder_is_not_changed(shared: Path) -> None:
    secret = shared.parent / "outside/secret"
    os.link(secret, shared / "mine")
    with pytest.raises(HostError, match="hard links"):
        Files().set_attributes(str(shared / "mine"), 0o666, -1, -1)
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_the_walk_through_a_tree_does_not_leave_it(shared: Path) -> None:
    (shared / "a/b").mkdir(parents=True)
    (shared / "a/link").symlink_to(shared.parent / "outside")
    found = [path for path, _ in Files().tree(str(shared), lambda path: False)]
    assert found == [f"{shared}/a", f"{shared}/a/b"]


SWAPPER = """
import ctypes, os, sys
base = os.fsencode(sys.argv[1])
os.setuid(int(sys.argv[2]))
os.symlink(sys.argv[3], base + b"/y")
exchange = ctypes.CDLL(None).renameat2
print("ready", flush=True)
while exchange(-100, base + b"/x", -100, base + b"/y", 2) == 0:
    pass
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root works in folders of other users")
def test_a_folder_swapped_for_a_link_in_the_middle_never_leads_outside(
    shared: Path, free: None
) -> None:
    tries = 2000
    outside = shared.parent / "outside"
    (shared / "x").mkdir()
    for path in (shared, shared / "x"):
        os.chown(path, NOBODY, NOBODY)
    # The swapper has to get there.
    for path in shared.parents:
        if path.stat().st_mode & 0o001 == 0:
            path.chmod(path.stat().st_mode | 0o011)
    before = modes(outside)
    swapper = subprocess.Popen(
        [sys.executable, "-c", SWAPPER, str(shared), str(NOBODY), str(outside)],
        stdout=subprocess.PIPE,
    )
    assert swapper.stdout is not None
    assert swapper.stdout.readline()
    refused = worked = 0
    try:
        at = 0
        # On a busy machine it may take more of them until the race has gone both ways.
        while at < tries or (at < 50 * tries and not (refused and worked)):
            at += 1
            files = Files()
            try:
                if at % 2:
                    files.make_directory(f"{shared}/x/secret", 0o755, -1, -1)
                else:
                    files.set_attributes(f"{shared}/x/secret", 0o755, -1, -1)
                worked += 1
            except HostError:
                refused += 1
            assert modes(outside) == before
        assert swapper.poll() is None
    finally:
        swapper.kill()
        swapper.wait()
        swapper.stdout.close()
    # Both have happened, or the race was none.
    assert refused > 0
    assert worked > 0


@pytest.mark.parametrize("kind", ["file", "fifo", "socket", "dangling link"])
def test_something_else_where_a_directory_should_be_is_reported_and_kept(
    machine: Machine, kind: str
) -> None:
    path = machine.base / "thing"
    if kind == "file":
        path.write_text("precious")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    else:
        path.symlink_to("nowhere")
    spec = machine.spec(
        f"directories: {{thing: {{path: {path}}}, below: {{path: {path}/below}}, "
        f"other: {{path: {machine.base}/other}}}}"
    )
    before = path.lstat()
    report = machine.once(spec, status=1)
    assert [remark["id"] for remark in report["unknown"]] == ["directory:thing", "directory:below"]
    assert [(step["id"], step["result"]) for step in report["steps"]] == [
        ("directory:other", "done")
    ]
    after = path.lstat()
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)


def test_an_absent_directory_is_removed_only_when_it_is_empty(machine: Machine) -> None:
    (machine.base / "full/inner").mkdir(parents=True)
    (machine.base / "empty").mkdir()
    spec = machine.spec(
        f"directories:\n  full: {{path: {machine.base}/full, state: absent}}\n"
        f"  empty: {{path: {machine.base}/empty, state: absent}}\n"
    )
    report = machine.once(spec, status=1)
    assert [step["id"] for step in report["steps"]] == ["directory:empty"]
    assert "not empty" in report["unknown"][0]["reason"]
    assert (machine.base / "full/inner").is_dir()


def test_nested_absent_directories_go_from_the_inside_out(machine: Machine) -> None:
    (machine.base / "a/b/c").mkdir(parents=True)
    spec = machine.spec(
        "directories:\n"
        + "".join(
            f"  {name}: {{path: {machine.base}/{path}, state: absent}}\n"
            for name, path in (("a", "a"), ("b", "a/b"), ("c", "a/b/c"))
        )
    )
    machine.once(spec)
    assert not (machine.base / "a").exists()


NAMES = ["line\\nbreak", "\\e[31mred\\e[0m", "\\u202eright-to-left", "blank \\t tab", "ünï"]


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_are_safe_to_print(machine: Machine, name: str) -> None:
    spec = machine.spec(f'directories: {{x: {{path: "{machine.base}/{name}"}}}}')
    for options in (["--plan"], ["--once"], ["--plan", "--json"]):
        done = machine.reconcile(*options, spec)
        assert done.returncode in (0, 65)
        for line in (done.stdout + done.stderr).splitlines():
            assert line.isprintable(), line


def test_a_name_that_is_not_utf8_below_a_recursive_permission(machine: Machine) -> None:
    tree = machine.base / "tree"
    tree.mkdir()
    odd = os.path.join(os.fsencode(tree), b"\xff\x1b[2Jname")
    os.close(os.open(odd, os.O_CREAT | os.O_WRONLY, 0o600))
    spec = machine.spec(f"permissions: {{p: {{path: {tree}, recursive: true, file_mode: '0640'}}}}")
    shown = machine.reconcile("--plan", spec)
    assert "\\udcff\\x1b[2Jname" in shown.stdout
    machine.once(spec)
    assert stat.S_IMODE(os.stat(odd).st_mode) == 0o640
    machine.converged(spec)


@pytest.mark.parametrize(("count", "size"), [(1, 64 << 20), (3000, 512)])
def test_the_headers_of_an_archive_take_no_memory(tmp_path: Path, count: int, size: int) -> None:
    """They are read whole, and each goes on from the one before; zeros take next to no room."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, size
    record = b"24 comment=" + b"a" * 12 + b"\n"
    with gzip.open(tmp_path / "it.tar.gz", "wb", 1) as file:
        for _ in range(count):
            file.write(info.tobuf(tarfile.USTAR_FORMAT) + record.ljust(size, b"\0"))
        file.write(bytes(10240))
    tracemalloc.start()
    try:
        with (
            (tmp_path / "it.tar.gz").open("rb") as packed,
            working("read", None) as work,
            pytest.raises(tarfile.ReadError, match="header"),
        ):
            list(members(Gunzip(packed.fileno(), work)))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 16 << 20
