"""What cannot be imported gives one line with its place, and no spec; and nothing takes long."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from importing import CASES, spec_of

from reconciler.cli.main import main
from reconciler.migrate import original
from reconciler.migrate.formats import FORMATS
from reconciler.migrate.original import NotImported

BAD: dict[str, tuple[str, bytes, str]] = {
    "binary": ("crontab", b"* * * * * x\n\0\1\2", "crontab:2: is binary: a NUL byte"),
    "latin": ("crontab", b"# \xfcber\n* * * * * x\n", "crontab:1: the byte 0xfc is not UTF-8"),
    "wide": ("Procfile", "web: x\n".encode("utf-16"), "Procfile:1: is UTF-16"),
    "half a job": ("crontab", b"* * * * * x\n0 5 * *", "crontab:2: neither NAME=VALUE nor"),
    "no user": ("etc/crontab", b"* * * * * root\n", "crontab:1: there is no command behind"),
    "no head": ("supervisord.conf", b"[program:x\ncommand=a\n", "supervisord.conf:1: a setting"),
    "no value": ("supervisord.conf", b"[program:x]\ncommand\n", "supervisord.conf:2: neither"),
    "blanks": ("supervisord.conf", b"[x]\na" + b" " * 60000 + b"b\n", "conf:2: 200 blanks"),
    "itself": ("supervisord.conf", b"[include]\nfiles=*.conf\n", "conf:2: the file includes it"),
    "gone": ("logrotate.conf", b"include a.d\n", ""),
    "in itself": ("logrotate.conf", b"include logrotate.conf\n", "conf:1: files include one"),
    "no end": ("logrotate.conf", b"/x/a.log {\n daily\n", "logrotate.conf:1: a stanza has no end"),
    "no script": ("logrotate.conf", b"/x/a {\npostrotate\nx\n}\n", "conf:2: a script has no end"),
    "no word": ("logrotate.conf", b"weekly\n%x y\n", "logrotate.conf:2: '%x' is no setting"),
    "monit": ("monitrc", b"set daemon 3\ninclude monitrc\n", "monitrc:2: files include one"),
    "a quote": ("monitrc", b'set daemon 3\ncheck process x with path "/y\n', "monitrc:2: a quote"),
    "no name": ("monitrc", b"check process\n", "monitrc:1: check needs a sort and a name"),
    "a type": ("tmpfiles.d/a.conf", b"d /x\n9 /y\n", "a.conf:2: is not TYPE PATH"),
    "no quote": ("tmpfiles.d/a.conf", b'd /x\nd "/y\n', "a.conf:2: a quote has no end"),
    "no JSON": ("ecosystem.json", b'{"apps": [\n{"script": "a"', "ecosystem.json:"),
    "no script ": ("ecosystem.json", b'{"apps": [\n{"name": "a"}]}', "json:2: the app has no"),
    "no windows": ("a.tmuxp.yaml", b"session_name: x\nwindows: 3\n", "yaml:1: a workspace needs"),
    "tabs": ("x.yaml", b"session_name: x\nwindows:\n\t- a\n", "x.yaml:3: "),
    "bomb": ("x.yaml", b"session_name: x\nwindows: &a\n" + b"".join(
        b"  - &%c [%s]\n" % (98 + at, b",".join([b"*%c" % (97 + at)] * 9)) for at in range(9)
    ), "x.yaml:"),
    "deep": ("x.yaml", b"session_name: x\nwindows: " + b"[" * 9000, "x.yaml:2: nested more than"),
    "ruby": ("x.yml", b"name: x\nwindows:\n  - a: <%= b %>\n", "x.yml:3: ERB is not evaluated"),
    "a line": ("Procfile", b"web: x\nworker\n", "Procfile:2: is not NAME: COMMAND"),
    "a program": ("ecosystem.config.js", b"module.exports = {}\n", "js:1: is a program"),
    "nothing": ("notes.txt", b"Dear all,\n", "notes.txt:1: is none of supervisord.conf, pm2"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_one_line_with_the_place(name: str, tmp_path: Path, capsys: Any, free: None) -> None:
    file, data, words = BAD[name]
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    status = main(["--import", str(path)])
    printed = capsys.readouterr()
    if not words:
        assert status == 0
        return
    assert (status, printed.out) == (65, "")
    assert len(printed.err.splitlines()) == 1, printed.err
    assert words in printed.err
    assert re.match(r"reconcile: \S+:\d+: ", printed.err), printed.err


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_in_a_foreign_encoding(
    format: str, tmp_path: Path, capsys: Any, free: None
) -> None:
    case = next(path for path in CASES if path.parent.name == format)
    file = tmp_path / format / case.name
    file.parent.mkdir()
    data = case.read_bytes()
    at = data.index(b"\n", len(data) // 2)
    line = data.count(b"\n", 0, at) + 1
    for wrong, place, words in (
        (data[:at] + b"\0" + data[at:], line, "is binary: a NUL byte"),
        (data[:at] + b"\xe9" + data[at:], line, "the byte 0xe9 is not UTF-8"),
        (data[:at] + "é".encode()[:1], line, "the byte 0xc3 is not UTF-8"),
        (data.decode().encode("utf-16"), 1, "is UTF-16"),
    ):
        file.write_bytes(wrong)
        assert main(["--import", str(file)]) == 65
        printed = capsys.readouterr()
        assert printed.out == "" and len(printed.err.splitlines()) == 1, printed
        assert f"{file}:{place}: {words}" in printed.err


def test_what_is_no_file(tmp_path: Path, capsys: Any, free: None) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, words in ((tmp_path / "pipe", "is not a regular file"), (tmp_path, "cannot be read"),
                        (tmp_path / "no", "no such file"), (Path("/dev/zero"), "is not a regular")
                        ):  # fmt: skip
        assert main(["--import", str(path)]) == 65
        printed = capsys.readouterr()
        assert printed.out == "" and words in printed.err, printed.err


def test_no_password_is_said(tmp_path: Path, capsys: Any, free: None) -> None:
    """Neither on standard error nor anywhere but where it stood: in the spec itself."""
    (tmp_path / "monitrc").write_text(
        'set mailserver x username "me" password "hunter2"\nset mmonit http://me:hunter2@h/\n'
    )
    (tmp_path / "supervisord.conf").write_text(
        "[supervisord]\nenvironment2=DB_PASSWORD=hunter2\n[program:x]\ncommand=x -p hunter2\n"
        "redirect=--password hunter2\nserver_token=hunter2\n"
    )
    files = [str(tmp_path / name) for name in ("monitrc", "supervisord.conf")]
    assert main(["--import", *files]) == 0
    printed = capsys.readouterr()
    assert "hunter2" not in printed.err and "mailserver" in printed.err, printed.err
    assert "hunter2" in printed.out


def test_that_it_holds_a_secret_is_said(tmp_path: Path, capsys: Any, free: None) -> None:
    """Its values are copied, and the shell makes the file of them for all to read."""
    words = "it holds what looks like a secret: let nobody else read it (chmod 600)"
    for name, holds in (("API_TOKEN", True), ("LANG", False)):
        path = tmp_path / "crontab"
        path.write_text(f"{name}=canary-canary\n@daily /bin/true\n")
        assert main(["--import", str(path)]) == 0
        said = capsys.readouterr()
        assert "canary-canary" in said.out
        assert (words in said.err) is holds, said.err


@pytest.mark.parametrize("words", ["include {}\ninclude {}", "include {}"])
def test_includes_come_to_an_end(words: str, tmp_path: Path, capsys: Any, free: None) -> None:
    for head, ending in (("", ".logrotate.conf"), ("set daemon 9\n", "monitrc")):
        for at in range(40):
            name = str(tmp_path / f"{at + 1}{ending}")
            (tmp_path / f"{at}{ending}").write_text(f"{head}{words}\n".replace("{}", name))
        (tmp_path / f"40{ending}").write_text(head)
        assert main(["--import", str(tmp_path / f"0{ending}")]) == 65
        printed = capsys.readouterr()
        assert "nested too deep" in printed.err and not printed.out, printed.err
        for at in range(12):  # Which would be 4,096 files.
            name = str(tmp_path / f"{at + 1}{ending}")
            (tmp_path / f"{at}{ending}").write_text(f"{head}{words}\n".replace("{}", name))
        (tmp_path / f"12{ending}").write_text(head or "weekly\n")
        status = main(["--import", str(tmp_path / f"0{ending}")])
        assert ("more than 1,000 files" in capsys.readouterr().err) == (status == 65)
        assert status == (65 if "\n" in words else 0)


@pytest.mark.parametrize(("name", "head"), [
    ("supervisord.conf", "[include]\nfiles = {}\n"), ("monitrc", "set daemon 9\ninclude {}\n"),
])  # fmt: skip
def test_a_pattern_does_not_lead_through_the_whole_host(
    name: str, head: str, tmp_path: Path, capsys: Any, free: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(original, "_MOST_LOOKED", 50)
    for at in range(60):
        (tmp_path / f"{at % 6}").mkdir(exist_ok=True)
        (tmp_path / f"{at % 6}" / f"{at}.x").touch()
    (tmp_path / name).write_text(head.format("*/*.none"))
    assert main(["--import", str(tmp_path / name)]) == 65
    printed = capsys.readouterr()
    assert printed.out == "" and len(printed.err.splitlines()) == 1
    assert f"{name}:2: " in printed.err and "more than 50 names; name the folder" in printed.err
    (tmp_path / name).write_text(head.format("0/*.none"))
    assert main(["--import", str(tmp_path / name)]) == 0


def test_a_spec_is_no_original(tmp_path: Path, capsys: Any, free: None) -> None:
    assert main(["my.yaml", "--import", str(tmp_path / "crontab")]) == 64
    assert "'my.yaml'" in capsys.readouterr().err


def test_of_several_files_one_is_bad(tmp_path: Path, capsys: Any, free: None) -> None:
    (tmp_path / "crontab").write_text("* * * * * x\n")
    (tmp_path / "Procfile").write_text("web\n")
    assert main(["--import", str(tmp_path / "crontab"), str(tmp_path / "Procfile")]) == 65
    assert capsys.readouterr().out == ""
    (tmp_path / "Procfile").write_text("web: x\n")
    assert main(["--import", str(tmp_path / "crontab"), str(tmp_path / "Procfile"), "-q"]) == 0
    printed = capsys.readouterr()
    assert "processes:" in printed.out and "cron:" in printed.out and not printed.err


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_is_cut_or_damaged_never_breaks_the_import(path: Path, tmp_path: Path) -> None:
    """Either a valid spec, which ``spec_of`` has checked, or one line with a place."""
    data, chance = path.read_bytes(), random.Random(path.name)
    for _ in range(2):
        cut = chance.randrange(len(data))
        damaged = bytearray(data)
        for _ in range(3):
            damaged[chance.randrange(len(data))] = chance.choice(b"{}[]\"'%\n:=# \\@/")
        for broken in (data[:cut], bytes(damaged)):
            file = tmp_path / path.parent.name / path.name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(broken)
            try:
                spec_of(file)
            except NotImported as refused:
                assert re.search(r":\d+: .", str(refused)), (str(refused), broken)


def test_five_thousand_lines_are_imported_in_a_second(tmp_path: Path, free: None) -> None:
    """In time of the processor, which other tests do not take away."""
    program = "[program:p{0}]\ncommand=/bin/p {0}\nuser=x\nautorestart=true\n\n"
    (tmp_path / "supervisord.conf").write_text("".join(map(program.format, range(1000))))
    before = os.times().children_user
    started = time.monotonic()
    command = [sys.executable, "-m", "reconciler", "--import", str(tmp_path / "supervisord.conf")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    taken = os.times().children_user - before
    assert done.returncode == 0 and done.stdout.count("command:") == 1000, done.stderr
    print(f"{taken:.2f} s of the processor, {time.monotonic() - started:.2f} s in all")
    assert taken < 3
