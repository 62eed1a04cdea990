"""One module on all hosts of an inventory, by ansible-runner; and what came of it on each.

It must not know what the module does, nor print anything.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from reconciler.base.errors import HostError
from reconciler.base.records import dataclass, field
from reconciler.fleet import COLLECTIONS
from reconciler.host import trust
from reconciler.host.command import find
from reconciler.host.environment import note
from reconciler.host.kernel import adopt_orphans
from reconciler.host.place import put_at
from reconciler.host.processes import end_below
from reconciler.host.progress import working
from reconciler.host.remedy import remedy
from reconciler.host.whole_file import write_link

_AT_ONCE = 32
"""Hosts that are asked at the same time, unless ANSIBLE_FORKS says otherwise."""
_DEFAULTS = {
    "ANSIBLE_PIPELINING": "1",  # What the module is given is in no file there.
    "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1",
    # A connection that has gone silent ends, as one that cannot be made does.
    "ANSIBLE_SSH_EXTRA_ARGS": "-o ServerAliveInterval=5 -o ServerAliveCountMax=3",
    # Nor is one used that a playbook has left, which would wait for a dead host without end.
    "ANSIBLE_SSH_CONTROL_PATH_DIR": "~/.ansible/rc",
    # Of an answer that is longer ansible-runner would tell that it is empty.
    "MAX_EVENT_RES": str(1 << 40),
}
"""For whoever has not set them otherwise in the environment."""
_FIRST = "hosts"
"""The play and the task by which the names of all hosts are known."""
_FEW = 3
"""Hosts that are named while they are waited for."""


@dataclass(slots=True)
class HostResult:
    """What came of it on one host: ``answer`` is the module's, None where none has come.

    ``why`` says what went wrong, ``reached`` whether the host could be spoken to, and ``begun``
    whether it was tried.
    """

    name: str
    answer: Mapping[str, Any] | None = None
    why: str = ""
    reached: bool = field(default=True)
    begun: bool = field(default=True)


def run_on_hosts(
    module: str,
    arguments: Mapping[str, Any],
    inventory: str,
    limit: str | None,
    *,
    within: float,
) -> tuple[list[HostResult], int]:
    """Run it on all hosts at once, each ``within`` so many seconds. Raises HostError.

    A host that does not answer holds up no other. A signal, which is given back (0: none has come),
    ends all that was begun: whoever has not answered by then is named.
    """
    playbook = _needed()
    inventory = _inventory(inventory)
    from ansible_runner import run

    folder = tempfile.mkdtemp(prefix="reconcile-", dir="/tmp")
    play = os.path.join(folder, "play.yml")
    found: dict[str, HostResult] = {}
    ended: set[str] = set()
    interrupted: list[int] = []
    # It finds events in what Ansible shows, and so in what a host could have Ansible show.
    number = int.from_bytes(os.urandom(16), "big")
    try:
        _write_play(play, folder, module, arguments, within)
        with suppress(OSError):
            adopt_orphans()  # What a host that hangs has left is found by that.
        with working("hosts", None) as work:

            def hear(event: Mapping[str, Any]) -> bool:
                if event.get("job_id") != number:
                    return False
                data = event.get("event_data", {})
                if event["event"] == "playbook_on_play_start" and os.path.exists(play):
                    os.unlink(play)  # It was read, and may hold secrets.
                one = _heard(event["event"], data)
                if event["event"] == "runner_on_ok" and data.get("task") == _FIRST:
                    found.update((name, HostResult(name, begun=False)) for name in _named(data))
                elif one is not None and one.name not in ended and data.get("task") != _FIRST:
                    found[one.name] = one
                    if not event["event"].endswith("start"):
                        ended.add(one.name)
                    work.what, work.total = "hosts", len(found)
                    if ended and len(found) - len(ended) <= _FEW:
                        work.what += f" ({', '.join(sorted(found.keys() - ended))})"
                    work.advance(0 if event["event"].endswith("start") else 1)
                return False

            def stopped() -> bool:
                work.advance(0)  # What came at once with the last is shown too.
                if interrupted:
                    end_below(os.getpid())
                return bool(interrupted)

            before = {
                one: signal.signal(one, lambda one, _: interrupted.append(one))
                for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            }
            try:
                runner = run(
                    private_data_dir=folder, project_dir=_working_folder(folder), playbook=play,
                    inventory=[inventory], limit=limit, quiet=True, event_handler=hear,
                    cancel_callback=stopped,
                    forks=None if "ANSIBLE_FORKS" in os.environ else _AT_ONCE,
                    envvars={**_environment(playbook), "JOB_ID": str(number)},
                    settings={"pexpect_timeout": 0.5},
                )  # fmt: skip
            finally:
                for one, handler in before.items():
                    signal.signal(one, handler)
        if not found:
            if interrupted:
                raise KeyboardInterrupt
            with runner.stdout as output:
                raise HostError(_complaint(output.read(), inventory, limit))
        for name in found.keys() - ended:
            words = "had not answered when " if found[name].begun else "was not asked yet when "
            words += "it was interrupted" if interrupted else "Ansible ended"
            found[name] = HostResult(name, None, words, False)
        return list(found.values()), next(iter(interrupted), 0)
    finally:
        # Where all is well, connections stay for a minute, as Ansible has it.
        if found.keys() - ended or any(one.why for one in found.values()):
            end_below(os.getpid())
        shutil.rmtree(folder, ignore_errors=True)


def _named(data: Mapping[str, Any]) -> list[str]:
    """The hosts that the first task has named."""
    names = data.get("res", {}).get("msg")
    return [str(name) for name in names] if isinstance(names, list) else []


def _needed() -> str:
    """The path of ansible-playbook. Raises HostError where something is not installed."""
    from importlib.util import find_spec

    beside = os.path.join(os.path.dirname(sys.executable), "ansible-playbook")
    playbook = find(beside) or find("ansible-playbook")
    if playbook is None or find_spec("ansible_runner") is None:
        command = remedy(sys.executable, "-m", "pip", "install", "ansible-core", "ansible-runner")
        if find_spec("pip") is None and find_spec("ansible_runner") is not None:
            command = remedy("apt-get", "install", "ansible-core")  # As in the Debian package.
        raise HostError(f"--hosts needs ansible-core and ansible-runner; install: {command}")
    return playbook


def _inventory(given: str) -> str:
    """The inventory, which may be a list of hosts too. Raises HostError."""
    path = os.path.abspath(given)
    if "," in given and not os.path.lexists(path):
        return given
    beside = os.path.dirname(path)
    try:
        if not _is_trusted_tree(path, set()):
            raise HostError(f"there is no inventory {given}; a list of hosts ends in a comma")
        for name in ("group_vars", "host_vars"):
            _is_trusted_tree(os.path.join(beside, name), set())
    except trust.Untrusted as error:
        raise HostError(f"the inventory: {error.reason}", remedy=error.remedy) from None
    except OSError as error:
        raise HostError(f"cannot read the inventory {given}: {error.strerror}") from None
    return path


def _is_trusted_tree(path: str, seen: set[str]) -> bool:
    """Is it there? Raises Untrusted where somebody else could have written any of it, or OSError.

    Ansible reads whatever lies below these folders, by symlinks too.
    """
    if not trust.refuse_untrusted(path, "who is asked, and how"):
        return False
    real = os.path.realpath(path)
    if os.path.isdir(real) and real not in seen:
        seen.add(real)
        for name in sorted(os.listdir(real)):
            _is_trusted_tree(os.path.join(real, name), seen)
    return True


def _working_folder(otherwise: str) -> str:
    """Where Ansible finds its ansible.cfg: here, unless others could have put it there."""
    try:
        here = os.getcwd()
        for one in (here, os.path.join(here, "ansible.cfg")):
            trust.refuse_untrusted(one, "what Ansible does")
        return here
    except trust.Untrusted as error:
        if os.path.exists("ansible.cfg"):
            note(f"ansible.cfg of the current folder is ignored: {error.reason}")
    except OSError:
        pass
    return otherwise


def _environment(playbook: str) -> dict[str, str]:
    folders = f"{os.path.dirname(playbook)}:{os.environ.get('PATH', os.defpath)}"
    given = {name: os.environ.get(name, value) for name, value in _DEFAULTS.items()}
    return {**given, "PATH": folders, "LC_ALL": "C.UTF-8", "ANSIBLE_NOCOLOR": "1"}


def _write_play(
    path: str, folder: str, module: str, arguments: Mapping[str, Any], within: float
) -> None:
    """Two plays, with the collection beside them, where Ansible looks: the names of all hosts, of
    which none is asked for that, and what is done on each."""
    import yaml

    class Play(yaml.SafeDumper):  # type: ignore[misc]
        pass

    # What is given is no template of Ansible's.
    Play.add_representer(
        _PlayText, lambda dumper, text: dumper.represent_scalar("!unsafe", str(text), style='"')
    )
    task = {"name": "run", module: _texts(arguments), "timeout": round(within)}
    every = {"hosts": "all", "gather_facts": False}
    # Even for that a host's own connection is set up, with variables that may be wrong.
    first = {
        "name": _FIRST, "ansible.builtin.debug": {"msg": "{{ ansible_play_hosts_all }}"},
        "run_once": True, "ignore_errors": True,
    }  # fmt: skip
    plays = [
        {**every, "name": _FIRST, "strategy": "linear", "tasks": [first]},
        {**every, "name": "fleet", "strategy": "free", "tasks": [task]},
    ]
    write_link(os.path.join(folder, "collections"), COLLECTIONS, None)
    put_at(path, yaml.dump(plays, Dumper=Play, width=10**6).encode(), sync=False)


class _PlayText(str):
    __slots__ = ()


def _texts(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _texts(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_texts(one) for one in value]
    return _PlayText(value) if isinstance(value, str) else value


def _heard(event: str, data: Mapping[str, Any]) -> HostResult | None:
    """What an event says of a host, if it does."""
    name = data.get("host")
    if name is None or not event.startswith("runner_on_"):
        return None
    answer = data.get("res")
    answer = answer if isinstance(answer, Mapping) else {}
    match event:
        case "runner_on_start":
            return HostResult(name)
        case "runner_on_ok":
            return HostResult(name, answer)
        case "runner_on_failed":
            return HostResult(name, answer if "version" in answer else None, _reason(answer))
        case "runner_on_unreachable":
            return HostResult(name, None, _reason(answer), False)
    return None


def _reason(answer: Mapping[str, Any]) -> str:
    words = str(answer.get("msg", "")).removeprefix("Task failed: ")
    if "version" not in answer:
        more = str(answer.get("module_stderr", "")).strip().splitlines()[-1:]
        words = ": ".join([line for line in words.splitlines() if line][-1:] + more)
        # Ansible's own sentence says less than what ssh has said.
        words = words.rpartition(" ssh: ssh: ")[2].rpartition(" via ssh: ")[2]
    lines = [line.strip().removeprefix("reconcile: ") for line in words.splitlines()]
    return "; ".join(filter(None, lines)) or "no reason was given"


def _complaint(output: str, inventory: str, limit: str | None) -> str:
    """Why no host was asked, in Ansible's words."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if any("no hosts" in line for line in lines):
        wanted = f" that matches {limit}" if limit is not None else ""
        return f"there is no host{wanted} in the inventory {inventory}"
    said = [line for line in lines if "ERROR" in line] or lines[-1:]
    return f"ansible-playbook has failed: {said[0] if said else 'it has said nothing'}"
