"""The lines of a crontab: how ours are written and known again, among those of people. Pure.

It must not show the value of a variable, nor take a line for ours that a person could have
written. Our block, one for each spec, stands below everything else:

    # BEGIN reconcile SPEC -- changes up to its END are undone
    # reconcile SPEC cron:backup 1a2b3c4d
    30 3 * * * backup
    # END reconcile SPEC

The comment above a line is its tag: spec, id, and a check sum of the lines that go with it. It
tells our line from one that a person has put beside it, also where a marker was deleted.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from reconciler.kinds._marked import Mark, Split, at_the_end, joined, lines_of, split, word
from reconciler.model import Secret

LONGEST = 998
"""Bytes of a command, from its first word to the end of the line: entry.c of Debian's cron."""
_SHELL = b" /bin/sh%"
_EXPORT = re.compile(
    r"(?:export ((?:[A-Za-z_][A-Za-z0-9_]*='(?:[^']|'\"'\"')*' ?)+)\n)?(exec .* </dev/null)", re.S
)
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)='((?:[^']|'\"'\"')*)'")
_SETTING = re.compile(
    rb"[ \t]*(['\"]?)([A-Za-z_][A-Za-z0-9_]*)\1[ \t]*=[ \t]*(.*?)[ \t\r]*\n?", re.S
)
_FOREIGN_BEGIN = re.compile(rb"# BEGIN reconcile ([^\s]+)(?: -- .*)?\r?\n?")

Environment = tuple[tuple[str, Secret], ...]


def quoted(value: str) -> str:
    """A word for sh(1), always in quotes."""
    return "'" + value.replace("'", "'\"'\"'") + "'"


def words(argv: tuple[str, ...]) -> str:
    """Arguments as one line for sh(1)."""
    return " ".join(
        one if re.fullmatch(r"[A-Za-z0-9_@%+=:,./-]+", one) and (at or "=" not in one)
        else quoted(one)
        for at, one in enumerate(argv)
    )  # fmt: skip


def rendered(schedule: str, command: tuple[str, ...], variables: Mapping[str, str]) -> bytes:
    """The line for cron. A value stands in no argument of a process, other than in one of cron's.

    ``%`` ends the command, and what follows is its standard input, each further ``%`` a new
    line: crontab(5). There ``\\%`` is a percent sign and every other backslash stays; in the
    command itself Debian's cron turns two backslashes into one, others do not, so that a command
    with such is handed over on standard input too.
    """
    text = command[2] if _is_script(command) else words(command)
    escaped = text.replace("%", "\\%")
    if not variables and "\\\\" not in escaped:
        return _bytes(f"{schedule} {escaped}")
    script = ""
    if variables:
        pairs = (f"{name}={quoted(value)}" for name, value in variables.items())
        script = f"export {' '.join(pairs)}\n"
    # With a standard input of its own: the rest of this one is the script.
    script += f"exec {words(command) if not _is_script(command) else _through_shell(text)}"
    script += " </dev/null"
    return _bytes(schedule) + _SHELL + _bytes(script.replace("%", "\\%").replace("\n", "%"))


def _through_shell(text: str) -> str:
    return f"/bin/sh -c {quoted(text)}"


def _is_script(command: tuple[str, ...]) -> bool:
    # A list of just these words says the same: cron hands every line to sh -c.
    return len(command) == 3 and command[:2] == ("sh", "-c")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def shown(line: bytes, secret: bool) -> tuple[str, dict[str, str]]:
    """A line for people, and the values of its variables, which stand as ``…`` in the first.

    ``secret``: nothing is shown of a line that we could not have written, since the values may
    stand anywhere in it. What another line hands over on standard input is never shown.
    """
    line = line.rstrip(b"\n")
    head, shell, rest = line.partition(_SHELL)
    if shell:
        try:
            script = _decoded(rest).decode()
        except UnicodeDecodeError:
            script = ""
        found = _EXPORT.fullmatch(script)
        pairs = dict(_ASSIGNMENT.findall(found[1] or "")) if found else {}
        values = {name: value.replace("'\"'\"'", "'") for name, value in pairs.items()}
        export = "export " + " ".join(f"{n}={quoted(v)}" for n, v in values.items()) + "\n"
        if found and (not found[1] or script.startswith(export)):
            goal = _text(head + _SHELL)
            if values:
                goal += "export " + " ".join(f"{name}=…" for name in values) + "%"
            return goal + found[2].replace("%", "\\%").replace("\n", "%"), values
    if secret:
        return "a line that was edited by hand", {}
    visible, percent, _ = _first_percent(line)
    return _text(visible) + ("%…" if percent else ""), {}


