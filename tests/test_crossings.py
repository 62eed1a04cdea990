"""What crosses to other accounts of the host is done in one place each, and in no other."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from support import CHECKOUT

PACKAGE = CHECKOUT / "reconciler"
PLACE = {"host/place.py", "host/private_folder.py", "host/rewrite.py", "host/kernel.py"}
MODULE = "fleet/collection/ansible_collections/reconcile/host/plugins/modules/reconcile.py"
ELSEWHERE = {
    ("os.rename", "executor/queue.py"): "from folder to folder of a queue that is held open",
    ("os.mkdir", "executor/home.py"): "folders of a queue, as mkdir(2) makes them",
    ("os.O_CREAT", "executor/runner.py"): "in a folder of the queue that is held open",
    ("os.O_CREAT", "executor/eventlog.py"): "in the folder of the queue",
    ("os.O_CREAT", "executor/files.py"): "a lock, in a folder that is held open",
    ("open", "host/inherited.py"): "files of /proc",
    ("open", "host/bounded.py"): "a file that never has a name, memfd_create(2)",
    ("os.rename", "state/store/base.py"): "a damaged store is set aside in our own folder",
    ("tempfile", "host/archive.py"): "files that never have a name",
    ("tempfile", "host/crontab.py"): "a folder for crontab(1) in our own",
    ("rename_new", "host/remove.py"): "where there are no hard links to what is moved",
    ("rename_new", "host/rotate.py"): "a log becomes a rotated one",
    ("rename_new", "host/rotated.py"): "what has been rotated gets the next number",
    ("os.mkdir", "host/cgroup.py"): "a control group, in the kernel's own file system",
    ("os.mkdir", "host/files.py"): "a directory without a mode, as mkdir(2) makes it",
    ("os.mkdir", "host/walk.py"): "missing folders on the way, as mkdir(2) makes them",
    ("os.mkdir", "host/trust.py"): "our own folders, on a way that is believed",
    ("os.makedirs", "host/launch.py"): "below our own folder",
    ("os.makedirs", "host/start_records.py"): "below our own folder",
    ("os.makedirs", "host/__init__.py"): "below our own folder",
    ("os.makedirs", "host/replaced.py"): "below our own folder",
    ("os.makedirs", "state/heartbeat.py"): "in the runtime directory, which is the caller's alone",
    ("os.makedirs", "host/systemd.py"): "below our own folder",
    ("tempfile", "fleet/run.py"): "a folder that only we may enter, for Ansible",
    ("os.makedirs", MODULE): "in the folder of the task, which Ansible has made on a host",
    ("os.O_CREAT", MODULE): "in the folder of the task, which Ansible has made on a host",
}
"""Who makes names otherwise, and why nobody can put another thing in their place."""
NAMING = {
    "os.rename", "os.replace", "os.link", "os.symlink", "os.mknod", "os.mkfifo", "os.mkdir",
    "os.makedirs", "os.O_CREAT", "os.O_TMPFILE", "tempfile", "shutil.copy", "shutil.copyfile",
    "shutil.copy2", "shutil.move", "shutil.copytree", "rename_new", "exchange", "open",
}  # fmt: skip


def names(tree: ast.Module) -> Iterator[str]:
    """What of ``NAMING`` a module uses; "open" where that writes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"
            yield node.value.id
        if isinstance(node, ast.Attribute) and node.attr in ("write_text", "write_bytes"):
            yield "open"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id if node.func.id != "open" or _writes(node) else ""


def _writes(call: ast.Call) -> bool:
    modes = [*call.args[1:2], *(word.value for word in call.keywords if word.arg == "mode")]
    return any(not isinstance(mode, ast.Constant) or set("wax+") & {*mode.value} for mode in modes)


def test_names_are_given_in_one_place() -> None:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        name = str(path.relative_to(PACKAGE))
        if name not in PLACE:
            found |= {(one, name) for one in set(names(ast.parse(path.read_text()))) & NAMING}
    assert found - ELSEWHERE.keys() == set()


STARTING = {
    "subprocess", "os.fork", "os.forkpty", "os.posix_spawn", "os.posix_spawnp", "os.system",
    "os.popen", "pty.fork", "os.execv", "os.execve", "os.execvp", "os.execvpe", "os.execl",
    "os.setuid", "os.setresuid", "os.seteuid", "os.setgroups", "os.initgroups",
}  # fmt: skip
STARTERS = {
    ("os.fork", "host/bounded.py"): "our own work, gone on with in a child",
    ("os.fork", "host/child.py"): "our own work in a child, which runs no other program",
    ("os.fork", "host/init.py"): "this program itself, which process 1 of a container waits for",
    ("os.fork", "host/scan.py"): "our own look at a folder in a second process",
    ("os.posix_spawn", "host/command.py"): "the tools that we ask something for ourselves",
    ("os.execve", "host/environment.py"): "this program itself, in UTF-8 mode",
    ("os.execv", "executor/cli.py"): "this program itself, with other options",
    ("subprocess", "executor/keeper.py"): "this program's other command",
}
"""Who makes a process besides host/start.py, and why it is none of somebody else's."""


def test_programs_that_are_not_ours_are_started_in_one_place() -> None:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        name = str(path.relative_to(PACKAGE))
        used = {
            f"{node.value.id}.{node.attr}" if node.value.id != "subprocess" else "subprocess"
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        }
        if name != "host/start.py":
            found |= {(one, name) for one in used & STARTING}
    assert found == STARTERS.keys()
