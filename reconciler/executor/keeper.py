"""The watchdog of the worker, asked as the program `reconcile` beside this one.
Must not start or end a worker itself, nor import that program: what it says is read from its JSON.
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
QUICK = 5.0  # seconds for a look that only adds to what is known otherwise
_LOOK = 30.0
_PASS = 900.0  # a pass may have a large archive to write
_WRONG_USAGE, _INVALID, _BUSY = 64, 65, 75  # exit codes of reconcile
_TAKES_VALUE = ("--set", "--unset", "--set-file", "--state-dir", "--trust", "--only", "--color")
_LOOPS_OWN = ("AI_CO_HOME", "TMUX_TMPDIR")  # what the spec reads of the environment


class KeeperError(OSError):
    """The reconciler could not do it; the message says why."""


class KeeperBusy(KeeperError):
    """Another pass is at work; later it will not be."""


class Keeper:
    """The spec in use, the variables it is used with, and the loop that keeps it, if one runs.

    After `look`: `loop` is the loop's process number or None, `healthy` whether it moves,
    `paused` the pause of the worker or None, `state` and `reason` how the worker stands, `pids`
    its processes, `path` the spec's file.
    """

    def __init__(self, options: Namespace) -> None:
        self.spec: str | None = options.spec
        self.wanted = _wanted_home(options.home)
        self.settings: list[str] = [f"home={self.wanted}"] if self.wanted else []
        self.settings += options.set
        self.files: list[str] = options.set_file
        self._given = _given(options)
        self.loop: int | None = None
        self.healthy = False
        self.paused: dict[str, Any] | None = None
        self.state = self.reason = self.path = ""
        self.pids: list[int] = []
        self._state_dir: str | None = options.state_dir
        self._trust: list[str] = options.trust
        self._takes_over: bool = getattr(options, "take_over", False)
        self._environ = dict(os.environ)

    @property
    def home(self) -> str | None:
        """The home of the worker that runs; None if none does."""
        return next(filter(None, map(home_of, self.pids)), None)

    def look(self, seconds: float = _LOOK) -> None:
        """Find out how the worker stands. Raises KeeperError."""
        try:
            found = self._status(seconds)
        except KeeperError as error:
            if self.spec is not None or "no spec:" not in str(error):
                raise
            self.spec = SHIPPED
            found = self._status(seconds)
        self.path = found["spec"]["path"]
        loop = found["loop"]
        self.loop = loop["pid"] if loop["running"] else None
        self.healthy = bool(loop["running"] and loop["healthy"])
        (one,) = (one for one in found["resources"] if one["id"] == WORKER)
        self.state, self.reason = one["state"], one["reason"]
        self.paused = one.get("paused")
        self.pids = one.get("pids", [])

    def side_with_the_loop(self) -> None:
        """Take over what the loop has been started with, so that both mean the same worker.

        Raises KeeperError if that is not the worker whose home was given.
        """
        words = _words_of(self.loop, "cmdline")
        if words is None:
            return  # none runs, it has just ended, or it is somebody else's
        assert self.loop is not None
        spec, given = _loop_options(words)
        self.settings, self.files = given["--set"], given["--set-file"]
        self._trust = list(dict.fromkeys((*self._trust, *given["--trust"])))
        if self.spec is None and spec is not None:
            self.spec = spec if os.sep not in spec else _seen_from(self.loop, spec)
        theirs = _environ_of(self.loop)
        for name in _LOOPS_OWN:
            self._environ.pop(name, None)
            if name in theirs:
                self._environ[name] = theirs[name]
        self.look()
        home = self.home or self.home_of_loop()
        if home and self.wanted and resolve_home(home) != self.wanted:
            raise KeeperError(
                f"the loop (pid {self.loop}) keeps the worker of {home}, not that of "
                f"{self.wanted}: give {remedy('--home', home)}, or end that loop first"
            )

    def command(self, mode: str) -> str:
        """The command line that does that to the same worker, for people."""
        return remedy("ai-cmd-executor", mode, *self._given)

    def home_of_loop(self) -> str | None:
        """The home that was given to the loop; None if none was, or none runs."""
        words = _words_of(self.loop, "cmdline")
        if words is None:
            return None
        settings = _loop_options(words)[1]["--set"]
        chosen = dict(word.split("=", 1) for word in settings if "=" in word)
        given = chosen.get("home") or _environ_of(self.loop).get("AI_CO_HOME")
        return resolve_home(given) if given else None

    def pause(self, reason: str) -> None:
        """Leave the worker alone from now on, and end it. Raises KeeperError."""
        self._ask("--pause", WORKER, "--stop", "--reason", reason, seconds=_LOOK * 5)

    def resume(self) -> None:
        """See to the worker again. Raises KeeperError."""
        self._ask("--resume", WORKER, seconds=_LOOK)

    def once(self) -> dict[str, Any]:
        """A pass, or the loop's; its report. Raises Busy and KeeperError."""
        return self._ask("--once", seconds=_PASS)

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
        argv = [*_program(), mode, *words, *([self.spec] if self.spec is not None else [])]
        for setting in self.settings:
            argv += ["--set", setting]
        for setting in self.files:
            argv += ["--set-file", setting]
        argv += ["--state-dir", self._state_dir] if self._state_dir is not None else []
        for uid in self._trust:
            argv += ["--trust", uid]
        argv += ["--take-over"] if self._takes_over and mode != "--status" else []
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


def home_of(pid: int) -> str | None:
    """The home of a worker, from its command line, which always ends with it."""
    words = _words_of(pid, "cmdline") or []
    return words[-1] if words[-3:-1] == ["worker", "--home"] else None


def _program() -> list[str]:
    path = program_path("reconcile")
    if os.access(path, os.X_OK):
        return [path]
    # Without -P, the current folder would come first where Python looks for modules.
    return [sys.executable, "-P", "-m", "reconciler"]


