"""What is written of a session in tmux's own words: options, and lines to be typed. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from reconciler.base.scalars import InvalidScalar, Plain, parse_text

_LONGEST = 4000
"""Bytes of a line: what a terminal keeps of one that nobody reads yet, termios(3), is 4095."""
_NAME = r"@[A-Za-z0-9_-]+|[a-z][a-z0-9-]*(\[[0-9]{1,4}\])?"
_SESSION = (
    "activity-action assume-paste-time base-index bell-action default-command default-shell "
    "default-size detach-on-destroy display-panes-active-colour display-panes-colour "
    "display-panes-time display-time focus-follows-mouse history-limit initial-repeat-time "
    "key-table lock-after-time lock-command message-command-style message-line message-style "
    "mouse prefix prefix2 prompt-cursor-colour prompt-cursor-style renumber-windows repeat-time "
    "set-titles set-titles-string silence-action status status-bg status-fg status-format "
    "status-interval status-justify status-keys status-left status-left-length status-left-style "
    "status-position status-right status-right-length status-right-style status-style "
    "update-environment visual-activity visual-bell visual-silence word-separators"
)
_WINDOW = (
    "aggressive-resize allow-passthrough allow-rename allow-set-title alternate-screen "
    "automatic-rename automatic-rename-format clock-mode-colour clock-mode-style "
    "copy-mode-current-match-style copy-mode-mark-style copy-mode-match-style "
    "copy-mode-position-format copy-mode-position-style copy-mode-selection-style cursor-colour "
    "cursor-style fill-character main-pane-height main-pane-width menu-border-lines "
    "menu-border-style menu-selected-style menu-style mode-keys mode-style monitor-activity "
    "monitor-bell monitor-silence other-pane-height other-pane-width pane-active-border-style "
    "pane-base-index pane-border-format pane-border-indicators pane-border-lines "
    "pane-border-status pane-border-style pane-colours pane-scrollbars pane-scrollbars-position "
    "pane-scrollbars-style popup-border-lines popup-border-style popup-style remain-on-exit "
    "remain-on-exit-format scroll-on-clear synchronize-panes tiled-layout-max-columns "
    "window-active-style window-size window-status-activity-style window-status-bell-style "
    "window-status-current-format window-status-current-style window-status-format "
    "window-status-last-style window-status-separator window-status-style window-style "
    "wrap-search xterm-keys"
)
_SERVER = (
    "backspace buffer-limit codepoint-widths command-alias copy-command default-client-command "
    "default-terminal editor escape-time exit-empty exit-unattached extended-keys "
    "extended-keys-format focus-events get-clipboard history-file input-buffer-size message-limit "
    "prefix-timeout prompt-history-limit set-clipboard terminal-features terminal-overrides "
    "user-keys variation-selector-always-wide"
)
_LISTS = ("pane-colours", "status-format", "update-environment")


def parse_options(value: object, of_window: bool) -> tuple[tuple[str, str], ...]:
    """A mapping of tmux options to values, as sorted pairs; a flag is on or off.

    A name that this version of tmux has and we do not know is tmux's to judge. Raises ValueError.
    """
    if not isinstance(value, dict):
        raise ValueError("needs a mapping of options to values, such as {mouse: on}")
    pairs = []
    for name, held in value.items():
        _refuse_name(name, of_window)
        try:
            text = parse_text(held)
        except ValueError as error:
            raise InvalidScalar(f"{name}: {error}", (name,)) from None
        if not text.isprintable() or "\u241f" in text:
            raise InvalidScalar(f"{name} holds a character that cannot be shown", (name,))
        if isinstance(held, Plain) and text.lower() in ("true", "false"):
            text = "on" if text.lower() == "true" else "off"
        pairs.append((str(name), text))
    return tuple(sorted(pairs))


def _refuse_name(name: str, of_window: bool) -> None:
    """Raises InvalidScalar."""
    ours, others = _WINDOW.split(), _SESSION.split()
    if not of_window:
        ours, others = others, ours
    bare = name.partition("[")[0]
    problem = None
    meant = None
    if not re.fullmatch(_NAME, name):
        problem = f"{name!r} is not a name for an option of tmux"
    elif name.startswith("@reconcile") or bare == "destroy-unattached":
        problem = f"{name} is set by this program, so that the session stays"
    elif bare in _SERVER.split():
        problem = f"{name} is an option of the whole server; set it in a tmux.conf"
    elif bare in others:
        where = "the session" if of_window else "a window"
        problem = f"{name} is an option of {where}; write it there"
    elif name in _LISTS:
        problem = f"{name} is a list; write its items, such as {name}[0]"
    elif bare not in ours and (meant := _meant(bare, ours)) is not None:
        problem = f"tmux has no option {name}"
    if problem is not None:
        raise InvalidScalar(problem, (name,), near=(name, (meant,)) if meant else None, key=True)


def _meant(name: str, known: Iterable[str]) -> str | None:
    """Which one this is but for a slip; one of another word may be of a newer tmux."""
    from difflib import SequenceMatcher

    words = name.split("-")
    for one in known:
        other = one.split("-")
        if len(other) == len(words) and all(
            SequenceMatcher(None, a, b).ratio() >= 0.7 for a, b in zip(words, other, strict=True)
        ):
            return one
    return None


def parse_lines(value: object) -> tuple[str, ...]:
    """A text, or a list of texts, as the lines to be typed one after the other.

    Raises ValueError.
    """
    texts = value if isinstance(value, (list, tuple)) else (value,)
    lines: list[str] = []
    for at, text in enumerate(texts):
        try:
            for line in parse_text(text).rstrip("\n").split("\n"):
                _refuse_line(line)
                lines.append(line)
        except ValueError as error:
            raise InvalidScalar(str(error), (at,) if texts is value else ()) from None
    if not any(map(str.strip, lines)):
        raise ValueError("is empty; give it what is to be typed or leave the line out")
    return tuple(lines)


def _refuse_line(line: str) -> None:
    """Raises ValueError."""
    if any(ord(character) < 32 or ord(character) == 127 for character in line):
        raise ValueError("holds a control character, which cannot be typed")
    if len(line.encode("utf-8", "surrogateescape")) > _LONGEST:
        raise ValueError(f"has a line of more than {_LONGEST} bytes; put it into a script")
