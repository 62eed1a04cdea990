"""The status page, asked from outside by plain HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from looping import Looping
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as metrics
from serving import Serving
from support import Machine, free_port, until, within

from reconciler.base.errors import HostError
from reconciler.web import address
from reconciler.web.access import token_of

MARKUP = "<script>alert(1)</script>"


@pytest.fixture
def serving(machine: Machine) -> Iterator[Callable[..., Serving]]:
    """Starts status pages, and ends them."""
    begun: list[Serving] = []

    def start(*words: object, **more: str) -> Serving:
        begun.append(Serving(machine, *words, **more))  # type: ignore[arg-type]
        return begun[-1]

    yield start
    for one in begun:
        one.kill()


def test_it_shows_what_is_and_turns_with_it(
    machine: Machine, serving: Callable[..., Serving]
) -> None:
    inbox = machine.base / MARKUP.replace("/", "-")
    spec = machine.spec(
        f"directories: {{'x{MARKUP}': {{path: '{inbox}'}}}}\n"
        f"processes: {{p: {{command: [sleep, '{machine.mark}']}}}}\n"
        f"checks: {{q: {{queue: {{path: '{inbox}', match: '*', max_count: 9}}}}}}\n"
    )
    machine.once(spec)
    page = serving(spec)
    text = page.text()
    assert "Nothing is wrong" in text
    # What the host has in names is text.
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)" in text
    assert re.search(r"process:p</th><td data-name=\"state\"><span class=\"badge good\">ok<", text)
    assert "done start <time" in text and ": not running</td>" in text  # The last action, and why.
    assert text.count('<svg class="chart"') == 2
    assert f'<th scope="row">{str(inbox).replace("<", "&lt;").replace(">", "&gt;")}</th>' in text
    done = machine.reconcile("--status", spec, "--json")
    assert json.loads(page.text("/status.json")).keys() == json.loads(done.stdout).keys()

    connection = page.connection()
    events = page.events(connection)
    first = next(events)
    assert set(first) >= {"state", "wrong", "processes", "resources", "history"}
    pid = machine.only(f"sleep {machine.mark}")
    with within(2):
        os.kill(pid, signal.SIGKILL)
        found = next(one for one in events if "wrong" in one)
    assert "process:p: not running" in found["wrong"]
    command = re.search(r"<code>(reconcile --once [^<]*)</code>", found["wrong"])
    assert command is not None
    done = machine.run("sh", "-c", command[1].replace("&#39;", "'"))
    assert done.returncode == 0, done.stderr
    # A look may come between, before the start has held.
    found = next(one for one in events if "Nothing is wrong" in one.get("wrong", ""))
    assert str(machine.only(f"sleep {machine.mark}")) in found["resources"]
    connection.close()
    with within(3):
        assert page.end() == 0
    assert page.errors.read_text() == ""


def test_a_command_executor_shows_its_queue_and_no_command(
    machine: Machine, serving: Callable[..., Serving]
) -> None:
    home = machine.base / "co"
    for name, text in {
        "pending/a.json": "{}", "pending/.new.json": "{}", "running/job-7.pid": "{}",
        f"running/{MARKUP.replace('/', '-')}.json": '{"command": "hush"}',
        "completed/good-1.json": '{"status": "succeeded", "exit_code": 0, "command": "hush"}',
        "completed/bad-1.json": '{"status": "failed", "exit_code": 3, "output_tail": "hush"}',
        "completed/odd-1.json": "[" * 100_000, "completed/odd-2.json": f'["{"x" * 2**18}"]',
        "failed/r.json": "{}", "failed/r.json.reason": "hush",
    }.items():  # fmt: skip
        path = home / "ai_commands" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    os.utime(home / "ai_commands/pending/a.json", (0, time.time() - 3600))
    (home / "ai_commands/completed/planted.json").symlink_to("/etc/passwd")
    spec = machine.spec(
        f"processes: {{w: {{command: [ai-cmd-executor, worker, --home, {home}], when: 'false'}}}}\n"
        f"checks: {{r: {{results: {{home: {machine.base}/none}}}}}}\n"
    )
    page = serving(spec)
    text = page.text()
    assert "hush" not in text and "planted" not in text and "<script>alert" not in text
    _, table = text.split("<h2>Command executor</h2>")
    shown = re.sub(r'<time datetime="[^"]*">[^<]*</time>', "TIME", table.split("</table>")[0])
    rows = re.findall(r"<tr>(.*)</tr>", re.sub(r"<(?!/?tr>)[^>]*>", " ", shown))
    found = [" ".join(row.split()) for row in rows[1:]]
    assert found[:5] == [
        f"1 command pending TIME {home}", "1 command running", "4 commands completed",
        "1 command failed", "&lt;script&gt;alert(1)&lt;-script&gt; running TIME",
    ]  # fmt: skip
    assert sorted(found[5:9]) == ["bad-1 failed TIME 3", "good-1 succeeded TIME 0",
                                  "odd-1 unknown TIME", "odd-2 unknown TIME"]  # fmt: skip
    assert found[9:11] == [f"not known pending {machine.base}/none", "not known running"]
    counted = {
        (one.name, one.labels.get("state")): one.value
        for family in metrics(page.text("/metrics"))
        for one in family.samples
        if one.labels.get("home")
    }
    name = "reconcile_executor_commands"
    assert {state: counted[name, state] for state in ("pending", "running", "failed")} == {
        "pending": 1.0, "running": 1.0, "failed": 1.0,
    }  # fmt: skip
    assert counted[name, "completed"] == 4.0
    assert 3600 <= counted["reconcile_executor_oldest_pending_seconds", None] < 3700
    running = counted["reconcile_executor_running_since_timestamp_seconds", None]
    assert time.time() - 600 < running <= time.time()


@pytest.mark.parametrize("wall", [2.0**57, -(2.0**57), 1e13])
def test_a_time_that_no_calendar_has_is_none(wall: float) -> None:
    """Of a file on tmpfs, whoever owns it sets any."""
    from reconciler.executor.text import stamp
    from reconciler.web.page import _at

    assert "datetime" in _at(0.0)
    assert _at(wall) == _at(None)
    assert re.match("(2920|1019)-", stamp(wall))


def test_it_can_only_be_read_and_by_who_means_it(
    machine: Machine, serving: Callable[..., Serving]
) -> None:
    page = serving(machine.spec(f"directories: {{d: {{path: {machine.base}/d}}}}\n"))
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"):
        status, headers, _ = page.ask("/x", method)
        assert (status, headers["allow"]) == (405, "GET, HEAD")
    for path in ("/", "/events"):
        assert page.ask(path, "HEAD")[0::2] == (200, "")
    for path in ("/x", "/../etc/passwd", "/..%2f..%2fetc/passwd", "/page.css/", "//page.css"):
        assert page.ask(path)[0] == 404
    names = ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.1.2.3", ""]
    for host in names + [one for one in (os.uname().nodename,) if one != "localhost"]:
        status, headers, text = page.ask("/", Host=host)
        assert status in (400, 421) and "directory:d" not in text
    for host in ("localhost", f"localhost:{page.port}", "127.0.0.1:1", "[::1]:9"):
        assert page.ask("/", Host=host)[0] == 200
    here = f"http://127.0.0.1:{page.port}"
    assert page.ask("/status.json", Origin=here)[0] == 200
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
        status, headers, text = page.ask("/status.json", Origin=origin)
        assert status == 403 and "directory:d" not in text
    for site, mode, status in (("cross-site", "no-cors", 403), ("same-site", "cors", 403),
                               ("cross-site", "navigate", 200), ("same-origin", "cors", 200),
                               ("none", "navigate", 200)):  # fmt: skip
        assert page.ask("/metrics", Sec_Fetch_Site=site, Sec_Fetch_Mode=mode)[0] == status
    for path in ("/", "/events", "/page.js", "/x", "/metrics"):
        connection = page.connection()
        connection.request("GET", path)
        headers = dict(connection.getresponse().getheaders())
        connection.close()
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        rules = headers["content-security-policy"]
        assert "default-src 'none'" in rules and "frame-ancestors 'none'" in rules
        assert "unsafe" not in rules and not re.search(r"\bhttps?:|\*|data:", rules)
    # Nothing is in the page that these rules would refuse, and nothing is from elsewhere.
    text = page.text() + page.text("/page.css") + page.text("/page.js")
    assert not re.search(r"style=|<style|\son\w+=\"|<script>|https?://|@import|url\(", text)


def test_it_is_for_this_host_alone_unless_there_is_a_token(
    machine: Machine, serving: Callable[..., Serving]
) -> None:
    spec = machine.spec(f"directories: {{d: {{path: {machine.base}/d}}}}\n")
    for at in ("0.0.0.0:0", "[::]:0"):
        done = machine.reconcile("--serve", at, spec)
        assert done.returncode == 64 and "--token-file" in done.stderr
    token, secret = machine.base / "token", "0123456789abcdef-Token"
    token.write_text(f"{secret}\n")
    done = machine.reconcile("--serve", "0.0.0.0:0", spec, "--token-file", token)
    assert done.returncode == 1 and f"fix it with: chmod 600 {token}" in done.stderr
    token.chmod(0o600)
    spec = machine.spec(f"directories: {{{secret}: {{path: {machine.base}/d}}}}\n")
    page = serving(spec, "--token-file", str(token), at="0.0.0.0:0")
    by_password = f"Basic {b64encode(f'me:{secret}'.encode()).decode()}"
    for headers in (
        {}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {secret}"},
        {"Authorization": f"Basic {b64encode(f'{secret}:x'.encode()).decode()}"},
        {"Authorization": f"Digest {secret}"}, {"Authorization": "Bearer \xff"},
        {"Authorization": "Basic \xff"}, {"Cookie": f"reconcile-{page.port}={secret}"},
    ):  # fmt: skip
        for path in ("/", "/events", "/metrics", "/status.json", f"/?token={secret}"):
            status, answer, text = page.ask(path, **headers)
            assert status == 401 and "directory:" not in text and secret not in text
    # A browser asks for it, and gives it to this port alone: no cookie goes to others.
    assert answer["www-authenticate"].startswith("Basic realm=") and "set-cookie" not in answer
    # Wherever it comes from, it is not shown.
    for given in (f"Bearer {secret}", by_password):
        assert '"directory:***"' in page.text("/status.json", Authorization=given)
    # A name that is somebody else's does not help, with it or without.
    assert page.ask("/", Authorization=by_password, Host="evil.example")[0] == 421
    host = f"{os.uname().nodename}:{page.port}"
    assert page.ask("/", Authorization=by_password, Host=host)[0] == 200
    assert secret not in Path(f"/proc/{page.pid}/cmdline").read_text()


def test_a_token_that_others_could_know_is_refused(machine: Machine) -> None:
    token = machine.base / "token"
    for text, mode, words in (
        ("short", 0o600, "must have 16 characters or more"),
        ("with blanks, and quite long", 0o600, "must have 16 characters or more"),
        ("0123456789abcdef", 0o640, "others may read"),
        ("0123456789abcdef", 0o666, "may write to"),
    ):
        token.write_text(text)
        token.chmod(mode)
        with pytest.raises(HostError, match=words) as refused:
            token_of(str(token))
        assert text not in str(refused.value)
    with pytest.raises(HostError, match="cannot read the token file"):
        token_of(f"{token}-none")


def test_what_is_asked_wrongly_is_said(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        at = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(HostError, match=f"cannot listen at {at}: Address already in use; name"):
            address.listen(at, False)
    for odd in ("127.0.0.1:99999", "host", "1.2.3.4", "[::1]", "a:b:1"):
        with pytest.raises(ValueError, match="--serve takes HOST:PORT"):
            address.listen(odd, True)
    spec = machine.spec(f"directories: {{d: {{path: {machine.base}/d}}}}\n")
    done = machine.reconcile("--serve", spec, "--json")
    assert (done.returncode, "/status.json" in done.stderr) == (64, True)
    done = machine.reconcile("--serve", machine.base / "none.yaml")
    assert done.returncode == 65 and "none.yaml" in done.stderr


def test_without_the_extra_it_says_what_to_install(machine: Machine) -> None:
    spec = machine.spec(f"directories: {{d: {{path: {machine.base}/d}}}}\n")
    (machine.base / "uvicorn.py").write_text("raise ImportError('none here')\n")
    done = machine.run(
        machine.bin / "python3", "-c",
        f"import sys; sys.path.insert(0, {str(machine.base)!r}); sys.argv = "
        f"['reconcile', '--serve', {str(spec)!r}, '--state-dir', {str(machine.state)!r}]; "
        "from reconciler.cli.main import main; sys.exit(main())",
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "the page needs starlette, uvicorn; install them: " in done.stderr


def test_metrics_come_in_the_form_that_is_asked_for(
    machine: Machine, serving: Callable[..., Serving]
) -> None:
    spec = machine.spec(f"directories: {{'\"d': {{path: {machine.base}/d}}}}\n")
    machine.once(spec)
    page = serving(spec)
    _, headers, text = page.ask("/metrics")
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    plain = {one.name for family in metrics(text) for one in family.samples}
    if shutil.which("promtool"):
        argv = ["promtool", "check", "metrics"]
        done = subprocess.run(argv, input=text, text=True, capture_output=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    wanted = "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5"
    _, headers, text = page.ask("/metrics", Accept=wanted)
    assert headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")
    assert {one.name for family in open_metrics(text) for one in family.samples} == plain
    assert {"reconcile_resource_ok", "reconcile_steps_total", "reconcile_watchdog_up"} <= plain


def test_it_says_what_it_does_not_know(
    machine: Machine, serving: Callable[..., Serving], looping: Callable[..., Looping]
) -> None:
    head = "version: 1\nname: demo\nloop: {every: 1s}\n"
    declared = f"directories: {{d: {{path: {machine.base}/d}}}}\n"
    declared += "checks: {c: {command: ['true'], every: 1h}}\n"
    spec = machine.spec(head + declared)
    loop = looping(spec).up()
    page = serving(spec)

    def shows(words: str) -> bool:
        time.sleep(0.2)
        return words in page.text()

    until(lambda: shows("the watchdog is running"))
    loop.kill()
    until(lambda: shows("no watchdog is running"))

    # The store is locked by somebody.
    machine.once(spec)
    store = sqlite3.connect(machine.state / "demo/store.db", isolation_level=None)
    store.execute("BEGIN EXCLUSIVE")
    until(lambda: shows("database is locked"))
    assert "may not be so any more" in page.text()
    assert page.ask("/status.json")[0] == page.ask("/metrics")[0] == 503
    store.execute("ROLLBACK")
    store.close()
    until(lambda: not shows("database is locked"))
    assert page.ask("/status.json")[0] == 200

    # The spec is broken: the last good one is shown.
    spec.write_text(f"{head}directories: {{d: {{pth: 1}}}}\n")
    until(lambda: shows("the spec cannot be used as it is now"))
    assert "did you mean" in page.text() and page.state("directory:d") == "ok"
    spec.write_text(f"{head}{declared}processes: {{p: {{command: [sleep, '1']}}}}\n")
    until(lambda: shows("process:p") and not shows("cannot be used"))

    # All that is remembered is gone.
    shutil.rmtree(machine.state)
    until(lambda: shows("there is no state directory"))
    assert page.state("directory:d") == "ok"
    assert page.errors.read_text() == ""


def test_who_asks_too_much_gets_it_not(machine: Machine, serving: Callable[..., Serving]) -> None:
    page = serving(machine.spec(f"directories: {{d: {{path: {machine.base}/d}}}}\n"))
    with socket.create_connection(("127.0.0.1", page.port), timeout=60) as one:
        one.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
        try:
            for _ in range(1024):
                one.sendall(b"x" * 1024)
            said = one.recv(100)
        except OSError:
            said = b"HTTP/1.1 400"
    assert said[:12] == b"HTTP/1.1 400"
    for odd in (b"\0\xff\r\n\r\n", b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n",
                b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n"):  # fmt: skip
        with socket.create_connection(("127.0.0.1", page.port), timeout=60) as one:
            one.sendall(odd)
            assert re.match(rb"HTTP/1.1 4\d\d", one.recv(100))
    # Many that connect and say nothing, and many that read nothing of what comes.
    stalled = [socket.create_connection(("127.0.0.1", page.port)) for _ in range(100)]
    for one in stalled[:80]:
        one.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    # The oldest streams give way, and then those who ask for nothing.
    until(lambda: sum(one.recv(10**6, socket.MSG_PEEK).endswith(b"0\r\n\r\n")
                      for one in stalled[:80]) == 80 - 64)  # fmt: skip
    stalled += [socket.create_connection(("127.0.0.1", page.port)) for _ in range(100)]
    until(lambda: len(os.listdir(f"/proc/{page.pid}/fd")) < 180)
    # Whoever comes then gets in all the same.
    assert [page.ask()[0] for _ in range(3)] == [200] * 3
    for one in stalled[80:]:
        one.close()
    with within(4):
        assert page.end() == 0
    for one in stalled[:80]:
        one.close()
    assert page.errors.read_text() == ""


@pytest.mark.slow
def test_a_connection_on_which_nothing_comes_is_dropped(
    machine: Machine, serving: Callable[..., Serving]
) -> None:
    page = serving(machine.spec(f"directories: {{d: {{path: {machine.base}/d}}}}\n"))
    waiting = []
    for said in (
        b"",
        b"GET / HTTP/1.1\r\nHost: loc",
        b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\nG",
    ):
        waiting.append(socket.create_connection(("127.0.0.1", page.port), timeout=60))
        waiting[-1].sendall(said)
    with within(15):
        for one in waiting:
            with one, contextlib.suppress(ConnectionError):
                while one.recv(4096):
                    pass


def test_nobody_is_looked_for_that_does_not_read(
    machine: Machine, serving: Callable[..., Serving]
) -> None:
    spec = machine.spec(f"processes: {{p: {{command: [sleep, '{machine.mark}']}}}}\n")
    machine.once(spec)
    page = serving(spec)
    page.text()

    def children() -> set[str]:
        return set(Path(f"/proc/{page.pid}/task/{page.pid}/children").read_text().split())

    def looks(seconds: float) -> int:
        seen: set[str] = set()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            seen |= children()
            time.sleep(0.005)
        return len(seen)

    until(lambda: looks(0.5) == 0)  # It makes sure of the spec once.
    assert looks(2) == 0
    machine.once(spec)
    os.kill(machine.only(f"sleep {machine.mark}"), signal.SIGKILL)
    assert looks(1) == 0
    # Many see one and the same look.
    readers = [page.connection() for _ in range(10)]
    streams = [page.events(one) for one in readers]
    assert all("not running" in next(one)["wrong"] for one in streams)
    assert looks(3) <= 3
    memory = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{page.pid}/status").read_text())
    assert memory is not None and int(memory[1]) < 60 * 1024
    for one in readers:
        one.close()


def test_a_spec_can_keep_its_page(machine: Machine, looping: Callable[..., Looping]) -> None:
    port = free_port()
    command = [str(machine.bin / "reconcile"), "--serve", str(port), "--state-dir",
               str(machine.state), "{{ spec.path }}"]  # fmt: skip
    spec = machine.spec(
        "version: 1\nname: demo\nloop: {every: 1s}\n"
        f"processes: {{page: {{command: {json.dumps(command)}, "
        f"ready: {{http: 'http://127.0.0.1:{port}/page.css'}}}}}}\n"
    )
    looping(spec)
    page = f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:{port}/').read())"

    def shown() -> str:
        return machine.run(sys.executable, "-c", page).stdout

    until(lambda: "process:page" in shown())
    os.kill(machine.only(f"--serve {port}"), signal.SIGKILL)
    until(lambda: "process:page" in shown())
