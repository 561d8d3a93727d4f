"""CloudWatch as a source: what a fleet queries, when, and how datapoints become readings.

Why not more often: a metric has one datapoint per period, which is known minutes after it, and each request costs
money. So it is requested once per period, for windows that are old enough to be complete: a window that is still being
filled would look like less demand. The delay is declared in the policy, and increased if datapoints prove to be later.

Rules of this file: a reading is stamped with the end of its window. A window without a datapoint has no reading; the
previous reading is repeated with its own stamp until it is stale. Failures are texts.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from autoscaler.core.types import Signal
from autoscaler.errors import SourceError
from autoscaler.ports import Clock, FleetReadings, Vm
from autoscaler.sources.cloudwatch_client import QueryResult
from autoscaler.sources.cloudwatch_reader import Answers, CloudWatchReader, MetricQuery

LOOK_BACK = 5
"""Number of windows per request: those that were late last time cost nothing more."""
WAIT_S = 4.0
"""How long a tick waits for an answer, in seconds of the event loop."""
LATER_STEP = 0.25
EARLIER_STEP = 0.02
MOST_LATER = 3.0
"""How a delay is learned, in periods: it grows by the first if the last window is missing, shrinks by the second if
it is there, and never exceeds the declared delay by more than the third."""
VM_ID = "{vm}"
"""Placeholder for a VM's id in a dimension."""
MOST_NAMED = 3


class Unit(StrEnum):
    """What the values of a metric are, which decides how they become readings."""

    GAUGE = "gauge"
    """A level; used as it is."""
    COUNT = "count"
    """Work in the period; becomes work per second."""
    PERCENT = "percent"
    """A percentage; becomes a share of 1."""


@dataclass(frozen=True, slots=True)
class Metric:
    """The metric that a fleet reads.

    Attributes:
        query: The metric. {vm} in a dimension stands for a VM's id.
        unit: What its values are.
        delay_s: Seconds from the end of a window until it is complete.
        divide_by: Values are divided by this.
    """

    query: MetricQuery
    unit: Unit
    delay_s: float
    divide_by: float = 1.0

    @property
    def per_vm(self) -> bool:
        """Whether each VM has a metric of its own."""
        return any(VM_ID in value for _, value in self.query.dimensions)

    def of(self, vm_id: str) -> MetricQuery:
        """The query for one VM."""
        dimensions = tuple((name, value.replace(VM_ID, vm_id)) for name, value in self.query.dimensions)
        return replace(self.query, dimensions=dimensions)

    def reading(self, value: float) -> float:
        """Convert a datapoint to the unit of the fleet's signal."""
        if self.unit is Unit.COUNT:
            value /= self.query.period_s
        elif self.unit is Unit.PERCENT:
            value /= 100.0
        return value / self.divide_by


