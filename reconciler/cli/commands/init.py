"""Copy a shipped spec to where it is found and edited, and say what this host needs to keep it.

It must not apply it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from reconciler.base.errors import DONE, HostError, Remedy
from reconciler.cli.context import Context
from reconciler.cli.invocation import InvalidUsage
from reconciler.diagnose import command_line, diagnose
from reconciler.host import place, trust
from reconciler.host.spec_files import copy_of, known_as, path_of, shipped_specs
from reconciler.host.walk import closing
from reconciler.output.data import FORMAT
from reconciler.output.diagnosis import setup_lines
from reconciler.state.folder import known_spec

_FIRST = "executor"


def run(context: Context) -> int:
    """Copy it, never over what is there. Raises InvalidUsage, SpecError or HostError."""
    name = (context.options.spec or _FIRST).removesuffix(".yaml")
    if name not in shipped_specs():
        raise InvalidUsage(
            f"there is no shipped spec {name!r}; there are {', '.join(shipped_specs())}"
        )
    source = path_of(name)
    path = copy_of(source, os.environ, context.users.account(None).home) or source
    is_new = _copy(source, *os.path.split(path))
    context.options.spec = path
    spec = context.load(complete=True)
    found = diagnose(context, spec)
    before = known_spec(context.folder(spec))
    taken = before not in (None, known_as(path))
    more = ["--take-over"] if taken else []
    following = [command_line(context, path, *words)
                 for words in (("--check",), ("--plan",), ("--once", *more))]  # fmt: skip
    setup = found["reboot"].get("setup", [])
    if context.options.json:
        context.print_json({
            "format": FORMAT, "spec": context.about(spec), "copied": is_new, "from": source,
            "variables": _variables(source), "setup": setup, "next": following,
        })  # fmt: skip
        return DONE
    context.say(*_lines(path, name, is_new, _variables(source), following))
    context.terminal.write(setup_lines(setup))
    if taken:
        context.say((f"so far the state of {spec.name} is that of {before}: --take-over", "change"))
    return DONE


def _copy(source: str, folder: str, name: str) -> bool:
    """Put it there, unless something has that name already; returns whether it did."""
    with open(source, "rb") as file:
        data = file.read()
    path = os.path.join(folder, name)
    try:
        handle = trust.opened(folder, os.O_PATH | os.O_DIRECTORY, what="a spec", make=0o755)
        with closing(handle):
            place.put(handle, name, data, 0o644, replace=False)
    except FileExistsError:
        return False
    except trust.Untrusted as error:
        words = f"cannot put a spec into {folder}, where others could change it: {error.reason}"
        raise HostError(words, remedy=error.remedy) from None
    except OSError as error:
        raise HostError(f"cannot write {path}: {error.strerror}") from None
    return True


def _variables(source: str) -> list[str]:
    from ruamel.yaml import YAML

    with open(source, encoding="utf-8") as file:
        document: dict[str, Any] = YAML(typ="safe", pure=True).load(file)
    variables = {name: str(value) for name, value in document.get("vars", {}).items()}

    def follows(name: str, value: str) -> bool:
        others = "|".join(map(re.escape, variables.keys() - {name}))
        return "{{" in value and re.search(rf"(?<![\w.'])(?:{others})\b", value) is not None

    # What is computed from others is not there to be edited.
    return [name for name, value in variables.items() if not follows(name, value)]


def _lines(
    path: str, name: str, is_new: bool, variables: list[str], following: list[Remedy]
) -> Iterator[tuple[str, str]]:
    if is_new:
        yield f"{path}: a copy of the shipped spec {name}", "good"
    else:
        yield f"{path}: is there already, and was left as it is", ""
    yield f"edit it (its variables: {', '.join(variables)}), then", ""
    for command in following:
        yield f"  {command}", ""
