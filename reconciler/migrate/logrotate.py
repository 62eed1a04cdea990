"""logrotate.conf and logrotate.d: a retention rule for each folder of each stanza."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from reconciler.migrate.document import Origin, SpecBlock
from reconciler.migrate.draft import SpecDraft, size
from reconciler.migrate.original import NotImported, Original, opened

CONTENT = re.compile(
    r"^[ \t]*(rotate[ \t]+-?\d+|weekly|monthly|daily|missingok|notifempty|copytruncate|dateext"
    r"|sharedscripts|delaycompress|include[ \t]+/etc/logrotate\.d)[ \t]*$",
    re.MULTILINE,
)
NAMES = re.compile(r"logrotate[^/]*\.conf$|/logrotate\.d/")

_EVERY = {"daily": "day", "weekly": "week", "monthly": "month"}
_AGES = {"hourly": "1h", "yearly": "365d"}
_SCRIPTS = ("postrotate", "prerotate", "firstaction", "lastaction", "preremove")
_OFF = {"nocompress": "compress", "nodelaycompress": "delaycompress", "nocreate": "create",
        "nocopytruncate": "copytruncate", "nodateext": "dateext",
        "nosharedscripts": "sharedscripts",
        "noolddir": "olddir", "nomail": "mail", "nocopy": "copy", "noshred": "shred",
        "nomissingok": "missingok", "norenamecopy": "renamecopy",
        "nodatehourago": "datehourago", "nodateyesterday": "dateyesterday",
        "nocreateolddir": "createolddir", "noallowhardlink": "allowhardlink",
        "noignoreduplicates": "ignoreduplicates"}  # fmt: skip
"""What takes another one back."""
_READ = {
    "compress", "delaycompress", "copytruncate", "create", "dateext", "dateformat", "rotate",
    "size", "maxsize", "postrotate", "maxage", "missingok", "notifempty", *_EVERY, *_AGES,
    "tabooext", "taboopat", "sharedscripts",
}  # fmt: skip
_WHY = {
    "su": "paths are walked and not trusted, without another user",
    "ifempty": "an empty log is not rotated",
    "minsize": "a log is rotated in its time, however small",
    "olddir": "rotated logs stay beside the log",
    "mail": "nothing is mailed",
    "prerotate": "nothing runs before a rotation",
    "firstaction": "nothing runs before a rotation",
    "lastaction": "one command runs after a rotation",
}
_TABOO = [".rpmorig", ".rpmsave", ".rpmnew", "~", ",v", ".disabled", ".dpkg-old", ".dpkg-dist",
          ".dpkg-new", ".dpkg-bak", ".dpkg-del", ".cfsaved", ".ucf-old", ".ucf-dist", ".ucf-new",
          ".swp"]  # fmt: skip
_ASKS = re.compile(r"\{\}|\$[1*@]")
_DEEPEST = 16


class _Said(NamedTuple):
    value: str
    origin: Origin


_Options = dict[str, _Said]


def read(original: Original, draft: SpecDraft) -> None:
    """All stanzas of a file, and of those that it includes. Raises NotImported."""
    if "/logrotate.d/" in original.path:
        reason = "what logrotate.conf sets is not in it: import that one, which includes this"
        draft.leave(draft.document, original.at(1, "defaults"), reason)
    _file(original, {}, draft, ())


def _file(original: Original, options: _Options, draft: SpecDraft, chain: tuple[str, ...]) -> None:
    """What is set outside of stanzas holds for all that follow, also in other files."""
    chain = (*chain, os.path.realpath(original.path))
    lines = iter(original.lines())
    paths: list[str] = []
    start = 0
    inner: _Options | None = None
    for number, line in lines:
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if inner is None and (text[0] in "/\"'~{" or paths):
            before, brace, text = text.partition("{")
            start = start if paths else number
            paths += _split(before, original, number)
            if not brace:
                continue
            inner = dict(options)
            text = text.strip()
            if not text:
                continue
        end = inner is not None and text.endswith("}") and not text.startswith("include")
        text = text.removesuffix("}").strip() if end else text
        if text:
            word, _, value = text.replace("=", " ", 1).partition(" ")
            origin = original.at(number, text)
            if word in _SCRIPTS:
                value = _script(lines, original, number)
            elif word == "include":
                _include(original, origin, value.strip(), options, draft, chain)
                continue
            _set(options if inner is None else inner, word, _Said(value.strip(), origin))
        if end and inner is not None:
            _stanza(paths, inner, original.at(start, " ".join(paths)), draft, options)
            paths, inner = [], None
    if inner is not None or paths:
        raise original.refused(start, "a stanza has no end: } is missing")
    if len(chain) == 1:
        for name, said in options.items():
            if name not in _READ:
                reason = _WHY.get(name, "has no equivalent")
                draft.leave(draft.document, said.origin, reason)


def _split(text: str, original: Original, number: int) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise original.refused(number, str(error).lower()) from None


def _script(lines: Iterator[tuple[int, str]], original: Original, start: int) -> str:
    found: list[str] = []
    for _, line in lines:
        if line.strip() == "endscript":
            return "\n".join(found)
        found.append(line.strip())
    raise original.refused(start, "a script has no end: endscript is missing")


def _set(options: _Options, word: str, said: _Said) -> None:
    if not re.fullmatch(r"[a-z]+", word):
        file, line, _ = said.origin
        raise NotImported(file, line, f"{word!r} is no setting of logrotate")
    if word in _OFF:
        options.pop(_OFF[word], None)
        return
    if word == "notifempty":
        options.pop("ifempty", None)
    if word in _EVERY or word in _AGES or word == "size":
        for other in (*_EVERY, *_AGES, "size"):
            options.pop(other, None)
    options[word] = said


def _include(
    original: Original, origin: Origin, path: str, options: _Options, draft: SpecDraft,
    chain: tuple[str, ...],
) -> None:  # fmt: skip
    path = os.path.join(original.folder, path)
    if not os.path.exists(path):
        draft.leave(draft.document, origin, "is not there")
        return
    found = [path]
    if os.path.isdir(path):
        taboo = _taboo(options)
        names = sorted(os.listdir(path))
        found = [os.path.join(path, one) for one in names
                 if not any(fnmatch.fnmatch(one, pattern) for pattern in taboo)]  # fmt: skip
    for one in found:
        if os.path.realpath(one) in chain:
            raise original.refused(origin.line, f"files include one another: {origin.text}")
        if len(chain) >= _DEEPEST:
            raise original.refused(origin.line, "includes are nested too deep")
        if os.path.isfile(one):
            _file(opened(one, origin, original), options, draft, chain)


def _taboo(options: _Options) -> list[str]:
    endings = options["tabooext"].value.replace(",", " ").split() if "tabooext" in options else []
    keep = not endings or endings[0] == "+"
    own = [f"*{one}" for one in endings if one != "+"]
    return [*own, *((f"*{one}" for one in _TABOO) if keep else ()), ".*"]


def _stanza(
    paths: list[str], options: _Options, origin: Origin, draft: SpecDraft, outside: _Options
) -> None:
    folders: dict[str, list[str]] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        folders.setdefault(folder or "/", []).append(name)
    for folder, names in folders.items():
        whole = re.search(r"[*?\[]", folder)
        top = folder if whole is None else folder[: whole.start()].rpartition("/")[0] or "/"
        below = folder[len(top) :].strip("/")
        plain = re.sub(r"[*?\[\]]|\.log\b", "", names[0]).strip("._-")
        block = draft.add("retention", plain or folder.rpartition("/")[2], origin)
        patterns = [f"{below}/{name}" if below else name for name in names]
        block.put("path", top, origin)
        block.put("match", patterns[0] if len(patterns) == 1 else patterns, origin)
        if below:
            block.put("recursive", True, origin)
            # A * in a path of ours stands for folders too.
            block.put("exclude", f"{'*/' * (below.count('/') + 2)}*", origin)
        block.put("action", "rotate", origin)
        try:
            _rule(block, options, origin)
        except ValueError as error:
            draft.leave(block, origin, str(error))
        for name, day in (("weekly", "Monday"), ("monthly", "the first")):
            if name in options and options[name].value:
                draft.leave(block, options[name].origin, f"its day is {day}")
        script = options.get("postrotate")
        if script is not None and _ASKS.search(script.value):
            reason = "it asks which log it is, or holds {}, which stands for the rotated one here"
            draft.leave(block, script.origin, reason)
        for name, said in options.items():
            if name not in _READ and name not in outside:
                draft.leave(block, said.origin, _WHY.get(name, "has no equivalent"))
        if "maxage" in options:
            _age(block, patterns, options["maxage"], draft)


def _rule(block: SpecBlock, options: _Options, origin: Origin) -> None:
    """When a log is due, how many are kept, and what becomes of them. Raises ValueError."""
    every = next((name for name in (*_EVERY, *_AGES) if name in options), None)
    if every in _EVERY:
        block.put("every", _EVERY[every], options[every].origin)
    elif every is not None:
        block.put("older_than", _AGES[every], options[every].origin)
        block.put("age_by", "birth", options[every].origin)
    limit = options.get("size") or (options.get("maxsize") if every else None)
    if limit is not None:
        block.put("max_file", size(limit.value) or "1B", limit.origin)
    elif every is None:
        block.put("max_file", "1MiB", origin)
        block.say("logrotate's own default", "max_file")
    rotate = options.get("rotate", _Said("0", origin))
    keep = int(rotate.value) if re.fullmatch(r"-?[0-9]{1,4}", rotate.value) else 0
    if keep == 0:
        block.say("logrotate keeps none; one is the least here")
    block.put("keep", keep if keep > 0 else 1 if keep == 0 else 9998, rotate.origin)
    if "compress" not in options:
        block.put("compress", False, origin)
    elif "delaycompress" in options:
        block.put("delay_compress", True, options["delaycompress"].origin)
    if "copytruncate" in options:
        block.put("method", "copytruncate", options["copytruncate"].origin)
    elif "create" in options:
        block.put("create", _created(options["create"].value), options["create"].origin)
    if "dateext" in options:
        usual = "-%Y%m%d%H" if every == "hourly" else "-%Y%m%d"
        form = options["dateformat"].value if "dateformat" in options else usual
        block.put("name", form, options["dateext"].origin)
    script = options.get("postrotate")
    if script is not None and not _ASKS.search(script.value):
        block.put("run", script.value, script.origin)


def _created(value: str) -> dict[str, str]:
    """``create 0640 www-data adm``, of which each may be left out."""
    words = value.split()
    found: dict[str, str] = {}
    if words and words[0].isdigit():
        found["mode"] = words.pop(0).zfill(4)
    return found | dict(zip(("owner", "group"), words, strict=False))


def _age(block: SpecBlock, patterns: list[str], said: _Said, draft: SpecDraft) -> None:
    names = list(draft.document["retention"])
    old = draft.add("retention", f"{names[-1]}-old", said.origin)
    old.put("path", block["path"], said.origin)
    old.put("match", [f"{one}{end}" for one in patterns for end in (".*", "-*")], said.origin)
    for key in ("recursive", "exclude"):
        if key in block:
            old.put(key, block[key], said.origin)
    old.put("action", "delete", said.origin)
    old.put("older_than", f"{said.value}d", said.origin)
