#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Runs the program on a managed host, and says what it says in Ansible's form.

It must not look at the host nor decide anything by itself, and needs nothing but Python there.
"""

from __future__ import annotations

DOCUMENTATION = r"""
module: reconcile
short_description: Show how a host differs from a spec, and remove the difference
version_added: "0.1.0"
description:
  - Runs C(reconcile) on the host. A spec says in YAML how the host should be.
  - In check mode it plans, and nothing is changed. In diff mode each difference is shown as well.
  - A second run changes nothing.
author:
  - The authors of reconcile (@reconcile)
options:
  spec:
    description:
      - The path of the spec on the host, or the name of one that comes with the program.
      - A file name that ends in C(.yaml) stands for one in C(/etc/reconcile), or in
        C(~/.config/reconcile) where the user is not root.
      - Without it, the one that C(reconcile) finds by itself, such as C(/etc/reconcile/spec.yaml).
    type: path
  files:
    description:
      - What the spec is made of, by file name from its own folder, in Base64. It is put in place
        before the pass, with the file that O(spec) names last. In check mode it is planned as if it
        were there.
      - Files that were put there before and are no part of the spec any more are removed, unless
        somebody has changed them.
    type: dict
  mode:
    description:
      - V(once) makes one pass, V(plan) shows what it would do, V(status) how each resource stands.
    type: str
    choices: [once, plan, status]
    default: once
  vars:
    description:
      - Values for variables of the spec, as C(--set) gives them. They are remembered on the host,
        until a value of V(null) gives a variable the file's own one again.
    type: dict
    default: {}
  secret_vars:
    description: The same for secrets, which are neither shown, logged nor remembered.
    type: dict
    default: {}
  only:
    description: Only these resources and what they need, by id or shell pattern.
    type: list
    elements: str
    default: []
  out:
    description: With O(mode=plan), a file on the host into which the plan is saved.
    type: path
  from:
    description:
      - A saved plan on the host. Exactly its steps are done. Where anything has moved since,
        nothing is done, and the task fails with the names of what moved.
    type: path
  signers:
    description: A file on the host with those one of whom must have signed the saved plan.
    type: path
  state_dir:
    description: Where the program keeps its state.
    type: path
  trust:
    description: Numbers of accounts whose files are trusted too.
    type: list
    elements: int
    default: []
  take_over:
    description: Act by this spec, though the state of its name is another one's.
    type: bool
    default: false
  executable:
    description:
      - The program. Without it, the one in C(PATH), C(/opt/reconcile/bin) or C(~/.local/bin).
    type: path
attributes:
  check_mode:
    description: Check mode is the plan.
    support: full
  diff_mode:
    description: Each difference is a before and an after.
    support: full
  platform:
    description: Where it runs.
    support: full
    platforms: linux
"""

EXAMPLES = r"""
- name: Keep the web server as declared
  reconcile.host.reconcile:
    spec: /etc/reconcile/web.yaml
    files:
      web.yaml: "{{ lookup('ansible.builtin.file', 'web.yaml', rstrip=false) | b64encode }}"
    vars:
      port: 8080
    secret_vars:
      token: "{{ vault_token }}"

- name: Save a plan, to be looked at
  reconcile.host.reconcile:
    spec: /etc/reconcile/web.yaml
    mode: plan
    out: /root/web.plan

- name: Do exactly that, or nothing where something has moved since
  reconcile.host.reconcile:
    from: /root/web.plan

- name: See how everything stands
  reconcile.host.reconcile:
    spec: /etc/reconcile/web.yaml
    mode: status
  register: web
"""

RETURN = r"""
report:
  description:
    - What C(reconcile --plan --json), C(--once --json) or C(--status --json) prints. The JSON
      Schema is printed by C(reconcile --schema plan), and so on.
  returned: where the program has looked at the host
  type: dict
  sample: {"spec": {"name": "web", "path": "/etc/reconcile/web.yaml"}, "steps": []}
rc:
  description: The exit status of the program.
  returned: where it ran
  type: int
  sample: 0
stderr:
  description: What the program says to people.
  returned: where it ran
  type: str
  sample: ""
version:
  description: The version of the program.
  returned: where it ran
  type: str
  sample: "0.1.0"
