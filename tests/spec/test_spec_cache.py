"""The compiled spec: used when nothing has changed, ignored in every other case, silent."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import CHECKOUT, LONG, facts

import reconciler.config.cache
from reconciler import kinds
from reconciler.base.errors import HostError
from reconciler.base.values import Facts
from reconciler.config.build import build
from reconciler.config.errors import SpecError

HEAD = "version: 1\nname: demo\n"
FULL = (
    HEAD
    + """\
include: [more.yaml]
vars: {home: "{{ env.HOME_DIR | default('/h') }}", gone: "{{ env.GONE | default('x') }}"}
loop: {every: 10s}
folders:
  a: {path: "{{ home }}/a", mode: "0750"}
  b: {path: "{{ home }}/a/b", when: "1 > 2"}
  c: {path: "{{ home }}/c", state: absent, after: [folder:a]}
workers:
  w:
    command: [x, "{{ user.name }}"]
    count: 7
    match: {cmdline: a.b, exe: /x}
    parts: [{label: one, cwd: /p}, {label: two, command: y}]
    needs: [folder:a, grant:g]
  v: {command: x}
"""
)
FACTS = Facts("ann", "/home/ann", 1000, "box", True, False, True, "/var/lib/x")
ENV = {"HOME_DIR": "/srv/x", "OTHER": "1"}


@pytest.fixture
def full(room: Any) -> Any:
    room.write("grants: {g: {path: /g, mode: '0700'}}\n", "more.yaml")
    room.write(FULL)
    spec, compiled = room.cached(environ=ENV)
    assert compiled
    room.spec = spec
    return room


def bins(room: Any) -> list[Path]:
    return sorted((room.state / ".compiled").iterdir())


def test_a_hit_gives_the_same_spec(full: Any) -> None:
    spec, compiled = full.cached(environ=ENV)
    assert not compiled
    assert spec == full.spec
    assert repr(spec) == repr(full.spec)
    assert spec.complete
    assert spec.loop_every == 10.0
    assert [type(r.want) for r in spec.resources] == [type(r.want) for r in full.spec.resources]


def test_what_it_was_not_made_from_may_change(full: Any) -> None:
    os.utime(full.base / "spec.yaml", (1, 1))
    assert not full.cached(environ={**ENV, "OTHER": "2", "NEW": "3"})[1]


def test_an_empty_spec_is_kept_too(room: Any) -> None:
    spec, compiled = room.cached(HEAD)
    assert compiled
    assert room.cached(HEAD) == (spec, False)


@pytest.mark.parametrize(
    "change",
    [
        lambda room: room.write(FULL.replace("0750", "0755")),
        lambda room: room.write(FULL + "\n"),
        lambda room: room.write("grants: {g: {path: /g, mode: '0701'}}\n", "more.yaml"),
    ],
    ids=["a byte", "a line break", "the include"],
)
def test_a_changed_file_is_compiled(change: Any, full: Any) -> None:
    change(full)
    assert full.cached(environ=ENV)[1]
    assert not full.cached(environ=ENV)[1]


@pytest.mark.parametrize(
    "environ",
    [
        {"HOME_DIR": "/srv/y"},
        {"HOME_DIR": ""},
        {},
        {**ENV, "GONE": "x"},
        {**ENV, "GONE": ""},
    ],
    ids=["other", "empty", "unset", "set to its default", "set to nothing"],
)
def test_a_changed_environment_is_compiled(environ: dict[str, str], full: Any) -> None:
    try:
        assert full.cached(environ=environ)[1]
    except SpecError as error:  # An empty home is an error, which only compiling finds.
        assert "is empty" in str(error)


@pytest.mark.parametrize("name", Facts.__dataclass_fields__)
def test_a_changed_fact_is_compiled(name: str, full: Any) -> None:
    old = getattr(FACTS, name)
    more = {int: 1, str: "x", tuple: ("x",)}
    new = not old if isinstance(old, bool) else old + more[type(old)]
    assert full.cached(environ=ENV, facts=replace(FACTS, **{name: new}))[1]


def test_a_compiled_spec_is_of_its_settings(full: Any) -> None:
    assert full.cached(environ=ENV, settings={"home": "/one"})[1]
    second, compiled = full.cached(environ=ENV, settings={"home": "/two-c4nary"})
    assert compiled
    assert full.cached(environ=ENV, settings={"home": "/two-c4nary"}) == (second, False)
    assert full.cached(environ=ENV, settings={"home": "/one", "gone": "x"})[1]
    # What was set before is not kept.
    assert len(bins(full)) == 1
    assert not [f for f in files_below(full.state) if b"c4nary" in f]


def test_what_may_be_kept_no_more_is_removed(room: Any) -> None:
    room.write(HEAD + "vars: {t: c4nary}\nworkers: {w: {command: 'x {{ t }}'}}\n", "other.yaml")
    assert room.cached(path=str(room.base / "other.yaml"))[1]
    room.cached(HEAD + "workers: {w: {command: x-c4nary}}\n")
    assert len(bins(room)) == 2
    room.cached(HEAD + "workers: {w: {command: '{{ env.TOKEN }}'}}\n", environ={"TOKEN": CANARY})
    assert len(bins(room)) == 1


def test_another_spec_with_the_same_content(full: Any) -> None:
    other = full.write(FULL, "other.yaml")
    spec, compiled = full.cached(environ=ENV, path=str(other))
    assert compiled
    assert spec.path == str(other)


@pytest.mark.parametrize("what", ["_fingerprint", "__version__", "_MAGIC"])
def test_a_changed_program_is_compiled(
    what: str, full: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {"_fingerprint": lambda: (), "__version__": "9", "_MAGIC": b"reconcile spec 0\n"}
    monkeypatch.setattr(reconciler.config.cache, what, other[what])
    assert full.cached(environ=ENV)[1]


def test_the_fingerprint_sees_every_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sources = ["base/d.py", "config/a.py", "core/c.py", "kinds/b.py", "kinds/e/f.py"]
    for name in (*sources, "kinds/no.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("x")
    monkeypatch.setattr(reconciler.config.cache, "_ROOT", str(tmp_path))
    before = reconciler.config.cache._fingerprint()
    assert [name for name, _, _ in before] == sources
    os.utime(tmp_path / "kinds/b.py", ns=(1, 1))
    assert reconciler.config.cache._fingerprint() != before


def test_every_flipped_or_missing_byte_is_seen(full: Any) -> None:
    (file,) = bins(full)
    content = file.read_bytes()
    inputs = reconciler.config.cache.Inputs(str(full.base / "spec.yaml"), FACTS, {}, ENV)
    assert reconciler.config.cache.compiled(str(file), inputs, False) == full.spec
    for at in [*range(60), *range(60, len(content), 97), len(content) - 1]:
        damaged = bytearray(content)
        damaged[at] ^= 1
        for attempt in (bytes(damaged), content[:at]):
            file.write_bytes(attempt)
            assert reconciler.config.cache.compiled(str(file), inputs, False) is None
    file.write_bytes(b"")
    assert full.cached(environ=ENV) == (full.spec, True)
    assert full.cached(environ=ENV) == (full.spec, False)


def test_a_compiled_file_of_another_kind_is_ignored(full: Any) -> None:
    (file,) = bins(full)
    content = file.read_bytes()
    file.unlink()
    os.mkfifo(file)
    assert full.cached(environ=ENV)[1]
    assert not full.cached(environ=ENV)[1]  # It was replaced by a file.
    file.unlink()
    (full.base / "elsewhere").write_bytes(content)
    os.chmod(full.base / "elsewhere", 0o600)
    file.symlink_to(full.base / "elsewhere")
    assert full.cached(environ=ENV)[1]
    assert (full.base / "elsewhere").read_bytes() == content
    assert not file.is_symlink()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o700 | 0o001])
def test_a_compiled_file_open_to_others_is_ignored(mode: int, full: Any) -> None:
    (file,) = bins(full)
    os.chmod(file, mode)
    assert full.cached(environ=ENV)[1]
    assert bins(full)[0].stat().st_mode & 0o777 == 0o600


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root: run as root")
def test_a_compiled_file_of_somebody_else_is_ignored(full: Any) -> None:
    (file,) = bins(full)
    os.chown(file, 65534, 65534)
    assert full.cached(environ=ENV)[1]
    assert bins(full)[0].stat().st_uid == 0


def test_it_is_private_and_whole(full: Any) -> None:
    folder = full.state / ".compiled"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [f.stat().st_mode & 0o777 for f in bins(full)] == [0o600]


def test_nothing_is_written_unless_asked(room: Any) -> None:
    room.write(HEAD)
    room.cached(write_cache=False)
    assert not room.state.exists()


def test_what_cannot_be_written_is_no_error(room: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    room.write(HEAD)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full_disk)
        assert room.cached()[1]
    assert bins(room) == []
    room.state.joinpath(".compiled").rmdir()
    room.state.joinpath(".compiled").write_text("a file")
    assert room.cached()[1]
    assert room.state.joinpath(".compiled").read_text() == "a file"


def test_old_ones_go(room: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler.config.cache, "_KEPT", 3)
    for number in range(6):
        path = room.write(HEAD + "vars: {a: 1}\n", f"{number}.yaml")
        room.cached(path=str(path))
    assert len(bins(room)) == 3
    assert not room.cached(path=str(path))[1]


CANARY = "s3cret-c4nary"


def files_below(path: Path) -> list[bytes]:
    return [file.read_bytes() for file in path.rglob("*") if file.is_file()]


def test_secrets_are_left_out(room: Any) -> None:
    text = (
        HEAD + "vars: {t: '{{ env.TOKEN }}', unused: '{{ env.TOKEN }}{{ t }}'}\n"
        "workers:\n  w: {command: x, env: {TOKEN: '{{ t }}', A: plain-c4nary}}\n"
    )
    environ = {"TOKEN": CANARY}
    spec, _ = room.cached(text, environ=environ)
    assert spec.complete
    assert spec.resources[0].want.env[1][1].reveal() == CANARY
    kept, compiled = room.cached(environ=environ)
    assert not compiled
    assert not kept.complete
    assert files_below(room.state)
    assert not [f for f in files_below(room.state) if b"c4nary" in f]
    names = [(name, secret.digest) for name, secret in kept.resources[0].want.env]
    assert names == [(name, secret.digest) for name, secret in spec.resources[0].want.env]
    with pytest.raises(HostError):
        kept.resources[0].want.env[0][1].reveal()
    again, compiled = room.cached(environ=environ, complete=True)
    assert compiled
    assert again == spec
    assert room.cached(environ={"TOKEN": "other"})[1]


@pytest.mark.parametrize(
    "field",
    [
        "command: 'x {{ env.TOKEN }}'",
        "command: [x, '{{ env.TOKEN }}']",
        "command: x, note: '{{ env.TOKEN }}'",
        "command: x, title: '{{ t }}'",
        "command: x, match: {cmdline: '{{ t }}'}",
        "command: x, parts: [{label: a, command: [b, '{{ t }}']}]",
    ],
)
def test_a_secret_where_it_would_be_kept_is_not_kept(field: str, room: Any) -> None:
    text = HEAD + f"vars: {{t: '{{{{ env.TOKEN }}}}'}}\nworkers: {{w: {{{field}}}}}\n"
    assert room.cached(text, environ={"TOKEN": CANARY})[1]
    assert not room.state.exists()
    assert room.cached(environ={"TOKEN": "/abc/def"})[1]  # What is named so is never a place.
    assert not room.state.exists()
    text = text.replace("TOKEN", "TOKEN_DIR")
    assert room.cached(text, environ={"TOKEN_DIR": "/srv/a.place"})[1]
    assert not room.cached(environ={"TOKEN_DIR": "/srv/a.place"})[1]


def test_a_setting_is_not_readable_in_the_key(room: Any) -> None:
    room.cached(HEAD + "vars: {t: 1}\n", settings={"t": CANARY})
    assert not [f for f in files_below(room.state) if b"c4nary" in f]


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import importlib.util
from reconciler.base.values import Facts
from reconciler.config import load
from reconciler import kinds
spec = load({path!r}, all_kinds=kinds.all_kinds,
    facts=Facts("u", "/u", 0, "h", True, True, True, "/s"), settings=dict, environ={{}},
    state_dir={state!r}, write_cache=True)
heavy = ["pydantic", "pydantic_core", "ruamel", "ruamel.yaml", "jinja2", "difflib",
    "reconciler.config.build", "reconciler.config.yaml", "reconciler.config.resolve",
    "reconciler.config.validate", "reconciler.config.nodes", "reconciler.config.sandbox"]
print(len(spec.resources), *[name for name in heavy if name in sys.modules])
"""


