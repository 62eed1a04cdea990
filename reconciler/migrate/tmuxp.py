"""A tmuxp workspace (YAML or JSON): windows, panes, layouts, what is typed, options, focus."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from reconciler.config.nodes import Map, Node, Seq, is_null
from reconciler.migrate.document import Origin, SpecBlock, TemplateText, joined
from reconciler.migrate.draft import SpecDraft, variable
from reconciler.migrate.original import Original
from reconciler.migrate.trees import entries, flag, said, tree, words

CONTENT = re.compile(r"""^\s*["']?session_name["']?\s*:""", re.MULTILINE)
NAMES = re.compile(r"(^|/)\.?tmuxp[^/]*(/[^/]+)*\.(ya?ml|json)$")

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_EMPTY = ("pane", "blank")
_NOT_ENTERED = "what is typed is entered too, so it is left out"


def read(original: Original, draft: SpecDraft) -> None:
    """The session. Raises NotImported."""
    root = tree(original)
    if "windows" not in root or not isinstance(root["windows"], Seq):
        raise original.refused(1, "a workspace needs a list of windows")
    name = named(expanded(str(root.get("session_name", ""))))
    session = draft.add("sessions", name, original.at(1, f"session_name: {name}"))
    cwd = folder(root, original.folder)
    start = home(original, root, "start_directory")
    if start is not None:
        session.put("cwd", start, original.at(1, "start_directory"))
    for key, value, origin in entries(original, root):
        if key == "session_name":
            session.put("session", name, origin)
        elif key == "start_directory":
            session.put("cwd", cwd, origin)
        elif key == "environment" and isinstance(value, Map):
            session.put("env", texts(value), origin)
        elif key == "options" and isinstance(value, Map):
            session.put("options", _options(original, value), origin)
        elif key == "shell_command_before":
            if typed := _typed(original, value, session, draft):
                session.put("shell_before", typed, origin)
        elif key == "windows" and isinstance(value, Seq):
            made = [_window(original, one, cwd, draft) for one in value]
            session.put("windows", made, origin)
        elif key != "suppress_history" or flag(value):
            draft.leave(session, origin, "has no equivalent")


def _window(original: Original, node: Node, above: str, draft: SpecDraft) -> SpecBlock:
    if not isinstance(node, Map):
        raise original.refused(node.at.source.line_of(node.start) + 1, "a window is a mapping")
    window = SpecBlock()
    cwd = folder(node, above)
    for key, value, origin in entries(original, node):
        if key == "window_name" and not is_null(value):
            window.put("name", expanded(str(value)), origin)
        elif key == "layout":
            window.put("layout", str(value), origin)
        elif key in ("options", "options_after") and isinstance(value, Map):
            window.put("options", _options(original, value, window.get("options")), origin)
        elif key not in ("panes", "window_shell", "window_name") and not _shared(
            original, key, value, origin, window, cwd, draft
        ):
            draft.leave(window, origin, "has no equivalent")
    panes = node.get("panes")
    if isinstance(panes, Seq) and panes:
        origin = original.at(panes.at.source.line_of(panes.start) + 1, "panes")
        window.put("panes", [_pane(original, one, cwd, draft) for one in panes], origin)
    if "window_shell" in node:
        line = node.place("window_shell")
        origin = original.at(line.source.line_of(line.start) + 1, "window_shell")
        for pane in window.setdefault("panes", [SpecBlock()]):
            if "command" not in pane:
                pane.put("command", str(node["window_shell"]), origin)
    return window


def _shared(
    original: Original,
    key: str,
    value: Node,
    origin: Origin,
    block: SpecBlock,
    cwd: str,
    draft: SpecDraft,
) -> bool:
    """What windows and panes have alike; False: it is none of that."""
    if key == "start_directory":
        block.put("cwd", cwd, origin)
    elif key == "focus":
        if flag(value):
            block.put("focus", True, origin)
    elif key == "environment" and isinstance(value, Map):
        block.put("env", texts(value), origin)
    elif key == "shell_command_before":
        if typed := _typed(original, value, block, draft):
            block.put("shell_before", typed, origin)
    else:
        return False
    return True


def _pane(original: Original, node: Node, above: str, draft: SpecDraft) -> SpecBlock:
    pane = SpecBlock()
    if not isinstance(node, Map):
        typed = _typed(original, node, pane, draft)
        if typed:
            line = node.at.source.line_of(node.start) + 1
            pane.put("type", typed, original.at(line, said(node)))
        return pane
    cwd = folder(node, above)
    for key, value, origin in entries(original, node):
        if key == "shell_command":
            if "enter" in node and not flag(node["enter"]):
                draft.leave(pane, origin, _NOT_ENTERED)
                continue
            typed = _typed(original, value, pane, draft)
            if typed:
                pane.put("type", typed, origin)
        elif key == "enter":
            pass
        elif key == "shell":
            pane.put("command", str(value), origin)
        elif not _shared(original, key, value, origin, pane, cwd, draft):
            draft.leave(pane, origin, "has no equivalent")
    return pane


def _typed(original: Original, node: Node, block: SpecBlock, draft: SpecDraft) -> str | list[str]:
    """What is typed, one after the other; what else is said of a command is left out."""
    if str(node) in _EMPTY:
        return []
    found: list[str] = []
    for one in node if isinstance(node, Seq) else [node]:
        if isinstance(one, Map):
            for key, value, origin in entries(original, one):
                if key == "cmd" and "enter" in one and not flag(one["enter"]):
                    draft.leave(block, origin, _NOT_ENTERED)
                elif key == "cmd":
                    found += words(value)
                elif key != "enter":
                    draft.leave(block, origin, "has no equivalent")
        else:
            found += words(one)
    return one_or_all([one for one in found if one.strip()])


def one_or_all(typed: list[str]) -> str | list[str]:
    """A list only where there are several."""
    return typed[0] if len(typed) == 1 else typed


def home(original: Original, root: Map, key: str) -> str | None:
    """Where a session begins: a file such as ``.tmuxp.yaml`` is for the folder that it is in."""
    if (key in root and not is_null(root[key])) or original.base.startswith("."):
        return folder(root, original.folder, key)
    return None


def folder(node: Map, above: str, key: str = "start_directory") -> str:
    """A folder, which may be relative to that of what it stands in."""
    value = node.get(key)
    if value is None or is_null(value):
        return above
    text = expanded(str(value))
    if text.startswith(("/", "~", "{{")):
        return text if isinstance(text, TemplateText) else text.rstrip("/") or "/"
    if isinstance(above, TemplateText) or isinstance(text, TemplateText):
        return joined(above, "/", text.removeprefix("./"))
    return os.path.normpath(os.path.join(above, text))


def _options(original: Original, node: Map, known: SpecBlock | None = None) -> SpecBlock:
    made = known or SpecBlock()
    for key, value, origin in entries(original, node):
        made.put(key, expanded(str(value)), origin)
    return made


def named(text: str) -> str:
    """A session's name as tmux keeps it."""
    return text if isinstance(text, TemplateText) else re.sub(r"[.:]", "_", text)


def texts(node: Map) -> Mapping[str, str]:
    """Values of variables and options."""
    return {key: expanded(str(one)) for key, one in node.items() if isinstance(one, str)}


def expanded(text: str) -> str:
    """``$NAME`` is a variable of the environment of whoever makes the session."""
    parts: list[str] = []
    done = 0
    for found in _VARIABLE.finditer(text):
        name = found[1] or found[2]
        if name != "HOME" and name not in os.environ:
            continue  # tmuxp leaves it as it is, too.
        value = TemplateText("{{ user.home }}") if name == "HOME" else variable(name)
        parts += (text[done : found.start()], value)
        done = found.end()
    return joined(*parts, text[done:])
