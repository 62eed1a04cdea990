"""From a template to the whole text of a unit file, with the header that makes it ours.

An environment with secrets goes out of the unit, which ``systemctl show`` shows to everybody, into
a file that only the unit's manager reads. It must not look at the host. The rules are those of
``Environment=`` and ``EnvironmentFile=`` in systemd.exec(5), and of quoting in systemd.syntax(7).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from reconciler.base.records import replace
from reconciler.core.templating import BadValue, Templates
from reconciler.host.managed_file import header
from reconciler.kinds.unit.resource import RUNS_AND_ENDS, Unit
from reconciler.kinds.unit.text import links, programs, settings, written

_SECTIONS = ("Service", "Socket", "Mount", "Swap")
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
            "s": " ", '"': '"', "'": "'", "\\": "\\"}  # fmt: skip
_CODE = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})")
_SPECIFIER = re.compile(r"%(.)")


def filled(want: Unit, templates: Templates) -> Unit:
    """``want`` with its text, and what follows from that. Raises BadValue."""
    field = "template" if want.template is not None else "content"
    if want.template is None and want.content is None:
        if want.drop_in is not None:
            raise BadValue("drop_in", None, "needs a template or content to be written")
        if want.enabled is None and want.active is None:
            words = "nothing is asked for; give a template or content, enabled or active"
            raise BadValue("unit", None, words)
        return want
    rendered = templates.render(field)
    text = written(field, rendered)
    if not text.strip():
        raise BadValue(field, None, "gives an empty file")
    environment = None
    if rendered.secret:
        text, environment = parted(text, want.environment_file, field)
    made = links(text, str(want.unit))
    if not want.drop_in:
        _check(want, text, made is not None)
    return replace(
        want,
        text=header(templates.spec, templates.id) + text,
        environment=header(templates.spec, templates.id) + environment if environment else None,
        hides=rendered.secret,
        programs=programs(text),
        # What a template's or an instance's links are called is systemd's own affair.
        links=made or () if "@" not in str(want.unit) and not want.drop_in else (),
    )


def _check(want: Unit, text: str, installs: bool) -> None:
    said = {key: value for _, key, value in settings(text)}
    if want.enabled and not installs:
        words = "cannot be true: the unit has no [Install] section with WantedBy= to enable it by"
        raise BadValue("enabled", None, words)
    oneshot = said.get("Type") == "oneshot"
    remains = said.get("RemainAfterExit", "no").lower() in ("yes", "true", "1", "on", "y", "t")
    if want.active and oneshot and not remains:
        raise BadValue("active", None, f"cannot be true: {RUNS_AND_ENDS}")
    reloads = "ExecReload" in said or said.get("Type") == "notify-reload"
    if want.on_change == "reload" and not reloads:
        words = "cannot be reload: the unit has no ExecReload=; write restart or none"
        raise BadValue("on_change", None, words)


def parted(text: str, file: str, field: str) -> tuple[str, str | None]:
    """The text of a unit with ``EnvironmentFile=file`` in place of its ``Environment=``, and what
    that file is to hold; None: there is no such line.

    What needs a specifier, such as ``%h``, stays in the unit: such a file knows none.
    """
    out: list[str] = []
    moved: list[str] = []
    place: int | None = None
    section = ""
    for lines, whole in _joined(text):
        if whole.startswith("["):
            section = whole.strip("[]")
        key, equals, value = whole.partition("=")
        of_environment = equals and key.strip() in ("Environment", "EnvironmentFile")
        if section not in _SECTIONS or not of_environment:
            out += lines
            continue
        if place is None:
            place = len(out)  # What the unit's own files say counts more, as it did.
        if key.strip() == "EnvironmentFile" or not value.strip():
            out += lines
            continue
        left = []
        for word in _words(value, field):
            plain = _unescaped(word)
            if plain is None:
                left.append(word)
            else:
                moved.append(plain)
        if left:
            out.append(f"Environment={' '.join(left)}")
    if not moved or place is None:
        return text, None
    out.insert(place, f"EnvironmentFile={file}")
    return "\n".join(out), "".join(map(_line, moved))


def _joined(text: str) -> Iterator[tuple[list[str], str]]:
    """Its lines, with those that a backslash joins together, and what they say as one."""
    lines: list[str] = []
    whole = ""
    for line in text.split("\n"):
        lines.append(line)
        if len(lines) > 1 and line.lstrip().startswith(("#", ";")):
            continue  # A comment may stand inside a long line, systemd.syntax(7).
        if (len(line) - len(line.rstrip("\\"))) % 2 and not line.startswith(("#", ";")):
            whole += f"{line[:-1]} "
            continue
        yield lines, (whole + line).strip()
        lines, whole = [], ""
    if lines:
        yield lines, whole.strip()


def _words(value: str, field: str) -> Iterator[str]:
    """The assignments of a line, as they are written."""
    for found in re.finditer(r"(?:\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|\\.|[^\s\\])+", value):
        if "=" not in found[0]:
            raise BadValue(field, None, "Environment= holds a word that is no NAME=value")
        yield found[0]


def _unescaped(word: str) -> str | None:
    """What systemd makes of an assignment; None where it puts something in for a specifier."""
    if any(sign != "%" for sign in _SPECIFIER.findall(word)):
        return None
    quote = word[0] if word[0] in "\"'" and word.endswith(word[0]) and len(word) > 1 else ""
    word = word[1:-1] if quote else word
    out, at = "", 0
    while at < len(word):
        if word[at] != "\\" or at + 1 == len(word):
            out, at = out + word[at], at + 1
            continue
        code = _CODE.match(word, at + 1)
        if code is not None:
            number = int(code[4], 8) if code[4] else int(code[1] or code[2] or code[3], 16)
            out, at = out + chr(number), code.end()
        else:
            out, at = out + _ESCAPES.get(word[at + 1], word[at : at + 2]), at + 2
    return out.replace("%%", "%")


def _line(pair: str) -> str:
    """An assignment for the file, in double quotes, in which four characters are escaped."""
    name, _, value = pair.partition("=")
    return f'{name}="' + re.sub(r"([\\\"$`])", r"\\\1", value) + '"\n'
