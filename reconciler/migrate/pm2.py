"""A pm2 ecosystem as JSON or YAML: apps with their interpreter, environment, logs and restarts."""

from __future__ import annotations

import re
import shlex
from typing import Any

from reconciler.config.nodes import Map, Node, Seq, is_null
from reconciler.migrate.document import Origin, SpecBlock
from reconciler.migrate.draft import SpecDraft, nested, size
from reconciler.migrate.original import Original
from reconciler.migrate.trees import entries, flag, number, said, tree, words

CONTENT = re.compile(
    r"""["']?\bapps["']?\s*:\s*[\[\n{]"""
    r"""|\A(?:\s|//.*|/\*[\s\S]*?\*/)*[\[{][^$]*?["']?\bscript["']?\s*:\s*["']"""
)
NAMES = re.compile(r"(^|/)(ecosystem|pm2|process(es)?)[^/]*\.(json5?|ya?ml)$")

_INTERPRETERS = {"js": "node", "mjs": "node", "cjs": "node", "py": "python3", "sh": "bash",
                 "rb": "ruby", "pl": "perl", "php": "php", "ts": "bun",
                 "coffee": "coffee"}  # fmt: skip
_READ = {
    "name", "script", "args", "interpreter", "exec_interpreter", "interpreter_args", "node_args",
    "interpreterargs", "nodeargs", "cwd", "merge_logs", "combine_logs", "exec_mode", "log_type",
    "autorestart", "stop_exit_codes", "vizion", "automation", "pmx", "time",
}  # fmt: skip
"""Read with others, or about pm2's own doings."""
_DURATION = {"min_uptime": ("restart", "healthy_after"), "kill_timeout": ("stop", "timeout"),
             "restart_delay": ("backoff", "initial"),
             "exp_backoff_restart_delay": ("backoff", "initial")}  # fmt: skip


def read(original: Original, draft: SpecDraft) -> None:
    """All its apps. Raises NotImported."""
    text = original.text
    if text.lstrip().startswith("["):
        text = f'{{"apps": {text}}}'
    root = tree(original, text)
    if "script" in root:
        _app(original, root, draft)
        return
    for key, value, origin in entries(original, root):
        if key != "apps":
            draft.leave(draft.document, origin, "has no equivalent")
            continue
        for at, app in enumerate(value if isinstance(value, Seq) else [value]):
            if not isinstance(app, Map):
                raise original.refused(origin.line, f"app {at + 1} is not a mapping")
            _app(original, app, draft)


def _app(original: Original, app: Map, draft: SpecDraft) -> None:
    found = {key: (value, origin) for key, value, origin in entries(original, app)}
    line = original.at(app.at.source.line_of(app.start) + 1, said(app))
    name = str(app.get("name", "")) or str(app.get("script", "app")).rpartition("/")[2]
    origin = found["name"][1] if "name" in found else line
    block = draft.add("processes", name, origin)
    if "script" not in found:
        raise original.refused(origin.line, "the app has no script")
    cwd = str(app.get("cwd", original.folder))
    if not cwd.startswith(("/", "~")):
        cwd = f"{original.folder}/{cwd.removeprefix('./')}"
    block.put("command", _command(app, cwd), found["script"][1])
    block.put("cwd", cwd, found.get("cwd", (None, origin))[1])
    _restart(found, block)
    for key, (value, where) in found.items():
        if key in _READ or is_null(value):
            continue
        try:
            _setting(key, value, where, block, cwd)
        except ValueError as error:
            draft.leave(block, where, str(error))
    if said(app.get("exec_mode", app["script"])).startswith("cluster"):
        draft.leave(block, found["exec_mode"][1], "instances do not share a port here")


def _command(app: Map, cwd: str) -> list[str]:
    """The interpreter, what it is given, the script, and its arguments."""
    script = str(app["script"]).strip()
    first, *rest = shlex.split(script) or [""]
    ending = first.rpartition(".")[2] if "." in first.rpartition("/")[2] else ""
    by_name = _INTERPRETERS.get(ending, "" if rest or "/" not in first else "node")
    asked = app.get("interpreter", app.get("exec_interpreter"))
    interpreter = by_name if asked is None else str(asked)
    if not first.startswith(("/", "~")) and (ending or "/" in first):
        first = f"{cwd}/{first.removeprefix('./')}"
    options = [
        word
        for key in ("interpreter_args", "node_args", "interpreterArgs", "nodeArgs")
        for word in _arguments(app.get(key))
    ]
    before = [] if interpreter in ("", "none") else [*shlex.split(interpreter), *options]
    return [*before, first, *rest, *_arguments(app.get("args"))]


def _arguments(node: Node | None) -> list[str]:
    if node is None:
        return []
    return shlex.split(str(node)) if isinstance(node, str) and not is_null(node) else words(node)


def _restart(found: dict[str, tuple[Node, Origin]], block: SpecBlock) -> None:
    if "autorestart" in found and not flag(found["autorestart"][0]):
        nested(block, "restart").put("when", "never", found["autorestart"][1])
    elif "stop_exit_codes" in found:
        value, origin = found["stop_exit_codes"]
        restart = nested(block, "restart")
        restart.put("when", "on_failure", origin)
        codes = [number(one) for one in (value if isinstance(value, Seq) else [value])]
        restart.put("success", codes, origin)


def _setting(key: str, value: Node, origin: Origin, block: SpecBlock, cwd: str) -> None:
    """Any other setting. Raises ValueError for one that has no equivalent."""
    text = said(value)
    if key == "env" and isinstance(value, Map):
        block.put("env", {name: str(one) for name, one in value.items() if isinstance(one, str)},
                  origin)  # fmt: skip
    elif key == "instances":
        count = number(value)
        if count is None or count < 1:
            raise ValueError("as many as there are processors: write the number")
        block.put("instances", count, origin)
    elif key in ("uid", "user"):
        block.put("user", text, origin)
    elif key == "gid":
        block.put("group", text, origin)
    elif key in ("out_file", "output", "log_file", "log"):
        block.put("log", _path(text, cwd), origin)
    elif key in ("error_file", "err_file", "error"):
        block.put("stderr", _path(text, cwd), origin)
    elif key == "max_memory_restart":
        nested(block, "limits").put("memory", size(text), origin)
    elif key == "max_restarts":
        nested(block, "restart").put("attempts", number(value), origin)
    elif key in _DURATION:
        where, name = _DURATION[key]
        inner: Any = nested(block, "restart" if where != "stop" else "stop")
        inner = nested(inner, "backoff") if where == "backoff" else inner
        inner.put(name, f"{text}ms" if text.isdigit() else text, origin)
    elif key == "treekill":
        block.put("kill_tree", flag(value), origin)
    elif key == "watch" and not flag(value) and isinstance(value, str):
        pass
    else:
        raise ValueError("has no equivalent")


def _path(text: str, cwd: str) -> str:
    if text.upper() in ("NULL", "/DEV/NULL"):
        return "/dev/null"
    return text if text.startswith(("/", "~")) else f"{cwd}/{text.removeprefix('./')}"