def _wanted_home(given: str | None) -> str | None:
    """The home that was asked for; None if none was, which leaves it to the spec."""
    return resolve_home(given) if given or os.environ.get("AI_CO_HOME") else None


def _given(options: Namespace) -> list[str]:
    """The options that have to be given again for the same worker."""
    words: list[str] = []
    for name in ("home", "spec", "state_dir"):
        value = getattr(options, name)
        if value is not None:
            words += [f"--{name.replace('_', '-')}", value]
    for setting in options.set:
        words += ["--set", setting]
    for setting in options.set_file:
        words += ["--set-file", setting]
    for uid in options.trust:
        words += ["--trust", uid]
    return words


def _words_of(pid: int | None, what: str) -> list[str] | None:
    """The words of /proc/PID/cmdline or environ; None if they cannot be read."""
    try:
        with open(f"/proc/{pid}/{what}", "rb") as file:
            return [os.fsdecode(word) for word in file.read().split(b"\0")[:-1]]
    except OSError:
        return None


def _environ_of(pid: int | None) -> dict[str, str]:
    words = _words_of(pid, "environ") or []
    return dict(word.split("=", 1) for word in words if "=" in word)


def _loop_options(words: list[str]) -> tuple[str | None, dict[str, list[str]]]:
    """The SPEC on the command line of a loop, and the values of its --set and --trust."""
    spec: str | None = None
    given: dict[str, list[str]] = {"--set": [], "--set-file": [], "--trust": []}
    names = [os.path.basename(word) for word in words]
    at = next((i for i, name in enumerate(names) if name in ("reconcile", "reconciler")), 0)
    rest = iter(words[at + 1 :])
    for word in rest:
        name, equals, value = word.partition("=")
        if name in _TAKES_VALUE:
            value = value if equals else next(rest, "")
            if name in given:
                given[name].append(value)
        elif not word.startswith("-") and spec is None:
            spec = word
    return spec, given


def _seen_from(pid: int, path: str) -> str:
    """A path as the process means it."""
    try:
        return os.path.join(os.readlink(f"/proc/{pid}/cwd"), path)
    except OSError:
        return path


_COMES_UP = 30.0  # seconds for the first heartbeat of a worker that was started
_GOES_DOWN = 5.0  # seconds for the last one of a worker that has ended
_PASS_OF_OTHERS = 120.0  # seconds for a pass of cron that is at work already
_STANDS_STILL = ("waits", "given up")


def keeper_of(options: Namespace) -> Keeper:
    """The spec in use, looked at, as its loop means it. Raises KeeperError."""
    keeper = Keeper(options)
    keeper.look()
    keeper.side_with_the_loop()
    return keeper


def start(keeper: Keeper) -> tuple[str, list[str]]:
    """Have the worker seen to again, and wait for its heartbeat.

    Returns how it is, and what else the pass could not do. Raises KeeperError when there is no
    worker in the end.
    """
    if keeper.paused is not None or keeper.state in _STANDS_STILL:
        keeper.resume()
    report = _pass(keeper)
    trouble = _trouble(report)
    why = trouble.pop(WORKER, None)
    end = time.monotonic() + _COMES_UP
    words = "no worker"
    while True:
        keeper.look()
        if not keeper.pids:
            raise KeeperError(f"no worker: {why or keeper.reason or 'it has ended at once'}")
        pid = keeper.pids[0]
        layout = Layout(home_of(pid) or keeper.wanted or resolve_home(None))
        while time.monotonic() < end and os.path.exists(f"/proc/{pid}"):
            alive, words = heartbeat.judge(layout)
            if alive and (heartbeat.read(layout) or {}).get("pid") in keeper.pids:
                others = [f"{ident}: {reason}" for ident, reason in trouble.items()]
                return f"{words}, home {layout.home}", others
            time.sleep(0.05)
        if time.monotonic() >= end:
            raise KeeperError(f"{words}; see {layout.event_log}")


def stop(keeper: Keeper, word: str) -> str:
    """Pause the worker and end it, so that nothing starts it again. Raises KeeperError."""
    home = keeper.home or keeper.wanted or resolve_home(None)
    ran = keeper.pids[0] if keeper.pids else None
    keeper.pause(f"stopped by ai-cmd-executor {word}")
    layout = Layout(home)
    if not _until(lambda: not heartbeat.judge(layout)[0], _GOES_DOWN):
        raise KeeperError(
            f"a worker of {home} still runs that is not the one of {keeper.path}: "
            f"{heartbeat.judge(layout)[1]}"
        )
    return (
        f"no worker was running for {home}" if ran is None else f"worker {ran} of {home} is stopped"
    )


def restart(keeper: Keeper) -> tuple[str, list[str]]:
    """Stop and start. Whatever happens in between, the worker is not left paused."""
    try:
        stop(keeper, "restart")
    except BaseException:
        with contextlib.suppress(KeeperError):
            keeper.resume()
        raise
    keeper.resume()
    keeper.paused = None
    return start(keeper)


def who_keeps(options: Namespace) -> dict[str, Any]:
    """Who keeps the worker alive and whether it is paused, for `status`; soon, whatever hangs."""
    try:
        keeper = Keeper(options)
        keeper.look(QUICK)
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
        "home": keeper.home or keeper.home_of_loop(),
        "again": keeper.command("start"),
    }


def _pass(keeper: Keeper) -> dict[str, Any]:
    end = time.monotonic() + _PASS_OF_OTHERS
    while True:
        try:
            return keeper.once()
        except KeeperBusy as busy:
            if time.monotonic() >= end:
                raise KeeperError(f"{busy}; try again when it has ended") from None
        time.sleep(0.5)


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
