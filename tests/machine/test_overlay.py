"""Files on an overlayfs whose layers are on several file systems, as on every disposable host.

There a file has another device than the folder it is in, which looks like a mount point.
"""

from __future__ import annotations

import pytest
from machine.disposable import CronHost

pytestmark = pytest.mark.root

SPEC = """
version: 1
name: overlay
permissions:
  kept: { path: /srv/kept, recursive: true, file_mode: "0640", dir_mode: "0750" }
retention:
  old: { path: /srv/a, match: "*.old", older_than: 1d, action: archive, to: /srv/b/all.tar.gz }
  cut: { path: /srv/a, match: cut.log, max_file: 1KiB, action: rotate, method: copytruncate }
  log: { path: /srv/a, match: app.log, max_file: 1KiB, action: rotate }
"""


def test_files_there_are_no_mount_points(cron_host: CronHost) -> None:
    cron_host.write("/srv/overlay.yaml", SPEC)
    cron_host.write("/srv/kept/below/file", "x", 0o600)
    for name in ("one.old", "cut.log", "app.log"):
        cron_host.write(f"/srv/a/{name}", "x" * 5000)
    cron_host.run("touch", "-d", "2 days ago", "/srv/a/one.old")
    devices = cron_host.run("stat", "-c", "%d", "/srv/a", "/srv/a/app.log").stdout.split()
    if len(set(devices)) == 1:
        pytest.skip("here they have the same device")
    once = [cron_host.bin / "reconcile", "--once", "/srv/overlay.yaml"]
    done = cron_host.run(*once, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    left = cron_host.run("ls", "/srv/a").stdout.split()
    assert sorted(left) == ["app.log.1.gz", "cut.log", "cut.log.1.gz"]
    assert cron_host.run("tar", "-tzf", "/srv/b/all.tar.gz").stdout.split() == ["one.old"]
    assert cron_host.run("stat", "-c", "%a", "/srv/kept/below/file").stdout == "640\n"
    assert "Nothing to do" in cron_host.run(*once).stdout


def test_a_file_mounted_there_is_left_alone(cron_host: CronHost) -> None:
    cron_host.write("/srv/overlay.yaml", SPEC)
    cron_host.write("/srv/kept/below/file", "x", 0o600)
    cron_host.write("/srv/a/app.log", "x" * 5000)
    cron_host.write("/run/other", "x" * 5000, 0o600)
    for name in ("/srv/kept/below/file", "/srv/a/app.log"):
        cron_host.run("mount", "--bind", "/run/other", name)
    cron_host.run(cron_host.bin / "reconcile", "--once", "/srv/overlay.yaml", check=False)
    assert cron_host.run("stat", "-c", "%a %s", "/run/other").stdout == "600 5000\n"
    assert cron_host.run("ls", "/srv/a").stdout.split() == ["app.log"]
