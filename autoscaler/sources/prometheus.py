"""Prometheus as a live source: one instant query per tick, with series joined to VMs or one series for the fleet.

    fleets of one tick ─ the same query? ─ one request ─ series ─ select ─ join label = VM ─ readings
                                                             └ a total: exactly one

Why sharing: a hundred fleets under one recording rule need one query. It is sent when the first fleet reads, and all fleets
that read meanwhile get its answer.

Age of a value: Prometheus repeats a value for up to 5 minutes after its last scrape, and stamps the answer with the time of the
query. So for a plain selector, the timestamps of its samples are queried as well. For other queries, the time of the query
counts, less the policy's `lag`.

Rules of this file: no series means no reading, never zero. Several series for one VM are an error, never a sum.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

import numpy as np

from autoscaler.core.types import Signal
from autoscaler.errors import SourceError
from autoscaler.ports import Clock, FleetReadings, Vm
from autoscaler.ports.sources import History
from autoscaler.sources.fan_out import summary
from autoscaler.sources.prometheus_access import Address, Answer, PrometheusAccess
from autoscaler.sources.prometheus_history import Past, read_history
from autoscaler.words import some

SHARED_S = 0.5
"""An answer is shared by all fleets that ask within this time of the request, in seconds."""
SKEW_S = 5.0
FAR_ABOVE_ONE = 10.0
MANY = "several series as well"
OF_THE_QUERY = "PromQL "
"""Prefix of warnings about the query's text. All other warnings are about data that could not be read."""
_PLAIN = re.compile(r'\s*[a-zA-Z_:][a-zA-Z0-9_:]*\s*(\{(?:[^{}"]|"(?:[^"\\]|\\.)*")*\})?\s*')
_PORT = re.compile(r"^(?:\[([^\]]+)\]|([^:]*))(?::\d+)?$")

Labels: TypeAlias = Mapping[str, str]


class JoinBy(StrEnum):
    """The property of a VM that a label contains."""

    ADDRESS = "address"
    ID = "id"
    NAME = "name"
    """The value of its tag Name."""


@dataclass(frozen=True, slots=True)
class Join:
    """How series are assigned to VMs.

    Attributes:
        label: The label that identifies the VM.
        by: The property of the VM that it contains. The port of an address is ignored.
    """

    label: str = "instance"
    by: JoinBy = JoinBy.ADDRESS


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of an answer; `at_s` is the time of its value, as far as Prometheus tells."""

    labels: Labels
    value: float
    at_s: float


@dataclass(slots=True)
class Vector:
    """All series of one answer, with look-ups by label that are shared by all fleets that use the answer."""

    samples: tuple[Sample, ...]
    asked_at_s: float
    warnings: tuple[str, ...] = ()
    _found: dict[Hashable, dict[Hashable, list[Sample]]] = field(default_factory=dict)

    def selected(self, select: tuple[tuple[str, str], ...]) -> Sequence[Sample]:
        """The series that carry these labels."""
        if not select:
            return self.samples
        names, wanted = zip(*select, strict=True)
        groups = self._groups(names, lambda labels: tuple(labels.get(name) for name in names))
        return groups.get(wanted, ())

    def joined(self, select: tuple[tuple[str, str], ...], join: Join) -> Mapping[Hashable, list[Sample]]:
        """The selected series by the property of a VM that the join's label contains."""

        def key(labels: Labels) -> str | None:
            value = labels.get(join.label)
            return _without_port(value) if value and join.by is JoinBy.ADDRESS else value

        return self._groups((select, join), key, self.selected(select))

    def _groups(
        self, name: Hashable, key: Callable[[Labels], Hashable], samples: Sequence[Sample] | None = None
    ) -> dict[Hashable, list[Sample]]:
        found = self._found.get(name)
        if found is None:
            found = self._found[name] = {}
            for sample in self.samples if samples is None else samples:
                found.setdefault(key(sample.labels), []).append(sample)
        return found


@dataclass(slots=True)
class _Asked:
    began_s: float
    answer: asyncio.Task[Vector]


