"""Scrapes VMs that expose Prometheus text (node_exporter and others), directly and concurrently.

Why direct: a monitoring system delivers its data a minute later, and a burst does not wait. A reading is a gauge, the rate of a counter
between two scrapes, or CPU use from node_cpu_seconds_total.

Rules of this file: a VM that fails is absent from the readings and named in `error`; one that is scraped for the first time is absent
and has not failed. A VM that fails repeatedly is scraped less often, unless most do: then the fault is ours, or the network's. If a
round ends before all VMs were reached, the last readings of the others stand, with their times, and these VMs come first in the next
round. A rate takes two scrapes of the same VM; nothing replaces the first. A VM whose counters began anew is absent for one round: what
was counted before is lost, and the rest over the whole time would look as if demand had vanished. If the exporter stamps its values,
its times count; otherwise rates are over monotonic time, because the clock may be set. State is kept only for the VMs of the last request.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from autoscaler.core.types import Signal
from autoscaler.errors import SourceError
from autoscaler.ports import Clock, FleetReadings, Vm
from autoscaler.ports.sources import ADDRESS
from autoscaler.sources.exposition import Labels, Metric, Series, parse
from autoscaler.sources.fan_out import (
    Answer,
    FanOut,
    Limits,
    UnreadableBodyError,
    next_turn,
    shared_turns,
    summary,
    url_host,
)
from autoscaler.sources.rate_window import RateWindow
from autoscaler.sources.remedies import remedy

CPU_METRIC = Metric("node_cpu_seconds_total")
FIRST = "first scrape (a rate takes two)"
ANEW = "its counters began anew (a rate takes two scrapes)"
_BEGINNINGS = (FIRST, ANEW)
LATE = (
    "the round ended before all VMs were reached, so last readings of some count; allow longer rounds by "
    "`signal.scrape.timeout` and the setting observe_timeout_s"
)
FAILURES_IN_A_ROW = 3
"""Consecutive failures after which a VM is not scraped for a while."""
FIRST_REST_S, LONGEST_REST_S = 15.0, 60.0
"""Seconds of the first pause and of the longest; each is twice the one before."""
BATCH = 200
"""Number of answers that are converted to readings in one turn of the event loop."""
BACK_S = 1.0
"""Seconds by which a CPU counter may fall without a reset: Linux takes back a little of the time spent waiting for I/O."""
MOST_LABELS = 20_000
"""Most labels that the series of the metric may have in all on one VM. Those of counters are kept between scrapes and take up to 400
bytes each, and reading them holds up the loop: otherwise, a VM that makes up labels could use 90 MB, and five seconds of each tick. The
CPU counters of a machine with 896 CPUs have 14,336."""


class MetricType(StrEnum):
    """How a metric becomes a reading."""

    GAUGE = "gauge"
    COUNTER = "counter"
    CPU = "cpu"


@dataclass(frozen=True, slots=True)
class _Shown:
    """The metric on one VM. One object instead of one per series, which would burden the garbage collector with many VMs.

    Attributes:
        stamp_s: The oldest of the exporter's own timestamps; None if it gives none.
        total: Sum of the values.
        values: Values by labels.
    """

    stamp_s: float | None
    total: float
    values: dict[Labels, float]

    @classmethod
    def of(cls, series: Sequence[Series]) -> _Shown:
        stamps = [one.stamp_s for one in series if one.stamp_s is not None]
        return cls(
            min(stamps, default=None),
            _sum(one.value for one in series),
            {one.labels: one.value for one in series},
        )

    def at_s(self, read_at_s: float) -> float:
        """Time of the values: the exporter's timestamp but never in the future, or the time of reading if there is none."""
        return read_at_s if self.stamp_s is None else min(self.stamp_s, read_at_s)


NO_ADDRESS: Answer[_Shown] = Answer(error="no address")


@dataclass(frozen=True, slots=True)
class _Seen:
    """Counters of one VM at its last scrape, and the rate at that time.

    Attributes:
        at_s: Time of the values, in Unix seconds.
        read_s: Monotonic time of the scrape, in seconds.
        values: Values by labels.
        rate: Work per second, or share of CPU time, until `at_s`; None if it is not known.
    """

    at_s: float
    read_s: float
    values: dict[Labels, float]
    rate: float | None = None


@dataclass(slots=True)
class _Failing:
    """A VM that failed the last `times` times, and until when it is not scraped."""

    reason: str
    times: int = 0
    until_s: float = -math.inf


