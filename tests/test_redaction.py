"""No piece of a secret is left in what is shown, however it is quoted, wrapped or cut."""

from __future__ import annotations

import json
import re
import shlex
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.base import text as redaction
from reconciler.base.text import censored, printable, redacted
from reconciler.diagnose import sections
from reconciler.host.daemon_log import last_lines


def test_a_value_is_taken_out_before_a_text_is_cut() -> None:
    redaction.hide(["begin-0123456789-end"])
    text = "x" * 290 + "begin-0123456789-end"
    for limit in range(280, 320):
        assert "begin" not in printable(text, limit)
        assert "begin" not in redaction.shortened(text, limit)


def test_each_line_of_a_value_is_a_value() -> None:
    redaction.hide(["-----BEGIN KEY-----\nMIIBV28qx7\n  Zk9==\n-----END KEY-----\n"])
    assert redacted("it read MIIBV28qx7 and Zk9==") == "it read *** and ***"
    # A word of a few letters is in the way everywhere.
    redaction.hide(["if x\nthen y\ndone"])
    assert redacted("it is done") == "it is done"


@pytest.mark.parametrize("value", ['it\'s 5% "off"\\now', "pa ss$`w`", "a\tb\x1bc\\d", "ключ/+=?"])
def test_a_quoted_value_is_known(value: str) -> None:
    from urllib.parse import quote

    redaction.hide([value])
    forms = [shlex.quote(value), repr(value), json.dumps(value, ensure_ascii=False), quote(value),
             quote(value, safe=""), printable(value), value.replace("%", "%%")]  # fmt: skip
    for form in forms:
        assert len(redacted(form)) <= 6, form


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ('it\'s "of" a\\b', 'it\'s "of" a\\\\b'),
        ('it\'s "of" a\\b', 'it\\\'s "of" a\\b'),
        ('it\'s "of" a\\b', 'it\\\'s "of" a\\\\b'),
        ('it\'s "of" a\\b', 'it\'"\'"\'s "of" a\\b'),
        ('it\'s "of" a\\b', 'it\'s \\"of\\" a\\\\b'),
        ("fifty% off!", "fifty\\% off!"),
        ("fifty% off!", "fifty%% off!"),
        ('a/ключ "x"', 'a/\\u043a\\u043b\\u044e\\u0447 \\"x\\"'),
        ('a/ключ "x"', 'a/ключ \\"x\\"'),
        ("a/b c", "a%2Fb%20c"),
        ("a/b c", "a/b%20c"),
        ("it's\x1bof a\\b", "it'\"'\"'s\x1bof a\\b"),
        ("it's\x1bof a\\b", repr("it'\"'\"'s\x1bof a\\b")[1:-1]),
        ("it's\x1bof a\\b", "it's\\x1bof a\\b"),
    ],
)
def test_each_way_to_quote_is_known_by_itself(value: str, form: str) -> None:
    """No other way to write the same value covers it."""
    assert redacted(f"x {form} y", [value]) == "x *** y"


@given(st.text(min_size=4, max_size=40), st.integers(0, 60), st.integers(1, 80))
def test_no_cut_leaves_a_piece(value: str, before: int, limit: int) -> None:
    shown = redacted("=" * before + value + "=" * 50, [value])[:limit]
    assert set(shown) <= {"=", "*"} or len(value.strip("=*")) < 4


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("curl -u me:hunter2 http://h/", "curl -u me:*** http://h/"),
        ("curl '-u' 'me:hunter2' x", "curl '-u' 'me:***' x"),
        ("curl --user=me:hunter2", "curl --user=me:***"),
        ("docker run -u 1000:1000 x", "docker run -u 1000:1000 x"),
        ("curl -H 'Authorization: Bearer abc def' x", "curl -H 'Authorization: ***' x"),
        ("> authorization: Basic bWU6cHc=", "> authorization: ***"),
        ("sent bearer abc.def-123", "sent bearer ***"),
        ("bearer authentication failed", "bearer authentication failed"),
        ("postgres://u:p@ss@h/d", "postgres://***@h/d"),
        ('{"api_key": "a b"}', '{"api_key": ***}'),
        ("PGPASSWORD=hunter2 psql", "PGPASSWORD=*** psql"),
        ("pwd=hunter2", "pwd=***"),
        ("the token has expired", "the token has expired"),
        ("mysql -uroot -phunter2 db", "mysql -uroot -p*** db"),
        ("using ghp_0123456789abcdef", "using ***"),
        ("ls -p /srv", "ls -p /srv"),
    ],
)
def test_the_words_of_others_are_looked_through_for_forms(line: str, shown: str) -> None:
    assert censored(line) == shown


