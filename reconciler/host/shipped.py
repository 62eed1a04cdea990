"""Where a spec is looked for, and where the files lie that come with this program.

It must not read them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

FOUND_HERE = "specs/executor.yaml"
"""The spec that is found in the current folder without being named."""
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def folder(name: str) -> str:
    """The shipped folder ``specs`` or ``templates``: inside the wheel, or beside a checkout."""
    inside = os.path.join(_PACKAGE, name)
    return inside if os.path.isdir(inside) else os.path.join(os.path.dirname(_PACKAGE), name)


def known_as(path: str) -> str:
    """What a spec is remembered by: its path, or its bare name where it is a shipped one."""
    here, _, name = path.rpartition("/")
    return name.removesuffix(".yaml") if here == folder("specs") else path


def names(text: str, path: str) -> bool:
    """Does a command line name the spec at ``path``, a shipped one also by its bare name?"""
    if path in text:
        return True
    known = known_as(path)
    word = rf"(?<![\w./-]){re.escape(known)}(?![\w./-])"
    return known != path and re.search(word, text) is not None


def path_of(known: str) -> str:
    """The path of a spec that is remembered like that."""
    return known if "/" in known else os.path.join(folder("specs"), f"{known}.yaml")


def shipped_specs() -> list[str]:
    """The names of the specs that come with this program, sorted; fragments are none."""
    names = {name.removesuffix(".yaml") for name in os.listdir(folder("specs")) if ".yaml" in name}
    return sorted(names - {"watchdog"})


def config_folder(environ: Mapping[str, str], home: str) -> str:
    """Where a user's specs lie, as the XDG base directory specification has it."""
    config = environ.get("XDG_CONFIG_HOME", "")
    return os.path.join(config if config.startswith("/") else f"{home}/.config", "reconcile")


def copy_of(path: str, environ: Mapping[str, str], home: str) -> str | None:
    """Where ``--init`` puts a copy of the spec at ``path``; None: it is not a shipped one."""
    known = known_as(path)
    folder = "/etc/reconcile" if os.geteuid() == 0 else config_folder(environ, home)
    return None if known == path else f"{folder}/{known}.yaml"


def find_spec(
    given: str | None, environ: Mapping[str, str], home: str
) -> tuple[str | None, list[str]]:
    """The path of the spec to take, or None with all the places that were tried.

    A bare name such as ``executor`` that is no file here is one of the shipped specs.
    """
    if given is not None:
        if "/" not in given and not os.path.isfile(given):
            shipped = os.path.join(folder("specs"), given.removesuffix(".yaml") + ".yaml")
            if os.path.exists(shipped):
                return shipped, []
        return given, []
    usual = [
        environ.get("RECONCILE_SPEC", ""),
        FOUND_HERE,
        os.path.join(config_folder(environ, home), "spec.yaml"),
        "/etc/reconcile/spec.yaml",
    ]
    tried = [path for path in usual if path]
    return next((path for path in tried if os.path.exists(path)), None), tried
