"""The journal of passes: its bounds, and what it says of what has left it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import reconciler.undo.journal as journal_module
from reconciler import kinds, undo
from reconciler.base.records import replace
from reconciler.base.values import Secret
from reconciler.core.attributes import Attributes
from reconciler.core.model import Outcome, Resource, Step
from reconciler.host import Host
from reconciler.host.clock import Clock
from reconciler.host.found import File, Packed
from reconciler.host.refusals import Refused
from reconciler.kinds.directory import Directory
from reconciler.kinds.file import WholeFile
from reconciler.kinds.permission import Permission
from reconciler.kinds.permission.entries import (
    FormerEntries,
    PackedEntries,
    WrongEntries,
    WrongEntry,
)
from reconciler.kinds.process.resource import Process, Ready
from reconciler.kinds.retention.actions import MoveFiles, RemoveFolders
from reconciler.state.store import Store, journal
from reconciler.state.store.journal import packed, unpacked
from reconciler.state.tracker import Tracker
from reconciler.undo import Around, Irreversible, notes
from reconciler.undo.directory import OfDirectory
from reconciler.undo.journal import PassJournal
from reconciler.undo.notes import (
    from_plain,
    holds_secret,
    noted_resource,
    secrets_in,
)
from reconciler.undo.permission import OfPermission
from reconciler.undo.plan import _is_left
from reconciler.undo.process import OfProcess
from reconciler.undo.retention import OfRetention

DAY = 86400


class Turned(Clock):
    """A clock that is set by hand."""

    now = 1e9

    def wall(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Turned:
    return Turned()


@pytest.fixture
def store(tmp_path: Path, clock: Turned) -> Store:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    return Store(str(folder), clock, True)


def made(store: Store, **notes: Any) -> int:
    number = store.journal.begin("me")
    store.journal.add(number, {"notes": notes}, {})
    return number


def test_what_is_older_than_thirty_days_goes_and_leaves_its_name(
    store: Store, clock: Turned
) -> None:
    first = made(store, a=1, b=2)
    clock.now += 29 * DAY
    second = made(store, a=3)
    assert store.journal.notes(first) == {"a": 1, "b": 2}
    clock.now += 2 * DAY
    third = made(store, c=4)
    assert store.journal.notes(first) == {"a": None, "b": None}
    assert store.journal.notes(second) == {"a": 3}
    assert set(store.journal.passes()) == {first, second, third}


def test_of_more_than_its_bytes_the_oldest_go(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "LARGEST", 1000)
    numbers = [made(store, a="x" * 300) for _ in range(4)]
    kept = [number for number in numbers if store.journal.notes(number)["a"] is not None]
    assert kept == numbers[-2:]
    assert b"x" * 300 in Path(store.base.folder, "store.db").read_bytes()
    store.journal.add(numbers[-1], {"notes": {"b": "y"}, "void": ["a"]}, {})
    assert store.journal.notes(numbers[-1]) == {"b": "y"}
    assert store.journal.notes(numbers[-2]) == {"a": "x" * 300}
    store.journal.add(numbers[-1], {"notes": {"b": "z" * 101}}, {})
    assert store.journal.notes(numbers[-1]) == {"b": "z" * 101}
    assert store.journal.notes(numbers[-2]) == {"a": None}
    store.journal.add(numbers[-1], None, {})
    assert store.journal.notes(numbers[-1]) == {}
    assert set(store.journal.passes()) == set(numbers[:-1])


def test_definitions_stay_until_it_is_stopped(store: Store, clock: Turned) -> None:
    store.journal.add(store.journal.begin("me"), {}, {"process:p": {"command": "x"}})
    clock.now += 400 * DAY
    made(store, a={})
    assert store.journal.definition("process:p") == {"command": "x"}
    assert store.journal.defined() == {"process:p"}
    store.journal.add(store.journal.begin("me"), {}, {"process:p": None})
    assert store.journal.definition("process:p") is None
    assert store.journal.defined() == set()


def test_a_clock_that_was_ahead_keeps_nothing_for_longer(store: Store, clock: Turned) -> None:
    clock.now += 3650 * DAY
    ahead = made(store, a=1)
    clock.now -= 3650 * DAY
    second = made(store, a=2)
    assert store.journal.notes(ahead) == {"a": 1}
    clock.now += 31 * DAY
    made(store, a=3)
    assert [store.journal.notes(one) for one in (ahead, second)] == [{"a": None}] * 2


def test_a_clock_that_was_behind_takes_nothing_of_before_it(store: Store, clock: Turned) -> None:
    first = made(store, a=1)
    now, clock.now = clock.now, 0.0
    made(store, a=2)
    clock.now = now + DAY
    made(store, a=3)
    assert store.journal.notes(first) == {"a": 1}


def test_the_ids_of_what_has_left_are_bounded_too(
    store: Store, clock: Turned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_MOST_IDS", 4)
    first, second = (made(store, a=1, b=2, c=3) for _ in range(2))
    clock.now += 20 * DAY
    third = made(store, a=4, b=5, c=6)
    clock.now += 11 * DAY
    fourth = made(store, a=7)
    assert store.journal.notes(first) == store.journal.notes(second) == {}
    assert store.journal.notes(third) == {"a": 4, "b": 5, "c": 6}
    assert set(store.journal.passes()) == {third, fourth}


def test_passes_that_begin_together_have_numbers_of_their_own(store: Store) -> None:
    other = Store(store.base.folder, Clock(), True)
    numbers = [one.journal.begin("me") for one in (store, other, store, other)]
    assert numbers == sorted(set(numbers))


def test_secrets_are_looked_for_in_no_more_than_one_file_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To look for what is marked takes some hundred times the room of a text."""
    looked: list[int] = []

    def redacted(text: str) -> str:
        looked.append(len(text))
        return text.replace("s3cret", "***")

    monkeypatch.setattr(notes, "redacted", redacted)
    monkeypatch.setattr(notes, "redacted_json", list)
    files = [noted_resource(Resource("f", WholeFile(f"/{at}", "x" * 100_000))) for at in range(9)]
    assert not holds_secret(files)
    assert max(looked) < 200_000 and sum(looked) < 1_000_000
    few = [noted_resource(Resource("f", WholeFile(f"/{at}", "x"))) for at in range(99)]
    looked.clear()
    assert holds_secret([*few, noted_resource(Resource("f", WholeFile("/a", "a s3cret")))])
    assert len(looked) == 1


