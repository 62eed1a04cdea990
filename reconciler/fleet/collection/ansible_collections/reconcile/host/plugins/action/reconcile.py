# SPDX-License-Identifier: MIT
"""Takes the answer of a host, on the side of who asks.

Whoever rules that host says what he likes. So an answer has a bound, and what Ansible shows of it
is plain text: in its output ansible-runner looks for events, which are about any host.
"""

from __future__ import annotations

import resource

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.module_utils.common.text.converters import to_text
from ansible.plugins.action.normal import ActionModule as NormalModule

_MEMORY = 1 << 30
"""Bytes that the process of this host may take in addition; Ansible has one for each."""
_LONGEST = 64 << 20
"""Bytes of an answer."""
_TOO_LONG = f"its answer is longer than {_LONGEST >> 20} MiB"
_SHOWN = ("warnings", "deprecations", "exception")


class ActionModule(NormalModule):
    """As every module is run, but for that."""

    def run(self, tmp=None, task_vars=None):
        """Run the module on the host."""
        _limit_memory()
        try:
            result = super().run(tmp, task_vars)
        except AnsibleConnectionFailure as error:
            result = {"unreachable": True, "msg": to_text(error)}
        except AnsibleError as error:
            result = {"failed": True, "msg": to_text(error)}
        except MemoryError:
            result = {"failed": True, "msg": _TOO_LONG}
        return {name: _plain(value) for name, value in result.items() if name not in _SHOWN}

    def _low_level_execute_command(self, *args, **kwargs):
        """Run a command there; what stands around an answer is shown as well."""
        done = super()._low_level_execute_command(*args, **kwargs)
        if sum(len(value) for value in done.values() if isinstance(value, str)) > _LONGEST:
            raise AnsibleError(_TOO_LONG)
        return {name: _plain(value) for name, value in done.items()}


def _limit_memory():
    with open("/proc/self/statm", encoding="ascii") as file:
        most = int(file.read().split()[0]) * resource.getpagesize() + _MEMORY
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY or soft > most:
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _plain(value):
    """The same without what a terminal, or who reads for one, takes for more than text."""
    return value.replace("\x1b", "\\x1b") if isinstance(value, str) else value
