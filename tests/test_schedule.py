"""Schedules: what is taken, what is refused and why, in words, and the next run."""

from __future__ import annotations

import os
import random
import shlex
import time
from collections.abc import Iterator
from datetime import datetime

import pytest
from crontab import CronRange, CronTab
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from reconciler.kinds.cron import schedule as schedules
from reconciler.kinds.cron.lines import misread, rendered
from reconciler.kinds.cron.schedule import NICKNAMES, in_words, next_run, parse_schedule

TAKEN = [
    "* * * * *", "*/5 * * * *", "0-59/5,7 * * * *", "007 1 1 1 0", "* * * jan-mar sun",
    "* * * Jan MON", "* * * jan,feb *", "* * * * sun-sat", "* * * * 5-7", "* * * * 0-7",
    "*,5 * * * *", "*/99 * * * *", "0-10/60 * * * *", "* * * jan-dec/3 *", "0 0 29 2 *",
    "0 0 30 2 1", *NICKNAMES, "@reboot",
]  # fmt: skip
REFUSED = {
    "30 2 30 2 *": "never",
    "0 0 31 4,6,9,11 *": "never",
    "0 0 31 2 */2": "never",
    "5-1 * * * *": "ranges from low to high",
    "* * * * sat-sun": "day of week: 'sat-sun' is not allowed; write 0-7",
    "* * * * fri-mon": "ranges from low to high",
    "*/0 * * * *": "minute",
    "60 * * * *": "minute: '60' is not allowed; write 0-59",
    "* 24 * * *": "hour",
    "* * 0 * *": "day of month",
    "* * * 13 *": "month",
    "* * * january *": "jan-dec",
    "* * * * 8": "day of week",
    "* * * * mon#1": "day of week",
    "* * L * *": "day of month",
    "? * * * *": "minute",
    "5/10 * * * *": "steps of * or of a range",
    "* * * jan/2 *": "month",
    "1,,2 * * * *": "minute",
    "1, * * * *": "minute",
    "1- * * * *": "minute",
    "-1 * * * *": "minute",
    "** * * * *": "minute",
    "*-5 * * * *": "minute",
    "1~5 * * * *": "minute",
    "1/2/3 * * * *": "minute",
    "4294967297 * * * *": "minute",
    "* * * *": "five fields",
    "* * * * * *": "five fields",
    "": "five fields",
    "@every": "@daily",
    "@Daily": "@daily",
    "* * * *\n*": "a character",
    "٣ * * * *": "a character",
}
WORDS = {
    "* * * * *": "every minute",
    "*/5 * * * *": "every fifth minute of every hour",
    "*/7 * * * *": "every seventh minute of every hour",
    "30 3 * * 1-5": "at 03:30 on Monday to Friday",
    "0 8,20 * * sat,sun": "at 08:00 and 20:00 on Saturday and Sunday",
    "0 * * * *": "at the start of every hour",
    "15 * * * *": "at minute 15 of every hour",
    "0 */2 * * *": "at minute 0 past every second hour",
    "15 */2 * * *": "at minute 15 past every second hour",
    "*/15 9-17 * * mon-fri": ("every 15th minute from 09:00 to 17:59 on Monday to Friday"),
    "0 9-17 * * *": "at minute 0 past every hour from 9 to 17",
    "@daily": "at 00:00 every day",
    "@weekly": "at 00:00 on Sunday",
    "@yearly": "at 00:00 on January 1",
    "5 4 1,15 * 5": "at 04:05 on the first and the 15th day of month and on Friday",
    "0 0 1-7/2 * */6": (
        "at 00:00 on every second day of month from 1 to 7 if it's on every sixth day of week"
    ),
    "0 0 1-31 * 1": "at 00:00 every day",
    "0 0 1 * 0-7": "at 00:00 every day",
    "0 0 1 jan-mar,12 *": (
        "at 00:00 on the first day of every month from January to March and December"
    ),
    "@reboot": "when the host boots",
}


@pytest.fixture
def zone() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Europe/Berlin"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.parametrize("text", TAKEN)
def test_what_cron_runs_is_taken(text: str) -> None:
    assert parse_schedule(text) == text
    assert in_words(text)


@pytest.mark.parametrize("text", REFUSED)
def test_what_cron_refuses_or_never_runs_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_schedule(text)
    assert REFUSED[text] in str(caught.value)


def test_blanks_and_tabs_between_fields_are_one_blank() -> None:
    assert parse_schedule("\t*/5   * *\t* * ") == "*/5 * * * *"


@pytest.mark.parametrize("text", WORDS)
def test_in_words(text: str) -> None:
    assert in_words(text) == WORDS[text]


def at(*numbers: int, dst: int = -1) -> float:
    return time.mktime((*numbers, 0, 0, 0, dst))


