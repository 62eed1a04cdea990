"""A repair as lines for people, and as one message, from its JSON value. It must not print."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reconciler.base.text import printable
from reconciler.core.messages import in_parts
from reconciler.output.text import Line

_SHOWN = 12
_LONGEST = 600

Document = Mapping[str, Any]


def begin_lines(number: int, name: str) -> Iterator[Line]:
    """A step that begins."""
    yield f"[{number}/5] {name} ...", ""


def end_lines(
    number: int, name: str, words: str, error: str | None, seconds: float
) -> Iterator[Line]:
    """The step that has ended."""
    if error is not None:
        text = f"[{number}/5] {name}: failed: {printable(error, 4000)} [{seconds:.1f} s]"
        yield text, "bad"
        return
    bad = "failed" in words or "wrong" in words.replace("nothing is wrong", "")
    text = f"[{number}/5] {name}: {printable(words, _LONGEST)} [{seconds:.1f} s]"
    yield text, "change" if bad else "good"


def note_lines(words: str) -> Iterator[Line]:
    """Something beside the steps."""
    yield f"  . {printable(words, 4000)}", "change"


def wrong_lines(document: Document, commands: bool = True) -> Iterator[Line]:
    """What is wrong, the causes first, each with the one command that fixes it."""
    causes = [one for one in document["wrong"] if one["follows_from"] is None]
    for one in causes[:_SHOWN]:
        yield f"  ! {printable(one['what'], _LONGEST)}", "bad"
        if commands and one["mend"]:
            yield f"      fix it with: {printable(one['mend'], 100_000)}", ""
    if len(causes) > _SHOWN:
        yield f"  and {len(causes) - _SHOWN} more (--diagnose shows all)", "quiet"


def repair_lines(document: Document, quiet: bool) -> Iterator[Line]:
    """The end of a repair: what changed, and what is still wrong."""
    if not quiet:
        changed = document["changed"]
        yield ("changed:" if changed else "Nothing was changed."), ""
        for one in changed:
            yield f"  {one['verb']} {printable(one['id'])}: {printable(one['why'], 300)}", "good"
        for one in document["paused"]:
            yield (
                f"paused by {printable(one['by'])}, not changed: {printable(one['id'])}; "
                f"resume it with: {one['resume']}",
                "change",
            )
    if document["healthy"]:
        if not quiet:
            yield f"All is well. [{document['seconds']:.1f} s]", "good"
        return
    yield "still wrong, most important first:", "bad"
    yield from wrong_lines(document)
    if not document["wrong"]:
        yield "  ! the final check did not finish", "bad"


def summary(document: Document) -> str:
    """The same as one message."""
    changed = document["changed"]
    seconds = f"[{document['seconds']:.0f} s]"
    number = len(changed)
    done = "nothing was changed" if not changed else f"{number} changed: {_names(changed)}"
    if document["healthy"]:
        return in_parts("repair: all is well", f"{done} {seconds}")
    lines = [
        f"- {one['what']}" + (f"\n  fix it with: {one['mend']}" if one["mend"] else "")
        for one in document["wrong"]
        if one["follows_from"] is None
    ]
    wrong = "1 thing is" if len(lines) == 1 else f"{len(lines)} things are"
    status, evidence = f"repair: {wrong} still wrong", "\n".join(lines[:_SHOWN])
    return in_parts(status, f"{done} {seconds}", evidence)


def _names(rows: Sequence[Document]) -> str:
    names = list(dict.fromkeys(f"{one['verb']} {one['id']}" for one in rows))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