class ScrapeSource:
    """A `MetricSource` that scrapes VMs over HTTP.

    Args:
        url: URL of the metrics, with `{address}` for a VM's private address; for a total, a single URL without it.
        metric: Series to read; all that match are summed. None stands for node_cpu_seconds_total (CPU only).
        metric_type: How the metric becomes a reading.
        signal: What the readings are.
        clock: Clock for the times of readings.
        limits: Bounds of a round.
        window: Times over which the rates of counters are computed.
    """

    def __init__(
        self,
        url: str,
        metric: Metric | None,
        metric_type: MetricType,
        signal: Signal,
        clock: Clock,
        limits: Limits | None = None,
        *,
        window: RateWindow | None = None,
    ) -> None:
        if metric is None and metric_type is not MetricType.CPU:
            raise SourceError(f"scraping a {metric_type} needs the name of a metric", retryable=False)
        self._url = url
        self._metric = metric or CPU_METRIC
        self._type = metric_type
        self._signal = signal
        self._clock = clock
        self._failing: dict[str, _Failing] = {}
        self._last: dict[str, tuple[float, float]] = {}
        """The last reading and its time, by VM."""
        self._some_late = False
        self._fan_out = FanOut(limits or Limits(), clock.monotonic)
        self._seen: dict[str, _Seen] = {}
        self._window = window or RateWindow()

    async def read(self, vms: Sequence[Vm]) -> FleetReadings:
        """Scrape these VMs, or the single URL for a total.

        Raises:
            SourceError: Nothing could be read at all.
        """
        turns = shared_turns()
        async with turns.alone():
            places = {"": self._url} if self._signal is Signal.TOTAL else {vm.id: vm.address for vm in vms}
            urls = {
                key: self._url.replace(ADDRESS, url_host(place))
                for key, place in self._in_turn(places)
                if place and not self._rests(key)
            }
        answers = await self._fan_out.get_all(urls, self._make)
        async with turns.alone():
            return await self._readings(places, answers)

    async def _readings(
        self, places: Mapping[str, str | None], answers: Mapping[str, Answer[_Shown]]
    ) -> FleetReadings:
        """Convert the answers of a round to readings, over several turns of the event loop."""
        self._some_late = any(answer.late for answer in answers.values())
        self._note_failures(places, answers)
        self._seen = {key: seen for key, seen in self._seen.items() if key in places}
        self._last = {key: last for key, last in self._last.items() if key in places}
        ids, values, stamps, errors, beginning = [], [], [], {}, False
        for at, (key, place) in enumerate(places.items()):
            if at % BATCH == BATCH - 1:
                await next_turn()
            answer = answers.get(key) or self._not_asked(key)
            if answer.late and key in self._last:
                value, stamp_s = self._last[key]
            else:
                before = self._seen.get(key)
                try:
                    value, stamp_s = self._last[key] = self._reading(key, answer)
                except UnreadableBodyError as error:
                    if str(error) in _BEGINNINGS and (before is None or before.rate is not None):
                        beginning = True
                        continue
                    # The query part of a URL may hold a key, and this text is logged.
                    errors[(place or key).partition("?")[0]] = str(error)
                    continue
            ids.append(key)
            values.append(value)
            stamps.append(stamp_s)
        text = "; ".join(filter(None, (summary(errors, len(places)), remedy(errors))))
        if self._some_late:
            text = f"{LATE}; {text}" if text else LATE
        if errors and not ids and not beginning and not set(_BEGINNINGS) & set(errors.values()):
            raise SourceError(text)
        return FleetReadings(tuple(ids), np.array(values, np.float64), np.array(stamps, np.float64), text)

    async def close(self) -> None:
        """Release connections."""
        await self._fan_out.close()

    def _in_turn(self, places: Mapping[str, str | None]) -> Iterable[tuple[str, str | None]]:
        """Order of scraping after a round that did not reach all VMs: those read longest ago first, failing ones last."""
        if not self._some_late:
            return places.items()

        def turn(item: tuple[str, str | None]) -> tuple[bool, float]:
            key = item[0]
            return key in self._failing, self._last[key][1] if key in self._last else -math.inf

        return sorted(places.items(), key=turn)

    # ── VMs that fail ──────────────────────────────────────────────────────────────────────────────────

    def _rests(self, key: str) -> bool:
        failing = self._failing.get(key)
        return failing is not None and self._clock.monotonic() < failing.until_s

    def _not_asked(self, key: str) -> Answer[_Shown]:
        failing = self._failing.get(key)
        return Answer(error=failing.reason) if failing else NO_ADDRESS

    def _note_failures(self, places: Mapping[str, str | None], answers: Mapping[str, Answer[_Shown]]) -> None:
        self._failing = {key: failing for key, failing in self._failing.items() if key in places}
        failed = [key for key, answer in answers.items() if answer.error and not answer.late]
        if len(failed) < len(answers):
            for key in self._failing.keys() & answers.keys():
                if not answers[key].error:  # a late one may still fail
                    del self._failing[key]
        if 2 * len(failed) > len(answers):
            return
        now_s = self._clock.monotonic()
        for key in failed:
            failing = self._failing.setdefault(key, _Failing(""))
            failing.reason, failing.times = answers[key].error, failing.times + 1
            if failing.times >= FAILURES_IN_A_ROW:
                rest_s = FIRST_REST_S * 2.0 ** min(failing.times - FAILURES_IN_A_ROW, 10)
                failing.until_s = now_s + min(rest_s, LONGEST_REST_S)

    # ── readings ───────────────────────────────────────────────────────────────────────────────────────

    def _reading(self, key: str, answer: Answer[_Shown]) -> tuple[float, float]:
        """Value, and the end of the window that it describes."""
        shown = answer.value
        if shown is None:
            raise UnreadableBodyError(answer.error)
        read_at_s = answer.at_s + self._clock.now() - self._clock.monotonic()
        if self._type is MetricType.GAUGE:
            return shown.total, shown.at_s(read_at_s)
        return self._rate(key, shown, shown.at_s(read_at_s), answer.at_s)

    def _make(self, body: bytes) -> _Shown:
        return _Shown.of(parse(body, self._metric, MOST_LABELS))

    def _rate(self, key: str, shown: _Shown, now_s: float, read_s: float) -> tuple[float, float]:
        is_stamped = shown.stamp_s is not None
        before = self._seen.get(key)
        passed_s = math.inf
        if before is not None:
            passed_s = now_s - before.at_s if is_stamped else read_s - before.read_s
        if before is not None and passed_s == 0.0:
            if not is_stamped:
                raise UnreadableBodyError("scraped twice at the same time")
            # The exporter's timestamp has not moved, so nothing new has been counted; that is not a rate of zero.
            if before.rate is None:
                raise UnreadableBodyError(FIRST)
            return before.rate, now_s
        if before is not None and 0 < passed_s < self._window.shortest_s:
            if before.rate is None:
                raise UnreadableBodyError(FIRST)
            return before.rate, before.at_s
        now = _Seen(now_s, read_s, shown.values)
        self._seen[key] = now
        if not all(map(math.isfinite, now.values.values())):
            del self._seen[key]
            return math.nan, now_s
        if before is None or not 0 < passed_s <= self._window.longest_s:
            raise UnreadableBodyError(FIRST)
        rate = self._grown(before, now, passed_s)
        self._seen[key] = _Seen(now_s, read_s, now.values, rate)
        return rate, now_s

    def _grown(self, before: _Seen, now: _Seen, passed_s: float) -> float:
        both = now.values.keys() & before.values.keys()
        if not both:
            raise UnreadableBodyError(FIRST)
        if self._type is MetricType.CPU:
            return _cpu_use({labels: now.values[labels] - before.values[labels] for labels in both})
        if _began_anew(before.values, now.values):
            raise UnreadableBodyError(ANEW)
        grown = _sum(_growth(before.values[labels], now.values[labels]) for labels in both)
        return grown / passed_s


