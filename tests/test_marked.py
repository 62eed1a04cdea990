"""Our blocks in other people's text: every byte that is not ours stays, whatever it is."""

from __future__ import annotations

import shlex
import subprocess
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support import LONG

from reconciler.core import text_difference
from reconciler.core.managed_block import BlockMark, MarkedText, joined, lines_of, split, word
from reconciler.core.text_difference import differing, first_difference
from reconciler.kinds import block
from reconciler.kinds.cron import lines as cronlines
from reconciler.kinds.cron.lines import rendered, shown
from reconciler.kinds.cron.table import CronEntry, CronTable, changed, table

CRONTABS = sorted(
    path for path in (Path(__file__).parent / "golden/crontabs").iterdir() if not path.suffix
)
MARK = BlockMark(b"#", b"demo")
BEGIN = b"# BEGIN reconcile demo -- changes up to its END are undone\n"
END = b"# END reconcile demo\n"
LINE = CronEntry(b"1 2 3 4 5 ours")
TEXTS = st.binary(max_size=80) | st.lists(
    st.sampled_from(
        [b"a", b"\n", b"\r\n", b"\r", b"#", b" ", b"\0", b"\xff", b"# END", b"=", b"%"]
    ),
    max_size=20,
).map(b"".join)


def wrapped(text: bytes, inner: bytes, end: bytes = b"\n") -> bytes:
    return joined(replace(split(text, MARK), inner=inner), MARK, end)


def put(old: CronTable, name: str, entry: CronEntry) -> bytes | None:
    return changed(old, {name: entry})


def drop(old: CronTable, name: str) -> bytes | None:
    return changed(old, {name: None})


def test_a_marker_with_very_many_carriage_returns_costs_no_more_than_its_length() -> None:
    """Whoever owns the file writes what he likes."""
    mark = BlockMark(b"#", b"demo block:b")
    for name in (b"other block:b", mark.name):
        text = b"# BEGIN reconcile " + name + b"\\r" * 4000 + b"\nx\n# END reconcile " + name
        tracemalloc.start()
        found = MarkedText(text).find(mark)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (found is not None) == (name == mark.name)
        assert found is None or found[0].inner == b"x\n"
        assert peak < 20 * len(text)


def test_a_text_is_full_of_markers_of_one_name_only() -> None:
    mark = BlockMark(b"#", b"demo block:b")
    for more in (b"", b" -- changes", b"\r", b"\\r", b"1"):
        text = b"# BEGIN reconcile demo block:b%s\n# END reconcile demo block:b%s\n" % (more, more)
        assert MarkedText(text * 1001).is_crowded(mark) == (more != b"1")
        assert not MarkedText(text * 500).is_crowded(mark)


def test_a_look_at_very_many_blocks_takes_time_as_there_are_many() -> None:
    def seconds(number: int) -> float:
        marks = [BlockMark(b"#", b"demo block:b%d" % one) for one in range(number)]
        lines = (one.start(side) + b"\n" for one in marks for side in (b"BEGIN", b"END"))
        text = MarkedText(b"".join(lines))
        begin = time.process_time()
        assert not any(text.is_crowded(one) or text.find(one) is None for one in marks)
        return time.process_time() - begin

    short = min(seconds(300) for _ in range(5))
    assert min(seconds(3000) for _ in range(3)) < 30 * short  # By squares it would be 100 times.


@given(st.lists(st.sampled_from([b"a", b"\r", b"\\r", b"\\", b"\n"]), max_size=12).map(b"".join))
def test_a_line_is_bare_without_any_carriage_return_at_its_end(line: bytes) -> None:
    bare = line.rstrip(b"\r\n")
    while bare.endswith(b"\\r"):
        bare = bare[:-2].rstrip(b"\r")
    assert cronlines.bare(line) == bare


def test_to_take_the_end_from_a_line_takes_time_as_the_line_is_long() -> None:
    def seconds(number: int) -> float:
        line = b"x" + b"\\r" * number
        begin = time.process_time()
        assert cronlines.bare(line) == b"x"
        return time.process_time() - begin

    short = min(seconds(8000) for _ in range(5))
    assert min(seconds(64_000) for _ in range(3)) < 24 * short  # By squares it would be 64 times.


FOREIGN = st.builds(
    b"# %s reconcile %s%s\n".__mod__,
    st.tuples(
        st.sampled_from([b"BEGIN", b"END"]),
        st.sampled_from([b"a", b"b", b"ab"]),
        st.sampled_from([b"", b" -- changes", b"\\r", b"\r", b" more"]),
    ),
)