class CloudWatchSource:
    """A `MetricSource` that uses a shared CloudWatch reader.

    Args:
        metric: The metric to read. If all VMs share one metric but the signal is per VM, it is taken as their mean, and
            each VM in service gets this value.
        signal: What the readings are.
        reader: Makes the requests.
        clock: Clock for the times of requests and readings.
    """

    def __init__(self, metric: Metric, signal: Signal, reader: CloudWatchReader, clock: Clock) -> None:
        self._metric = metric
        self._signal = signal
        self._reader = reader
        self._clock = clock
        self._later_s = 0.0
        self._asked_end_s = -math.inf
        self._answer: asyncio.Future[Answers] | None = None
        self._last: dict[MetricQuery, tuple[float, float]] = {}
        self._problems: dict[MetricQuery, str] = {}
        self._closed = False
        reader.attach()

    @property
    def delay_s(self) -> float:
        """Seconds after its end at which a window is requested: the declared delay and what was learned."""
        return self._metric.delay_s + self._later_s

    async def read(self, vms: Sequence[Vm]) -> FleetReadings:
        """Return the latest datapoint of each of these VMs, or of the fleet.

        Raises:
            SourceError: There is no datapoint at all; the message says why.
        """
        wanted = self._wanted(vms)
        if not wanted:
            return self._readings({})
        oldest_s = self._clock.now() - self.delay_s - LOOK_BACK * self._metric.query.period_s
        self._last = {
            query: last
            for query in wanted.values()
            if (last := self._last.get(query)) is not None and last[0] >= oldest_s
        }
        self._ask(wanted)
        late = ""
        if self._answer is not None:
            await asyncio.wait({self._answer}, timeout=WAIT_S)
            if self._answer.done():
                self._take(self._answer.result(), wanted)
                self._answer = None
            else:
                late = f"CloudWatch has not answered within {WAIT_S:g} s; its answer counts when it comes"
        found = {vm: self._last[query] for vm, query in wanted.items() if query in self._last}
        error = late or self._complaint(wanted, found)
        if error and not found:
            raise SourceError(error)
        return self._readings(found, error)

    async def close(self) -> None:
        """Stop requesting."""
        if not self._closed:
            self._closed = True
            await self._reader.detach()

    # ── asking ─────────────────────────────────────────────────────────────────────────────────────────

    def _wanted(self, vms: Sequence[Vm]) -> Mapping[str, MetricQuery]:
        """The query for each reading, by VM id (empty for the fleet)."""
        if self._signal is Signal.TOTAL:
            return {"": self._metric.query}
        if self._metric.per_vm:
            return {vm.id: self._metric.of(vm.id) for vm in vms}
        return {vm.id: self._metric.query for vm in vms}

    def _ask(self, wanted: Mapping[str, MetricQuery]) -> None:
        """Request if a window is due that has not been requested; one batch at a time."""
        period_s = self._metric.query.period_s
        end_s = math.floor((self._clock.now() - self.delay_s) / period_s) * period_s
        if self._answer is not None or self._reader.held:
            return
        if end_s < self._asked_end_s - period_s:
            self._asked_end_s = -math.inf  # the clock was set back
        if end_s > self._asked_end_s:
            self._asked_end_s = end_s
            self._answer = self._reader.ask(wanted.values(), end_s - LOOK_BACK * period_s, end_s)

    def _take(self, answers: Answers, wanted: Mapping[str, MetricQuery]) -> None:
        period_s = self._metric.query.period_s
        self._problems = {}
        newest_s = -math.inf
        for query in dict.fromkeys(wanted.values()):
            found = answers.get(query)
            if found is None:
                continue  # a VM that was not there when it was asked; the next period has it
            if not isinstance(found, QueryResult):
                self._problems[query] = found
                continue
            if found.problem:
                self._problems[query] = found.problem
            if found.points:
                start_s, value = max(found.points)
                newest_s = max(newest_s, start_s + period_s)
                self._last[query] = (start_s + period_s, self._metric.reading(value))
        if any(isinstance(found, str) for found in answers.values()) and newest_s == -math.inf:
            self._asked_end_s -= period_s  # asked again as soon as the reader may
        elif newest_s > -math.inf:
            late = newest_s < self._asked_end_s
            step = LATER_STEP if late else -EARLIER_STEP
            self._later_s = min(max(self._later_s + step * period_s, 0.0), MOST_LATER * period_s)

    # ── telling ────────────────────────────────────────────────────────────────────────────────────────

    def _complaint(self, wanted: Mapping[str, MetricQuery], found: Mapping[str, object]) -> str:
        if held := self._reader.held:
            return held
        if self._problems:
            query, problem = next(iter(self._problems.items()))
            more = f" (and {len(self._problems) - 1} more)" if len(self._problems) > 1 else ""
            return f"{_named(query)}: {problem}{more}"
        if found or self._answer is not None:
            return ""
        some = ", ".join(_named(query) for query in list(dict.fromkeys(wanted.values()))[:MOST_NAMED])
        span_s = LOOK_BACK * self._metric.query.period_s
        return (
            f"CloudWatch has no datapoint of {some} in {span_s} s up to {self.delay_s:.0f} s ago; check names and dimensions, "
            "and that detailed monitoring is on where the period is 60s"
        )

    def _readings(self, found: Mapping[str, tuple[float, float]], error: str = "") -> FleetReadings:
        stamps = np.array([end_s for end_s, _ in found.values()], np.float64)
        values = np.array([value for _, value in found.values()], np.float64)
        return FleetReadings(tuple(found), values, stamps, error)


def _named(query: MetricQuery) -> str:
    dimensions = ", ".join(f"{name}={value}" for name, value in query.dimensions)
    return f"{query.namespace} {query.name} ({dimensions})"
