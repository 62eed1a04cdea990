"""The watchdog of the worker, asked through the program `reconcile` beside this one.
Must not start or end a worker itself: what is to be done is a mode of that program.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

from reconciler.executor import heartbeat
from reconciler.executor.home import Layout, resolve_home
from reconciler.executor.text import stamp
from reconciler.host.command import program_path
from reconciler.host.remedy import remedy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import Any

WORKER = "process:worker"
SHIPPED = "executor"  # the spec that comes with the program, by its bare name
_QUICK = 5.0  # seconds for a look that only adds to what is known otherwise
_LOOK = 30.0
_PASS = 900.0  # a pass may have a large archive to write
_COMES_UP = 30.0  # seconds for the first heartbeat of a worker that was started
_GOES_DOWN = 5.0  # seconds for the last one of a worker that has ended
_PASS_OF_OTHERS = 120.0  # seconds for a pass of cron that is at work already
_STANDS_STILL = ("waits", "given up")
_WRONG_USAGE, _INVALID, _BUSY = 64, 65, 75  # exit codes of reconcile


class KeeperError(OSError):
    """The reconciler could not do it; the message says why."""


class KeeperBusy(KeeperError):
    """Another pass is at work; later it will not be."""


class Keeper:
    """The spec in use, the variables it is used with, and the watchdog that keeps it, if one runs.

    After `look`: `loop` is the watchdog's process number or None, `healthy` whether it moves,
    `paused` the pause of the worker or None, `state` and `reason` how the worker stands, `pids`
    its processes, `path` the spec's file.
    """

    def __init__(self, options: Namespace) -> None:
        wanted = options.home or os.environ.get("AI_CO_HOME")
        self.wanted = resolve_home(wanted) if wanted else None
        self.loop: int | None = None
        self.healthy = False
        self.paused: dict[str, Any] | None = None
        self.state = self.reason = self.path = ""
        self.pids: list[int] = []
        self._spec: str | None = options.spec
        self._options = options
        self._settings: list[str] = [f"home={self.wanted}"] if self.wanted else []
        self._settings += options.set
        self._files: list[str] = options.set_file
        self._trust: list[str] = options.trust
        self._environ = dict(os.environ)
        self._call: dict[str, Any] = {}
        """What the watchdog was called with."""

    @property
    def home(self) -> str | None:
        """The home of the worker that runs; None if none does."""
        return next(filter(None, map(_home_of, self.pids)), None)

    @property
    def home_of_loop(self) -> str | None:
        """The home that was given to the watchdog; None if none was, or none runs."""
        chosen = dict(word.split("=", 1) for word in self._call.get("set", ()) if "=" in word)
        given = chosen.get("home") or self._call.get("environ", {}).get("AI_CO_HOME")
        return resolve_home(given) if given else None

    def look(self, seconds: float = _LOOK) -> None:
        """Find out how the worker stands. Raises KeeperError."""
        try:
            found = self._status(seconds)
        except KeeperError as error:
            if self._spec is not None or "no spec:" not in str(error):
                raise
            self._spec = SHIPPED
            found = self._status(seconds)
        self.path = found["spec"]["path"]
        loop = found["loop"]
        self.loop = loop["pid"] if loop["running"] else None
        self.healthy = bool(loop["running"] and loop["healthy"])
        (one,) = (one for one in found["resources"] if one["id"] == WORKER)
        self.state, self.reason = one["state"], one["reason"]
        self.paused = one.get("paused")
        self.pids = one.get("pids", [])
        self._call = {} if self.loop is None else self._called_with(found["spec"]["name"])

    def _called_with(self, name: str) -> dict[str, Any]:
        from reconciler.host.users import Users, state_directory
        from reconciler.state.heartbeat import call

        return call(os.path.join(state_directory(self._options.state_dir, Users()), name))

    def side_with_the_loop(self) -> None:
        """Take over what the watchdog was called with, so that both mean the same worker.

        Raises KeeperError if that is not the worker whose home was given.
        """
        call = self._call
        if not call:
            return  # none runs, or an older program does
        # A secret is not told by the watchdog.
        own = [word for word in self._settings if word.partition("=")[0] in call["hidden"]]
        self._settings, self._files = [*call["set"], *own], call["set_file"]
        self._trust = list(dict.fromkeys((*self._trust, *call["trust"])))
        self._spec = self._spec or call["spec"]
        for name, value in call["environ"].items():
            if value is None:
                self._environ.pop(name, None)
            else:
                self._environ[name] = value
        self.look()
        home = self.home or self.home_of_loop
        if home and self.wanted and resolve_home(home) != self.wanted:
            raise KeeperError(
                f"the watchdog (pid {self.loop}) keeps the worker of {home}, not that of "
                f"{self.wanted}; give {remedy('--home', home)}, or end that watchdog first"
            )

    def command(self, verb: str) -> str:
        """The command line that does that to the same worker, for people."""
        words: list[str] = []
        for name in ("home", "spec", "state_dir"):
            value = getattr(self._options, name)
            words += [f"--{name.replace('_', '-')}", value] if value is not None else []
        for name in ("set", "set_file", "trust"):
            for value in getattr(self._options, name):
                words += [f"--{name.replace('_', '-')}", value]
        return remedy("ai-cmd-executor", verb, *words)

    def start(self) -> tuple[str, list[str]]:
        """Have the worker managed again, and wait for its heartbeat.

        Returns how it is, and what else the pass could not do. Raises KeeperError when there is
        no worker in the end.
        """
        if self.paused is not None or self.state in _STANDS_STILL:
            self._resume()
        trouble = _trouble(self._pass())
        why = trouble.pop(WORKER, None)
        end = time.monotonic() + _COMES_UP
        words = "no worker is running"
        while True:
            self.look()
            if not self.pids:
                reason = why or self.reason or "it exited right after start"
                raise KeeperError(f"no worker is running: {reason}")
            pid = self.pids[0]
            layout = Layout(_home_of(pid) or self.wanted or resolve_home(None))
            while time.monotonic() < end and os.path.exists(f"/proc/{pid}"):
                alive, words = heartbeat.judge(layout)
                if alive and (heartbeat.read(layout) or {}).get("pid") in self.pids:
                    other = f"beside the worker, the pass over {self.path} had trouble"
                    others = [f"{other}: {ident}: {reason}" for ident, reason in trouble.items()]
                    return f"{words}, home {layout.home}", others
                time.sleep(0.05)
            if time.monotonic() >= end:
                raise KeeperError(f"{words}; see {layout.event_log}")

    def stop(self, verb: str) -> str:
        """Pause the worker and end it, so that nothing starts it again. Raises KeeperError."""
        home = self.home or self.wanted or resolve_home(None)
        ran = self.pids[0] if self.pids else None
        reason = f"stopped by ai-cmd-executor {verb}"
        self._ask("--pause", WORKER, "--stop", "--reason", reason, seconds=_LOOK * 5)
        layout = Layout(home)
        if not _until(lambda: not heartbeat.judge(layout)[0], _GOES_DOWN):
            raise KeeperError(
                f"a worker of {home} still runs that is not the one of {self.path}: "
                f"{heartbeat.judge(layout)[1]}"
            )
        return (
            f"no worker was running for {home}"
            if ran is None
            else f"worker {ran} of {home} is stopped"
        )

    def restart(self) -> tuple[str, list[str]]:
        """Stop and start. Whatever happens in between, the worker is not left paused."""
        try:
            self.stop("restart")
        except BaseException:
            with contextlib.suppress(KeeperError):
                self._resume()
            raise
        self._resume()
        self.paused = None
        return self.start()

    def _resume(self) -> None:
        self._ask("--resume", WORKER, seconds=_LOOK)

    def _pass(self) -> dict[str, Any]:
        """A pass, or the watchdog's; its report."""
        end = time.monotonic() + _PASS_OF_OTHERS
        while True:
            try:
                return self._ask("--once", seconds=_PASS)
            except KeeperBusy as busy:
                if time.monotonic() >= end:
                    raise KeeperError(f"{busy}; try again when it has ended") from None
            time.sleep(0.5)

    def _status(self, seconds: float) -> dict[str, Any]:
        try:
            return self._ask("--status", "--only", WORKER, seconds=seconds)
        except KeeperError as error:
            if "matches no resource" in str(error):
                raise KeeperError(
                    f"{error}\nname the spec of the executor, such as: --spec {SHIPPED}"
                ) from None
            raise

    def _ask(self, mode: str, *words: str, seconds: float) -> dict[str, Any]:
        """The document that `reconcile` answers with."""
        argv = [*_program(), mode, *words, *([self._spec] if self._spec is not None else [])]
        for name, values in (
            ("--set", self._settings),
            ("--set-file", self._files),
            ("--trust", self._trust),
        ):
            for value in values:
                argv += [name, value]
        if self._options.state_dir is not None:
            argv += ["--state-dir", self._options.state_dir]
        if getattr(self._options, "take_over", False) and mode != "--status":
            argv += ["--take-over"]
        try:
            done = subprocess.run(
                [*argv, "--json"],
                env=self._environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            raise KeeperError(f"reconcile {mode} did not end within {seconds:g} s") from None
        said = done.stderr.decode("utf-8", "replace").strip().removeprefix("reconcile: ")
        if done.returncode in (0, 1):
            with contextlib.suppress(ValueError):
                found = json.loads(done.stdout)
                if isinstance(found, dict):
                    if mode == "--pause" and done.returncode:
                        raise KeeperError(said)
                    return found
        if done.returncode == _BUSY:
            raise KeeperBusy(said)
        if done.returncode == _INVALID:
            raise KeeperError(f"the spec is not valid:\n{said}")
        if done.returncode == _WRONG_USAGE:
            said = said.partition("\ntry: ")[0]
        raise KeeperError(said or f"reconcile {mode} ended with {done.returncode}")


def keeper_of(options: Namespace) -> Keeper:
    """The spec in use, looked at, as its watchdog means it. Raises KeeperError."""
    keeper = Keeper(options)
    keeper.look()
    keeper.side_with_the_loop()
    return keeper


def who_keeps(options: Namespace) -> dict[str, Any]:
    """Who keeps the worker alive and whether it is paused, for `status`; soon, whatever hangs."""
    try:
        keeper = Keeper(options)
        keeper.look(_QUICK)
    except (KeeperError, KeyError, ValueError) as error:
        return {"unknown": str(error).partition("\n")[0]}
    paused = keeper.paused and {
        "since": stamp(keeper.paused["since"]),
        "until": keeper.paused["until"] and stamp(keeper.paused["until"]),
        "reason": keeper.paused["reason"],
        "by": keeper.paused["by"],
    }
    return {
        "spec": keeper.path,
        "loop": keeper.loop,
        "loop_healthy": keeper.healthy,
        "paused": paused,
        "home": keeper.home or keeper.home_of_loop,
        "again": keeper.command("start"),
    }


def _home_of(pid: int) -> str | None:
    """The home of a worker, from its command line, which always ends with it."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = [os.fsdecode(word) for word in file.read().split(b"\0")[:-1]]
    except OSError:
        return None
    return words[-1] if words[-3:-1] == ["worker", "--home"] else None


def _program() -> list[str]:
    path = program_path("reconcile")
    if os.access(path, os.X_OK):
        return [path]
    # Without -P, the current folder would come first where Python looks for modules.
    return [sys.executable, "-P", "-m", "reconciler"]


def _trouble(report: dict[str, Any]) -> dict[str, str]:
    """What the pass could not do, by id."""
    found = {one["id"]: one["reason"] for one in (*report["unknown"], *report["failing"])}
    held = {one["id"]: one["reason"] for one in report["skipped"] if one["id"] == WORKER}
    failed = {
        step["id"]: step["error"] or step["why"]
        for step in report["steps"]
        if step["result"] in ("failed", "skipped")
    }
    return {**held, **found, **failed}


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(0.05)
    return True