@given(st.lists(FOREIGN | st.sampled_from([b"@daily x\n", b"# y\n", b"\n"]), max_size=12))
def test_lines_of_other_specs_are_those_up_to_their_end(lines: list[bytes]) -> None:
    left, at = set(), 0
    while at < len(lines):
        name = lines[at].split()[3].removesuffix(b"\\r") if b"BEGIN" in lines[at] else b""
        mark = BlockMark(b"#", name)
        found = [n for n in range(at + 1, len(lines)) if mark.stands_in(lines[n], b"END")]
        if mark.stands_in(lines[at], b"BEGIN") and found:
            at = found[0]
        else:
            left.add(cronlines.bare(lines[at]))
        at += 1
    assert table(b"".join(lines), "demo", "me").others() == left


def test_a_crontab_full_of_markers_is_read_once() -> None:
    def seconds(number: int) -> float:
        old = table(b"# BEGIN reconcile x -- y\n" * number, "demo", "me")
        begin = time.process_time()
        assert len(old.others()) == 1
        return time.process_time() - begin

    short = min(seconds(600) for _ in range(5))
    assert min(seconds(4800) for _ in range(3)) < 24 * short  # By squares it would be 64 times.


@given(TEXTS, TEXTS, st.sampled_from([b"\n", b"\r\n"]))
def test_what_was_put_in_can_be_taken_out(text: bytes, inner: bytes, end: bytes) -> None:
    inner = inner.replace(b"\n", b"") + end
    once = wrapped(text, inner, end)
    parts = split(once, MARK)
    assert parts.others == text
    assert parts.inner == inner
    assert not parts.damaged
    # Other bytes are where they were; twice is once.
    assert once.startswith(text)
    assert joined(parts, MARK, end) == once


@given(TEXTS, TEXTS)
def test_what_a_person_adds_around_it_stays(before: bytes, after: bytes) -> None:
    assume(b"reconcile" not in before + after)
    block_only = wrapped(b"", b"x\n")
    above = before if before.endswith(b"\n") or not before else before + b"\n"
    parts = split(above + block_only + after, MARK)
    assert parts.others == above + after
    assert joined(parts, MARK) == above + block_only + after


@pytest.mark.parametrize("path", CRONTABS, ids=lambda path: path.name)
@pytest.mark.parametrize("number", [1, 3])
def test_every_form_of_crontab_comes_back_as_it_was(path: Path, number: int) -> None:
    text = path.read_bytes()
    now: bytes | None = text
    for at in range(number):
        now = put(table(now, "demo", "me"), f"cron:{at}", CronEntry(b"* * * * * x", b"MAILTO=a@b"))
        assert now is not None
        assert now.startswith(text)
        assert table(now, "demo", "me").trouble is None
        assert (
            put(table(now, "demo", "me"), "cron:0", CronEntry(b"* * * * * x", b"MAILTO=a@b")) == now
        )
    for at in range(number):
        now = drop(table(now, "demo", "me"), f"cron:{at}")
    # crontab(1) takes no last line without an end.
    assert now == (text + b"\n" if text and not text.endswith(b"\n") else text)


def test_none_before_is_none_again() -> None:
    made = put(table(None, "demo", "me"), "cron:a", LINE)
    assert made is not None
    assert drop(table(made, "demo", "me"), "cron:a") is None
    # What a person has put there in the meantime stays.
    assert drop(table(b"# mine\n" + made, "demo", "me"), "cron:a") == b"# mine\n"


def test_a_line_end_is_taken_back_only_where_it_is_still_ours() -> None:
    once = wrapped(b"a", b"x\n")
    assert b"newline added after" in once
    assert split(once.replace(b"a\n", b"a\nb\n", 1), MARK).others == b"a\nb\n"
    assert split(once + b"below", MARK).others == b"a\nbelow"


@pytest.mark.parametrize(
    "line",
    [
        b" # BEGIN reconcile demo", b"#BEGIN reconcile demo", b"# BEGIN reconcile demo2",
        b"# BEGIN reconcile demo block:x -- y", b'echo "# BEGIN reconcile demo"',
        b"# BEGIN reconcile", b"# begin reconcile demo", b"# BEGIN reconcile demo- -- x",
    ],
)  # fmt: skip
def test_what_only_looks_like_a_marker_is_text(line: bytes) -> None:
    text = line + b"\nmine\n# END reconcile demo2\n"
    assert split(text, MARK).others == text
    assert split(wrapped(text, b"x\n"), MARK).others == text


