"""A pm2 ecosystem as JSON or YAML: apps with their interpreter, environment, logs and restarts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
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
_ALIASES = {"exec": "script", "exec_interpreter": "interpreter", "interpreter_args": "node_args",
            "interpreterArgs": "node_args", "interpreterargs": "node_args", "nodeArgs": "node_args",
            "nodeargs": "node_args", "out": "out_file", "output": "out_file", "out_log": "out_file",
            "error": "error_file", "err": "error_file", "err_file": "error_file",
            "err_log": "error_file", "log": "log_file", "user": "uid", "combine_logs": "merge_logs",
            "cron": "cron_restart", "pid": "pid_file"}  # fmt: skip
"""What lib/API/schema.json calls a setting as well."""
_READ = {
    "name", "script", "args", "interpreter", "node_args", "cwd", "merge_logs", "exec_mode",
    "autorestart", "stop_exit_codes", "vizion", "automation", "pmx",
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
    if "script" in root or "exec" in root:
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


def _app(original: Original, node: Map, draft: SpecDraft) -> None:
    found = {_ALIASES.get(key, key): (value, origin)
             for key, value, origin in entries(original, node)}  # fmt: skip
    line = original.at(node.at.source.line_of(node.start) + 1, said(node))
    origin = found["name"][1] if "name" in found else line
    app = {key: value for key, (value, _) in found.items() if not is_null(value)}
    if "script" not in app:
        raise original.refused(origin.line, "the app has no script")
    name = str(app.get("name", "")) or str(app["script"]).rpartition("/")[2]
    block = draft.add("processes", name, origin)
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
            if key == "log_file" and "out_file" in app:
                raise ValueError("its output stands in a log of its own")
            _setting(key, value, where, block, cwd)
        except ValueError as error:
            draft.leave(block, where, str(error))
    key = "exec_mode" if "exec_mode" in app else "instances"
    if key in app and (
        said(app[key]).startswith("cluster") if key == "exec_mode"
        else number(app[key]) != 1 and block["command"][0].rpartition("/")[2] in ("node", "bun")
    ):  # fmt: skip
        draft.leave(block, found[key][1], "instances do not share a port here")


def _command(app: Mapping[str, Node], cwd: str) -> list[str]:
    """The interpreter, what it is given, the script, and its arguments."""
    script = str(app["script"]).strip()
    first, *rest = shlex.split(script) or [""]
    ending = first.rpartition(".")[2] if "." in first.rpartition("/")[2] else ""
    by_name = _INTERPRETERS.get(ending, "" if rest or "/" not in first else "node")
    interpreter = str(app.get("interpreter", by_name))
    if not first.startswith(("/", "~")) and (ending or "/" in first):
        first = f"{cwd}/{first.removeprefix('./')}"
    options = _arguments(app.get("node_args"))
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
        env = {name: str(one) for name, one in value.items() if isinstance(one, str)}
        block.put("env", {**block.get("env", {}), **env}, origin)
    elif key == "port":
        block.put("env", {"PORT": text, **block.get("env", {})}, origin)
    elif key == "instances":
        count = number(value)
        if count is None or count < 1:
            raise ValueError("as many as there are processors: write the number")
        block.put("instances", count, origin)
    elif key == "uid":
        block.put("user", text, origin)
    elif key == "gid":
        block.put("group", text, origin)
    elif key in ("out_file", "log_file"):
        block.put("log", _path(text, cwd), origin)
    elif key == "disable_logs" and flag(value):
        block.put("log", "/dev/null", origin)
    elif key == "error_file":
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
        if key == "restart_delay":
            inner.put("factor", 1, origin)
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
