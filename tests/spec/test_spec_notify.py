"""``notify``: who is told of what; and no URL in anything that is printed or kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reconciler.base.values import Notify, Secret, Target
from reconciler.config.errors import SpecError, document
from reconciler.config.schema import json_schema

HEAD = "version: 1\nname: demo\n"
DEFAULT = ("failed", "gave_up", "recovered", "report")


def test_what_it_says(room: Any) -> None:
    spec = room.load(
        HEAD
        + """
vars: {token: abcdef}
notify:
  targets:
    slack: { url_file: ~/slack_url }
    chat: { url: "json://box/{{ token }}", on: [report, changed] }
    off: { url: "{{ env.NONE | default('') }}", on: gave_up }
  remind_every: 4h
  report_every: [7d, 1d, "{{ 24 }}h"]
  quiet: "22:00-07:30"
  title: "{{ host.name }}: {{ spec.name }}"
"""
    )
    assert spec.notify == Notify(
        (
            Target("slack", DEFAULT, None, "/home/ann/slack_url"),
            Target("chat", ("changed", "report"), Secret.of("json://box/abcdef"), None, spec.path),
            Target("off", ("gave_up",), Secret.of("")),
        ),
        14400.0,
        (22 * 60, 7 * 60 + 30),
        "box: demo",
        (86400.0, 7 * 86400.0),
    )
    assert [secret.reveal() for secret in spec.secrets] == ["json://box/abcdef"]
    assert "abcdef" not in repr(spec)


def test_nothing(room: Any) -> None:
    for text in ("", "notify:\n", "notify: {targets: {}}\n", "notify: {targets: }\n"):
        assert room.load(HEAD + text).notify == Notify()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", ["3:9 notify needs 'targets' = or leave notify out"]),
        ("[a]", ["3:9 notify needs fields = write notify: {targets: {NAME: {url: …}}}"]),
        ("{targets: {a: {}}}", ["3:20 target 'a' needs url or url_file = url_file names a file "
                                "that only you can read"]),
        ("{targets: {a: {url_file: /x, url: 'json://b'}}}",
         ["3:20 target 'a' has both url and url_file = take one out"]),
        ("{targets: {a: {url_file: x}}}",
         ["3:34 notify: targets.a.url_file: 'x' is not absolute; a path starts with / or ~ "
          "({{ spec.dir }} is the folder of the spec)"]),
        ("{targets: {a: {url_file: /x, on: [failde, 3]}}}",
         ["3:43 notify: targets.a.on[0]: there is no event 'failde' = did you mean 'failed'?",
          "3:51 notify: targets.a.on[1]: there is no event '3' = the events are changed, failed, "
          "gave_up, recovered, progress, report"]),
        ("{targets: {a: {url_fil: /x, url_file: /x}}}",
         ["3:24 notify: targets.a has no field 'url_fil' = did you mean 'url_file'?"]),
        ("{targets: {}, quit: 22:00-07:00}",
         ["3:23 notify has no field 'quit' = did you mean 'quiet'?"]),
        ("{targets: {}, report_every: []}",
         ["3:37 notify: report_every: takes 1 to 10 of them = write 1d, or [1d, 7d, 30d]"]),
        ("{targets: {}, report_every: [1d, daily]}",
         ["3:42 notify: report_every[1]: 'daily' is not a duration; write a positive number and a "
          "unit, such as 500ms, 30s, 5m, 2h or 7d"]),
        ("{targets: {}, quiet: 22:00-24:00}",
         ["3:30 notify: quiet: '22:00-24:00' is not a time of the day; write from when to when, "
          "such as 22:00-07:00"]),
        ("{targets: {}, quiet: 22:00-22:00, remind_every: 4, title: ''}",
         ["3:30 notify: quiet: begins and ends at the same time; leave it out to be told at all "
          "hours",
          "3:57 notify: remind_every: '4' is not a duration; write a positive number and a unit, "
          "such as 500ms, 30s, 5m, 2h or 7d",
          "3:67 notify: title: is empty; give it a value or leave the line out"]),
    ],
)  # fmt: skip
def test_mistakes(text: str, expected: list[str], room: Any, told: Any) -> None:
    assert list(map(told, room.fails(f"{HEAD}notify: {text}\n"))) == expected


def test_files_put_their_targets_together(room: Any) -> None:
    room.write("notify: {targets: {b: {url: 'json://b'}}, remind_every: 1h}\n", "more.yaml")
    room.write("notify: {targets: {c: {url_file: /c}}}\n", "other.yaml")
    told = room.load(
        f"{HEAD}include: [more.yaml, other.yaml]\n"
        "notify: {targets: {a: {url: 'json://a'}}, quiet: '22:00-07:00'}\n"
    ).notify
    assert sorted(target.name for target in told.targets) == ["a", "b", "c"]
    assert (told.remind_every, told.quiet) == (3600.0, (22 * 60, 7 * 60))
    alone = room.load(f"{HEAD}include: [more.yaml]\n").notify
    assert [target.name for target in alone.targets] == ["b"]


def test_what_stands_in_two_files_is_told_with_both(room: Any, told: Any) -> None:
    room.write("notify: {targets: {a: {url: 'json://b'}}, remind_every: 1h}\n", "more.yaml")
    text = "notify: {targets: {a: {url: 'json://a'}}, remind_every: 2h}\n"
    assert list(map(told, room.fails(f"{HEAD}include: [more.yaml]\n{text}"))) == [
        f"4:20 target 'a' is set twice; first in {room.base}/more.yaml, line 1",
        f"4:43 notify: 'remind_every' is set twice; first in {room.base}/more.yaml, line 1",
    ]


SECRET = "hunter2"


@pytest.mark.parametrize(
    "text",
    [
        # Something else on the line is wrong.
        f"notify: {{targets: {{a: {{url: 'json://{SECRET}@box/', onn: x}}}}}}",
        f'notify: {{targets: {{a: {{"url": "json://box/{SECRET}", onn: x}}}}}}',
        f"notify: {{targets: {{a: {{url: json://box/{SECRET}, onn: x}}}}}}",
        f"notify: {{targets: {{a: {{url: >-\n    json://box/{SECRET}\n    , onn: x}}}}}}",
        f"notify: {{targets: {{a: {{url: [{SECRET}], onn: x}}}}}}",
        f"notify: {{targets: {{a: {SECRET}/x}}}}",
        # It is none.
        f"notify: {{targets: {{a: {{url: {SECRET}}}}}}}",
        f"notify: {{targets: {{a: {{url: 'json: {SECRET}'}}}}}}",
        # It is made of something.
        f"vars: {{a: {SECRET}, b: '{{{{ a }}}}/x', c: '{{{{ nope }}}}'}}\n"
        "notify: {targets: {a: {url: 'json://{{ b }}'}}}",
        f"notify: {{targets: {{a: {{url: \"json://{{{{ '{SECRET}' ~ nope }}}}\"}}}}}}",
        f"notify: {{targets: {{a: {{url: \"{{{{ '{SECRET}' }}}}\"}}}}}}",
        "notify: {targets: {a: {url: '{{ env.HOOK }}'}}}",
        "notify: {targets: {a: {url: 'json://{{ env.HOOK }}', onn: x}}}",
        # The file is no YAML at all.
        f"notify:\n  targets:\n    a: {{url: json://{SECRET}@box/, on: [failed}}\n",
        f"notify:\n  targets:\n    a:\n      url: json://{SECRET}@box/: x\n",
        f"notify:\n  targets:\n    a:\n      url: {SECRET}: x\n",
        f"notify:\n  targets:\n    a:\n      url: 'json://{SECRET}@box/\n      on: [failed]\n",
        f"notify:\n\ttargets: json://{SECRET}",
    ],
)
def test_no_error_shows_a_url(text: str, room: Any) -> None:
    with pytest.raises(SpecError) as caught:
        room.load(f"{HEAD}{text}\n", environ={"HOOK": f"{SECRET} \t"})
    shown = str(caught.value) + json.dumps(document(caught.value)) + repr(caught.value)
    assert SECRET not in shown
    assert "spec.yaml:" in shown


def test_the_url_is_not_kept_on_disk(room: Any) -> None:
    text = f"{HEAD}notify: {{targets: {{a: {{url: 'json://{SECRET}@box/'}}}}, title: ok}}\n"
    spec, _ = room.cached(text)
    kept, compiled = room.cached(text)
    assert not compiled
    assert not kept.complete
    assert kept.notify.targets[0].url == Secret(None, spec.notify.targets[0].url.digest)
    assert kept.notify.title == "ok"
    files = [path for path in Path(room.state).rglob("*") if path.is_file()]
    assert files
    assert not any(SECRET.encode() in path.read_bytes() for path in files)
    assert room.cached(text, complete=True)[0] == spec
    beside = f"{HEAD}notify: {{targets: {{a: {{url_file: /x}}}}, title: '{{{{ env.SITE }}}}'}}\n"
    assert room.cached(beside, environ={"SITE": "north"})[0].notify.title == "north"
    assert room.cached(beside, environ={"SITE": "north"})[1], "kept with a value of env"


def test_the_schema(room: Any) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema(room.kinds()))

    def valid(notify: Any) -> bool:
        return bool(validator.is_valid({"version": 1, "name": "demo", "notify": notify}))

    target = {"url_file": "~/x", "on": ["failed", "{{ x }}"]}
    assert valid({"targets": {"a": target}, "quiet": "22:00-07:00", "remind_every": "4h"})
    assert valid({"targets": {"a": {"url": "{{ env.X }}"}}, "quiet": "{{ q }}", "title": "x"})
    assert not valid({"targets": {"a": {}}})
    assert not valid({"targets": {"a": {"url": "x", "url_file": "y"}}})
    assert not valid({"targets": {"a": {"url": "x", "on": ["failde"]}}})
    assert not valid({"targets": {}, "quiet": "22-7"})