@pytest.mark.parametrize("other", [None, lambda *_: print("of another form")])
def test_another_python_writes_the_same(monkeypatch: pytest.MonkeyPatch, other: Any) -> None:
    document = {"a": (1.5, None, True, "ü \udcff"), "b": {}, "c": Attributes("0644"), "d": {1}}
    expected = packed(document)
    assert expected == (
        b'{"a":[1.5,null,true,"\\u00fc \\udcff"],"b":{},'
        b'"c":{"is":"reconciler.core.attributes:Attributes","mode":"0644"},'
        b'"d":{"is":"builtins:set"}}'
    )
    module = (
        SimpleNamespace()
        if other is None
        else SimpleNamespace(make_encoder=other, encode_basestring_ascii=str)
    )
    monkeypatch.setitem(sys.modules, "_json", module)
    journal._encoder.cache_clear()
    try:
        assert packed(document) == expected
    finally:
        journal._encoder.cache_clear()


def test_a_definition_is_the_same_again_but_for_its_secrets() -> None:
    env = (("A", Secret.of("s3cret")),)
    want = Process(("sleep", "ü \udcff"), env=env, ready=Ready(tcp="localhost:1"))
    data = packed(want)
    assert b"s3cret" not in data
    assert from_plain(unpacked(data), secrets_in(want)) == want
    assert from_plain(unpacked(data), None) == replace(
        want, env=(("A", Secret(None, env[0][1].digest)),)
    )
    with pytest.raises(Irreversible, match="is not kept"):
        from_plain(unpacked(data), {})
    long = replace(want, command=("x" * 300_000,))
    assert len(packed(long)) < 3000
    assert unpacked(packed(long))["command"] == ["x" * 300_000]


@pytest.mark.parametrize(
    "value",
    [{"is": "os:system"}, {"is": "reconciler.host.remove:delete"}, {"is": "reconciler.x:Y"},
     {"is": "reconciler.kinds.link:Link", "path": "/a", "target": "b", "later": 1},
     {"is": "reconciler.core.fields:Flag"}],
)  # fmt: skip
def test_what_another_version_has_noted_is_refused(value: dict[str, object]) -> None:
    with pytest.raises(Irreversible, match="another version"):
        from_plain(value, {})


def many(number: int) -> tuple[Step, Any]:
    had, want = Attributes("0644"), Attributes("0600")
    entries = PackedEntries()
    for at in range(number):
        entries.append(WrongEntry(f"/t/{at}", had, want, False, False, "/t", (1, at + 1)))
    return Step("permission:t", "update", (), (), "", ()), WrongEntries(entries)


