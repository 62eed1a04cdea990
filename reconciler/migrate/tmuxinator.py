"""A tmuxinator project: windows, panes, layouts, and what is typed into each."""

from __future__ import annotations

import re

from reconciler.base.text import printable
from reconciler.config.nodes import Map, Node, Seq, is_null
from reconciler.migrate.document import Origin, SpecBlock
from reconciler.migrate.draft import SpecDraft
from reconciler.migrate.original import Original
from reconciler.migrate.tmuxp import folder, home, named, one_or_all
from reconciler.migrate.trees import entries, flag, said, tree, words

CONTENT = re.compile(r"^(windows|tabs):(?=(?:.*\n)*\s*- ?[^\n]*)", re.MULTILINE)
NAMES = re.compile(r"(^|/)\.?tmuxinator(/[^/]+)*\.ya?ml$")

_ERB = "<%"
_UNKNOWN = ""
"""A root that only ERB knows."""
_SOCKET = re.compile(r"\s*-L\s*([^\s-]\S*)\s*")
_SHELL = ("pre_window", "pre_tab", "rbenv", "rvm")


def read(original: Original, draft: SpecDraft) -> None:
    """The session. Raises NotImported."""
    root = tree(original)
    windows = root.get("tabs", root.get("windows"))
    if not isinstance(windows, Seq):
        raise original.refused(1, "a project needs a list of windows")
    name = named(str(root.get("project_name", root.get("name", original.base.partition(".")[0]))))
    session = draft.add("sessions", name, original.at(1, f"name: {name}"))
    before: list[str] = []
    roots = [key for key in ("project_root", "root") if key in root and not is_null(root[key])]
    key = roots[0] if roots else "root"
    cwd = _UNKNOWN if roots and _ERB in said(root[key]) else home(original, root, key)
    if cwd:
        session.put("cwd", cwd, original.at(1, "root"))
    for key, value, origin in entries(original, root):
        if is_null(value):
            continue
        if _ERB in said(value) and key not in ("windows", "tabs"):
            draft.leave(session, origin, "ERB is not evaluated")
        elif key in ("name", "project_name"):
            session.put("session", name, origin)
        elif key in ("root", "project_root"):
            if cwd:
                session.put("cwd", cwd, origin)
        elif key == "socket_name":
            session.put("socket", str(value), origin)
        elif key in ("tmux_options", "cli_args") and (socket := _SOCKET.fullmatch(str(value))):
            session.put("socket", socket[1], origin)
        elif key in _SHELL:
            command = {"rbenv": "rbenv shell ", "rvm": "rvm use "}.get(key, "")
            before += [f"{command}{one}" for one in words(value)]
            session.put("shell_before", one_or_all(before), origin)
        elif key in ("windows", "tabs"):
            made = [_window(original, one, cwd, draft) for one in windows]
            _focus(made, original, root, session, draft)
            session.put("windows", made, origin)
        elif key not in ("startup_window", "startup_pane", "attach"):
            draft.leave(session, origin, "has no equivalent")


def _window(original: Original, node: Node, above: str | None, draft: SpecDraft) -> SpecBlock:
    window = SpecBlock()
    line = node.at.source.line_of(node.start) + 1
    if not isinstance(node, Map):
        window.put("name", str(node), original.at(line, said(node)))
        return window
    if not node:
        return window
    name, value, origin = next(entries(original, node))
    if not is_null(name):
        window.put("name", str(name), origin)
    if not isinstance(value, Map):
        pane = _pane(original, value, origin)
        if pane:
            window.put("panes", [pane], origin)
        return window
    for key, inner, where in entries(original, value):
        if _ERB in said(inner) and key != "panes":
            draft.leave(window, where, "ERB is not evaluated")
        elif key == "layout":
            window.put("layout", str(inner), where)
        elif above == _UNKNOWN and key in ("root", "path") and str(inner)[:1] not in ("/", "~"):
            draft.leave(window, where, "is in a folder by ERB, which is not evaluated")
        elif key in ("root", "path"):
            window.put("cwd", folder(value, above or original.folder, key), where)
        elif key == "pre":
            window.put("shell_before", one_or_all(words(inner)), where)
        elif key == "synchronize":
            if flag(inner) or str(inner) in ("before", "after"):
                window.put("options", {"synchronize-panes": "on"}, where)
        elif key != "panes":
            draft.leave(window, where, "has no equivalent")
    panes = value.get("panes")
    if isinstance(panes, str) and not is_null(panes):
        window.put("panes", [_pane(original, panes, origin)], origin)
    elif isinstance(panes, Seq) and panes:
        made = []
        for one in panes:
            place = original.at(one.at.source.line_of(one.start) + 1, said(one))
            if isinstance(one, Map):
                # It is no title but with enable_pane_titles, which is left out.
                for title, typed, at in entries(original, one):
                    made.append(_pane(original, typed, at))
                    made[-1].say(printable(title), next(iter(made[-1]), None))
            else:
                made.append(_pane(original, one, place))
        if made:
            window.put("panes", made, origin)
    return window


def _pane(original: Original, node: Node, origin: Origin) -> SpecBlock:
    pane = SpecBlock()
    typed = [one for one in words(node) if one.strip()]
    if any(_ERB in one for one in typed):
        raise original.refused(origin.line, "ERB is not evaluated; write what it gives")
    if typed:
        pane.put("type", one_or_all(typed), origin)
    return pane


def _focus(
    windows: list[SpecBlock], original: Original, root: Map, session: SpecBlock, draft: SpecDraft
) -> None:
    """``startup_window`` by name or number, and ``startup_pane`` of that window, or the first."""
    places = {key: origin for key, _, origin in entries(original, root)}
    first, pane = str(root.get("startup_window", "")), str(root.get("startup_pane", ""))
    named = [one for at, one in enumerate(windows) if first in (one.get("name"), str(at))]
    if first and named:
        named[0].put("focus", True, places["startup_window"])
    elif first:
        draft.leave(session, places["startup_window"], "there is no such window")
    panes = (named or windows)[0].get("panes", []) if windows else []
    if pane.isdigit() and int(pane) < len(panes):
        panes[int(pane)].put("focus", True, places["startup_pane"])
    elif pane:
        draft.leave(session, places["startup_pane"], "there is no such pane")
