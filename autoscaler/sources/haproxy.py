"""HAProxy's runtime socket as a source: the requests that arrive and queue for a fleet, before any VM reports them.

The values read depend on the fleet's kind of signal:

- total: requests per second that arrive at the backend (in mode tcp, connections), plus its queue as work to be done
  within a given time;
- throughput: the same per VM, without the queue;
- utilisation: sessions of a VM as a share of its `maxconn`;
- concurrency: sessions of a VM; queue: requests waiting at the backend.

Rules of this file: rates take two readings. A rate belongs to the time between the moments at which a process was asked, not to a tick:
a slow answer must not look like a burst. For the same reason, a reading that comes too soon after the last one repeats its rates. A
process that began after the last reading (a restart, a reload) has counted since then only: its rate is over its own age, and while it
is too young for that, the rates of before are repeated. If one of several HAProxy processes does not answer, the sum is unknown: no
reading is made from the others.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from autoscaler.balancers.haproxy import JoinBy, key_of, rows_by_key
from autoscaler.balancers.haproxy_socket import HaproxyError, HaproxySocket, Process, StatRow
from autoscaler.core.types import Signal
from autoscaler.errors import SourceError
from autoscaler.ports import Clock, FleetReadings, Vm
from autoscaler.sources.rate_window import RateWindow

FIRST = "first reading (a rate takes two)"
_BACKEND = "BACKEND"
_SHOWN = 3
_LEAST_AGE_S = 5.0
"""Shortest age of a process to compute a rate over, in seconds. HAProxy tells it in whole seconds: an error of a tenth at most."""


@dataclass(frozen=True, slots=True)
class _Table:
    """Answer of one process.

    Attributes:
        at_s: Monotonic time, in seconds: the middle between request and answer, which halves the error of a slow one.
        process: Its number, and for how long it has run.
        rows: The backend and its entries.
    """

    at_s: float
    process: Process
    rows: list[StatRow]


@dataclass(frozen=True, slots=True)
class _Counted:
    """Counters of one process at its last reading, by entry.

    Attributes:
        read_at_s: Time of the reading, in Unix seconds.
        at_s: Monotonic time of the counters, in seconds.
        process: The process that counted.
        done: Work counted so far.
        rates: Work per second over the time before `read_at_s`; None if no reading came before.
        fresh: Entries that this reading is the first of, which is no failure: their rates come with the next one.
    """

    read_at_s: float
    at_s: float
    process: Process
    done: dict[str, int]
    rates: dict[str, float] | None
    fresh: frozenset[str] = frozenset()


class HaproxySource:
    """A `MetricSource` that reads HAProxy's runtime socket.

    Args:
        places: Runtime sockets of the HAProxy processes in front of the fleet: paths, or host:port.
        backend: Name of the fleet's backend.
        by: What joins an entry of the backend to a VM.
        signal: What the readings are.
        clock: Clock for the times of readings.
        queue_within_s: Time within which queued work should be done, in seconds. For a total, the queue divided by it
            is added as work per second; infinite to leave out the queue.
        timeout_s: Longest time of one request, in seconds of the event loop.
        window: Times over which rates are computed.
    """

    def __init__(
        self,
        places: Sequence[str],
        backend: str,
        by: JoinBy,
        signal: Signal,
        clock: Clock,
        *,
        queue_within_s: float = math.inf,
        timeout_s: float = 2.0,
        window: RateWindow | None = None,
    ) -> None:
        self._sockets = [HaproxySocket(place, timeout_s) for place in places]
        self._backend = backend
        self._by = by
        self._signal = signal
        self._clock = clock
        self._queue_within_s = queue_within_s
        self._window = window or RateWindow()
        self._counted: dict[str, _Counted] = {}

    async def read(self, vms: Sequence[Vm]) -> FleetReadings:
        """Read from all processes at once.

        Raises:
            SourceError: One of the processes did not answer.
        """
        now_s = self._clock.now()
        answers = await self._answers()
        tables = [answer.rows for answer in answers]
        if self._signal is Signal.QUEUE:
            return FleetReadings(("",), np.array([float(_waiting(tables))]), np.array([now_s]))
        if self._signal is Signal.CONCURRENCY:
            return self._concurrency(tables, vms, now_s)
        if self._signal is Signal.UTILISATION:
            return self._utilisation(tables, vms, now_s)
        rates, rated_at_s = self._rates(answers, now_s)
        if self._signal is Signal.TOTAL:
            return self._total(tables, rates, rated_at_s)
        return self._throughput(tables, rates, vms, rated_at_s)

    async def _answers(self) -> list[_Table]:
        # Wait for all, since each is bounded, so that the error names every process that failed.
        found = await asyncio.gather(*map(self._answer, self._sockets), return_exceptions=True)
        answers, troubles = [], []
        for socket, each in zip(self._sockets, found, strict=True):
            if isinstance(each, HaproxyError):
                troubles.append(str(each))
                if before := self._counted.get(socket.place):
                    # Its rates are those of a time before the trouble, and must not be repeated after it.
                    self._counted[socket.place] = replace(before, rates=None)
            elif isinstance(each, BaseException):
                raise each
            else:
                answers.append(each)
        if troubles:
            raise SourceError("; ".join(troubles))
        return answers

    async def _answer(self, socket: HaproxySocket) -> _Table:
        asked_at_s = self._clock.monotonic()
        found = await socket.counters(self._backend)
        return _Table((asked_at_s + self._clock.monotonic()) / 2.0, found.process, found.rows)

    async def close(self) -> None:
        """Do nothing: no connection is kept between readings."""

    def _rates(
        self, answers: Sequence[_Table], now_s: float
    ) -> tuple[dict[tuple[str, str], float] | None, float]:
        """Work per second by process and entry, and its time; None without an earlier reading of each process."""
        rates: dict[tuple[str, str], float] = {}
        times_s, are_known = [], True
        for socket, answer in zip(self._sockets, answers, strict=True):
            counted = self._counted[socket.place] = self._count(
                self._counted.get(socket.place), answer, now_s
            )
            times_s.append(counted.read_at_s)
            are_known = are_known and counted.rates is not None
            rates |= {(socket.place, name): rate for name, rate in (counted.rates or {}).items()}
        return rates if are_known else None, min(times_s, default=now_s)

    def _count(self, before: _Counted | None, answer: _Table, now_s: float) -> _Counted:
        at_s, process, done = answer.at_s, answer.process, {row.name: row.arrived for row in answer.rows}
        if before is None or at_s - before.at_s > self._window.longest_s:
            return _Counted(now_s, at_s, process, done, None, frozenset(done))
        passed_s = at_s - before.at_s
        if passed_s <= 0 or passed_s < self._window.shortest_s:
            return before
        if process.follows(before.process):
            # What the process before it counted last is not known; this one has counted since it began.
            if process.age_s < max(_LEAST_AGE_S, self._window.shortest_s):
                return _Counted(before.read_at_s, at_s, process, done, before.rates)
            rates = {name: count / process.age_s for name, count in done.items()}
            return _Counted(now_s, at_s, process, done, rates)
        if done.get(_BACKEND, 0) < before.done.get(_BACKEND, 0):
            # `clear counters all`: nobody knows when.
            return _Counted(before.read_at_s, at_s, process, done, before.rates)
        # An entry whose counter fell was deleted and added again.
        rates = {
            name: (count - before.done[name]) / passed_s
            for name, count in done.items()
            if count >= before.done.get(name, math.inf)
        }
        return _Counted(now_s, at_s, process, done, rates, frozenset(done.keys() - before.done.keys()))

    def _is_fresh(self, place: str, name: str) -> bool:
        """Whether the entry has been read for the first time."""
        counted = self._counted.get(place)
        return counted is not None and name in counted.fresh

    def _total(
        self,
        tables: Sequence[Sequence[StatRow]],
        rates: dict[tuple[str, str], float] | None,
        now_s: float,
    ) -> FleetReadings:
        keys = [(socket.place, _BACKEND) for socket in self._sockets]
        if rates is None or not all(key in rates for key in keys):
            is_first = any(self._is_fresh(*key) for key in keys)
            return FleetReadings.none("" if is_first else FIRST)
        value = math.fsum(rates[key] for key in keys) + _waiting(tables) / self._queue_within_s
        return FleetReadings(("",), np.array([value]), np.array([now_s]))

    def _throughput(
        self,
        tables: Sequence[Sequence[StatRow]],
        rates: dict[tuple[str, str], float] | None,
        vms: Sequence[Vm],
        now_s: float,
    ) -> FleetReadings:
        found, fresh = {}, set()
        for vm_id, entries in self._entries(tables, vms).items():
            keys = [(place, row.name) for place, row in entries]
            if rates is not None and all(key in rates for key in keys):
                found[vm_id] = math.fsum(rates[key] for key in keys)
            elif any(self._is_fresh(*key) for key in keys):
                fresh.add(vm_id)
        if rates is None:
            return FleetReadings.none("" if fresh else FIRST)
        seen = self._readings(found, vms, now_s, tables)
        missing = self._missing(found, [vm for vm in vms if vm.id not in fresh], tables)
        return replace(seen, error=missing)

    def _utilisation(
        self, tables: Sequence[Sequence[StatRow]], vms: Sequence[Vm], now_s: float
    ) -> FleetReadings:
        found = {}
        for vm_id, entries in self._entries(tables, vms).items():
            limits = [row.limit for _, row in entries if row.limit]
            if len(limits) == len(entries):
                found[vm_id] = sum(row.sessions + row.queued for _, row in entries) / sum(limits)
        return self._readings(found, vms, now_s, tables)

    def _concurrency(
        self, tables: Sequence[Sequence[StatRow]], vms: Sequence[Vm], now_s: float
    ) -> FleetReadings:
        found = {
            vm_id: float(sum(row.sessions + row.queued for _, row in entries))
            for vm_id, entries in self._entries(tables, vms).items()
        }
        return self._readings(found, vms, now_s, tables)

    def _entries(
        self, tables: Sequence[Sequence[StatRow]], vms: Sequence[Vm]
    ) -> dict[str, list[tuple[str, StatRow]]]:
        """By VM, its entries with their process. VMs that one of the processes does not know are left out."""
        by_place = [
            (socket.place, rows_by_key(table, self._by))
            for socket, table in zip(self._sockets, tables, strict=True)
        ]
        found = {}
        for vm in vms:
            key = key_of(vm, self._by)
            if key and all(key in rows for _, rows in by_place):
                found[vm.id] = [(place, row) for place, rows in by_place for row in rows[key]]
        return found

    def _readings(
        self,
        found: dict[str, float],
        vms: Sequence[Vm],
        now_s: float,
        tables: Sequence[Sequence[StatRow]],
    ) -> FleetReadings:
        ids = tuple(vm.id for vm in vms if vm.id in found)
        values = np.array([found[vm_id] for vm_id in ids], np.float64)
        return FleetReadings(ids, values, np.full(len(ids), now_s), self._missing(found, vms, tables))

    def _missing(
        self, found: dict[str, float], vms: Sequence[Vm], tables: Sequence[Sequence[StatRow]]
    ) -> str:
        absent = [vm for vm in vms if vm.id not in found]
        if not absent:
            return ""
        shown = ", ".join(f"{vm.id} ({key_of(vm, self._by) or 'none'})" for vm in absent[:_SHOWN])
        there = sorted({key for table in tables for key in rows_by_key(table, self._by)})
        lacks = "entry with a `maxconn`" if self._signal is Signal.UTILISATION else "entry seen twice"
        return (
            f"{len(absent)} of {len(vms)} VMs have no {lacks} in backend {self._backend}, by {self._by}: {shown}"
            f"; the backend has {', '.join(there[:_SHOWN]) or 'no entries'}"
        )


def _waiting(tables: Sequence[Sequence[StatRow]]) -> int:
    """Number of requests that wait for any entry, in the queue of the backend, or for a certain one, in that of the entry."""
    return sum(row.queued for table in tables for row in table)