@pytest.mark.parametrize(("mode", "given"), [("0755", True), ("0750", False)])
def test_what_is_refused_is_not_taken_for_changed(mode: str, given: bool) -> None:
    had, got = Attributes("4755"), Attributes("0755")
    former, refused = (
        FormerEntries([("/t", (1, 2), (had.mode, None, None), (got.mode, None, None))]),
        Refused("", ("chmod",)),
    )
    entry = WrongEntry("/t", Attributes(mode, "root"), had, False, refused=refused)
    assert former.was_given(entry) is given
    assert former.was_given(replace(entry, refused=None)) is False


def test_lists_of_paths_that_others_can_make_long_are_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(undo, "MOST", 10_500)
    around: Any = Around(Any, lambda ident: None, set())
    resource = Resource[Any]("permission:t", Permission("/t", mode="0600", recursive=True))
    assert OfPermission().before(resource, *many(10), around)
    with pytest.raises(Irreversible, match="more than 10 paths"):
        OfPermission().before(resource, *many(11), around)
    files = [File(1, "", f"{at}", 1, at, 0, 1, 1, 0) for at in range(11)]
    moved = MoveFiles("/t", Packed(files), False, "/elsewhere")
    for action in (moved, RemoveFolders("/t", (), Packed(files * 2))):
        step = Step("retention:t", "rotate", (), (action,), "", ())
        with pytest.raises(Irreversible, match="more than 10 paths"):
            OfRetention().before(Resource("retention:t", None), step, None, around)


def test_a_pass_of_many_such_lists_keeps_no_more_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "MOST", 25_000)
    host: Any = None
    journal = PassJournal(kinds.get, host, lambda ident: None)
    want, (step, have) = Permission("/t", mode="0600", recursive=True), many(12)
    for at in range(3):
        ident = f"permission:t{at}"
        for _ in range(2):  # Once more as it is planned, and as it is done.
            journal.begins(Resource(ident, want), replace(step, id=ident), have)
            journal.ended([Outcome(replace(step, id=ident), "dropped")])
    why = [journal.why(f"permission:t{at}") for at in range(3)]
    assert why[:2] == [None, None] and "of files and paths" in str(why[2])


def test_another_file_of_that_name_is_what_gets_its_mode_back(tmp_path: Path) -> None:
    """It took the place of the one that was there when the step was planned, with the same mode."""
    path, other = tmp_path / "f", tmp_path / "other"
    host, kind = Host("me", str(tmp_path)), kinds.get("permission")
    resource = Resource[Any]("permission:p", Permission(str(path), mode="0640"))
    for one in (path, other):
        one.touch()
        one.chmod(0o600)
    step = Step(resource.id, "update", (), (), "", ())
    noted = PassJournal(kinds.get, host, lambda ident: None)
    (seen,) = kind.observe([resource], host)
    look: Any = SimpleNamespace(
        spec=SimpleNamespace(resources=[resource]),
        plan=SimpleNamespace(steps=[step]),
        seen={resource.id: seen},
    )
    noted.intends(look)
    noted.wrote()
    inode = other.stat().st_ino
    other.rename(path)
    host.forget()
    (seen,) = kind.observe([resource], host)
    noted.begins(resource, step, seen.state)
    noted.ended([Outcome(step, "done")])
    assert f", {inode})" in str((noted.rows() or {})["notes"][resource.id]["undo"])


def test_only_records_of_ours_are_kept() -> None:
    with pytest.raises(Irreversible):
        from_plain(unpacked(packed(object())), {})


@pytest.mark.parametrize("result", ["begun", "failed"])
def test_what_was_only_begun_is_noted_though_nothing_of_it_is_seen_yet(
    tmp_path: Path, result: str
) -> None:
    """It comes to its end when this pass is over; what has failed without a trace is not noted."""
    resource = Resource("directory:d", Directory(f"{tmp_path}/d"))
    step = Step(resource.id, "create", (), (), "missing", ())
    noted = PassJournal(kinds.get, Host("me", str(tmp_path)), lambda ident: None)
    noted.begins(resource, step, None)
    noted.ended([Outcome(step, result)])
    rows = noted.rows()
    assert (rows is not None and list(rows["notes"])) == (result == "begun" and [resource.id])