TOLD = """https://me:pw@host
https://host/hook
Authorization: x
proxy-authorization=x
Set-Cookie: x
bearer abcdefgh1
-u me:pw
--user me:pw
--proxy-user me:pw
mysql -px
mariadb-dump -px
sshpass -px
ghp_0123456789ab
github_pat_0123456789ab
glpat-0123456789ab
xoxb-0123456789ab
sk-0123456789ab
AKIA0123456789ab
AIza0123456789ab
eyJhbGciOiJ.e30.x""".splitlines()
NAMES = "passwd password passphrase secret token api_key apikey credential private-key"
TOLD += [f"{name}=x" for name in f"{NAMES} pass pw pwd".split()]
TOLD += [f"--my-{name} x" for name in NAMES.split()]


@pytest.mark.parametrize("text", TOLD)
def test_no_form_is_passed_over(text: str) -> None:
    """That it stands in a text is known by a few letters of it, whatever their case."""
    assert censored(text) != text
    for one in (text, text.upper(), text.title(), f"\N{LATIN SMALL LETTER LONG S} {text}"):
        plain = one
        for _, form, instead in redaction._FORMS:
            plain = re.sub(form, instead, plain)
        assert censored(one) == plain


def test_hostile_words_are_looked_through_in_no_time() -> None:
    import time

    before = time.process_time()
    for piece in ("-.", "token", "a.", "mysql ", "-u ", "://", "'\"", "bearer 1", "--token "):
        censored(piece * 100_000)
    assert time.process_time() - before < 5


def test_the_rest_of_a_line_of_a_log_is_left_out(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"the key is ")
    before = log.stat()
    log.write_bytes(b"the key is 0123456789\nand this\n")
    assert last_lines(str(log), 1000) == log.read_bytes()
    assert last_lines(str(log), 15) == b"and this\n"
    assert last_lines(str(log), 1000, before) == b"0123456789\nand this\n"


def test_a_log_is_redacted_before_its_digits_are_squeezed(tmp_path: Path) -> None:
    redaction.hide(["Q17x99-zz"])
    log = tmp_path / "log"
    log.write_text("ERROR refused Q17x99-zz\nERROR login with password=5seven5\n")
    (found,) = sections.logs([("a", str(log))], [])
    text = json.dumps(found)
    assert "Q17" not in text and "zz" not in text and "seven" not in text
    assert "refused ***" in text


def test_what_the_store_forgets_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import _sqlite3

    from reconciler.host.clock import Clock
    from reconciler.state.store import Store

    real = _sqlite3.connect

    def connect(*args: Any, **options: Any) -> _sqlite3.Connection:
        """As a library has it that was not built to do so by itself."""
        base = real(*args, **options)
        base.execute("PRAGMA secure_delete = OFF")
        return base

    monkeypatch.setattr(_sqlite3, "connect", connect)
    folder = tmp_path / "state"
    folder.mkdir()
    store = Store(str(folder), Clock(), True)
    try:
        store.pauses.pause("process:a", "the reason is Q17x99-zz" * 20, None, "me")
        assert store.pauses.resume("process:a")
    finally:
        store.close()
    assert b"Q17x99" not in b"".join(path.read_bytes() for path in folder.iterdir())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Q17-zz a word", "***"),
        ("pw=Q17-zz a word!", "pw=***!"),
        ("x://me:Q17-zz a word@h Q17-zz a worQ17-zz a word", "x://me:***@h Q17-zz a wor***"),
        ("Q17-zz%20a%20word", "***"),
        ("first\n$hort\nx$hort", "first\n***\nx***"),
        ("Q17-zz a wore, $hor and no more", "Q17-zz a wore, $hor and no more"),
    ],
)
def test_a_value_of_which_only_the_mark_is_known(
    text: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    redaction.hide(["Q17-zz a word", "$hort", "known-too"])
    marks = redaction.marks(b"key")
    assert not any(piece in " ".join(marks) for piece in ("Q17", "hort", "known"))
    monkeypatch.setattr(redaction, "_values", ())
    redaction.hide(["another"])
    assert redaction.redacted(text) == text
    redaction.hide_marked(lambda: (b"key", marks))
    assert redaction.redacted(text) == shown
    assert redaction.redacted_json({"a": [text]}) == {"a": [shown]}


def test_marks_of_values_that_are_known_cost_nothing() -> None:
    redaction.hide(["Q17-zz a word"])
    redaction.hide_marked(lambda: (b"key", redaction.marks(b"key")))
    assert redaction.redacted("Q17-zz a word") == "***"
    assert not redaction._marked


def test_a_json_document_keeps_its_keys() -> None:
    redaction.hide(["summary", "q/17-zz"])
    document = {"summary": ["a summary", 1, None], "q/17-zz": {"ok": "q/17-zz"}}
    assert redaction.redacted_json(document) == {
        "summary": ["a ***", 1, None],
        "***": {"ok": "***"},
    }


@pytest.mark.parametrize("word", ["-", "--a", "Aa.", "a.a-a_", "x-", "a://", "password", "mysql -"])
def test_no_words_of_others_make_the_look_for_forms_slow(word: str) -> None:
    began = time.process_time()
    censored(word * 4096)
    assert time.process_time() - began < 0.5