def _began_anew(before: Mapping[Labels, float], now: Mapping[Labels, float]) -> bool:
    """Whether most of what was counted is gone, as after a restart. That of a few series may go while the others count on."""
    gone = _sum(count for labels, count in before.items() if now.get(labels, -math.inf) < count)
    return 2.0 * gone > _sum(before.values())


def _sum(numbers: Iterable[float]) -> float:
    """The sum of what one VM reports.

    Raises:
        UnreadableBodyError: The sum overflows, or infinities of both signs occur.
    """
    try:
        return math.fsum(numbers)
    except (OverflowError, ValueError):
        raise UnreadableBodyError("numbers too large to add up") from None


def _growth(before: float, now: float) -> float:
    """Increase of a counter; after a reset, it began again at zero."""
    return now - before if now >= before else now


def _cpu_use(grown: dict[Labels, float]) -> float:
    """Share of CPU time that was not idle, from seconds by mode. It does not depend on our clock.

    Raises:
        UnreadableBodyError: The counters were reset, did not move, or have no idle time.
    """
    if min(grown.values()) < -BACK_S:
        raise UnreadableBodyError(ANEW)
    grown = {labels: max(seconds, 0.0) for labels, seconds in grown.items()}
    idle = [seconds for labels, seconds in grown.items() if ("mode", "idle") in labels]
    total = _sum(grown.values())
    if not idle or total <= 0:
        raise UnreadableBodyError(
            "CPU counters without idle time" if not idle else "CPU counters stand still"
        )
    return min(1.0, max(0.0, 1.0 - _sum(idle) / total))
