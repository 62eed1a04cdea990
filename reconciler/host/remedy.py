"""Commands that are shown to a person who may paste them into a shell.

Each is made here from a list of arguments, so that no name of a file, however it is written, is
obeyed by the shell or steers the terminal. What is known to be a secret, or looks like one, is
not in it. It must not run anything, nor take a command out of a sentence: a remedy is a field of
the error or finding that it belongs to.
"""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.base.errors import Remedy
from reconciler.base.text import censored, redacted

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-")
"""What every shell takes as it is, but for a ``=`` in front."""


def remedy(*words: str, into: str | None = None) -> Remedy:
    """One command. ``into`` is a file that its output replaces."""
    line = " ".join(map(quoted, words))
    return script(f"{line} > {quoted(into)}" if into is not None else line)


def piped(*commands: Sequence[str]) -> Remedy:
    """Commands, each of which reads what the one before it says."""
    return script(" | ".join(" ".join(map(quoted, words)) for words in commands))


def in_turn(*commands: Remedy) -> Remedy:
    """Commands, each of which is run if the one before it went well."""
    return Remedy(" && ".join(commands))


def script(text: str) -> Remedy:
    """A text for the shell in which every word of others is ``quoted``, or that a spec holds."""
    return Remedy(censored(text, most=None))


def in_words(argv: Sequence[str]) -> Remedy:
    """A command of a spec as a person would type it: text for a shell by itself."""
    is_text = tuple(argv[:2]) == ("sh", "-c") and len(argv) == 3
    return script(argv[2]) if is_text else remedy(*argv)


def file_of_root(path: str, text: str, mode: str, secret: bool, *before: Remedy) -> Remedy:
    """Commands that make a whole file of root's, after those; none where a secret is in it."""
    if secret or hides(text):
        return remedy(":", f"{path} holds a secret and is not shown; make the same pass")
    return in_turn(
        *before,
        remedy("printf", "%s\\n", *text.removesuffix("\n").split("\n"), into=path),
        remedy("chown", "0:0", path),
        remedy("chmod", mode, path),
    )


def hides(text: str) -> bool:
    """Would a command with that text be shown with a piece missing, so that it does not work?"""
    return censored(text, most=None) != text


def quoted(word: str) -> str:
    """A word for bash, zsh or ksh: as it is, in quotes, or as ``$'…'`` where it cannot be shown.

    In the last form, everything but printable ASCII is written as octal bytes, so that neither
    the terminal nor a copy of its screen can change it.
    """
    word = redacted(word)
    if word and word[0] != "=" and _PLAIN.issuperset(word):
        return word
    if word.isprintable():
        return "'" + word.replace("'", "'\"'\"'") + "'"
    return "$'" + "".join(map(_byte, word.encode("utf-8", "surrogateescape"))) + "'"


def _byte(code: int) -> str:
    # No quote, backslash or "!", which an interactive shell looks for in some kinds of quotes.
    plain = 32 <= code < 127 and chr(code) not in "'\\!"
    return chr(code) if plain else f"\\{code:03o}"
