"""Each error is told where its cause stands, however deep, with what was probably meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import compiled

from reconciler.config.errors import Problem, SpecError


def problems(folder: Path, text: str) -> list[Problem]:
    with pytest.raises(SpecError) as caught:
        compiled(folder, text)
    return list(caught.value.problems)


P = "processes: {p: {command: x, "
C = "checks: {c: {command: x, "
CASES = {
    "layout of a window": ("sessions: {s: {windows: [{name: a}, {name: b, layout: «tield»}]}}",
                           "there is no layout 'tield'"),
    "signal of a stop": (P + "stop: {timeout: 5s, signal: «FOO»}}}", "no signal 'FOO'"),
    "factor": (P + "restart: {attempts: 3, backoff: {initial: 1s, factor: «0.5»}}}}",
               "restart.backoff.factor: must be at least 1"),
    "pause": (P + "restart: {attempts: 3, backoff: {initial: 9s, max: «1s»}}}}",
              "restart.backoff.max: must not be shorter"),
    "argument": ("processes: {p: {command: [a, b, «{c: d}», e]}}", "command[2]: needs a single"),
    "environment": (P + "env: {A: b, «1B»: c}}}", "'1B' is not a name"),
    "value of the environment": (P + "env: {A: b, B: «[c]»}}}", "env.B: B: needs a single value"),
    "pattern": ("retention: {r: {path: /x, match: ['*.a', «''»], action: delete, older_than: 1d}}",
                "match[1]: is empty"),
    "reaction": (C + "on_failure: [notify, «nonsense»]}}", "on_failure[1]: is none of"),
    "reaction twice": (C + "on_failure: [notify, run a, «notify»]}}", "on_failure[2]: 'notify'"),
    "status": ("checks: {c: {http: {url: 'http://x/', status: «999»}}}", "http.status: 999 is out"),
    "url": ("checks: {c: {http: {status: 200, url: «nope»}}}", "http.url: needs a URL"),
    "field of a signal": ("retention: {r: {path: /x, action: rotate, max_file: 1MB,\n"
                          "  signal: {process: p, «signl»: HUP}}}", "has no field 'signl'"),
    "field of a request": ("checks: {c: {http: {url: 'http://x/', «stats»: 200}}}",
                           "has no field 'stats'"),
    "variable of a unit": ("units: {w.service: {template: worker.service,\n"
                           "  vars: {command: [/bin/true], «run_ass»: nobody}}}",
                           "the template does not use 'run_ass'"),
    "variable of text": ("units: {w.service: {content: '[Service]', vars: {«a»: b}}}",
                         "the content does not use 'a'"),
    "variable of cron": ("cron: {c: {schedule: '@daily', command: x,\n"
                         "  env: {A: b, USER: «x»}}}", "env.USER: USER cannot be set"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "words"), CASES.values(), ids=CASES)
def test_an_error_stands_where_its_cause_does(tmp_path: Path, text: str, words: str) -> None:
    before, _, rest = text.partition("«")
    marked = rest.partition("»")[0]
    (problem,) = problems(tmp_path, text.replace("«", "").replace("»", ""))
    # Two lines of the head stand above.
    line = 3 + before.count("\n")
    column = len(before.rpartition("\n")[2]) + 1
    assert (problem.line, problem.column) == (line, column), problem.render()
    assert words in problem.message
    assert marked


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("retention: {r: {path: /x, action: delte, older_than: 1d}}", "did you mean 'delete'?"),
        (
            "retention: {r: {path: /x, action: delete, older_than: 1d, age_by: mtme}}",
            "did you mean 'mtime'?",
        ),
        (
            "units: {w.service: {template: worker.service, vars: {command: [x], run_ass: nobody}}}",
            "did you mean 'run_as'?",
        ),
    ],
)
def test_a_word_that_is_nearly_right_is_named(tmp_path: Path, text: str, hint: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert problem.hint == hint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("retention: {r: {path: /x, action: delete, max_total: 10kB}}", "did you mean 10KB?"),
        (
            "retention: {r: {path: /x, action: delete, max_total: 1 gib}}",
            "did you mean 1GiB?",
        ),
        ("directories: {d: {path: /x, mode: 0o755}}", 'write "0755"'),
        (
            "retention: {r: {path: /x, action: rotate, max_file: 1MB, signal: HUP}}",
            'such as "HUP process:worker"',
        ),
        (
            "retention: {r: {path: '/x/*', action: delete, older_than: 1d}}",
            "put the pattern into match",
        ),
        ("processes: {p: {command: x, session: 'session:s'}}\nsessions: {s: {}}", "write 's'"),
    ],
)
def test_an_error_says_what_to_write(tmp_path: Path, text: str, words: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert words in f"{problem.message} {problem.hint}"