def test_a_hit_imports_nothing_heavy(free: None, room: Any) -> None:
    path = room.write(HEAD + "directories: {a: {path: '{{ spec.dir }}/a', mode: '0755'}}\n")
    script = SCRIPT.format(path=str(path), state=str(room.state), tests=str(Path(__file__).parent))
    found = [
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=LONG
        ).stdout.split()
        for _ in range(2)
    ]
    assert "pydantic_core" in found[0]
    assert found[1] == ["1"]


@pytest.mark.parametrize("name", ["executor", "watchdog"])
def test_cron_and_systemd_compile_the_same(name: str, tmp_path: Path) -> None:
    """Their PATH differs: it is read only for the session in which the watchdog runs otherwise."""
    path = str(CHECKOUT / "specs/executor.yaml")
    if name == "watchdog":
        path = str(tmp_path / "own.yaml")
        (tmp_path / "own.yaml").write_text("version: 1\nname: own\ninclude: [watchdog]\n")
    for systemd, read in ((True, False), (False, True)):
        here = facts(tmp_path, user_uid=0, systemd=systemd)
        environ = {"PATH": "/bin", "HOME": str(tmp_path)}
        made = build(path, kinds.all_kinds(), here, {}, environ, False)
        assert ("PATH" in made.environ) == read