def _first_percent(line: bytes) -> tuple[bytes, bytes, bytes]:
    found = re.match(rb"((?:[^%\\]|\\.|\\$)*)(%?)(.*)", line, re.S)
    return (found[1], found[2], found[3]) if found else (line, b"", b"")


def _decoded(data: bytes) -> bytes:
    return re.sub(rb"\\%|%", lambda found: b"%" if len(found[0]) == 2 else b"\n", data)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def setting(line: bytes) -> tuple[bytes, bytes] | None:
    """Name and value of a line that sets a variable for those below it, crontab(5)."""
    found = _SETTING.fullmatch(line)
    if found is None or line.lstrip(b" \t").startswith(b"#"):
        return None
    value = found[3]
    if len(value) > 1 and value[:1] in (b"'", b'"') and value[:1] == value[-1:]:
        value = value[1:-1]
    return found[2], value


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of ours, with the MAILTO above it where it has one; without line ends.

    ``vouched``: the check sum of its tag says that it is as we wrote it.
    """

    line: bytes
    mailto: bytes | None = None
    vouched: bool = True

    @property
    def lines(self) -> tuple[bytes, ...]:
        """All lines of it."""
        return (self.line,) if self.mailto is None else (self.mailto, self.line)


@dataclass(frozen=True, slots=True)
class Table:
    """A crontab as one spec sees it. ``entries`` are ours, by id.

    ``trouble`` says in a few words what is wrong with our block as a whole, None when nothing.
    """

    spec: str
    user: str
    parts: Split
    entries: Mapping[str, Entry]
    trouble: str | None = None

    @property
    def marked(self) -> bool:
        """Is there anything of ours?"""
        return self.parts.inner is not None or self.parts.damaged or bool(self.entries)

    def settings(self) -> dict[bytes, bytes]:
        """What the person's lines set for ours, which stand below them."""
        found: dict[bytes, bytes] = {}
        for line in _without_blocks(self.parts.before + self.parts.after):
            pair = setting(line)
            if pair is not None:
                found[pair[0]] = pair[1]
        return found

    def text(self, entries: Mapping[str, Entry]) -> bytes | None:
        """The whole crontab with these entries; None when there should be none at all."""
        if not entries:
            left = self.parts.others
            if not left and self.parts.new:
                return None
            # Where a person's last line had no end, crontab(1) would refuse what it was.
            return left + b"\n" if left and not left.endswith(b"\n") else left
        inner: list[bytes] = []
        mailto = False
        for name, entry in sorted(entries.items(), key=_place):
            inner += self._tagged(name, entry.lines)
            mailto = mailto or entry.mailto is not None
        if mailto:
            # Another spec's lines may follow.
            inner += self._tagged("mailto", (self._mailto(),))
        return joined(replace(self.parts, inner=tuple(inner)), _mark(self.spec))

    def _tagged(self, name: str, lines: tuple[bytes, ...]) -> list[bytes]:
        tag = b"%s%s %s" % (_tag(self.spec), word(name), _sum(lines))
        return [line + b"\n" for line in (tag, *lines)]

    def _mailto(self) -> bytes:
        lines = _without_blocks(self.parts.before + self.parts.after)
        for line in reversed(lines):
            pair = setting(line)
            if pair is not None and pair[0] == b"MAILTO":
                return line.rstrip(b"\r\n")
        return b"MAILTO=" + _bytes(self.user)


def table(text: bytes | None, spec: str, user: str) -> Table:
    """Read a crontab; None is one that is not there."""
    mark = _mark(spec)
    parts = split(text or b"", mark)
    if text is None:
        parts = replace(parts, new=True)
    entries: dict[str, Entry] = {}
    if parts.inner is None and not parts.damaged and _tag(spec) not in parts.before:
        return Table(spec, user, parts, entries)
    trouble = "a marker is missing or doubled" if parts.damaged else None
    kept, spared = _inner(parts.inner or (), spec, entries), _inner(parts.spare, spec, {})
    before = _loose(parts.before, spec, entries)
    after = _loose(parts.after, spec, entries)
    if trouble is None and (before, after) != (parts.before, parts.after):
        trouble = "lines of it stand outside of it"
    if kept or spared:
        trouble = trouble or "there are lines in it that are not ours"
        if before and not before.endswith(b"\n"):
            before += b"\n"
        before += b"".join(kept + spared)
    parts = replace(parts, before=before, after=after)
    if _without_blocks(after):
        trouble = trouble or "there are lines below it"
        parts = at_the_end(parts)
    made = Table(spec, user, parts, entries)
    if trouble is None and made.text(entries) != text:
        trouble = "its own lines were edited" if entries else "there is nothing in it"
    return replace(made, trouble=trouble)


