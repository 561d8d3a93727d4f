"""Past demand of a fleet from Prometheus, for learning at startup.

For a total, this is the fleet's own query; otherwise the sum of the query over VMs, because VMs of the past can no
longer be joined. Utilisation becomes work by the capacity of a VM. If the VMs were saturated on average, demand was
hidden and is unknown.

Rules of this file: read only, in parts, with a few tries each. Several series are an error, never a sum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.types import Signal
from autoscaler.errors import SourceError
from autoscaler.ports import Clock
from autoscaler.ports.sources import History
from autoscaler.sources.prometheus_access import Address, Answer, PrometheusAccess

POINTS_AT_ONCE = 5_000
"""Points per request. Prometheus refuses more than 11,000 per series; fewer keep each request short."""
TRIES = 3
WAIT_S = 5.0
TIMEOUT_S = 60.0
"""Shortest timeout of a part, in seconds. The past may take longer than a live query, because no tick waits for it."""


@dataclass(frozen=True, slots=True)
class Past:
    """What to query.

    Attributes:
        query: The fleet's live PromQL query.
        signal: What its values are.
        select: Labels that a series must carry to belong to this fleet.
        lag_s: How much older a value is than its timestamp, in seconds.
        own_query: Query to use instead. It returns the fleet's demand as one series, in the unit of the signal, summed over VMs.
        capacity_per_s: Work per second of one VM.
        saturation: Mean utilisation from which demand counts as hidden.
        fleet: Name of the fleet, for messages.
    """

    query: str
    signal: Signal
    select: tuple[tuple[str, str], ...] = ()
    lag_s: float = 0.0
    own_query: str | None = None
    capacity_per_s: float = 1.0
    saturation: float = 1.0
    fleet: str = ""

    def aggregated(self, how: str) -> str:
        """The query aggregated to one series for this fleet; `how` is the PromQL operator."""
        if self.signal is Signal.TOTAL:
            return self.query
        by = f" by ({', '.join(name for name, _ in self.select)})" if self.select else ""
        return f"{how}{by} ({self.query})"


async def read_history(
    address: Address, clock: Clock, past: Past, start_s: float, end_s: float, step_s: float
) -> History:
    """Read demand within a range, with a value for each step that Prometheus knows.

    Raises:
        SourceError: There is no useful answer, no value at all, or more than one series.
    """
    access = PrometheusAccess(replace(address, timeout_s=max(TIMEOUT_S, address.timeout_s)), clock)
    reading = _Reading(access, clock, past, start_s, end_s, step_s)
    try:
        times, values = await reading.series(past.own_query or past.aggregated("sum"))
        if past.signal is Signal.UTILISATION:
            values = values * past.capacity_per_s
            if past.own_query is None:
                at, use = await reading.series(past.aggregated("avg"))
                hidden = np.isin(times, at[use >= past.saturation])
                values = np.where(hidden, np.nan, values)
    finally:
        await access.close()
    possible = np.isfinite(values) & (values >= 0.0)
    if not possible.any():
        raise SourceError("the past holds no value of the query; for how long does Prometheus keep data?")
    return History(times - past.lag_s, np.where(possible, values, np.nan), tuple(sorted(reading.warnings)))


class _Reading:
    """Reads series by range queries, in parts."""

    def __init__(
        self, access: PrometheusAccess, clock: Clock, past: Past, start_s: float, end_s: float, step_s: float
    ) -> None:
        self._access = access
        self._clock = clock
        self._past = past
        # On the grid of whole steps, so that the values of several queries have the same times.
        self._first = math.ceil(start_s / step_s - 1e-9)
        self._end = math.ceil(end_s / step_s - 1e-9)
        self._step_s = step_s
        self.warnings: set[str] = set()

    async def series(self, query: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Times and values of the fleet's only series, float64 (n,) each."""
        times, values = [], []
        for begin in range(self._first, self._end, POINTS_AT_ONCE):
            last = min(begin + POINTS_AT_ONCE, self._end) - 1
            form = {
                "query": query,
                "start": repr(begin * self._step_s),
                "end": repr(last * self._step_s),
                "step": repr(self._step_s),
                "partial_response": "false",
                "deny_partial_response": "1",
            }
            found = self._one(await self._ask(form), query)
            times.append(found[:, 0])
            values.append(found[:, 1])
        return np.concatenate(times or [np.empty(0)]), np.concatenate(values or [np.empty(0)])

    async def _ask(self, form: Mapping[str, str]) -> Answer:
        for attempt in range(1, TRIES):
            try:
                return await self._access.ask("query_range", form)
            except SourceError as error:
                if not error.retryable:
                    raise
            await self._clock.sleep_until(self._clock.monotonic() + WAIT_S * attempt)
        return await self._access.ask("query_range", form)

    def _one(self, answer: Answer, query: str) -> NDArray[np.float64]:
        """Rows of time and value, float64 (n, 2)."""
        self.warnings.update(answer.warnings)
        try:
            mine = [one for one in answer.result if self._is_ours(one["metric"])]
            if len(mine) > 1:
                raise SourceError(
                    f"the past holds {len(mine)} series of {query}, and one is needed; see "
                    f"`{self._access.address.section}.history_query`",
                    retryable=False,
                )
            rows = [(float(at_s), float(value)) for at_s, value in mine[0]["values"]] if mine else []
        except (KeyError, TypeError, ValueError):
            raise SourceError("the past holds no plain numbers", retryable=False) from None
        return np.array(rows, np.float64).reshape(-1, 2)

    def _is_ours(self, labels: Mapping[str, Any]) -> bool:
        if self._past.own_query is not None:
            return True
        return all(labels.get(name) == value for name, value in self._past.select)
