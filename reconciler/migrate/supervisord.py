"""supervisord.conf: programs with environment, user, folder, logs and restart rules.

Read as supervisor 4 reads it: configparser with its own comments, then ``%(name)s``.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.migrate.document import Origin, SpecBlock, TemplateText, joined
from reconciler.migrate.draft import SpecDraft, nested, size, variable
from reconciler.migrate.original import Original, opened

CONTENT = re.compile(
    r"^\[(program:|group:|eventlistener:|fcgi-program:|supervis|unix_http_server|inet_http_server"
    r"|rpcinterface:|include\])",
    re.MULTILINE,
)
NAMES = re.compile(r"supervisord?\.(conf|ini)")

_OWN = ("unix_http_server", "inet_http_server", "supervisorctl", "rpcinterface", "ctlplugin")
_SAME = ("process_name", "numprocs", "numprocs_start", "priority", "redirect_stderr", "stopasgroup",
         "killasgroup", "stdout_logfile_maxbytes", "stdout_logfile_backups", "startretries",
         "startsecs", "exitcodes", "autorestart", "stopwaitsecs",
         "environment", "stdout_logfile", "stderr_logfile", "stderr_logfile_maxbytes",
         "stderr_logfile_backups")  # fmt: skip
"""Settings that are read with others, or that say what happens here anyway."""
_EXPANSION = re.compile(r"%\((\w+)\)(-?[0-9]*)([sd])|%(%)")
_USUAL_FILES, _MOST_OPEN = 1024, 524288
"""The open files of a process that asks for nothing, and to which number it may raise that."""
_MANY_BLANKS = 200
_OFF = ("false", "0", "off", "no")
_QUIET = re.compile(r"_(events_enabled|syslog)$|^serverurl$")
_SAY_NOTHING = (*_OFF, "auto")


class _Section(dict[str, str]):
    """Its settings, and where they stand."""

    def __init__(self, name: str, original: Original, line: int) -> None:
        super().__init__()
        self.name = name
        self.origin = original.at(line, f"[{name}]")
        self.folder = original.folder
        self.places: dict[str, Origin] = {}

    def on(self, key: str, default: bool) -> bool:
        return self[key].lower() not in _OFF if key in self else default


def read(original: Original, draft: SpecDraft) -> None:
    """All programs of a file, and of those that it includes. Raises NotImported."""
    sections = list(_sections(original))
    for section in [one for one in sections if one.name == "include"]:
        sections += _included(section, original, draft)
    merged: dict[str, _Section] = {}
    for section in sections:
        known = merged.setdefault(section.name, section)
        if known is not section:
            known.update(section)
            known.places.update(section.places)
    own = merged.pop("supervisord", None)
    programs = [one for one in merged.values() if one.name.startswith("program:")]
    groups = {
        program.strip(): name.partition(":")[2]
        for name, one in merged.items() if name.startswith("group:")
        for program in one.get("programs", "").split(",")
    }  # fmt: skip
    programs.sort(key=lambda one: _number(one.get("priority", "999"), 999))
    for other in ([own] if own else []) + list(merged.values()):
        if not other.name.startswith("program:"):
            _other(other, draft)
    for section in programs:
        _program(section, own, groups, draft)


def _sections(original: Original) -> Iterator[_Section]:
    for line, text in original.lines():
        if re.search(rf"\s{{{_MANY_BLANKS}}}", text):
            # For them configparser takes a time that grows with the square of their number.
            raise original.refused(line, f"{_MANY_BLANKS} blanks in a row")
    parser = configparser.RawConfigParser(
        strict=False, inline_comment_prefixes=(";", "#"), default_section="\0"
    )
    try:
        parser.read_string(original.text)
    except configparser.MissingSectionHeaderError as error:
        raise original.refused(error.lineno, "a setting before the first [section]") from None
    except configparser.ParsingError as error:
        raise original.refused(error.errors[0][0], "neither a [section] nor name=value") from None
    except configparser.Error as error:
        raise original.refused(1, error.message.splitlines()[0]) from None
    found: dict[str, _Section] = {}
    section: _Section | None = None
    for line, text in original.lines():
        if head := re.match(r"\[([^\]]+)\]", text):
            section = found.setdefault(head[1], _Section(head[1], original, line))
        elif (name := re.match(r"([^\s;#=:][^=:]*?)\s*[=:]", text)) and section is not None:
            key = name[1].lower()
            value = parser.get(section.name, key, fallback=None)
            if value is not None:
                section[key] = value
                section.places[key] = original.at(line, _shown(key, value))
    yield from found.values()


def _shown(key: str, value: str) -> str:
    first, more, _ = value.partition("\n")
    return f"{key}={first}{' …' if more else ''}"


def _included(section: _Section, original: Original, draft: SpecDraft) -> Iterator[_Section]:
    origin = section.places.get("files", section.origin)
    seen = {os.path.realpath(original.path)}
    known = {"here": original.folder, "host_node_name": os.uname().nodename}
    known |= {f"ENV_{name}": value for name, value in os.environ.items()}
    files = _EXPANSION.sub(lambda one: known.get(one[1], one[0]), section.get("files", ""))
    for word in files.split():
        paths = original.matching(word, origin)
        if not paths:
            draft.leave(draft.document, origin._replace(text=f"files={word}"), "no file is there")
        for path in paths:
            real = os.path.realpath(path)
            if real == os.path.realpath(original.path):
                raise original.refused(origin.line, f"the file includes itself: {origin.text}")
            if real not in seen and not os.path.isdir(path):
                seen.add(real)
                # supervisord does not look for [include] in these.
                for one in _sections(opened(path, origin, original)):
                    if one.name != "include":
                        yield one


def _other(section: _Section, draft: SpecDraft) -> None:
    """What is no program: comments at the top of the spec."""
    leave = draft.leave
    sort = section.name.partition(":")[0]
    if sort == "supervisord":
        used = ("environment", "directory", "umask", "user", "minfds", "nodaemon")
        rest = ", ".join(key for key in section if key not in used)
        if rest:
            leave(draft.document, section.origin, f"{rest}: about supervisord itself")
    elif sort == "group":
        programs = section.get("programs", "")
        leave(draft.document, section.origin, f"there are no groups; it had {programs}")
    elif sort in _OWN:
        leave(draft.document, section.origin, "about supervisord itself")
    elif sort != "include":
        leave(draft.document, section.origin, "has no equivalent")


def _number(text: str, default: int) -> int:
    return int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else default


class _Expander:
    """``%(name)s`` of one program. ``form`` is how its number was asked for, if it was."""

    def __init__(self, section: _Section, groups: Mapping[str, str], number: int) -> None:
        name = section.name.partition(":")[2]
        self.known = {"here": section.folder, "program_name": name,
                      "group_name": groups.get(name, name), "numprocs": str(number)}  # fmt: skip
        self.form: str | None = None

    def __call__(self, text: str) -> str:
        parts: list[str] = []
        done = 0
        for found in _EXPANSION.finditer(text):
            parts.append(text[done : found.start()])
            parts.append(self._value(found))
            done = found.end()
        return joined(*parts, text[done:])

    def _value(self, found: re.Match[str]) -> str:
        name = found[1]
        if found[4]:
            return "%"
        if name in self.known:
            return self.known[name]
        if name.startswith("ENV_"):
            return variable(name[4:])
        if name == "host_node_name":
            return TemplateText("{{ host.name }}")
        if name == "process_num":
            form = f"%{found[2]}d"
            self.form = self.form or form
            return TemplateText("{{ each }}" if form == self.form else "{{ each | int }}")
        raise ValueError(f"nothing is known of %({name})s")


def _program(
    section: _Section, own: _Section | None, groups: Mapping[str, str], draft: SpecDraft
) -> None:
    """Its process. ``groups`` has the group of each program that is in one."""
    block = draft.add("processes", section.name.partition(":")[2], section.origin)
    number = _number(section.get("numprocs", "1"), 1)
    expand = _Expander(section, groups, number)

    def leave(key: str, reason: str) -> None:
        draft.leave(block, section.places[key], reason)

    def put(name: str, key: str, value: Any) -> None:
        block.put(name, value, section.places[key])

    for key, text in section.items():
        try:
            if key == "command":
                put("command", key, [expand(word) for word in shlex.split(text)])
            elif key == "directory":
                put("cwd", key, expand(text))
            elif key == "user":
                put("user", key, expand(text))
            elif key == "umask":
                put("umask", key, text.zfill(4))
            elif key == "autostart":
                if not section.on(key, True):
                    block.say(f"{section.places[key]}: take this line out to have it started")
                    put("when", key, "false")
            elif key == "stopsignal":
                nested(block, "stop").put(
                    "signal", text.upper().removeprefix("SIG"), section.places[key]
                )
            elif key not in _SAME and not (_QUIET.search(key) and text.lower() in _SAY_NOTHING):
                leave(key, "has no equivalent")
        except ValueError as error:
            leave(key, str(error))
    if "stopwaitsecs" in section:
        timeout = f"{section['stopwaitsecs']}s"
        nested(block, "stop").put("timeout", timeout, section.places["stopwaitsecs"])
    _logs(section, expand, block, draft)
    _restart(section, block)
    _surroundings(section, own, expand, block, draft)
    if number > 1 and expand.form is None:
        put("instances", "numprocs", number)
    elif expand.form is not None:
        first = _number(section.get("numprocs_start", "0"), 0)
        numbers = [expand.form % at for at in range(first, first + min(number, 10_000))]
        block.put("for_each", numbers, section.places.get("numprocs"))


def _restart(section: _Section, block: SpecBlock) -> None:
    again = section.get("autorestart", "unexpected").lower()
    restart = SpecBlock()
    where = section.places
    if again == "unexpected":
        restart.put("when", "on_failure", where.get("autorestart"))
        codes = section.get("exitcodes", "0")
        if codes.strip() != "0":
            numbers = [_number(one.strip(), -1) for one in codes.split(",")]
            restart.put("success", numbers, where["exitcodes"])
    elif again in _OFF:
        restart.put("when", "never", where["autorestart"])
    if "startretries" in section:
        tries = _number(section["startretries"], -1) + 1  # It does not count the first one.
        restart.put("attempts", tries, where["startretries"])
    if section.get("startsecs", "0") != "0":
        restart.put("healthy_after", f"{section['startsecs']}s", where["startsecs"])
    if restart:
        block.put("restart", restart, where.get("autorestart"))


def _logs(section: _Section, expand: _Expander, block: SpecBlock, draft: SpecDraft) -> None:
    """``log`` with its bound, and ``stderr`` where that is a file of its own."""
    log = SpecBlock()
    for key, name in (("stdout_logfile", "path"), ("stderr_logfile", "stderr")):
        path = section.get(key, "AUTO")
        if path.upper() == "AUTO" or (name == "stderr" and section.on("redirect_stderr", False)):
            continue
        origin = section.places[key]
        if path == "syslog" or path.startswith(("/dev/std", "/dev/fd/", "/proc/")):
            draft.leave(block, origin, "its output stands in a log of its own")
            continue
        try:
            path = "/dev/null" if path.upper() == "NONE" else expand(path)
            bound = size(section.get(f"{key}_maxbytes", "50MB")) if path != "/dev/null" else None
        except ValueError as error:
            draft.leave(block, origin, str(error))
            continue
        if not path.startswith(("/", "~", "{{")):
            path = joined(section.folder, "/", path)
        if name == "stderr" and path == log.get("path"):
            continue  # Both go to one file.
        log.put(name, path, origin)
        keep = _number(section.get(f"{key}_backups", "10"), 10)
        if bound and "max_size" not in log:
            log.put("max_size", bound, section.places.get(f"{key}_maxbytes", origin))
            log.put("keep", keep, section.places.get(f"{key}_backups", origin))
        elif bound and (bound, keep) != (log["max_size"], log["keep"]):
            words = "the bound is that of its output"
            draft.leave(log, section.places.get(f"{key}_maxbytes", origin), words)
    if "max_size" in log:
        block.put("log", log, section.origin)
        return
    for name, key in (("path", "log"), ("stderr", "stderr")):
        if name in log:
            block.put(key, log[name], log.origins[name])


def _surroundings(
    section: _Section, own: _Section | None, expand: _Expander, block: SpecBlock, draft: SpecDraft
) -> None:
    """What a program has from ``[supervisord]`` where it says nothing itself; environments add."""
    env: dict[str, str] = {}
    for one in (own, section):
        if one is not None and "environment" in one:
            try:
                env |= {name: expand(value) for name, value in _pairs(one["environment"])}
            except ValueError as error:
                draft.leave(block, one.places["environment"], str(error))
    if env:
        last = section if "environment" in section else own
        assert last is not None
        block.put("env", env, last.places["environment"])
    for key, name in (("directory", "cwd"), ("umask", "umask"), ("user", "user")):
        if own is not None and key in own and key not in section:
            if key != "user" and own.on("nodaemon", False):
                continue  # It heeds these only as it becomes a daemon.
            value = own[key].zfill(4) if key == "umask" else expand(own[key])
            block.put(name, value, own.places[key])
    if own is not None and (files := _number(own.get("minfds", "1024"), 0)) > _USUAL_FILES:
        # The least that there must be, of what may be opened without asking for more.
        limits = {"nofile": f"{files}:{max(files, _MOST_OPEN)}"}
        block.put("rlimits", limits, own.places["minfds"])


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """``A="1",B=2``, as supervisor's dict_of_key_value_pairs reads it. Raises ValueError."""
    lexer = shlex.shlex(text)
    lexer.wordchars += "/.+-():{}@%$*?~^&|!;<>[]"
    tokens = list(lexer)
    while tokens:
        if len(tokens) < 3 or tokens[1] != "=":
            raise ValueError(f"is not NAME=VALUE, NAME=VALUE at {tokens[0]!r}")
        yield tokens[0], tokens[2].strip("'\"")
        tokens = tokens[4:] if tokens[3:4] == [","] else tokens[3:]