def test_no_name_begins_another() -> None:
    names = ["a", "a b", "a -- b", "a%20b", "ü", "a\u2028", "cron:x[1]"]
    words = [word(name) for name in names]
    assert len(set(words)) == len(names)
    assert all(b" " not in one for one in words)


DAMAGED = {
    "end deleted": (b"mine\n" + BEGIN + b"x\n" + b"below\n", b"mine\nx\nbelow\n"),
    "begin deleted": (b"mine\nx\n" + END + b"below\n", b"mine\nx\nbelow\n"),
    "doubled": (BEGIN + b"x\n" + END + b"mine\n" + BEGIN + b"x\n" + END, b"mine\n"),
    "nested": (BEGIN + b"mine\n" + BEGIN + b"x\n" + END + b"too\n" + END, b"mine\ntoo\n"),
    "turned round": (END + b"mine\n" + BEGIN, b"mine\n"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_beside_a_damaged_marker_no_line_is_lost(name: str) -> None:
    text, others = DAMAGED[name]
    parts = split(text, MARK)
    assert parts.damaged
    assert parts.before + parts.after == others


def test_a_marker_whose_text_was_edited_is_one_still() -> None:
    text = b"# BEGIN reconcile demo -- hands off!\nx\n# END reconcile demo\n"
    parts = split(text, MARK)
    assert parts.inner == b"x\n"
    assert joined(parts, MARK) == BEGIN + b"x\n" + END


OURS = put(table(b"# mine\n", "demo", "me"), "cron:a", LINE) or b""
TAG = OURS.split(b"\n")[2] + b"\n"
ENTRY = TAG + b"1 2 3 4 5 ours\n"


@pytest.mark.parametrize(
    ("text", "others"),
    [
        (OURS.replace(END, b""), b"# mine\n"),
        (OURS.replace(BEGIN, b""), b"# mine\n"),
        (OURS.replace(END, b"") + b"0 0 * * * theirs\n", b"# mine\n0 0 * * * theirs\n"),
        (OURS + b"0 0 * * * below\n", b"# mine\n0 0 * * * below\n"),
        (OURS + OURS, b"# mine\n# mine\n"),
        (OURS.replace(TAG, TAG + b"# theirs\n"), b"# mine\n# theirs\n"),
        (OURS.replace(ENTRY, ENTRY + b"0 0 * * * inside\n"), b"# mine\n0 0 * * * inside\n"),
        (OURS.replace(TAG, b""), b"# mine\n"),
        (OURS.replace(TAG, b"# reconcile demo cron:b nonsense\n"), b"# mine\n"),
        (ENTRY + OURS.replace(ENTRY, b""), b"# mine\n"),
        # Edited, and outside of our markers: it could be a person's by now.
        (OURS.replace(END, b"").replace(b"ours", b"edited"), b"# mine\n1 2 3 4 5 edited\n"),
    ],
)
def test_a_damaged_crontab_is_mended_and_no_line_of_a_person_is_lost(
    text: bytes, others: bytes
) -> None:
    old = table(text, "demo", "me")
    assert old.trouble is not None
    mended = put(old, "cron:a", LINE)
    assert mended is not None
    again = table(mended, "demo", "me")
    assert again.trouble is None
    assert again.entries["cron:a"] == LINE
    for name in [name for name in again.entries if name != "cron:a"]:
        mended = drop(table(mended, "demo", "me"), name)
    assert drop(table(mended, "demo", "me"), "cron:a") == others
    assert (mended or b"").count(b" ours") == 1


def test_two_specs_stand_below_one_another_and_neither_moves() -> None:
    first = put(table(b"# mine\n", "one", "me"), "cron:a", LINE)
    both = put(table(first, "two", "me"), "cron:a", CronEntry(b"* * * * * two", b"MAILTO=x"))
    assert table(both, "one", "me").trouble is None
    assert table(both, "two", "me").trouble is None
    below = (both or b"") + b"# theirs\n"
    for spec in ("one", "two"):
        old = table(below, spec, "me")
        assert old.trouble == "there are lines below it"
        below = put(old, "cron:a", old.entries["cron:a"]) or b""
    assert below.startswith(b"# mine\n# theirs\n# BEGIN reconcile")
    assert table(below, "one", "me").trouble is None


def test_mailto_is_put_back_to_what_the_person_has_set() -> None:
    for text, last in ((b'MAILTO="ops"\n# x\n', b'MAILTO="ops"\n'), (b"", b"MAILTO=me\n")):
        made = put(table(text, "demo", "me"), "cron:a", CronEntry(b"* * * * * x", b"MAILTO=a@b"))
        made = put(table(made, "demo", "me"), "cron:b", LINE)
        assert made is not None
        # A line without MAILTO stands above those with one.
        assert made.index(b"cron:b") < made.index(b"cron:a")
        assert made.endswith(last + END)
        assert set(table(made, "demo", "me").entries) == {"cron:a", "cron:b"}
    old = table(made.replace(b"# BEGIN", b"MAILTO=new\n# BEGIN"), "demo", "me")
    assert old.trouble == "its own lines were edited"


def daemon(line: bytes) -> tuple[str, str]:
    """Command and standard input that do_command.c of Debian's cron makes of a line."""
    text = line.split(b" ", 5)[5].decode()
    command, at = "", 0
    while at < len(text) and text[at] != "%":
        if text[at] == "\\" and text[at + 1 : at + 2] in ("%", "\\"):
            at += 1
        command += text[at]
        at += 1
    given, escaped = "", False
    for character in text[at + 1 :]:
        if escaped and character != "%":
            given += "\\"
        elif not escaped and character == "%":
            character = "\n"
        escaped = character == "\\"
        given += "" if escaped else character
    return command, given + ("\\" if escaped else "")


WORDS = st.text(st.sampled_from("a%\\'\"$`! ~#;&é*-="), max_size=8)


@given(st.lists(WORDS, min_size=1, max_size=4), st.dictionaries(st.sampled_from("AB"), WORDS))
def test_cron_runs_what_was_asked_for_whatever_is_in_it(
    words: list[str], env: dict[str, str]
) -> None:
    line = rendered("* * * * *", ("/bin/prog", *words), env)
    command, given_to_it = daemon(line)
    assert b"\n" not in line
    if not env and "\\\\" not in command + given_to_it and command != "/bin/sh":
        assert shlex.split(command) == ["/bin/prog", *words]
        return
    assert command == "/bin/sh"
    said, values = shown(line, True)
    assert values == env
    assert said.count("=…") == len(env)
    export = ["export", *(f"{name}={value}" for name, value in env.items())] if env else []
    assert shlex.split(given_to_it) == [*export, "exec", "/bin/prog", *words, "</dev/null"]


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
@pytest.mark.parametrize(
    ("command", "env", "says"),
    [
        (("printf", "%s|", "a\\%b", "c d", "'"), {}, "a\\%b|c d|'|"),
        (("printf", "%s|", "a\\\\b"), {"A": "x"}, "a\\\\b|"),
        (("sh", "-c", "printf %s \"$A$B\""), {"A": "o'cl%ock\nand \\", "B": " $X`"},
         "o'cl%ock\nand \\ $X`"),
        (("sh", "-c", "printf '%s\\\\n' x # a comment"), {}, "x\\n"),
        (("cat",), {"A": "1"}, ""),
    ],
)  # fmt: skip
def test_a_shell_does_with_it_what_was_asked_for(
    free: None, shell: str, command: tuple[str, ...], env: dict[str, str], says: str
) -> None:
    script, given_to_it = daemon(rendered("* * * * *", command, env))
    done = subprocess.run(
        [shell, "-c", script], input=given_to_it, capture_output=True, text=True, timeout=LONG
    )
    assert (done.stdout, done.stderr) == (says, "")


@pytest.mark.parametrize(
    "line",
    [
        b"* * * * * /bin/sh%export A='canary'%exec x </dev/null # edited",
        b"* * * * * /bin/sh%export A='canary%exec x </dev/null",
        b"* * * * * x%canary",
        b"* * * * * env%A=canary%",
    ],
)
def test_what_stands_behind_the_percent_sign_is_not_shown(line: bytes) -> None:
    assert "canary" not in shown(line, False)[0]
    assert "canary" not in shown(b"* * * * * A=canary x", True)[0]


@given(TEXTS, st.text(st.sampled_from("ab \n#"), max_size=12))
def test_a_block_in_a_file_goes_without_a_trace(text: bytes, content: str) -> None:
    lines = block.Block("/x", content).lines
    mark = block._mark("#", "demo", "block:x")
    write = (block.WriteBlock("/x", "block:x", ("#",), lines),)
    made = block.edited(text, write, "demo")
    assert made is not None
    assert block.edited(made, write, "demo") == made
    assert block.edited(made, (block.DropBlock("/x", "block:x", ("#",), lines),), "demo") == text
    end = block._line_end(split(text, mark))
    assert all(line.endswith(end) for line in lines_of(split(made, mark).inner or b""))


EDITS = st.lists(
    st.tuples(
        st.sampled_from("abcd"), st.booleans(), st.text(st.sampled_from("ab \n#"), max_size=6)
    ),
    unique_by=lambda edit: edit[0],
    max_size=4,
)


@given(st.one_of(st.none(), TEXTS), EDITS, TEXTS, EDITS, st.sampled_from([b"", END, BEGIN]))
def test_many_edits_of_a_file_are_as_one_after_the_other(
    text: bytes | None, first: list[Any], between: bytes, then: list[Any], odd: bytes
) -> None:
    def edits(found: list[Any]) -> list[block.WriteBlock | block.DropBlock]:
        return [
            (block.WriteBlock if writes else block.DropBlock)("/x", f"block:{name}", ("#",), lines)
            for name, writes, lines in found
        ]

    def by_turns(text: bytes | None, found: list[Any]) -> bytes | None:
        """One edit after the other, each of the whole text."""
        marks = [(block._mark("#", "demo", edit.block), edit) for edit in edits(found)]
        parted = [(split(text or b"", mark), mark, edit) for mark, edit in marks]
        whole = [one for one in parted if one[0].inner is not None and not one[0].damaged]
        whole.sort(key=lambda one: len(one[0].before), reverse=True)
        damaged = [one for one in parted if one[0].damaged]
        new = [one for one in parted if one[0].inner is None and not one[0].damaged]
        alone = False
        for _, mark, edit in (*whole, *damaged, *new):
            parts = replace(split(text or b"", mark), new=text is None or split(text, mark).new)
            if isinstance(edit, block.DropBlock):
                alone = alone or (parts.new and text is not None)
                text = None if text is None else block._edited_one(parts, mark, edit)
            else:
                text = block._edited_one(parts, mark, edit)
        return None if alone and not text else text

    odd = odd.replace(b"demo", b"demo block:b")
    for found, also in ((first, b""), (then, between + odd)):
        text = text if text is None else text + also
        # One after the other they would make "\r\n" of it, and go on with that.
        assume(text is None or b"\n" in text or not text.endswith(b"\r"))
        one_by_one = by_turns(text, found)
        text = block.edited(text, edits(found), "demo")
        assert text == one_by_one


def test_names_of_entries_come_back() -> None:
    for name in ("cron:x", "cron:a b[c d]", "cron:100%", "cron:ü\udcff"):
        made = put(table(b"", "demo", "me"), name, LINE)
        assert list(table(made, "demo", "me").entries) == [name]
    assert cronlines.LONGEST == 998


@pytest.mark.parametrize("where", ["above", "inside", "below"])
def test_many_lines_take_no_more_memory_than_their_bytes(where: str) -> None:
    ours, many = wrapped(b"", b"x\n"), b"\n" * 2**20
    begin, x, end = ours.partition(b"x\n")
    text = {
        "above": many + ours, "inside": begin + x + many + end, "below": ours + many,
    }[where]  # fmt: skip
    tracemalloc.start()
    try:
        parts = split(text, MARK)
        words = first_difference((parts.inner or b"").decode(), "x\ny\n")
        block._line_end(parts)
        made = joined(parts, MARK)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert made == text
    assert parts.others == text.replace(begin + (parts.inner or b"") + end, b"")
    assert "line 2 " in words
    # A list of its lines would take more than fifty times as much.
    assert most < 8 * len(text)


def test_two_texts_are_compared_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever owns the file writes what he likes between the markers."""
    ours = "".join(f"setting {number}\n\n" for number in range(60))
    hunk = ["@@ -13,5 +13,5 @@", " setting 6", " ", "-setting 7"]
    assert differing(ours, ours.replace("7\n", "8\n"), 4) == (hunk, 42)
    monkeypatch.setattr(text_difference, "_COMPARING", 0.2)
    for number in (20_000, 4_000_000):
        tracemalloc.start()
        try:
            lines, count = differing("\n" * number, ours, 60)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert (lines, count) == (["-"] * 60, number + 120)
        assert most < 8 << 20 or most < 2 * number, "no list of all of its lines"
    monkeypatch.setattr(text_difference, "_LONGEST", 0)
    assert differing("", "a\nb\n", 60) == (["+a", "+b"], 2)
    assert differing("a\n\n", "b", 60) == (["-a", "-", "+b"], 3)