class PrometheusQueries:
    """Instant queries to one address, shared by the fleets that ask the same.

    Args:
        address: How to reach the Prometheus.
        clock: Clock for the age of answers.
        closed: Called when the last user has left.
    """

    def __init__(self, address: Address, clock: Clock, closed: Callable[[], None] | None = None) -> None:
        self.access = PrometheusAccess(address, clock)
        self.users: dict[str, int] = {}
        """Number of fleets by query."""
        self._clock = clock
        self._asked: dict[str, _Asked] = {}
        self._closed = closed

    def use(self, query: str) -> None:
        """Register a fleet that asks this query."""
        self.users[query] = self.users.get(query, 0) + 1

    async def leave(self, query: str) -> None:
        """Remove a fleet that asked this query. When the last one leaves, connections are released."""
        left = self.users.pop(query) - 1
        if left:
            self.users[query] = left
        elif asked := self._asked.pop(query, None):
            asked.answer.cancel()
        if self.users:
            return
        await self.access.close()
        if self._closed is not None:
            self._closed()

    async def instant(self, query: str) -> Vector:
        """Return the query's current result.

        Raises:
            SourceError: There is no useful answer.
        """
        now_s = self._clock.monotonic()
        asked = self._asked.get(query)
        if asked is None or (asked.answer.done() and now_s - asked.began_s >= SHARED_S):
            answer = asyncio.ensure_future(self._instant(query))
            answer.add_done_callback(_heard)
            asked = self._asked[query] = _Asked(now_s, answer)
        try:
            return await asyncio.shield(asked.answer)
        except asyncio.CancelledError:
            if asked.answer.cancelled() and not _is_being_cancelled():
                raise SourceError("the query was abandoned, because its source was closed") from None
            raise

    async def _instant(self, query: str) -> Vector:
        # Otherwise Thanos and VictoriaMetrics may answer partially, which looks like less demand. Others ignore these fields.
        form = {"query": query, "partial_response": "false", "deny_partial_response": "1"}
        if not _PLAIN.fullmatch(query):
            return _vector(await self.access.ask("query", form))
        stamps = {**form, "query": f"timestamp({query.strip()})"}
        values, times = await asyncio.gather(self.access.ask("query", form), self.access.ask("query", stamps))
        return _stamped(_vector(values), _vector(times))


