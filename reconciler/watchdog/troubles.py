"""What goes wrong with the loop itself: reported once each, for it may be so for years.

It must not decide what follows from it.
"""

from __future__ import annotations

from collections.abc import Callable

from reconciler.output.log import Log


class LoopTroubles:
    """Writes it into the log, and hands it to ``report``, for people."""

    def __init__(self, log: Log, report: Callable[[str], None]) -> None:
        self.ended_well = True
        """Has the last pass come to its end? Who supervises us hears of us only then."""
        self._log = log
        self._report = report
        self._pass_error = ""
        self._part_errors: dict[str, str] = {}

    def pass_ended(self) -> None:
        """A pass has come to its end."""
        if not self.ended_well:
            words = "passes come to their end again"
            self._log.event("well", words, "good")
            self._report(words)
        self.ended_well, self._pass_error = True, ""

    def pass_failed(self, why: str) -> bool:
        """A pass has come to no end; is it the first?"""
        words = f"this pass came to no end: {why}"
        if words != self._pass_error:
            self._pass_error = words
            self._log.event("error", words, "bad")
        first, self.ended_well = self.ended_well, False
        if first:
            self._report(words)
        return first

    def part_failed(self, name: str, error: str) -> None:
        """What goes on beside the passes has failed once."""
        if self._part_errors.get(name) != error:
            self._part_errors[name] = error
            words = f"a part of the loop ({name}) failed, and is tried again: {error}"
            self._log.event("error", words, "bad")
            self._report(words)

    def is_short(self, words: str) -> None:
        """Something that the host limits is used up."""
        self._log.event("limit", words, "bad")
        self._report(words)

    def event(self, sort: str, words: str, bad: bool) -> None:
        """Only for the log."""
        self._log.event(sort, words, "bad" if bad else "quiet")