@pytest.mark.parametrize(
    ("text", "now", "goal"),
    [
        ("30 2 * * *", (2027, 3, 28, 0, 30), "2027-03-28 03:00 CEST"),
        ("*/30 2 * * *", (2027, 3, 28, 0, 30), "2027-03-29 02:00 CEST"),
        ("*/20 * * * *", (2027, 3, 28, 1, 40), "2027-03-28 03:00 CEST"),
        ("30 2 * * *", (2027, 10, 31, 2, 0), "2027-10-31 02:30 CEST"),
        ("30 * * * *", (2027, 10, 31, 1, 30), "2027-10-31 02:30 CEST"),
        ("0 0 29 2 *", (2026, 11, 22, 0, 0), "2028-02-29 00:00 CET"),
        ("0 0 29 2 *", (2096, 3, 1, 0, 0), "2104-02-29 00:00 CET"),
        ("0 0 31 12 *", (2026, 12, 31, 0, 0), "2027-12-31 00:00 CET"),
        ("0 0 13 * 5", (2026, 11, 22, 0, 0), "2026-11-27 00:00 CET"),
        ("0 0 13 * */5", (2026, 11, 22, 0, 0), "2026-12-13 00:00 CET"),
    ],
)
def test_the_next_run(zone: None, text: str, now: tuple[int, ...], goal: str) -> None:
    dst = 1 if now[:3] == (2027, 10, 31) else -1
    found = next_run(text, at(*now, dst=dst))
    assert found is not None
    assert time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(found)) == goal


def test_an_hour_that_comes_twice_is_run_twice_only_by_the_hour(zone: None) -> None:
    summer = at(2027, 10, 31, 2, 30, dst=1)
    assert next_run("30 * * * *", summer) == summer + 3600
    assert next_run("30 2 * * *", summer) == at(2027, 11, 1, 2, 30)
    assert next_run("@reboot", summer) is None


def read(text: str) -> list[set[int]]:
    """The values of the five fields, as python-crontab has them; Sunday is 0."""
    (job,) = CronTab(tab=f"{text} true\n")
    found = [{value for part in one.parts for value in times(part)} for one in job.slices]
    return [*found[:4], {day % 7 for day in found[4]}]


def runs(text: str, fields: list[set[int]], moment: float) -> bool:
    """Does cron.c run it in that minute? The test as it stands there."""
    now = time.localtime(moment)
    if now.tm_min not in fields[0] or now.tm_hour not in fields[1] or now.tm_mon not in fields[3]:
        return False
    days = now.tm_mday in fields[2], (now.tm_wday + 1) % 7 in fields[4]
    words = text.split()
    return (all if "*" in (words[2][0], words[4][0]) else any)(days)


def test_the_next_run_is_the_first_minute_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    chance = random.Random(7)
    for _ in range(30):
        text = " ".join(
            chance.choice(["*", "*/2", f"{low}", f"{low}-{high}", f"{low},{high}"])
            for low, high in ((5, 50), (3, 20), (2, 28), (1, 12), (1, 5))
        )
        text = text.rsplit(" ", 2)[0] + " * " + text.rsplit(" ", 1)[1]
        now = 1_800_000_000 + chance.randrange(10**7)
        found = next_run(text, now)
        minute = now - now % 60 + 60
        fields = read(text)
        while not runs(text, fields, minute):
            minute += 60
        assert found == minute, text


# ------------------------------------------------------------------- as somebody else reads it


def written(low: int, high: int) -> st.SearchStrategy[str]:
    """One of the five fields, as people write them."""
    number = st.integers(low, high)
    spans = st.tuples(number, number).map(sorted)
    # It takes no step that is larger than a value may be, as cron does.
    step = st.sampled_from(["", "/1", "/2", "/5"])
    part = st.one_of(
        number.map(str),
        st.tuples(spans, step).map(lambda one: f"{one[0][0]}-{one[0][1]}{one[1]}"),
        step.map(lambda by: f"*{by}"),
    )
    return st.lists(part, min_size=1, max_size=3).map(",".join)


# In a range it makes something else of a Sunday that is written as 7.
SCHEDULES = st.tuples(
    written(0, 59), written(0, 23), written(1, 31), written(1, 12), written(0, 6)
).map(" ".join)
# It takes a # for the beginning of a comment wherever it stands, which cron does not.
COMMANDS = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#"), min_size=1
)


@settings(deadline=None, max_examples=100, database=None)
@given(SCHEDULES, COMMANDS)
@example("* * * * *", "\\%")
@example("* * * * *", "a\\\\b")
def test_another_reader_reads_our_lines_as_we_mean_them(schedule: str, command: str) -> None:
    """python-crontab finds the same times and the same command in what we write."""
    try:
        text = parse_schedule(schedule)
    except ValueError as error:
        assert str(error).startswith("never")  # Such as 30 February; all else is well formed.
        assume(False)
    (job,) = CronTab(tab=f"{rendered(text, (command,), {}).decode()}\n")
    assert job.is_valid()
    ours = schedules.read(text, datetime.now())
    assert read(text) == [
        ours.minutes, ours.hours, ours.days, ours.months, {day % 7 for day in ours.weekdays}
    ]  # fmt: skip
    if job.stdin:  # Where crons differ in what they make of backslashes.
        assert job.command == "/bin/sh"
        assert shlex.split(job.stdin) == ["exec", command, "</dev/null"]
    else:
        assert shlex.split(job.command) == [command]


def times(part: object) -> list[int]:
    """What a part of a field stands for there: a number, or a range."""
    return list(part.range()) if isinstance(part, CronRange) else [int(str(part))]


@settings(deadline=None, max_examples=50, database=None)
@given(st.sampled_from(TAKEN), COMMANDS, st.booleans())
@example("@daily", "\\%", True)
def test_every_line_of_ours_is_read_as_one_command(
    schedule: str, command: str, secret: bool
) -> None:
    line = rendered(schedule, (command,), {"A": "x % y"} if secret else {})
    assert not misread(line)


@pytest.mark.parametrize(
    "line", ["A=b", "* * * * * a\n* * * * * b", "* * * * * a\nB=c", "@daily a\n"]
)
def test_what_is_no_single_command_is_noticed(line: str) -> None:
    assert misread(line.encode())
