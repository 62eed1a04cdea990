"""How things stand, as Prometheus reads it (prometheus.io/docs/instrumenting/exposition_formats).

It must not look anything up, nor give more than ids and numbers: whoever scrapes may read it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from reconciler import __version__

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

_COMMANDS = ("pending", "running", "completed", "failed")
STATES = ("ok", "differs", "failing", "waits", "given up", "unknown", "paused", "skipped")
_PER_RESOURCE: dict[str, tuple[str, Callable[[Mapping[str, Any]], float | None]]] = {
    "processes": (
        "Processes that the resource is.",
        lambda one: len(one["pids"]) if "pids" in one else None,
    ),
    "start_time_seconds": (
        "When the oldest process of the resource was started, in seconds since the epoch.",
        lambda one: one.get("since"),
    ),
    "failed_starts": (
        "Starts without success that count towards giving up.",
        lambda one: one.get("attempts", 0) if "pids" in one or "attempts" in one else None,
    ),
    "check_failures": (
        "Probes of the check that failed one after another.",
        lambda one: one["asked"]["failures"] if "asked" in one else None,
    ),
    "check_duration_seconds": (
        "How long the last probe of the check took.",
        lambda one: one["asked"]["seconds"] if "asked" in one else None,
    ),
    "check_timestamp_seconds": (
        "When the check was probed last, in seconds since the epoch.",
        lambda one: one["asked"]["time"] if "asked" in one else None,
    ),
}


class Metrics:
    """A document of ``gathered`` with what ``counted`` adds to it."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._name = document["spec"]["name"]

    def text(self) -> bytes:
        """Text format 0.0.4. Raises ImportError without the extra ``metrics``."""
        from prometheus_client import generate_latest

        written: bytes = generate_latest(self)
        return written

    def collect(self) -> Iterator[Metric]:
        """All metrics, each with the name of the spec: several specs may share a page."""
        return (metric for metric in self._all() if metric.samples)

    def _all(self) -> Iterator[Metric]:
        document = self._document
        resources, loop, queues = document["resources"], document["loop"], document["queues"]
        yield self._gauge("info", "The program that says this.", {(__version__,): 1}, "version")
        states = [one["state"] for one in resources]
        by_state = {(state.replace(" ", "_"),): states.count(state) for state in STATES}
        yield self._gauge("resources", "Resources by their state.", by_state, "state")
        well = {(one["id"],): int(one["state"] in ("ok", "skipped")) for one in resources}
        words = "1: the resource is as declared, or not for this host; 0: it is not, or unknown."
        yield self._gauge("resource_ok", words, well, "id")
        for name, (words, value) in _PER_RESOURCE.items():
            found = {(one["id"],): value(one) for one in resources}
            yield self._gauge(name, words, found, "id")
        yield self._steps(document["counts"])
        number = {key: waiting[0] for key, waiting in queues.items()}
        yield self._gauge("queue_files", "Files that wait in a folder.", number, "id", "folder")
        age = {key: waiting[1] for key, waiting in queues.items()}
        words = "Age of the oldest file that waits in a folder."
        yield self._gauge("queue_oldest_seconds", words, age, "id", "folder")
        known = {home: one for home, one in document["executors"].items() if one is not None}
        commands = {(home, state): one[state] for home, one in known.items() for state in _COMMANDS}
        words = "Commands of a command executor, in each of its folders."
        yield self._gauge("executor_commands", words, commands, "home", "state")
        words = "Age of the command that waits for the longest."
        oldest = {(home,): one["oldest"] for home, one in known.items()}
        yield self._gauge("executor_oldest_pending_seconds", words, oldest, "home")
        words = "When the oldest command that runs was taken, in seconds since the epoch."
        since = {(home,): min((at for _, at in one["now"]), default=None)
                 for home, one in known.items()}  # fmt: skip
        yield self._gauge("executor_running_since_timestamp_seconds", words, since, "home")
        unsent = {(target,): number for target, number in document["waiting"].items()}
        yield self._gauge("messages_waiting", "Messages not yet delivered.", unsent, "target")
        words = "1: a watchdog runs and moves; 0: none does."
        yield self._gauge("watchdog_up", words, {(): int(bool(loop.get("healthy")))})
        words = "Full passes of the watchdog since it was started."
        yield self._gauge("watchdog_passes", words, {(): loop.get("passes")})
        ended, seconds = document["pass"] or (None, None)
        words = "When the last full pass of the watchdog ended, in seconds since the epoch."
        yield self._gauge("last_pass_timestamp_seconds", words, {(): ended})
        words = "How long the last full pass of the watchdog took."
        yield self._gauge("last_pass_duration_seconds", words, {(): seconds})

    def _gauge(
        self,
        name: str,
        words: str,
        samples: Mapping[Any, float | None],
        *labels: str,
    ) -> Metric:
        from prometheus_client.metrics_core import GaugeMetricFamily

        made = GaugeMetricFamily(f"reconcile_{name}", words, labels=("spec", *labels))
        for values, number in samples.items():
            if number is not None:
                made.add_metric([self._name, *map(_clean, values)], number)
        return made

    def _steps(self, counts: list[tuple[str, str, str, int]]) -> Metric:
        from prometheus_client.metrics_core import CounterMetricFamily

        words = (
            "Steps that were done, by their result, since the state of the spec was made; "
            "a start that did not hold counts as done and as failed."
        )
        made = CounterMetricFamily(
            "reconcile_steps", words, labels=("spec", "id", "verb", "result")
        )
        for *values, number in counts:
            made.add_metric([self._name, *map(_clean, values)], number)
        return made


def _clean(text: str) -> str:
    """What can be written as UTF-8, whatever bytes a name holds."""
    return text.encode(errors="replace").decode()