class PrometheusPool:
    """The Prometheus addresses that the sources of one daemon query, each opened once.

    Args:
        clock: Clock for the age of answers.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open: dict[Address, PrometheusQueries] = {}

    def at(self, address: Address) -> PrometheusQueries:
        """Return the queries of this address. They leave the pool when their last user leaves."""
        if address not in self._open:

            def closed() -> None:
                self._open.pop(address, None)

            self._open[address] = PrometheusQueries(address, self._clock, closed)
        return self._open[address]


class PrometheusSource:
    """A `MetricSource` and `HistorySource` of one fleet.

    Args:
        queries: Makes the queries, possibly shared with other fleets.
        past: The query, the signal, the selection and the lag; and how to query the past.
        clock: Clock that is compared with Prometheus' clock.
        join: How series are assigned to VMs; not used for a total.
    """

    def __init__(
        self, queries: PrometheusQueries, past: Past, clock: Clock, *, join: Join | None = None
    ) -> None:
        self._queries = queries
        self._past = past
        self._query = past.query
        self._signal = past.signal
        self._clock = clock
        self._join = join or Join()
        self._select = past.select
        self._lag_s = past.lag_s
        self._closed = False
        queries.use(past.query)

    async def read(self, vms: Sequence[Vm]) -> FleetReadings:
        """Query, and assign the series to these VMs.

        Raises:
            SourceError: There is no value at all. The message says what came and what was wanted.
        """
        if not vms and self._signal is not Signal.TOTAL:
            return FleetReadings.none()
        vector = await self._queries.instant(self._query)
        if not vector.samples:
            raise SourceError(
                f"the query returns no series now: {shortened(self._query)}; does the metric exist under this name, and was it scraped recently?"
            )
        found = self._total(vector) if self._signal is Signal.TOTAL else self._per_vm(vector, vms)
        now_s = self._clock.now()
        values = np.array([sample.value for sample in found.samples.values()], np.float64)
        stamps = np.array([sample.at_s for sample in found.samples.values()], np.float64) - self._lag_s
        told = (found.error, *self._doubts(vector, values, now_s))
        return FleetReadings(
            tuple(found.samples), values, np.minimum(stamps, now_s), "; ".join(filter(None, told))
        )

    async def history(self, start_s: float, end_s: float, step_s: float) -> History:
        """See `HistorySource.history`."""
        past = self._past
        alone = past.own_query or past.select or past.signal is Signal.TOTAL
        if not alone and self._queries.users.get(past.query, 0) > 1:
            raise SourceError(await self._how_to_tell_apart(), retryable=False)
        return await read_history(self._queries.access.address, self._clock, past, start_s, end_s, step_s)

    async def _how_to_tell_apart(self) -> str:
        """Explain to a person what to write in the policy so that the past of this fleet can be read."""
        fleet = self._past.fleet
        why = "its query serves several fleets, and VMs of the past cannot be joined"
        try:
            samples = (await self._queries.instant(self._query)).samples
        except SourceError:
            samples = ()
        named = Counter(
            name for sample in samples for name, value in sample.labels.items() if value == fleet != ""
        )
        if not named:
            return (
                f"{why}: write under signal.prometheus either `select: '{{service=\"{fleet or '{fleet}'}\"}}'`, with a "
                f"label that this fleet's series carry and no others' do (none has the value {fleet!r} now), or "
                f"`history_query: 'sum({shortened(self._query)} …)'` with VMs' own matchers, which gives the demand of "
                "this fleet alone"
            )
        name, count = min(named.items(), key=lambda item: (-item[1], item[0]))
        return (
            f"{why}: write `select: '{{{name}=\"{{fleet}}\"}}'` under signal.prometheus if the label {name} says which "
            f'fleet a series is of ({count} of {len(samples)} series carry {name}="{fleet}" now)'
        )

    async def close(self) -> None:
        """Release connections, unless other fleets use them."""
        if not self._closed:
            self._closed = True
            await self._queries.leave(self._query)

    def _total(self, vector: Vector) -> _Found:
        if partial := [text for text in vector.warnings if not text.startswith(OF_THE_QUERY)]:
            # A partial total is too low, so VMs would be stopped because a store is unavailable. For single VMs, missing
            # series are noticed by their coverage.
            raise SourceError(
                f"the answer is partial, which would look like less demand; Prometheus warns: {partial[0]}"
            )
        samples = vector.selected(self._select)
        if not samples:
            raise SourceError(
                f"none of the {len(vector.samples)} series carries {_written(dict(self._select))} "
                f"(`select`); there is {some([_written(sample.labels) for sample in vector.samples])}"
            )
        if len(samples) > 1:
            raise SourceError(
                f"the query gives {len(samples)} series ({some([_written(sample.labels) for sample in samples])}), and "
                f"kind total is one; aggregate them, for example sum({shortened(self._query)})"
            )
        return _Found({"": samples[0]})

    def _per_vm(self, vector: Vector, vms: Sequence[Vm]) -> _Found:
        by_key = vector.joined(self._select, self._join)
        found: dict[str, Sample] = {}
        errors: dict[str, str] = {}
        many = False
        for vm in vms:
            key = self._key(vm)
            samples = by_key.get(key, ()) if key else ()
            if len(samples) == 1:
                found[vm.id] = samples[0]
            elif samples:
                errors[key or vm.id] = MANY if many else self._many(samples)
                many = True
            else:
                errors[key or vm.id] = "no series" if key else f"no {self._join.by}"
        if errors and not found:
            raise SourceError(self._nothing_joined(by_key, vms, errors))
        return _Found(found, summary(errors, len(vms)))

    def _many(self, samples: Sequence[Sample]) -> str:
        shown = some([_written(sample.labels) for sample in samples], 2)
        return (
            f"{len(samples)} series of one VM ({shown}), where one is needed: aggregate them, for example with "
            f"sum by ({self._join.label}) (…),"
        )

    def _key(self, vm: Vm) -> str | None:
        match self._join.by:
            case JoinBy.ADDRESS:
                return vm.address
            case JoinBy.ID:
                return vm.id
            case JoinBy.NAME:
                return vm.tags.get("Name")

    def _nothing_joined(
        self, by_key: Mapping[Hashable, list[Sample]], vms: Sequence[Vm], errors: Mapping[str, str]
    ) -> str:
        if not set(errors.values()) <= {"no series", f"no {self._join.by}"}:
            return summary(errors, len(vms))
        label, by = self._join.label, self._join.by
        wanted = [key for vm in vms if (key := self._key(vm))]
        if not wanted:
            return f"none of the {len(vms)} VMs has {'an' if by == 'address' else 'a'} {by} to join series by"
        labels = sorted(str(key) for key in by_key if key not in {None, ""})
        if not labels:
            shown = some([_written(sample.labels) for sample in next(iter(by_key.values()), [])])
            return f"no series carries the label {label}, which joins it to a VM; there is {shown or 'none'}"
        return (
            f"no VM matches by label {label} = {by}: the series name {some(labels)}, the VMs are "
            f"{some(sorted(wanted))}; see `signal.prometheus.join`"
        )

    def _doubts(self, vector: Vector, values: np.ndarray, now_s: float) -> list[str]:
        """Warnings about values that count nonetheless. Their texts rarely change, so that they are not reported in every tick."""
        told = [f"Prometheus warns: {text}" for text in vector.warnings[:3]]
        if trouble := self._queries.access.trouble:
            told.append(trouble)
        ahead_s = vector.asked_at_s - now_s
        if abs(ahead_s) > SKEW_S:
            way = "ahead of" if ahead_s > 0 else "behind"
            told.append(f"its clock is more than {SKEW_S:g} s {way} ours; set both by one time service")
        if self._signal is Signal.UTILISATION and np.count_nonzero(values > FAR_ABOVE_ONE):
            told.append(
                f"values above {FAR_ABOVE_ONE:g}, where 1 is all of a VM; if the query is in percent, divide by 100"
            )
        return told


@dataclass(frozen=True, slots=True)
class _Found:
    """Series by VM, and what is missing."""

    samples: Mapping[str, Sample]
    error: str = ""


def _vector(answer: Answer) -> Vector:
    """Parse the series of an answer.

    Raises:
        SourceError: The answer holds something else.
    """
    if answer.kind == "matrix":
        raise SourceError(
            "the query returns a range of time; put it into a function, for example rate(…[1m])"
        )
    try:
        pairs = [({}, answer.result)] if answer.kind == "scalar" else [
            (dict(one["metric"]), one["value"]) for one in answer.result
        ]  # fmt: skip
        samples = tuple(Sample(labels, float(value), float(at_s)) for labels, (at_s, value) in pairs)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise SourceError(
            "the answer holds no plain numbers (strings and histograms cannot be used; histogram_quantile(…) or histogram_count(…) turn histograms into numbers)"
        ) from None
    return Vector(samples, samples[0].at_s if samples else 0.0, answer.warnings)


def _stamped(values: Vector, times: Vector) -> Vector:
    """The values with their own timestamps, if these are known."""
    at_s = {_identity(sample.labels): sample.value for sample in times.samples}
    samples = tuple(
        Sample(one.labels, one.value, min(at_s.get(_identity(one.labels), one.at_s), one.at_s))
        for one in values.samples
    )
    return Vector(samples, values.asked_at_s, tuple(dict.fromkeys((*values.warnings, *times.warnings))))


def _identity(labels: Labels) -> frozenset[tuple[str, str]]:
    return frozenset(pair for pair in labels.items() if pair[0] != "__name__")


def _without_port(value: str) -> str:
    found = _PORT.match(value)
    return (found[1] or found[2]) if found else value


def _written(labels: Labels) -> str:
    inner = ", ".join(f'{name}="{value}"' for name, value in sorted(labels.items()) if name != "__name__")
    return shortened(f"{labels.get('__name__', '')}{{{inner}}}", 120)


def shortened(text: str, length: int = 160) -> str:
    """The text on one line and of bounded length, for messages."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"


def _heard(answer: asyncio.Task[Vector]) -> None:
    """Retrieve the exception of a query, so that the event loop does not report it when no fleet waits for the query any more."""
    if not answer.cancelled():
        answer.exception()


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
