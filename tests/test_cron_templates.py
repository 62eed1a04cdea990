"""Lines for cron from templates: what they give, and what is refused at its line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support import CHECKOUT, compiled

from reconciler.config.errors import SpecError
from reconciler.host.managed_file import header

JOBS = {"jobs": [["30 3 * * *", "backup 50% | tee x"], ["@daily", ["find", "a b%", "-x"]]]}
GIVEN: dict[str, tuple[dict[str, Any], str]] = {
    "jobs": (
        {"template": "jobs.cron", "vars": JOBS},
        "30 3 * * * backup 50\\% | tee x\n@daily find 'a b\\%' -x\n"),
    "jobs in a file": (
        {"template": "jobs.cron", "file": "jobs", "vars": {
            **JOBS, "run_as": "www-data", "mailto": "ops@example.org", "path": "/bin:/x%y",
            "shell": "/bin/bash", "log": "/var/log/a b"}},
        "MAILTO=ops@example.org\nPATH=/bin:/x%y\nSHELL=/bin/bash\n"
        "30 3 * * * www-data backup 50\\% | tee x >> '/var/log/a b' 2>&1\n"
        "@daily www-data find 'a b\\%' -x >> '/var/log/a b' 2>&1\n"),
    "watchdog": (
        {"template": "watchdog.cron", "vars": {"command": ["reconcile", "--once", "/a b.yaml"]}},
        "@reboot reconcile --once '/a b.yaml'\n*/5 * * * * reconcile --once '/a b.yaml'\n"),
    "watchdog in a file": (
        {"template": "watchdog.cron", "file": "watchdog", "vars": {
            "command": ["reconcile"], "every": "0 * * * *", "run_as": "root", "mailto": "",
            "environment": ["TMUX_TMPDIR=/a b", "X=1%"], "log": "/log"}},
        "MAILTO=\n@reboot root env 'TMUX_TMPDIR=/a b' X=1\\% reconcile >> /log 2>&1\n"
        "0 * * * * root env 'TMUX_TMPDIR=/a b' X=1\\% reconcile >> /log 2>&1\n"),
    "comments are for files": (
        {"content": "# at noon\n0 12  * * *   cat%in%put \n\n"}, "0 12  * * *   cat%in%put\n"),
    "as it is": ({"content": "@daily {{ x | raw }}", "vars": {"x": "cat%x"}}, "@daily cat%x\n"),
    "a comment of a file": (
        {"content": "# 5% {{ x }}\n@daily root a # b", "vars": {"x": "1%"}, "file": "f"},
        "# 5% 1%\n@daily root a # b\n"),
    # python-crontab knows neither these times nor a # that begins no comment.
    "what only cron reads": (
        {"content": "0 0 * * fri-7 y # z\n@daily a#b\n@reboot\tx"},
        "0 0 * * fri-7 y # z\n@daily a#b\n@reboot\tx\n"),
}  # fmt: skip


def cron(base: Path, fields: dict[str, Any]) -> Any:
    (resource,) = compiled(base, f"cron: {{it: {json.dumps(fields)}}}").resources
    return resource.want


@pytest.mark.parametrize("name", GIVEN)
def test_what_a_template_gives(name: str, tmp_path: Path) -> None:
    fields, text = GIVEN[name]
    head = header("demo", "cron:it") if "file" in fields else ""
    assert cron(tmp_path, fields).text == head + text


def test_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    for more in ({}, {"file": "f"}):
        line = "@daily root echo 'a\u2028b\x85c'"
        want = cron(tmp_path, {"content": f"{line}\n", **more})
        assert list(want.lines().values())[-1] == line
        assert [job.command.partition("echo ")[2] for job in want.jobs()] == ["'a\u2028b\x85c'"]


def test_every_shipped_template_is_tried_and_described() -> None:
    shipped = {path.name: path for path in (CHECKOUT / "templates").glob("*.cron")}
    assert shipped.keys() == {x["template"] for x, _ in GIVEN.values() if "template" in x}
    page = (CHECKOUT / "templates/README.md").read_text()
    for name, path in shipped.items():
        text = path.read_text()
        said, section = text.partition("#}")[0], page.partition(f"## {name}\n")[2]
        for variable in re.findall(r"if (\w+) is defined|in (\w+) %", text):
            for word in {*variable} - {""}:
                assert re.search(rf"\b{word}\b", said), f"{name}: {word}"
                assert f"`{word}`" in section.partition("\n## ")[0], f"{name}: {word}"


LINE = "@daily root true\n"
BAD: dict[str, tuple[str, str, int, str]] = {
    # name: (template, further fields, line of the template, fragment of the message)
    "time": ("# x\n\n5-1 * * * * root a\n", "file: f", 3, "minute: '5-1' is not allowed"),
    "time in a loop": (
        "{% for m in [1, 77] %}\n{{ m }} * * * * a\n{% endfor %}\n", "", 2, "minute: '77'"),
    "word for a time": ("@dayly a\n", "", 1, "'@dayly' is no time that cron knows"),
    "no command": (LINE + "* * * * *\n", "file: f", 2, "is no line for cron"),
    "no user": (LINE + "@daily /bin/true x\n", "file: f", 2, "'/bin/true' is no user"),
    "words": ("{# a\n#}\nhello world\n", "", 3, "is no line for cron"),
    "variable": ("\nMAILTO=x\n@daily a\n", "", 2, "stand in a file alone"),
    "time zone": (LINE + "CRON_TZ=UTC\n", "file: f", 2, "CRON_TZ is not known to every cron"),
    "time zone in quotes": ("'CRON_TZ' = UTC\n" + LINE, "file: f", 1, "CRON_TZ is not known"),
    "control character": ("@daily a\x07\n", "", 1, "control character"),
    "two lines in a value": ("{{ 1 }} 1 1 1 * a {{ 'b\\nc' }}\n", "", 1, "a line break"),
    "backslashes": ("@daily a {{ '\\\\\\\\' }}\n", "", 1, "two backslashes"),
    "long command": ("@daily " + "x" * 999 + "\n", "", 1, "more than 998 bytes"),
    "mapping": ("@daily a {{ {'a': 1} }}\n", "", 1, "a mapping"),
}  # fmt: skip


def problem(base: Path, text: str) -> Any:
    with pytest.raises(SpecError) as raised:
        compiled(base, f"cron:\n  it:\n    {text}\n")
    (found,) = raised.value.problems
    return found


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused_at_its_line(name: str, tmp_path: Path) -> None:
    template, fields, line, fragment = BAD[name]
    (tmp_path / "it.cron").write_text(template)
    found = problem(tmp_path, f"template: it.cron\n    {fields}")
    assert fragment in found.message
    assert (found.file.endswith("it.cron"), found.line) == (True, line)


FIELDS = {
    "content: '# x'": "gives no line for cron",
    "template: jos.cron": "did you mean 'jobs.cron'",
    "{content: '@daily a', file: a.b}": "letters, digits, _ and - alone",
    "{content: '@daily a', file: ../b}": "letters, digits, _ and - alone",
    "{content: '@daily root a', file: b, user: bob}": "in which each line names its user",
    "{content: '@daily a', schedule: '@daily'}": "cannot stand beside content",
    "{content: '@daily a', env: {A: b}}": "cannot stand beside content",
    "{content: '@daily a', template: jobs.cron}": "not both",
    "{schedule: '@daily', command: a, file: b}": "is for lines from a template",
    "file: b": "needs a template or content",
    "schedule: '@daily'": "needs 'command'",
    "command: a": "needs 'schedule'",
    "{schedule: '@daily', command: a, vars: {a: b}}": "there is none",
    "{template: jobs.cron, vars: {jobs: [['@daily', a]], run_ass: root}}": "does not use 'run_ass'",
}  # fmt: skip


@pytest.mark.parametrize("text", FIELDS)
def test_what_is_refused_in_the_spec(text: str, tmp_path: Path) -> None:
    found = problem(tmp_path, text)
    assert FIELDS[text] in f"{found.message} {found.hint}"