"""

import base64
import binascii
import json
import os

from ansible.module_utils.basic import AnsibleModule

_HOME = os.environ.get("HOME", "/")
_PLACES = ["/opt/reconcile/bin", os.path.join(_HOME, ".local/bin")]
_MOST = 5


def main():
    module = AnsibleModule(
        argument_spec={
            "spec": {"type": "path"},
            "files": {"type": "dict", "no_log": True},
            "mode": {"type": "str", "choices": ["once", "plan", "status"], "default": "once"},
            "vars": {"type": "dict", "default": {}},
            "secret_vars": {"type": "dict", "default": {}, "no_log": True},
            "only": {"type": "list", "elements": "str", "default": []},
            "out": {"type": "path"},
            "from": {"type": "path"},
            "signers": {"type": "path"},
            "state_dir": {"type": "path"},
            "trust": {"type": "list", "elements": "int", "default": []},
            "take_over": {"type": "bool", "default": False},
            "executable": {"type": "path"},
        },
        required_by={"files": "spec", "signers": "from"},
        supports_check_mode=True,
    )
    params = module.params
    if params["spec"] and "/" not in params["spec"] and params["spec"].endswith(".yaml"):
        folder = os.path.join(_HOME, ".config/reconcile") if os.geteuid() else "/etc/reconcile"
        params["spec"] = os.path.join(folder, params["spec"])
    for name, mode in (("out", "plan"), ("from", "once")):
        if params[name] and params["mode"] != mode:
            module.fail_json(msg=f"'{name}' is for mode '{mode}', not for '{params['mode']}'")
    program = params["executable"] or module.get_bin_path("reconcile", opt_dirs=_PLACES)
    if not program or not os.access(program, os.X_OK):
        missing = program or f"reconcile in PATH or {' or '.join(_PLACES)}"
        module.fail_json(
            msg=f"the program is not installed: there is no {missing}; the role "
            "reconcile.host.reconcile installs it"
        )
    if params["from"] and module.check_mode:
        _exit(module, 0, _saved(module, params["from"]), "", program)
    rc, out, err = module.run_command([program, *_arguments(module)])
    try:
        report = json.loads(out)
    except ValueError:
        report = None
    _exit(module, rc, report, err, program)


def _arguments(module):
    params = module.params
    mode = "plan" if params["mode"] == "once" and module.check_mode else params["mode"]
    words = ["--" + mode, "--json"]
    if params["files"]:
        words += [_staged(module), "--as", params["spec"]]
    elif params["spec"]:
        words.append(params["spec"])
    for name, value in sorted(params["vars"].items()):
        given = "" if value is None else f"{name}={_text(module, name, value)}"
        words += ["--set", given] if given else ["--unset", name]
    for name, value in sorted(params["secret_vars"].items()):
        path = os.path.join(module.tmpdir, "var-" + os.path.basename(name))
        _write(path, _text(module, name, value).encode("utf-8", "surrogateescape"))
        words += ["--set-file", name + "=" + path]
    for ident in params["only"]:
        words += ["--only", ident]
    for uid in params["trust"]:
        words += ["--trust", str(uid)]
    options = ["from", "signers", "state_dir"]
    for name in options if module.check_mode else ["out", *options]:
        if params[name]:
            words += ["--" + name.replace("_", "-"), params[name]]
    return words + (["--take-over"] if params["take_over"] and mode == "once" else [])


def _text(module, name, value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    return module.fail_json(msg=f"the variable '{name}' is no text, number or truth value")


def _staged(module):
    """Write the files into a folder of their own; the path of the spec in it."""
    folder = os.path.join(module.tmpdir, "spec")
    main = os.path.basename(module.params["spec"])
    files = module.params["files"]
    if main not in files:
        module.fail_json(msg=f"'files' lacks {main}, the file that 'spec' names")
    for name, data in files.items():
        path = os.path.normpath(os.path.join(folder, name))
        if not path.startswith(folder + "/"):
            module.fail_json(msg=f"'files' has {name}, which is not below the folder of the spec")
        if not os.path.isdir(os.path.dirname(path)):
            os.makedirs(os.path.dirname(path), 0o700)
        try:
            _write(path, base64.b64decode(data, validate=True))
        except (binascii.Error, ValueError, TypeError) as error:
            module.fail_json(msg=f"'files' has {name}, which is not in Base64: {error}")
    return os.path.join(folder, main)


def _write(path, data):
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)


def _saved(module, path):
    """The plan in a file; whether it may be done, the program says when it is to."""
    try:
        with open(path, "rb") as file:
            return json.loads(file.read().decode("utf-8"))["plan"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return module.fail_json(msg=f"cannot read the plan {path}: {error}")


def _exit(module, rc, report, err, program):
    """End with what the program says."""
    steps = report.get("steps", []) if report else []
    # A step of a plan has no result yet: it would be done.
    done = [step for step in steps if step.get("result", "done") == "done"]
    version = module.run_command([program, "--version"])[1].strip().rpartition(" ")[2]
    result = {"changed": bool(done), "rc": rc, "stderr": err, "version": version}
    if report is not None:
        result["report"] = report
        if module._diff:
            result["diff"] = [_difference(step) for step in done]
    if rc or report is None:
        module.fail_json(msg=_why(rc, report or {}, err), **result)
    module.exit_json(**result)


def _why(rc, report, err):
    """The program's own words for what went wrong."""
    found = [
        f"{one['id']}: {one['error']}"
        for one in report.get("steps", [])
        if one.get("result") == "failed"
    ]
    for name in ("unknown", "failing"):
        found += [f"{one['id']}: {one['reason']}" for one in report.get(name, [])]
    for one in report.get("resources", []):
        if one["state"] in ("unknown", "failing", "waits", "given up"):
            found.append(f"{one['id']}: {one['state']}: {one['reason']}")
    if rc and not found:  # What waits for its next start.
        waits = [one for one in report.get("skipped", []) if not one["reason"].startswith("when: ")]
        found = [f"{one['id']}: {one['reason']}" for one in waits]
    if len(found) > _MOST:
        found[_MOST:] = [f"and {len(found) - _MOST} more"]
    words = "; ".join(found)
    # What it complains of stands behind its name, and goes on on the lines below.
    head, mark, complaint = ("\n" + err).partition("\nreconcile: ")
    return words or (complaint if mark else head).strip() or f"reconcile ended with status {rc}"


def _difference(step):
    """A step as a before and an after."""
    before, after = [], []
    for change in step["changes"]:
        before += _side(change["field"], change["have"])
        after += _side(change["field"], change["want"])
    return {
        "before_header": step["id"],
        "after_header": f"{step['id']} ({step['why']})",
        "before": "\n".join(before) + "\n" if before else "",
        "after": "\n".join(after) + "\n" if after else "",
    }


def _side(field, value):
    if value is None:
        return []
    lines = value.splitlines() if isinstance(value, str) else [json.dumps(value, sort_keys=True)]
    return [f"{field}: {''.join(lines)}"] if len(lines) < 2 else [f"{field}:", *lines]


if __name__ == "__main__":
    main()
