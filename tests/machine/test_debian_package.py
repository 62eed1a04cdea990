"""The Debian package: what it holds, and its life on a host, from the installation to the purge."""

from __future__ import annotations

import gzip
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest
from machine.disposable import DisposableHost
from support import CHECKOUT, LONG, Machine

from reconciler.host import command, persistence

HERE = CHECKOUT / ".debian"
needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
WATCHED = """version: 1
name: watched
include: [watchdog]
processes: {w: {command: [sleep, "90.501"]}}
"""
PLAIN = """version: 1
name: plain
loop: {every: 500ms}
processes: {w: {command: [sleep, "90.502"]}}
"""


@pytest.fixture
def maker() -> ModuleType:
    loader = SourceFileLoader("debian_build", str(HERE / "build"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = made
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(made)
    finally:
        sys.dont_write_bytecode = writes
    return made


@needs_dpkg
def test_what_it_is_made_of(machine: Machine, maker: ModuleType) -> None:
    """All but the environment, which needs an index of packages."""
    root = machine.base / "root"
    site = root / maker.HOME / f"lib/{maker.PYTHON}/site-packages"
    other = site / "other-1.2.dist-info"
    for path in (site / "reconciler", other):
        path.mkdir(parents=True)
    for name in maker.COMMANDS:
        (site / f"reconciler/{name}.1").write_text(f".TH {name} 1\n")
        maker.link(root / "usr/bin" / name, f"../lib/reconcile/bin/{name}")
    (other / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: other\nVersion: 1.2\nLicense: X\n"
    )
    (site / "fast.so").write_text("")
    (site / "fast.so").chmod(0o755)
    maker.documents(root, maker.version())
    package = maker.pack(root, machine.base / "out")
    fields = machine.run("dpkg-deb", "--field", package).stdout
    assert f"Version: {maker.version()}-1\n" in fields and f", {maker.PYTHON}\n" in fields
    assert "@" not in fields.replace("<reconcile@", "").replace("reconcile@NAME", "")
    told = machine.run("dpkg-deb", "--contents", package).stdout.splitlines()
    files = {line.split(" ./", 1)[1]: line for line in told if " ./" in line}
    assert all(" root/root " in line for line in files.values())
    assert files[f"{site.relative_to(root)}/fast.so"].startswith("-rw-r--r--")
    assert "etc/reconcile/" in files and not any(".wants/" in name for name in files)
    out = machine.base / "unpacked"
    machine.run("dpkg-deb", "--raw-extract", package, out, check=True)
    machine.run("md5sum", "--check", "--quiet", "DEBIAN/md5sums", cwd=out, check=True)
    with gzip.open(out / "usr/share/man/man1/reconcile.1.gz") as page:
        assert page.read() == b".TH reconcile 1\n"
    copyright = (out / "usr/share/doc/reconcile/copyright").read_text()
    assert "  other 1.2: X\n" in copyright and " THE SOFTWARE IS PROVIDED" in copyright
    unit = (out / "usr/lib/systemd/system/reconcile@.service").read_text()
    assert "ExecStart=/usr/bin/reconcile --loop /etc/reconcile/%i.yaml\n" in unit
    for name in ("postinst", "prerm", "postrm"):
        script = out / "DEBIAN" / name
        assert os.access(script, os.X_OK)
        machine.run("sh", "-n", script, check=True)
        assert "enable" not in script.read_text() and "start" not in script.read_text()


def test_commands_are_found_where_the_package_links_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = Path(sys.executable).parent
    for packaged, expected in ((tmp_path, tmp_path), (tmp_path / "none", beside)):
        monkeypatch.setattr(command, "_PACKAGED", str(packaged))
        if packaged.is_dir():
            (packaged / "reconcile").symlink_to(beside / "reconcile")
        assert command.program_folder.__wrapped__() == str(expected)
    # Another one there is another installation.
    (tmp_path / "reconcile").unlink()
    shutil.copy(beside / "reconcile", tmp_path)
    monkeypatch.setattr(command, "_PACKAGED", str(tmp_path))
    assert command.program_folder.__wrapped__() == str(beside)


def test_enabled_instances_of_the_unit_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persistence, "_TEMPLATE", str(HERE / "reconcile@.service"))
    monkeypatch.setattr(persistence, "_ENABLED", str(tmp_path))
    wants = tmp_path / "multi-user.target.wants"
    wants.mkdir()
    (wants / "reconcile@web-1.service").symlink_to("/gone")
    (wants / "other@web-1.service").symlink_to("/gone")
    ((name, text),) = persistence._instances()
    assert name == "reconcile@web-1.service"
    assert persistence.runs(text, "/etc/reconcile/web-1.yaml")
    assert not persistence.runs(text, "/etc/reconcile/web.yaml")


@pytest.fixture(scope="module")
def package() -> Iterator[Path]:
    """It, as the one command makes it, where a disposable host sees it."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        environ = {**os.environ, "TMPDIR": folder}
        done = subprocess.run(
            [HERE / "build", folder], env=environ, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, done.stderr
        (made,) = Path(folder).glob("*.deb")
        assert done.stdout == f"{made}\n"
        yield made


@pytest.mark.package
@needs_dpkg
def test_lintian_finds_nothing_and_nothing_names_the_place_of_the_build(
    machine: Machine, package: Path
) -> None:
    tree = machine.base / "tree"
    machine.run("dpkg-deb", "--extract", package, tree, check=True)
    assert machine.run("grep", "-rl", package.parent, tree).stdout == ""
    for name in ("reconcile", "ai-cmd-executor"):
        script = tree / "usr/share/bash-completion/completions" / name
        machine.run("bash", "-n", script, check=True)
        assert f'script="/usr/bin/{name}"' in script.read_text()
    if shutil.which("lintian") is None:
        pytest.skip("lintian is not installed")
    done = machine.run("lintian", "--fail-on", "error,warning", "--allow-root", package)
    assert done.returncode == 0, done.stdout


def upgraded(package: Path) -> Path:
    """The next version of it."""
    tree = package.parent / "next"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(control.read_text().replace("Version: ", "Version: 9."))
    (source,) = tree.glob("usr/lib/reconcile/lib/python3*/site-packages/reconciler/__init__.py")
    source.write_text(source.read_text().replace('"0.', '"9.0.'))
    words = ["-m", "compileall", "-q", "-f", "--invalidation-mode", "unchecked-hash"]
    subprocess.run(["/usr/bin/python3", *words, source], check=True)
    made = package.parent / "next.deb"
    subprocess.run(["dpkg-deb", "-Znone", "--build", tree, made], check=True, capture_output=True)
    return made


@pytest.mark.package
@pytest.mark.root
@needs_dpkg
def test_from_the_installation_to_the_purge(systemd_host: DisposableHost, package: Path) -> None:
    host = systemd_host
    everything = ("find", "/usr", "/etc", "/var/lib", "-xdev", "-not", "-path", "/var/lib/dpkg/*")
    before = set(host.run(*everything).stdout.splitlines())
    host.run("dpkg", "--install", package, timeout=LONG)
    assert host.run("systemctl", "is-enabled", "reconcile@plain", check=False).returncode
    assert (
        host.run("systemctl", "list-units", "--plain", "reconcile*").stdout.count("reconcile") == 0
    )
    assert host.run("man", "-w", "reconcile").stdout == "/usr/share/man/man1/reconcile.1.gz\n"

    host.write("/etc/reconcile/watched.yaml", WATCHED)
    host.write("/etc/reconcile/plain.yaml", PLAIN)
    host.run("reconcile", "--once", "/etc/reconcile/watched.yaml")
    host.until(lambda: host.running("sleep 90.501"))
    assert "/usr/bin/reconcile --once" in host.run("crontab", "-l").stdout
    unit = host.read("/etc/systemd/system/reconcile-watched.service")
    assert "ExecStart=/usr/bin/reconcile --loop /etc/reconcile/watched.yaml" in unit
    plan = host.run("reconcile", "--plan", "/etc/reconcile/watched.yaml")
    assert "Nothing to do" in plan.stdout
    init = host.run("reconcile", "--init", "webservice").stdout
    assert "\n  reconcile --once /etc/reconcile/webservice.yaml\n" in f"{init}\n"

    host.run("systemctl", "enable", "--now", "reconcile@plain")
    host.until(lambda: host.running("sleep 90.502"))
    said = host.run("reconcile", "--diagnose", "/etc/reconcile/plain.yaml", check=False).stdout
    assert "unit reconcile@plain.service starts the watchdog at boot" in said
    # Nothing is written beside the program, and nothing of it was changed.
    host.run("dpkg", "--verify", "reconcile")
    listed = set(host.run("dpkg", "--listfiles", "reconcile").stdout.splitlines())
    there = set(host.run("find", "/usr/lib/reconcile").stdout.splitlines())
    assert there <= listed

    def loop() -> str:
        words = ("systemctl", "show", "-P", "MainPID", "reconcile@plain")
        return host.run(*words).stdout.strip()

    pid, worker = loop(), host.running("sleep 90.502")
    host.run("dpkg", "--install", upgraded(package), timeout=LONG)
    assert host.run("reconcile", "--version").stdout == "reconcile 9.0.1.0\n"
    journal = ("journalctl", "-u", "reconcile@plain", "--no-pager")
    host.until(lambda: "was replaced; the watchdog restarts itself" in host.run(*journal).stdout)
    host.until(lambda: host.run(*journal).stdout.count("the loop begins") == 2)
    assert (loop(), host.running("sleep 90.502")) == (pid, worker)

    done = host.run("dpkg", "--remove", "reconcile", timeout=LONG)
    assert "what the spec watched has made stays" in done.stderr
    host.until(lambda: loop() == "0")
    assert not host.exists("/usr/lib/reconcile") and not host.exists("/usr/bin/reconcile")
    assert host.exists("/etc/reconcile/plain.yaml") and host.exists("/var/lib/reconcile/plain")
    host.run("dpkg", "--purge", "reconcile", timeout=LONG)
    host.run("crontab", "-r")
    host.run("rm", "-r", "/etc/reconcile")  # The specs are people's own.
    left = set(host.run(*everything).stdout.splitlines()) - before
    made = ("/etc/systemd/system/reconcile-watched.service", "/multi-user.target.wants/")
    assert [path for path in left if "reconcile" in path and not any(m in path for m in made)] == []


@pytest.mark.package
@pytest.mark.root
@needs_dpkg
def test_what_was_installed_and_never_used_leaves_nothing(
    systemd_host: DisposableHost, package: Path
) -> None:
    host = systemd_host
    aside = ("/var/log", "/var/cache", "/var/tmp", "/var/lib/dpkg", "/var/lib/systemd")
    left_out = [word for path in aside for word in ("-not", "-path", f"{path}/*")]
    words = ("find", "/usr", "/etc", "/var", "-xdev", *left_out)
    before = set(host.run(*words).stdout.splitlines())
    host.run("dpkg", "--install", package, timeout=LONG)
    host.run("reconcile", "--version")
    host.run("dpkg", "--purge", "reconcile", timeout=LONG)
    assert set(host.run(*words).stdout.splitlines()) - before == set()
