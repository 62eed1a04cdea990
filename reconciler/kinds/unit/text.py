"""The text of a unit file: values escaped for the place where they stand, and what it says.

It must not look at the host. The rules are those of systemd.syntax(7), of systemd.unit(5) for
specifiers, and of systemd.service(5) for command lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from reconciler.core.templating import BadValue, RenderedTemplate, Value

COMMANDS = frozenset(
    f"Exec{word}"
    for word in (
        "Condition", "Start", "StartPre", "StartPost", "Reload", "Stop", "StopPre", "StopPost",
    )
)  # fmt: skip
"""Keys whose value is a command line, in which ``$`` is special too."""
_ASSIGNMENTS = frozenset(("Environment", "PassEnvironment", "UnsetEnvironment"))
_WORDS = frozenset(
    (
        "BindPaths", "BindReadOnlyPaths", "CacheDirectory", "ConfigurationDirectory",
        "DeviceAllow", "ExecPaths", "ExecSearchPath", "InaccessiblePaths", "LogsDirectory",
        "NoExecPaths", "ReadOnlyPaths", "ReadWritePaths", "RuntimeDirectory", "StateDirectory",
        "TemporaryFileSystem",
    )
)  # fmt: skip
"""Keys that take a list of words in which quotes count."""
_NO_SPECIFIERS = frozenset(
    (
        "CPUQuota", "MemoryHigh", "MemoryLow", "MemoryMax", "MemoryMin", "MemorySwapMax",
        "ManagedOOMMemoryPressureLimit", "TasksMax",
    )
)  # fmt: skip
"""Keys that take a percentage and know no specifiers: a doubled % would be wrong there."""
_PREFIXES = "@-:+!"
_NAME = re.compile(r"[A-Za-z0-9@._-]+")
_PLAIN_WORD = re.compile(r"[^\s\"'\\;]+")


class _Writer:
    """Writes a unit file piece by piece, and knows what the place is where a value comes."""

    def __init__(self, field: str) -> None:
        self.field = field
        self.out: list[str] = []
        self._line_begins()

    def _line_begins(self) -> None:
        self.key: str | None = None
        self.before = ""
        """The line so far, up to its ``=``."""
        self.sort = "start"  # start, comment, section, key, value
        self.quote = ""
        self.escaped = False
        self.word = ""
        """What of the present word has been written already."""
        self.words = 0
        """Words before it in this command."""
        self.unexpanded = False
        """With the prefix ``:`` nothing is put in for ``$``, systemd.service(5)."""
        self.fresh = self.resumed = False
        """Does a joined line begin here? Was there such a line before this comment?"""

    def literal(self, text: str) -> None:
        """Text of the template itself."""
        for character in text:
            self._take(character)
        self.out.append(text)

    def _take(self, character: str) -> None:
        if character == "\n":
            if self.sort == "comment" and self.resumed:
                self.sort = "value"  # systemd.syntax(7): comments may stand inside a long line.
            elif not (self.sort == "value" and self.escaped):
                self._line_begins()
            else:
                self.escaped = False
                self._blank()
                self.fresh = True
            return
        fresh, self.fresh = self.fresh, False
        if self.sort == "value":
            if fresh and character.isspace():
                self.fresh = True
            elif fresh and character in "#;":
                self.sort, self.resumed = "comment", True
            else:
                self._in_value(character)
        elif self.sort == "start" and not character.isspace():
            self.resumed = False
            self.sort = {"#": "comment", ";": "comment", "[": "section"}.get(character, "key")
        if self.sort == "key":
            if character == "=":
                self.key, self.sort = self.before.strip(), "value"
            self.before += character

    def _in_value(self, character: str) -> None:
        escaped, self.escaped = self.escaped, False
        if escaped:
            self.word += character
        elif character == "\\":
            self.escaped = True
            self.word += character
        elif self.quote:
            self.word += character
            if character == self.quote:
                self.quote = ""
        elif character.isspace():
            self._blank()
        else:
            if character in "\"'" and not self.word:
                self.quote = character
            self.word += character

    def _blank(self) -> None:
        if not self.word or self.quote:
            return
        if self.words == 0:
            self.unexpanded = ":" in _prefix(self.word)
        # A ";" of its own begins another command.
        self.words = 0 if self.word == ";" else self.words + 1
        self.word = ""

    def value(self, value: Value, ends: bool) -> None:
        """What a template gave. ``ends``: a blank, or the end of the line, comes after it."""
        if value.raw:
            text = self._one_line(str(value.value), value.line)
            self.literal(text)
            return
        text = self._escaped(value, ends)
        self.out.append(text)
        self.fresh = self.escaped = False
        if self.sort == "start":
            self.sort, self.resumed = "key", False
        if self.sort == "key":
            self.before += text
        if self.sort == "value":
            self.word += text or "\0"

    def _escaped(self, value: Value, ends: bool) -> str:
        if self.sort in ("start", "key", "section"):
            text = self._text(value.value, value.line)
            if not _NAME.fullmatch(text):
                words = "as a name of a section or a key may have letters, digits, and @._- alone"
                raise BadValue(self.field, value.line, f"a value {words}; values stand after '='")
            return text
        if self.sort == "comment":
            return self._text(value.value, value.line)
        key = self.key or ""
        if isinstance(value.value, dict) and key == "Environment":
            pairs = value.value.items()
            items = [f"{name}={self._text(item, value.line)}" for name, item in pairs]
            return self._list(items, value.line, ends)
        if isinstance(value.value, list):
            return self._list([self._text(i, value.line) for i in value.value], value.line, ends)
        return self._item(self._text(value.value, value.line), value.line, not self.word and ends)

    def _list(self, items: list[str], line: int, ends: bool) -> str:
        if self.quote or not ends or self.word.strip(_PREFIXES):
            raise BadValue(self.field, line, "a list has to stand between blanks")
        if self.word and not items:
            raise BadValue(self.field, line, "there is no program: the list is empty")
        words: list[str] = []
        for item in items:
            words.append(self._item(item, line, not self.word or bool(words)))
            self.words += 1
        self.words -= bool(items)  # The last one is the present word.
        return " ".join(words)

    def _item(self, text: str, line: int, whole: bool) -> str:
        """One value. ``whole``: it is a word of its own, so that quotes can be put around it."""
        key = self.key or ""
        if key not in _NO_SPECIFIERS:
            text = text.replace("%", "%%")
        if key in COMMANDS:
            text = self._command(text, line)
        if self.quote:
            return text.replace("\\", "\\\\").replace(self.quote, f"\\{self.quote}")
        if key in COMMANDS | _ASSIGNMENTS or (key in _WORDS and whole):
            if text and _PLAIN_WORD.fullmatch(text):
                return text
            if whole:
                return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
            # Quotes in the middle of a word are no quotes; C-style escapes hold everywhere.
            return re.sub(r"[\s\"'\\;]", lambda found: f"\\x{ord(found[0]):02x}", text)
        if key in _WORDS and text and not _PLAIN_WORD.fullmatch(text):
            raise BadValue(self.field, line, f'a value with blanks or quotes: write "{key}" in ""')
        if text.endswith("\\"):
            raise BadValue(self.field, line, "a value ends in a backslash, which joins two lines")
        return text

    def _command(self, text: str, line: int) -> str:
        if self.words:
            return text if self.unexpanded else text.replace("$", "$$")
        if not self.word.strip(_PREFIXES + "\"'"):
            self.unexpanded = ":" in _prefix(self.word)
            if not text or text[0] in f"{_PREFIXES}|":
                raise BadValue(self.field, line, f"{text[:40]!r} cannot be the name of a program")
        if "$" in text:
            raise BadValue(self.field, line, "the name of a program cannot hold a '$'")
        return text

    def _text(self, value: object, line: int) -> str:
        if isinstance(value, bool):
            return "true" if value else "false"
        if value is None:
            raise BadValue(self.field, line, "a value is null and has no text; use | default('')")
        if isinstance(value, (list, dict)):
            what = "a list" if isinstance(value, list) else "a mapping"
            raise BadValue(self.field, line, f"a value is {what}, not text")
        return self._one_line(str(value), line)

    def _one_line(self, text: str, line: int) -> str:
        for character in text:
            # Not what isprintable() says: text in any language is fine.
            if ord(character) < 32 or 127 <= ord(character) < 160 or character in "\u2028\u2029":
                what = "a line break" if character in "\n\r" else "a control character"
                raise BadValue(self.field, line, f"a value holds {what}, which a unit cannot hold")
            if 0xD800 <= ord(character) < 0xE000:
                raise BadValue(self.field, line, "a value is not UTF-8 text")
        return text


def _prefix(word: str) -> str:
    """The special characters before the name of a program."""
    return word[: len(word) - len(word.lstrip(_PREFIXES))]


def written(field: str, rendered: RenderedTemplate) -> str:
    """The text of a unit file. Raises BadValue for a value that cannot stand where it does."""
    writer = _Writer(field)
    pieces = rendered.pieces
    for at, piece in enumerate(pieces):
        if isinstance(piece, Value):
            after = pieces[at + 1] if at + 1 < len(pieces) else "\n"
            writer.value(piece, isinstance(after, str) and after[:1].isspace())
        else:
            writer.literal(piece)
    text = "".join(writer.out)
    return text if text.endswith("\n") or not text else f"{text}\n"


def settings(text: str) -> Iterator[tuple[str, str, str]]:
    """Section, key and value of every line, with long lines joined, systemd.syntax(7)."""
    section = joined = ""
    for line in text.split("\n"):
        bare = line.strip()
        if bare.startswith(("#", ";")) or not (bare or joined):
            continue
        if (len(line) - len(line.rstrip("\\"))) % 2:
            joined += line[:-1] + " "
            continue
        whole, joined = (joined + line).strip(), ""
        if whole.startswith("["):
            section = whole.strip("[]")
        elif "=" in whole:
            key, _, value = whole.partition("=")
            yield section, key.strip(), value.strip()


def programs(text: str) -> tuple[str, ...]:
    """The programs that its command lines name, without those that may be missing."""
    found: dict[str, None] = {}
    rooted = False
    for section, key, value in settings(text):
        rooted = rooted or key in ("RootDirectory", "RootImage")
        if section not in ("Service", "Socket", "Mount", "Swap") or key not in COMMANDS:
            continue
        program = value.split()[0] if value.split() else ""
        name = program.lstrip(_PREFIXES).strip("\"'").replace("%%", "%")
        # What still holds an escape, a blank in quotes or a specifier is left to systemd.
        plain = not re.search(r"[\\%\"']", name) and program.count('"') in (0, 2)
        if name and plain and "-" not in _prefix(program):
            found[name] = None
    return () if rooted else tuple(found)


def links(text: str, unit: str) -> tuple[str, ...] | None:
    """The symlinks that enabling makes, below the folder of units; None without [Install]."""
    wanted: list[str] = []
    installs = False
    for section, key, value in settings(text):
        if section != "Install":
            continue
        installs = installs or key in ("WantedBy", "RequiredBy", "UpheldBy", "Alias", "Also")
        if key == "Alias" and "%" not in value:
            wanted += value.split()
        suffix = {"WantedBy": "wants", "RequiredBy": "requires"}.get(key)
        if suffix and not value:
            wanted = [link for link in wanted if f".{suffix}/" not in link]
        elif suffix and "%" not in value:
            wanted += [f"{target}.{suffix}/{unit}" for target in value.split()]
    return tuple(wanted) if installs else None
