"""The worker: takes one command after the other until it is told to stop.
Must not know what a command file looks like inside, nor touch what another living worker holds.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from types import FrameType

from reconciler.executor import files, heartbeat, home, queue, results, runner
from reconciler.executor.commandfile import Command, CommandRefused, parse
from reconciler.executor.eventlog import EventLog
from reconciler.executor.home import Layout, UntrustedFolder, held, is_command_name
from reconciler.executor.log_limit import Leftovers
from reconciler.executor.processes import end_tree, is_alive
from reconciler.executor.queue import Pending, QueueBusy, QueueClaim
from reconciler.executor.text import stamp
from reconciler.host.inotify import FolderWatch

_LOOK_EVERY = 0.04  # seconds between two looks into pending/ without inotify
RETRY = 1.0  # seconds until something that did not work is tried again
_HELD_UP = 10.0  # seconds that another process may hold the lock before that is trouble
_SAY_AGAIN = 60.0  # seconds between two lines about trouble that lasts


class Worker:
    """One worker process of a home. `run` returns the exit code after TERM, INT or HUP."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.log = EventLog(layout.event_log, layout.file_mode)
        self.stopping = False
        self._stop_signal = 0
        self._heart = heartbeat.Heartbeat(layout)
        self._beat_at = 0.0
        self._state: tuple[str, str | None, str | None] = ("starting", None, None)
        self._trouble: str | None = None
        self._said_at = 0.0
        self._held_up_since: float | None = None
        self._leftovers = Leftovers(layout, self.log)
        self._wake_read = -1
        self._bash = _find_bash()
        self._unwritten: tuple[QueueClaim, results.Result] | None = None

    def run(self) -> int:
        """Raises Untrusted where somebody else could decide what is run, and OSError."""
        self._listen_to_signals()
        notes: list[home.Note] = []
        for path in self.layout.directories():
            os.close(home.opened(path, make=True, notes=notes))
        self._beat()
        self.log.info(f"started, home {self.layout.home}")
        for note in dict.fromkeys(map(str, notes)):
            self.log.info(f"note: who may write to the queue decides what is run: {note}")
        self._close_old_files()
        self._leftovers.find()
        self._pending = Pending(self.layout, self.log)
        self._watch = FolderWatch(self.layout.pending)
        if self._watch.descriptor is None:
            why = self._watch.why_not
            self.log.error(f"no inotify ({why}): looking every {_LOOK_EVERY * 1000:.0f} ms")
        self._recover_at = 0.0
        while not self.stopping:
            try:
                self._turn()
                self._held_up_since = None
                self._be_well()
            except QueueBusy as error:
                self._be_held_up(error)
                self.wait(None, 0.05)
            except UntrustedFolder as error:
                self._be_in_trouble(f"nothing is run: {error}")
                self.wait(None, RETRY)
            except Exception as error:  # a worker that ends for one bad moment helps nobody
                self._be_in_trouble(f"{type(error).__name__}: {error}")
                self.wait(None, RETRY)
        return self._stop()

    def _close_old_files(self) -> None:
        """An earlier version has made them readable for all, or somebody has opened them since."""
        for path in (self.layout.completed, self.layout.failed, self.layout.logs):
            with home.held(path, readable=True) as folder:
                for name in os.listdir(folder):
                    files.narrow(folder, name, self.layout.file_mode)

    def _be_held_up(self, error: QueueBusy) -> None:
        now = time.monotonic()
        if self._held_up_since is None:
            self._held_up_since = now
        if now - self._held_up_since >= _HELD_UP:
            self._be_in_trouble(f"held up for more than {_HELD_UP:.0f} s: {error}")

    def _be_in_trouble(self, trouble: str) -> None:
        """No command is run: say so now, again and again, and with every heartbeat."""
        now = time.monotonic()
        if trouble != self._trouble or now - self._said_at >= _SAY_AGAIN:
            self._trouble, self._said_at = trouble, now
            self.log.error(trouble)
            self._beat()

    def _be_well(self) -> None:
        if self._trouble is not None:
            self._trouble = None
            self.log.info("works again")
            self._beat()

    def wait(self, fd: int | None, seconds: float) -> None:
        """Until `fd` is readable, a signal came or the time is over; the heart goes on beating."""
        end = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        if fd is not None:
            poll.register(fd, select.POLLIN)
        while True:
            now = time.monotonic()
            if now >= self._beat_at:
                self._beat()
            self._leftovers.look()
            left = min(min(end, self._beat_at) - time.monotonic(), self._leftovers.wake_in())
            ready = poll.poll(max(0, int(left * 1000) + 1))
            if any(number == self._wake_read for number, _ in ready):
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 512)
            if ready or time.monotonic() >= end:
                return

    def _turn(self) -> None:
        """One command, or one wait for something to do. Raises OSError."""
        if self._unwritten is not None:
            self._write_result(*self._unwritten)
            if self._unwritten is not None:
                self.wait(None, RETRY)
                return
        self._keep_up()
        there = self._there()
        taken = self._pending.take_next() if there else None
        if taken is not None:
            # What kept it from running commands is over, however long this one runs.
            self._held_up_since = None
            self._be_well()
            self._execute(*taken)
            return
        if self._state[0] != "idle":
            self._set_state("idle")
            self._beat()
        seconds = min(self._recover_at - time.monotonic(), self._pending.wake_in())
        if self._watch.descriptor is None or not there:
            seconds = min(seconds, _LOOK_EVERY)
        self.wait(self._watch.descriptor, seconds)

    def _keep_up(self) -> None:
        """What has to be right before the next look into pending/."""
        happened = self._watch.changed()
        if time.monotonic() >= self._recover_at:
            if os.path.isdir(self.layout.running):
                self._recover()
            # Between two heartbeats anything may have been missed: a replaced directory, events
            # of another host. So look at everything then.
            self._pending.dirty = True
            self._recover_at = time.monotonic() + heartbeat.EVERY
        self._pending.look_again(happened)
        if self._pending.dirty:
            # First, so that nothing comes unseen between it and the scan.
            try:
                with held(self.layout.pending) as pending:
                    self._watch.ensure(pending)
            except UntrustedFolder:
                raise
            except OSError:
                self._watch.ensure(None)

    def _recover(self) -> None:
        """What killed workers left in running/: recorded as interrupted, never run again.

        Raises OSError if running/ cannot be read.
        """
        with held(self.layout.running, readable=True) as running:
            found = set(os.listdir(running))
        # A lock of its own may have been left, too: adopting nothing takes it away.
        found |= {name.removesuffix(".lock") + ".json" for name in found if name.endswith(".lock")}
        for name in sorted(filter(is_command_name, found)):
            if self.stopping:
                return
            try:
                claim = queue.adopt(self.layout, name)
            except QueueBusy:
                continue  # with the next heartbeat
            except OSError as error:
                subject = f"running/{name}"
                self.log.error_once(subject, f"{subject} cannot be recovered: {error}")
                continue
            if claim is None:
                continue
            try:
                self._record_interrupted(claim)
            except OSError as error:
                subject = f"recover {claim.id}"
                self.log.error_once(subject, f"{claim.id} cannot be recovered yet: {error}")
                claim.leave()  # the file stays in running/: tried again with a later heartbeat
            else:
                claim.finish()

    def _record_interrupted(self, claim: QueueClaim) -> None:
        if os.path.lexists(self.layout.result_file(claim.id)):
            self.log.info(f"recovered {claim.id}: its result is there already")
            return
        process: dict[str, object] = {}
        with contextlib.suppress(OSError, ValueError, RecursionError):  # It had no time for it.
            found = json.loads(files.read_small(self.layout.process_file(claim.id), 65536))
            process = found if isinstance(found, dict) else {}
        command = None
        # A file that only the dead worker understood is recorded with what is known.
        with contextlib.suppress(CommandRefused):
            command = parse(claim.read(), claim.id)
        log: int | None = None
        with contextlib.suppress(OSError), held(self.layout.logs) as logs:
            log = files.open_regular(f"{claim.id}.log", logs)
        try:
            pid, ended = process.get("pid"), "its process does not run any more"
            if isinstance(pid, int) and is_alive(process):
                how = end_tree(pid, False, log, lambda seconds: self.wait(None, seconds))
                ended = f"its process group {pid} was ended {how}"
            known = {
                "status": "interrupted",
                "reason": f"the worker was killed while the command was running; {ended}",
                "start": process.get("start"),
                "output_tail": "" if log is None else results.tail_of(log),
            }
        finally:
            if log is not None:
                os.close(log)
        results.write(self.layout, claim.id, results.make(self.layout, claim.id, command, **known))
        self.log.error(f"recovered {claim.id}: interrupted, its worker was killed; {ended}")

    def _there(self) -> bool:
        """Is pending/ there? If not it is waited for: whoever took it away knows why."""
        if os.path.isdir(self.layout.pending):
            self.log.well_again("pending", "pending/ is back")
            return True
        self.log.error_once("pending", "pending/ is gone; waiting until somebody makes it again")
        return False

    def _execute(self, claim: QueueClaim, command: Command) -> None:
        self._set_state("running", claim.id)
        self.log.info(f"run {claim.id}, timeout {command.timeout:g} s")
        self._beat()
        try:
            fields = runner.run(self.layout, command, self._bash, self)
        except Exception as error:  # our own mistake must not lose the command
            reason = f"the worker failed: {type(error).__name__}: {error}"
            fields = {"status": "failed", "reason": reason}
        self._leftovers.note(claim.id)
        result = results.make(self.layout, claim.id, command, **fields)
        how = f"{result['status']}, exit code {result['exit_code']}, signal {result['signal']}"
        why = f", {result['reason']}" if result["reason"] else ""
        self.log.info(f"done {claim.id}: {how}{why}, {result['seconds']} s")
        self._write_result(claim, result)

    def _write_result(self, claim: QueueClaim, result: results.Result) -> None:
        """Keeps the claim and tries again later if the result cannot be written now."""
        subject = f"result {claim.id}"
        try:
            results.write(self.layout, claim.id, result)
        except results.ResultExists as error:  # put there by hand while the command ran
            self.log.error(f"{subject}: {error}; the new one is only in this log")
        except OSError as error:
            self._unwritten = (claim, result)
            self._set_state("blocked", claim.id)
            self.log.error_once(subject, f"{subject} cannot be written, trying again: {error}")
            return
        self._unwritten = None
        self.log.well_again(subject, f"{subject} is written")
        claim.finish()

    def _stop(self) -> int:
        self.log.info(f"stopping on {signal.Signals(self._stop_signal).name}")
        code = 0
        if self._unwritten is not None:
            self._write_result(*self._unwritten)
        if self._unwritten is not None:
            self.log.error(f"stopped without writing the result of {self._unwritten[0].id}")
            code = 1
        with contextlib.suppress(OSError):
            self._heart.say_stopped()
        self.log.info("stopped")
        return code

    def _set_state(self, state: str, command_id: str | None = None) -> None:
        if self._state[:2] != (state, command_id):
            self._state = (state, command_id, stamp() if command_id else None)

    def _beat(self) -> None:
        self._beat_at = time.monotonic() + heartbeat.EVERY
        try:
            self._heart.beat(*self._state, self._trouble)
            self.log.well_again("heartbeat", "the heartbeat can be written again")
        except OSError as error:
            self.log.error_once("heartbeat", f"the heartbeat cannot be written: {error}")

    def _listen_to_signals(self) -> None:
        self._wake_read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup: the user wants it so
            signal.signal(signal.SIGHUP, self._on_stop)

    def _on_stop(self, number: int, _frame: FrameType | None) -> None:
        self.stopping = True
        self._stop_signal = number


def _find_bash() -> str:
    for folder in ("/bin", "/usr/bin", *os.get_exec_path()):
        path = os.path.join(folder, "bash")
        if os.path.isabs(path) and os.access(path, os.X_OK):
            return path
    raise FileNotFoundError("there is no bash in /bin, /usr/bin or $PATH; install it")
