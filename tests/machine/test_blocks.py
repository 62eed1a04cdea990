"""Blocks in files that people own too."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import LONG, Machine, compiled

from reconciler import kinds
from reconciler.base.records import replace
from reconciler.kinds.block import edited

SPEC = 'blocks: {{x: {{path: {path}, content: "alias a=b\\nalias c=d"{more}}}}}'
MINE = b"# mine \xff\nexport A=b\r\n"


def spec(machine: Machine, path: Path, more: str = "") -> Path:
    return machine.spec(SPEC.format(path=path, more=more))


@pytest.mark.parametrize(
    "text", [b"", MINE, b"no end", b"dos\r\nno end", b"dos\r\nunix\n", b"\0\xff\n"]
)
def test_up_and_down_leaves_the_file_as_it_was(machine: Machine, text: bytes) -> None:
    file = machine.base / "rc"
    file.write_bytes(text)
    file.chmod(0o640)
    machine.once(spec(machine, file))
    machine.converged(spec(machine, file))
    now = file.read_bytes()
    assert now.startswith(text)
    end = b"\r\n" if text.split(b"\n")[0].endswith(b"\r") else b"\n"
    assert end + b"alias a=b" + end + b"alias c=d" + end in now
    assert file.stat().st_mode & 0o777 == 0o640
    machine.once(spec(machine, file, ", state: absent"))
    assert file.read_bytes() == text
    machine.converged(spec(machine, file, ", state: absent"))


@pytest.mark.parametrize("copies", [1, 2000])
def test_a_file_full_of_markers_is_left_alone(machine: Machine, copies: int) -> None:
    """Each costs a pass its time, and whoever owns the file may put a million there."""
    file = machine.base / "rc"
    machine.once(spec(machine, file))
    file.write_bytes(before := file.read_bytes() + file.read_bytes() * copies)
    done = machine.reconcile("--once", spec(machine, file))
    if copies == 1:
        assert file.read_bytes().count(b"BEGIN") == 1
        return
    assert done.returncode == 1
    assert "rc is full of copies of it; take them out by hand" in done.stdout
    assert file.read_bytes() == before


def test_a_file_that_was_not_there_goes_away_again(machine: Machine) -> None:
    file = machine.base / "new/rc"
    machine.once(spec(machine, file))
    assert file.stat().st_mode & 0o777 == 0o644
    machine.once(spec(machine, file, ", state: absent"))
    assert not file.exists()
    machine.once(spec(machine, file))
    file.write_bytes(file.read_bytes() + b"mine\n")
    machine.once(spec(machine, file, ", state: absent"))
    assert file.read_bytes() == b"mine\n"


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b"alias a=b", b"alias a=x", "line 1 of its content is 'alias a=x', should be 'alias a=b'"),
        (b"alias c=d\n", b"", "line 2 of its content is missing, should be 'alias c=d'"),
        (b"# END reconcile demo block:x\n", b"", "its markers are not in order: one is missing"),
        (b" -- changes up", b" -- do as you like up", "its markers are not in order: were edited"),
    ],
)
def test_drift_is_seen_and_mended(machine: Machine, old: bytes, new: bytes, why: str) -> None:
    file = machine.base / "rc"
    file.write_bytes(MINE)
    machine.once(spec(machine, file))
    whole = file.read_bytes()
    assert old in whole
    file.write_bytes(whole.replace(old, new) + b"below\n")
    (step,) = machine.plan(spec(machine, file))["steps"]
    assert why in step["why"]
    machine.once(spec(machine, file))
    machine.converged(spec(machine, file))
    # A person may write below it, and move it: it stays where it is.
    assert file.read_bytes() == whole + b"below\n"


def test_a_begin_that_is_gone_takes_no_line_of_a_person_with_it(machine: Machine) -> None:
    file = machine.base / "rc"
    file.write_bytes(MINE)
    machine.once(spec(machine, file))
    whole = file.read_bytes()
    head = whole[whole.index(b"# BEGIN") : whole.index(b"alias a")]
    file.write_bytes(whole.replace(head, b"between\n"))
    machine.once(spec(machine, file))
    machine.converged(spec(machine, file))
    assert file.read_bytes() == MINE + b"between\n" + whole.removeprefix(MINE)


def test_two_blocks_and_another_comment_sign(machine: Machine) -> None:
    file = machine.base / "vimrc"
    text = (
        f"blocks:\n  a: {{path: {file}, content: first, comment: '\"'}}\n"
        f"  b b: {{path: {file}, content: second, comment: '\"'}}\n"
    )
    machine.once(machine.spec(text))
    machine.converged(machine.spec(text))
    lines = file.read_text().splitlines()
    assert lines[0].startswith('" BEGIN reconcile demo block:a -- ')
    assert lines[3].startswith('" BEGIN reconcile demo block:b%20b -- ')
    machine.once(machine.spec(text.replace("a: {", "a: {state: absent, ")))
    assert "first" not in file.read_text()
    assert "second" in file.read_text()


def test_a_symlink_of_ours_is_followed_and_stays(machine: Machine) -> None:
    real = machine.base / "dotfiles"
    real.mkdir()
    (real / "rc").write_bytes(MINE)
    file = machine.base / "rc"
    file.symlink_to("dotfiles/rc")
    machine.once(spec(machine, file))
    machine.converged(spec(machine, file))
    assert file.is_symlink()
    assert (real / "rc").read_bytes().startswith(MINE + b"# BEGIN")


def test_a_hard_link_elsewhere_keeps_what_it_had(machine: Machine) -> None:
    file = machine.base / "rc"
    file.write_bytes(MINE)
    os.link(file, machine.base / "other")
    machine.once(spec(machine, file))
    assert (machine.base / "other").read_bytes() == MINE
    assert file.read_bytes() != MINE


@pytest.mark.parametrize("sort", ["fifo", "directory", "big", "link", "dangling"])
def test_what_is_no_plain_file_is_unknown_and_left(machine: Machine, sort: str) -> None:
    folder = machine.base / "shared"
    folder.mkdir()
    file = folder / "rc"
    if sort == "fifo":
        os.mkfifo(file)
    elif sort == "directory":
        file.mkdir()
    elif sort == "big":
        file.touch()
        os.truncate(file, 16 * 2**20 + 1)
    else:
        if sort == "link":
            (machine.base / "goal").write_bytes(MINE)
            folder.chmod(0o777)
        file.symlink_to(machine.base / "goal")
    report = machine.once(spec(machine, file), status=1)
    assert [one["id"] for one in report["unknown"]] == ["block:x"]
    assert report["steps"] == []
    if sort == "link":
        assert (machine.base / "goal").read_bytes() == MINE


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (', comment: " #"', "begins or ends with a blank"),
        (', comment: ""', "empty"),
        (', comment: "<!--"', 'must be closed; write ["<!--", "-->"]'),
        (', comment: ["<!--"]', "needs what begins a comment and what ends it"),
        (", after: x, before: y", "either after or before"),
        (', before: "["', "not a regular expression"),
        (', comment: "a\\nb"', "control character"),
        (', content: "x\\n# END reconcile y"', "as our markers do"),
        (', content: "x\\r\\n"', "carriage return"),
    ],
)
def test_what_could_not_be_told_apart_is_refused(
    refused: Callable[[str], str], more: str, says: str
) -> None:
    text = SPEC.format(path="/x", more=more)
    if "content" in more:
        text = f"blocks: {{x: {{path: /x{more}}}}}"
    assert says in refused(text)


def test_killed_at_every_change_the_file_is_old_or_new(machine: Machine) -> None:
    file = machine.base / "rc"
    aside = machine.base / ".rc.reconcile.d"
    file.write_bytes(MINE)
    path = spec(machine, file)
    machine.once(path)
    new = file.read_bytes()
    # What is written has no name yet.
    named = ["-P", file, "-P", aside, "-P", machine.base]
    killed = 0
    for call in ("mkdirat", "linkat", "renameat2", "fsync", "fchmod", "unlinkat", "write"):
        for when in (1, 2, 3):
            file.write_bytes(MINE)
            done = machine.run(
                "strace", "-qq", "-o", machine.base / "trace", "-e", f"trace={call}",
                *(() if call in ("fchmod", "write") else named),
                "-e", f"inject={call}:signal=KILL:when={when}", *machine.argv("--once", path),
            )  # fmt: skip
            assert file.read_bytes() in (MINE, new)
            if done.returncode in (0, 1):
                break
            assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
            machine.once(path)
            assert file.read_bytes() == new
            assert not aside.exists() and not (machine.state / "demo/replaced").exists()
            killed += 1
    assert killed > 7


# What people have: Tomcat's web.xml, a stylesheet, sshd_config with its Match blocks, and fstab.
XML = b'<?xml version="1.0"?>\n<web-app>\n  <a/>\n</web-app>\n'
SSHD = b"Port 22\nMatch User a\n  X11Forwarding no\nMatch User b\n  X11Forwarding no\n"


@pytest.mark.parametrize(
    ("text", "more", "made"),
    [
        (
            XML,
            """, comment: ["<!--", "-->"], before: "^</web-app>" """,
            b'<?xml version="1.0"?>\n<web-app>\n  <a/>\n{ours}</web-app>\n',
        ),
        (XML, """, comment: ["<!--", "-->"], after: "^<web" """, XML[:32] + b"{ours}" + XML[32:]),
        (b"a {}\n", """, comment: ["/*", "*/"] """, b"a {}\n{ours}"),
        (SSHD, ", before: ^Match", b"Port 22\n{ours}" + SSHD[8:]),
        (SSHD, ", after: '^Match'", SSHD[:-19] + b"{ours}" + SSHD[-19:]),
        (SSHD, ", after: '^Nothing'", SSHD + b"{ours}"),
        (b"a\r\nb\r\n", ", after: a$", b"a\r\n{ours}b\r\n"),
        (b"a\nb", ", after: b", b"a\nb\n{ours}"),
        (b"", ", before: b", b"{ours}"),
    ],
)
def test_the_place_and_the_comments_of_a_new_block(
    text: bytes, more: str, made: bytes, tmp_path: Path
) -> None:
    (one,) = compiled(tmp_path, SPEC.format(path="/x", more=more)).resources
    kind = kinds.get("block")
    write: Any = kind.actions(one, None, ())
    now = edited(text, write, "demo")
    assert now is not None and edited(now, write, "demo") == now
    before, _, after = made.partition(b"{ours}")
    assert now.startswith(before) and now.endswith(after)
    ours = now[len(before) : len(now) - len(after)].splitlines()
    assert ours[1:-1] == [b"alias a=b", b"alias c=d"]
    sign, close = one.want.comment[0].encode(), one.want.comment[1:]
    end = close[0].encode() if close else b""
    for marker in (ours[0], ours[-1]):
        assert marker.startswith(sign + b" ") and marker.endswith(end)
        assert not close or b"--" not in marker.removeprefix(sign).removesuffix(end)
    drop: Any = kind.actions(replace(one, present=False), None, ())
    assert edited(now, drop, "demo") == text


def test_a_block_in_closed_comments_is_made_and_goes(machine: Machine) -> None:
    file = machine.base / "file"
    file.write_bytes(XML)
    more = """, comment: ["<!--", "-->"], before: "^</web-app>" """
    machine.once(spec(machine, file, more))
    machine.converged(spec(machine, file, more))
    assert file.read_bytes().endswith(b" -->\n</web-app>\n")
    machine.once(spec(machine, file, more + ", state: absent"))
    assert file.read_bytes() == XML


def test_drift_in_a_closed_comment_is_mended(machine: Machine) -> None:
    file = machine.base / "file"
    file.write_bytes(XML)
    one = spec(machine, file, """, comment: ["<!--", "-->"], after: "<web" """)
    machine.once(one)
    whole = file.read_bytes()
    for old, new in (
        (b"changes up", b"a person's"),
        (b"alias a=b", b""),
        (b" -->\nalias", b"\nalias"),
    ):
        file.write_bytes(whole.replace(old, new))
        machine.once(one)
        assert file.read_bytes() == whole


def test_no_block_goes_into_another(machine: Machine) -> None:
    """The line that is looked for stands in a block of ours as well."""
    file = machine.base / "file"
    file.write_bytes(b"alias first\nlast\n")
    one = f"{{path: {file}, content: alias x, after: ^alias}}"
    machine.once(machine.spec(f"blocks: {{a: {one}}}"))
    machine.once(machine.spec(f"blocks: {{a: {one}, b: {one}, c: {one}}}"))
    lines = [line for line in file.read_text().splitlines() if not line.startswith("# END")]
    heads = [line.split(" -- ")[0] for line in lines]
    assert heads == [
        "alias first", "# BEGIN reconcile demo block:b", "alias x",
        "# BEGIN reconcile demo block:c", "alias x",
        "# BEGIN reconcile demo block:a", "alias x", "last",
    ]  # fmt: skip


def test_a_search_for_the_place_has_an_end(machine: Machine) -> None:
    """Whoever writes the file decides what the pattern meets; the others go on."""
    hostile, other = machine.base / "hostile", machine.base / "other"
    hostile.write_text("a" * 64 + "\n")
    text = (
        f"blocks: {{x: {{path: {hostile}, content: alias x, after: '^(a+)+$Z'}}, "
        f"y: {{path: {other}, content: alias y}}}}"
    )
    started = time.monotonic()
    report = machine.once(machine.spec(text), status=1)
    assert time.monotonic() - started < LONG / 2
    steps = {one["id"]: one for one in report["steps"]}
    assert "looking for '^(a+)+$Z', where the block goes, took longer" in steps["block:x"]["error"]
    assert hostile.read_text() == "a" * 64 + "\n"
    assert steps["block:y"]["result"] == "done" and "alias y" in other.read_text()


@pytest.mark.parametrize("going", [["a", "b"], ["b", "a"], ["a, b"]])
def test_a_missing_last_line_end_comes_back_with_whichever_block_goes_last(
    machine: Machine, going: list[str]
) -> None:
    file = machine.base / "file"
    file.write_bytes(b"no end")

    def blocks(gone: list[str]) -> Path:
        some = ", ".join(
            f"{name}: {{path: {file}, content: {name}{', state: absent' if name in gone else ''}}}"
            for name in "ab"
        )
        return machine.spec(f"blocks: {{{some}}}")

    machine.once(blocks([]))
    gone: list[str] = []
    for names in going:
        gone += names.split(", ")
        machine.once(blocks(gone))
        machine.converged(blocks(gone))
    assert file.read_bytes() == b"no end"