def test_what_failed_before_it_began_is_not_noted(tmp_path: Path) -> None:
    """Somebody else has made it meanwhile: that is not taken back."""
    resource = Resource("directory:d", Directory(f"{tmp_path}/d"))
    step = Step(resource.id, "create", (), (), "missing", ())
    noted = PassJournal(kinds.get, Host("me", str(tmp_path)), lambda ident: None)
    look: Any = SimpleNamespace(
        spec=SimpleNamespace(resources=[resource]),
        plan=SimpleNamespace(steps=[step]),
        seen={resource.id: SimpleNamespace(state=None)},
    )
    noted.intends(look)
    assert list(noted.intents()["notes"]) == [resource.id]
    noted.wrote()
    assert noted.intents() == {}
    (tmp_path / "d").mkdir()
    noted.ended([Outcome(step, "failed")])
    assert noted.rows() is None


@pytest.mark.parametrize("goes_on", [True, False])
def test_what_an_undo_noted_before_it_was_killed_stays(
    store: Store, tmp_path: Path, goes_on: bool
) -> None:
    """Also where all that the next one has begun of the rest has failed."""
    number = store.journal.begin("me", 1)
    store.journal.add(number, {"notes": {"a": {"undo": []}}}, {})
    tracker = Tracker((), kinds.get, store, print, set(), lambda: "me", str, {}, {})
    tracker.number, tracker.goes_on = number, goes_on
    resource = Resource("directory:d", Directory(f"{tmp_path}/d"))
    step = Step(resource.id, "create", (), (), "missing", ())
    tracker.journal = PassJournal(kinds.get, Host("me", str(tmp_path)), lambda ident: None)
    tracker.journal.begins(resource, step, None)
    tracker.intends()
    assert set(store.journal.notes(number)) == {"a", "directory:d"}
    tracker.journal.ended([Outcome(step, "failed")])
    tracker.flush(last=True)
    assert set(store.journal.notes(number)) == ({"a"} if goes_on else set())


def test_a_folder_that_another_step_was_to_make_goes_with_who_has_made_it(tmp_path: Path) -> None:
    files = [WholeFile(f"{tmp_path}/new/{name}", content=name) for name in "ab"]
    resources = [Resource(f"file:{one.content}", one) for one in files]
    steps = [Step(one.id, "create", (), (), "missing", ()) for one in resources]
    noted = PassJournal(kinds.get, Host("me", str(tmp_path)), lambda ident: None)
    look: Any = SimpleNamespace(
        spec=SimpleNamespace(resources=resources),
        plan=SimpleNamespace(steps=steps),
        seen={one.id: SimpleNamespace(state=None) for one in resources},
    )
    noted.intends(look)
    noted.begins(resources[1], steps[1], None)  # The first has failed before it began.
    (tmp_path / "new").mkdir()
    (tmp_path / "new/b").write_text("b")
    noted.ended([Outcome(steps[1], "done")])
    rows = noted.rows()
    assert rows is not None
    ((ident, note),) = rows["notes"].items()
    assert ident == "file:b" and f"directory:{tmp_path}/new" in str(note["undo"])


@pytest.mark.parametrize(
    ("runs", "former"), [((".1",), "old"), (("", ".1"), "want"), ((".1", "other"), None)]
)
def test_what_a_process_ran_from_is_known(runs: tuple[str, ...], former: str | None) -> None:
    """Also by the digest of its ``env_file``, and where only some of them run from that yet."""
    want, old = (Process(("sleep", number), env_file="/e") for number in "12")
    known = want if former == "want" else old
    of = {"": want.digest(), ".1": f"{old.digest()}.1", "other": "other"}
    have = SimpleNamespace(found=[(None, of[one]) for one in runs])
    around = Around(None, lambda ident: known, set())  # type: ignore[arg-type]
    resource, step = Resource("process:p", want), Step("process:p", "restart", (), (), "", ())
    if former is None:
        with pytest.raises(Irreversible, match="is not known"):
            OfProcess().before(resource, step, have, around)
        return
    (one,) = OfProcess().before(resource, step, have, around)
    assert one.want == replace(known, stop_extra=True)


@pytest.mark.parametrize(
    ("left", "now", "is_left"),
    [("0700", "0700", True), ("0700", "0755", True), ("0700", "0711", False), ("?", "?", False)],
)
def test_what_is_as_before_already_is_still_taken_back(left: str, now: str, is_left: bool) -> None:
    """An undo that was killed has something to clear up; what is not known is left alone."""
    one = Resource("directory:d", Directory("/d", mode="0755"))
    traces = {mode: OfDirectory().trace(Attributes(mode)) for mode in ("0700", "0711", "0755")}
    traces["?"] = "?"
    assert _is_left(one, traces[left], traces[now], kinds.get) is is_left
