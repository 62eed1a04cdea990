"""What may be written under checks, and what is said about the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import compiled

from reconciler import kinds
from reconciler.base.values import secrets
from reconciler.config.errors import SpecError

WORKER = "processes: {worker: {command: sleep 9}, crew: {for_each: [a, b], command: sleep 8}}\n"
GOOD: dict[str, dict[str, Any]] = {
    "command": {"command": ["true"], "expect": "^ok", "cwd": "/srv", "env": {"A": "b"}},
    "shell": {"command": "echo ok | grep ok", "user": "nobody"},
    "fresh": {"fresh": {"path": "~/beat", "max_age": "15s"}},
    "log": {"log": {"path": "/x/log", "match": "ERR", "max": 3, "within": "1h"}},
    "queue": {"queue": {"path": "/x/q", "match": ["*.json", "*.xml"], "max_age": "5m"}},
    "count": {"queue": {"path": "/x/q", "max_count": 0}},
    "disk": {"disk": {"path": "/", "min_free": "10%"}},
    "disk in bytes": {"disk": {"path": "/", "min_free": "5GiB", "max_used": "90.5%"}},
    "load": {"load": {"max": 8.5}},
    "memory": {"memory": {"min_free": "500MiB", "max_used": "90%"}},
    "swap": {"swap": {"max_used": "80%"}},
    "cpu": {"cpu": {"max_used": "95%"}},
    "tcp": {"tcp": "[::1]:80"},
    "http": {"http": "https://localhost/x?y=z"},
    "socket": {"tcp": "/x/run.sock"},
    "socket by its name": {"tcp": {"unix": "~/run.sock"}},
    "socket with a prefix": {"tcp": "unix:/x/run.sock"},
    "body": {"http": {"url": "http://h/", "match": "^ok", "headers": {"Host": "{{ 1 }}"}}},
    "certificates": {"http": {"url": "https://h/", "ca_file": "/x/ca.pem", "unix": "/x/run.sock"}},
    "results": {"results": {"home": "/x", "max": 20, "within": "1d"}},
    "persistence": {"persistence": True},
    "own state": {"state": {"max": "200MiB"}},
    "status": {"http": {"url": "http://localhost:8080", "status": [200, 204]}},
    "reactions": {
        "tcp": "localhost:80", "every": "5m", "timeout": "1s", "failures": 3,
        "on_failure": ["restart process:worker", {"restart": "crew"}, "run echo a b",
                       {"run": ["echo", "c"]}, "notify"],
    },
}  # fmt: skip


def spec_of(fields: dict[str, Any]) -> str:
    return WORKER + f"directories: {{x: {{path: /x}}}}\nchecks: {{it: {json.dumps(fields)}}}\n"


@pytest.mark.parametrize("name", GOOD)
def test_what_may_be_written(name: str, tmp_path: Path, by_schema: Any) -> None:
    (tmp_path / "home").mkdir(exist_ok=True)
    spec = compiled(tmp_path, spec_of(GOOD[name]))
    (check,) = (one for one in spec.resources if one.kind == "check")
    needs = {"log", "queue", "count", "socket", "socket with a prefix", "certificates", "results"}
    assert check.needs == ("directory:x",) * (name in needs) or name == "reactions"
    if name == "reactions":
        assert check.needs == ("process:worker", "process:crew[a]", "process:crew[b]")
        assert check.want.restarts == check.needs
        assert check.want.on_failure[2:4] == (("run", "sh", "-c", "echo a b"), ("run", "echo", "c"))
    assert by_schema({"version": 1, "name": "demo", "checks": {"it": GOOD[name]}}) == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"every": "5m"}, "needs exactly one of command, fresh, log, queue, disk, tcp, http, "),
        ({"tcp": "a:1", "http": "http://a"}, "http: a check has exactly one of"),
        ({"tcp": "a:1", "expect": "x"}, "expect: is for a check with a command"),
        ({"tcp": "a"}, "'a' is not HOST:PORT"),
        ({"tcp": "::1:80"}, "is not HOST:PORT"),
        ({"tcp": "a:70000"}, "70000 is outside 1 to 65535"),
        ({"http": "ftp://a"}, "needs a URL that begins with http:// or https://"),
        ({"http": {"url": "http://a", "status": 20}}, "status: 20 is outside 100 to 599"),
        ({"http": {"url": "http://a", "code": 200}}, "has no field 'code'"),
        ({"http": {"url": "http://a", "match": "("}}, "is not a regular expression"),
        ({"http": {"url": "http://a", "ca_file": "/x"}}, "ca_file: is for a URL of https"),
        ({"http": {"url": "http://a", "headers": {"a b": "c"}}}, "is not a name for an HTTP head"),
        ({"http": {"url": "http://a", "headers": {"A": "canary\r\nB: c"}}}, "A holds what no head"),
        ({"http": {"url": "http://a", "headers": {"A": "b", "a": "c"}}}, "names a header twice"),
        ({"http": {"url": "http://a", "headers": ["A"]}}, "needs a mapping of names to values"),
        ({"http": {"url": "http://a", "unix": "run.sock"}}, "'run.sock' is not absolute"),
        ({"http": ["http://a"]}, "needs fields, one 'name: value' a line"),
        ({"http": ["http://a"]}, "its fields are url, status, "),
        ({"disk": True}, "its fields are path, min_free, max_used"),
        ({"tcp": {"unix": f"/{'x' * 120}"}}, "longer than the 107 bytes of a socket's path"),
        ({"tcp": {"unix": "/x", "address": "a:1"}}, "needs one of address (HOST:PORT) and unix"),
        ({"tcp": {}}, "needs one of address (HOST:PORT) and unix"),
        ({"results": {"max": 1}}, "results needs 'home'"),
        ({"results": {"home": "/x", "wihtin": "1d"}}, "did you mean 'within'?"),
        ({"persistence": False}, "persistence: is true, or left out"),
        ({"state": {"max": "much"}}, "state.max: "),
        ({"state": {"max": "1MiB", "maxx": 1}}, "did you mean 'max'?"),
        ({"state": {"max": "1MiB"}, "persistence": True}, "a check has exactly one of"),
        ({"state": "presnt", "persistence": True}, "did you mean 'present'?"),
        ({"fresh": {"path": "/x"}}, "fresh needs 'max_age'"),
        ({"fresh": {"path": "x", "max_age": "1m"}}, "'x' is not absolute"),
        ({"log": {"path": "/x", "match": "("}}, "is not a regular expression"),
        ({"queue": {"path": "/x"}}, "give it max_age or max_count"),
        ({"queue": {"path": "/x", "max_count": 1, "match": "a/*"}}, "with '/' matches nothing"),
        ({"disk": {"path": "/x"}}, "give it min_free or max_used"),
        ({"memory": {}}, "give it min_free or max_used"),
        ({"swap": {"min_free": "x"}}, "neither a size, such as 5GiB, nor a perc"),
        ({"load": {"max": "much"}}, "a number such as 2 or 1.5"),
        ({"cpu": {"max_used": "0%"}}, "not a percentage between 0 and 100"),
        ({"disk": {"path": "/x", "min_free": "10"}}, "neither a size, such as 5GiB, nor a perc"),
        ({"disk": {"path": "/x", "max_used": "5GiB"}}, "not a percentage between 0 and 100"),
        ({"disk": {"path": "/x", "max_used": "100%"}}, "not a percentage between 0 and 100"),
        ({"tcp": "a:1", "on_failure": "notify"}, "needs a list"),
        ({"tcp": "a:1", "on_failure": ["reboot"]}, "on_failure[0]: is none of 'restart process:N"),
        ({"tcp": "a:1", "on_failure": ["run"]}, "run needs a command"),
        ({"tcp": "a:1", "on_failure": ["restart session:x"]}, "takes a process, not 'session:x'"),
        ({"tcp": "a:1", "on_failure": [{"run": "a", "restart": "b"}]}, "in an entry of its own"),
        ({"tcp": "a:1", "on_failure": ["notify", "notify"]}, "'notify' stands there twice"),
        ({"tcp": "a:1", "on_failure": ["restart wrker"]}, "did you mean 'worker'?"),
        ({"tcp": "a:1", "on_failure": ["restart zzzzzz"]}, "declare it under processes"),
        ({"tcp": "a:1", "on_failur": ["notify"]}, "did you mean 'on_failure'?"),
    ],
)  # fmt: skip
def test_what_is_wrong(fields: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        compiled(tmp_path, spec_of(fields))
    (problem,) = caught.value.problems
    assert words in f"{problem.message} {problem.hint}"
    assert problem.line == 5


def test_no_header_is_shown_and_none_is_kept(tmp_path: Path) -> None:
    fields = {"http": {"url": "http://a", "headers": {"Authorization": "Bearer canary"}}}
    spec = compiled(tmp_path, spec_of(fields))
    (check,) = (one for one in spec.resources if one.kind == "check")
    assert "canary" not in repr(check)
    assert [secret.reveal() for secret in secrets(check.want)] == ["Bearer canary"]
    bad = {"http": {"url": "http://a", "headers": {"Authorization": "canary\n"}}}
    with pytest.raises(SpecError) as caught:
        compiled(tmp_path, spec_of(bad))
    assert "canary" not in caught.value.problems[0].message


def test_what_was_asked_before_is_no_other_question(tmp_path: Path) -> None:
    """These are what an older version has written for the same checks."""
    before = {
        "tcp": "ef372ba62d17a907",
        "http": "a08f5abdb22422d7",
        "status": "d8cd9ba8609fd961",
        "cpu": "005603f26ba5d637",
    }
    for name, version in before.items():
        spec = compiled(tmp_path, spec_of(GOOD[name]))
        (check,) = (one for one in spec.resources if one.kind == "check")
        assert kinds.get("check").version(check.want) == version


def test_a_check_of_a_process_that_is_to_be_absent(tmp_path: Path) -> None:
    text = spec_of({"tcp": "a:1", "on_failure": ["restart worker"]})
    with pytest.raises(SpecError, match="is to be absent, but check:it"):
        compiled(tmp_path, text.replace("{command: sleep 9}", "{command: x, state: absent}"))
    whole = text.replace("{command: sleep 9}", "{command: x, state: absent}")
    gone = whole.replace('"tcp"', '"state": "absent", "needs": ["process:worker"], "tcp"')
    ids = [resource.id for resource in compiled(tmp_path, gone).resources]
    assert ids.index("check:it") < ids.index("process:worker")


def test_the_digest_is_of_what_is_asked(tmp_path: Path) -> None:
    def version(**fields: Any) -> str:
        spec = compiled(tmp_path, "checks: {it: " + json.dumps({"command": "a", **fields}) + "}")
        (check,) = spec.resources
        return kinds.get("check").version(check.want)

    assert version() == version(every="5m", failures=3, on_failure=["notify"])
    assert (
        len({version(), version(env={"A": "1"}), version(env={"A": "2"}), version(user="x")}) == 4
    )
