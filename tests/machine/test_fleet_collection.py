"""What Ansible's own tools say of the collection, and its role on a host that has only Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from machine.networked import SSHD, Network
from machine.possible import why_not
from support import CHECKOUT, LONG

from reconciler.fleet import COLLECTIONS

pytest.importorskip("ansible_runner", reason="needs ansible-core and ansible-runner")
pytestmark = [pytest.mark.fleet, pytest.mark.slow]
BIN = Path(sys.executable).parent
BOOTSTRAP = (
    'import subprocess, sys\nsubprocess.run([sys.executable, "-m", "ensurepip"], check=True)\n'
)


@pytest.fixture
def collection(free: None, tmp_path: Path) -> Path:
    """A copy of it, below which those tools write."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(COLLECTIONS, tmp_path / "c", ignore=ignored)
    return tmp_path / "c/ansible_collections/reconcile/host"


def run(folder: Path, home: Path, *argv: str | Path, **environ: str) -> str:
    """Run it to its end; what it says. Skips where packages cannot be had here."""
    given = {**os.environ, "HOME": str(home), "PATH": f"{argv[0]}:{BIN}:{os.environ['PATH']}",
             "ANSIBLE_COLLECTIONS_PATH": str(folder.parents[2]), **environ}  # fmt: skip
    done = subprocess.run(
        [str(word) for word in argv[1:]], cwd=folder, env=given, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=10 * LONG,
    )  # fmt: skip
    if "NewConnectionError" in done.stdout:
        pytest.skip("packages cannot be had here: no index of Python packages answers")
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout


def test_ansible_test_sanity_passes(collection: Path, tmp_path: Path) -> None:
    """All of its tests, in virtual environments that it makes; no containers are needed."""
    # It would be fetched from a site of Ansible's; the interpreter has its own.
    cache = tmp_path / ".ansible/test/cache"
    cache.mkdir(parents=True)
    (cache / "get_pip_24_2.py").write_text(BOOTSTRAP)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    argv = ("ansible-test", "sanity", "--venv", "--python", version, "--color", "no")
    said = run(collection, tmp_path, BIN, *argv)
    names = [line.split('"')[1] for line in said.splitlines() if 'Running sanity test "' in line]
    assert {"validate-modules", "pylint", "pep8", "import", "yamllint"} <= set(names)


def test_ansible_lint_passes(collection: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "lint", with_pip=True)
    programs = tmp_path / "lint/bin"
    run(collection, tmp_path, programs, programs / "pip", "install", "-q", "ansible-lint")
    argv = ("ansible-lint", "--offline", "--profile", "production", "--nocolor")
    run(collection, tmp_path, programs, *argv)


@pytest.mark.root
@pytest.mark.namespaces
def test_the_role_installs_the_program_and_sets_up_the_watchdog(
    collection: Path, tmp_path: Path
) -> None:
    if reason := why_not("cron", "ip", "ssh", SSHD):
        pytest.skip(reason)
    source = tmp_path / "source"
    source.mkdir()
    names = ("reconciler", "specs", "templates", ".manual", ".hatch_build.py", "pyproject.toml",
             "README.md", "CHANGELOG.md", "LICENSE")  # fmt: skip
    for name in names:
        folder = (CHECKOUT / name).is_dir()
        (shutil.copytree if folder else shutil.copy)(CHECKOUT / name, source / name)
    wheels = tmp_path / "wheels"
    build = (sys.executable, "-m", "pip", "wheel", "-q", "-w", wheels, source)
    run(collection, tmp_path, BIN, *build)
    (wheel,) = wheels.glob("reconcile_host-*.whl")
    with Network(tmp_path) as network:
        host = network.add("web1")
        host.run("rm", "-rf", "/opt/reconcile")
        for path in wheels.iterdir():
            if path != wheel:
                host.write(f"/srv/wheels/{path.name}", path.read_bytes())
        for path in (Path("/etc/pip.conf"), Path("/root/.config/pip/pip.conf")):
            host.write(path, "[global]\nno-index = true\nfind-links = /srv/wheels\n")
        (tmp_path / "hosts.ini").write_text(network.inventory())
        (tmp_path / "web.yaml").write_text(
            "version: 1\nname: web\ninclude: [watchdog, conf.d/*.yaml]\nvars: {word: one}\n"
        )
        (tmp_path / "conf.d").mkdir()
        (tmp_path / "conf.d/a.yaml").write_text(
            "files: {a: {path: /srv/a, content: '{{ word }}'}}\n"
        )
        role = {
            "role": "reconcile.host.reconcile", "reconcile_wheel": str(wheel),
            "reconcile_python": sys.executable,
            "reconcile_specs": [{"src": str(tmp_path / "web.yaml"), "files": ["conf.d/a.yaml"],
                                 "vars": {"word": "two"}, "watchdog": True}],
        }  # fmt: skip
        play = tmp_path / "play.json"
        play.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "roles": [role]}]))

        def played(*options: str) -> str:
            sockets = {"ANSIBLE_SSH_CONTROL_PATH_DIR": network.sockets}
            argv = network.argv("ansible-playbook", "-i", tmp_path / "hosts.ini", play, *options)
            return run(collection, tmp_path, BIN, *argv, **sockets, ANSIBLE_NOCOLOR="1")

        played("--check")
        assert not host.exists("/opt/reconcile") and not host.exists("/srv/a")
        played()
        assert host.read("/srv/a") == "two"
        program = "/opt/reconcile/bin/reconcile"
        asked = host.run(program, "--status", "/etc/reconcile/web.yaml", "--json")
        found = json.loads(asked.stdout)
        assert found["loop"]["running"] and f"{program} --once" in host.run("crontab", "-l").stdout
        assert "changed=0" in (said := played()), said