def put(old: Table, name: str, entry: Entry) -> bytes | None:
    """The crontab with that entry, and our block in order."""
    # A line that lost its tag and is the same is no line of a person's.
    lines = [line for line in lines_of(old.parts.before) if not _orphan(old, line, entry)]
    parts = replace(old.parts, before=b"".join(lines))
    return replace(old, parts=parts).text({**old.entries, name: entry})


def _orphan(old: Table, line: bytes, entry: Entry) -> bool:
    return old.trouble is not None and line.rstrip(b"\n") == entry.line


def drop(old: Table, name: str) -> bytes | None:
    """The crontab without that entry, and our block in order."""
    return old.text({key: entry for key, entry in old.entries.items() if key != name})


def _mark(spec: str) -> Mark:
    return Mark(b"#", word(spec))


def _tag(spec: str) -> bytes:
    return b"# reconcile %s " % word(spec)


def _sum(lines: tuple[bytes, ...]) -> bytes:
    return b"%08x" % zlib.crc32(b"\n".join(lines))


def _named(tag: bytes, spec: str) -> tuple[str, bytes]:
    """Id and check sum of a tag."""
    name, _, check = tag.removeprefix(_tag(spec)).strip().partition(b" ")
    plain = re.sub(rb"%([0-9A-F]{2})", lambda found: bytes([int(found[1], 16)]), name)
    return _text(plain), check


def _place(pair: tuple[str, Entry]) -> tuple[bool, str]:
    """By id, but those that set MAILTO below those that do not."""
    return pair[1].mailto is not None, pair[0]


def _group(lines: list[bytes], at: int) -> tuple[bytes, ...]:
    """The lines that go with the tag at ``at``, without their ends."""
    found: list[bytes] = []
    for line in lines[at + 1 : at + 3]:
        pair = setting(line)
        if not line.strip() or line.startswith(b"#") or (pair and (found or pair[0] != b"MAILTO")):
            break
        found.append(line.rstrip(b"\n"))
        if pair is None:
            break
    return tuple(found)


def _inner(inner: tuple[bytes, ...], spec: str, entries: dict[str, Entry]) -> list[bytes]:
    """Reads the entries; what is left is not ours."""
    return _parted(list(inner), spec, entries, False)


def _loose(text: bytes, spec: str, entries: dict[str, Entry]) -> bytes:
    """A text outside of our block without what is surely ours in it."""
    if _tag(spec) not in text:
        return text
    return b"".join(_parted(lines_of(text), spec, entries, True))


def _parted(
    lines: list[bytes], spec: str, entries: dict[str, Entry], strictly: bool
) -> list[bytes]:
    """``strictly``: only what our own check sum vouches for is not a person's."""
    left: list[bytes] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        name, check = _named(line, spec) if line.startswith(_tag(spec)) else ("", b"")
        if not name or (strictly and not re.fullmatch(rb"[0-9a-f]{8}", check)):
            left.append(line)
            continue
        group = _group(lines, at - 1)[: 1 if name == "mailto" else 2]
        vouched = check == _sum(group)
        if group and (vouched or not strictly):
            at += len(group)
            if setting(group[-1]) is None:
                mailto = group[0] if len(group) > 1 else None
                entries.setdefault(name, Entry(group[-1], mailto, vouched))
    return left


def _without_blocks(text: bytes) -> list[bytes]:
    """The lines that stand in no block of another spec."""
    lines = lines_of(text)
    if b"# BEGIN reconcile " not in text:
        return lines
    left: list[bytes] = []
    at = 0
    while at < len(lines):
        found = _FOREIGN_BEGIN.fullmatch(lines[at])
        if found is not None:
            mark = Mark(b"#", found[1])
            end = next((n for n, x in enumerate(lines[at:], at) if mark.ends(x)), None)
            if end is not None:
                at = end + 1
                continue
        left.append(lines[at])
        at += 1
    return left
