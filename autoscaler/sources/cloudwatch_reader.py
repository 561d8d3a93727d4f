"""Reads CloudWatch for all fleets of an account and Region: the queries of a tick go into one batch.

    ask ─┐                              ┌─ up to 500 queries per call, a few calls at once
    ask ─┼─ the same windows ─ no twins ┼─ a refused query is found by halving, and then rests
    ask ─┘                              └─ throttled or failed: all queries wait, longer each time

Rules of this file: a metric that several fleets query is paid for once. A query without an answer has no value. Callers decide
how long they wait; the batch continues without them, within its own deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from autoscaler.errors import AutoscalerError
from autoscaler.ports import Clock
from autoscaler.sources.cloudwatch_client import QueryResult, RefusedQueryError

MOST_QUERIES = 500
"""Most MetricDataQueries in one call."""
CALLS_AT_ONCE = 4
REST_S = 600.0
"""Seconds for which a refused query is not repeated."""
HOLD_FIRST_S, HOLD_MOST_S = 5.0, 120.0
"""Seconds without requests after a failure: the first value, doubled after each further failure up to the second."""
METRIC = "{m}"
"""Placeholder for the metric in an expression."""


@dataclass(frozen=True, slots=True)
class MetricQuery:
    """A metric, and an expression that is computed from it.

    Attributes:
        namespace, name: Namespace and name of the metric.
        dimensions: Pairs of name and value.
        statistic: Statistic, for example Average or p99.
        period_s: The metric's native period, in seconds.
        expression: Metric maths with {m} for the metric; empty for the metric itself.
    """

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...]
    statistic: str
    period_s: int
    expression: str = ""

    @property
    def size(self) -> int:
        """Number of MetricDataQueries that it takes."""
        return 2 if self.expression else 1

    def wire(self, number: int) -> list[dict[str, Any]]:
        """Build its MetricDataQueries. The Id of the result is `r` and the number."""
        stat = {
            "Metric": {
                "Namespace": self.namespace,
                "MetricName": self.name,
                "Dimensions": [{"Name": name, "Value": value} for name, value in self.dimensions],
            },
            "Period": self.period_s,
            "Stat": self.statistic,
        }
        if not self.expression:
            return [{"Id": f"r{number}", "MetricStat": stat, "ReturnData": True}]
        return [
            {"Id": f"m{number}", "MetricStat": stat, "ReturnData": False},
            {
                "Id": f"r{number}",
                "Expression": self.expression.replace(METRIC, f"m{number}"),
                "ReturnData": True,
            },
        ]


class MetricData(Protocol):
    """The part of CloudWatch that a reader needs; see `CloudWatchClient`."""

    async def get(
        self, queries: Sequence[Mapping[str, Any]], start_s: float, end_s: float
    ) -> dict[str, QueryResult]:
        """Get the datapoints for these queries, by Id."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...


Answers = Mapping[MetricQuery, QueryResult | str]
"""By query: what was found, or why nothing was."""


@dataclass(slots=True)
class _Batch:
    """The queries that wait for a request for the same time range."""

    answer: asyncio.Future[Answers]
    queries: dict[MetricQuery, None] = field(default_factory=dict)


class CloudWatchReader:
    """Requests metrics from CloudWatch for all fleets of an account and Region.

    Args:
        client: Makes the calls.
        clock: Clock for pauses after failures.
    """

    def __init__(self, client: MetricData, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._waiting: dict[tuple[float, float], _Batch] = {}
        self._resting: dict[MetricQuery, tuple[float, str]] = {}
        self._held_until_s = 0.0
        self._hold_s = HOLD_FIRST_S
        self._held_why = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._users = 0

    def attach(self) -> None:
        """Add a user."""
        self._users += 1

    async def detach(self) -> None:
        """Remove a user. The last one closes the connections."""
        self._users -= 1
        if self._users <= 0:
            for task in self._tasks:
                task.cancel()
            await self._client.close()

    @property
    def held(self) -> str:
        """Why no requests are made at present; empty if they are."""
        return self._held_why if self._clock.monotonic() < self._held_until_s else ""

    def ask(self, queries: Iterable[MetricQuery], start_s: float, end_s: float) -> asyncio.Future[Answers]:
        """Request these windows, in one batch with all requests for the same range in this turn of the event loop.

        Args:
            queries: The metrics to request.
            start_s: Start of the first window.
            end_s: End of the last window, excluded.

        Returns:
            A future with the answers.
        """
        span = start_s, end_s
        batch = self._waiting.get(span)
        if batch is None:
            loop = asyncio.get_running_loop()
            batch = self._waiting[span] = _Batch(loop.create_future())
            loop.call_soon(self._begin, span)
        batch.queries.update(dict.fromkeys(queries))
        return batch.answer

    def _begin(self, span: tuple[float, float]) -> None:
        batch = self._waiting.pop(span)
        task = asyncio.create_task(self._fetch(batch, *span))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _fetch(self, batch: _Batch, start_s: float, end_s: float) -> None:
        found: dict[MetricQuery, QueryResult | str] = {}
        try:
            now_s = self._clock.monotonic()
            self._resting = {query: each for query, each in self._resting.items() if each[0] > now_s}
            found |= {query: self._resting[query][1] for query in batch.queries if query in self._resting}
            asked = [query for query in batch.queries if query not in self._resting]
            many, failures = asyncio.Semaphore(CALLS_AT_ONCE), list[str]()
            parts = await asyncio.gather(
                *(self._call(part, start_s, end_s, many, failures) for part in _parts(asked))
            )
            for part in parts:
                found |= part
            if failures:
                self._hold(failures[0])
            elif asked:
                self._hold_s, self._held_until_s = HOLD_FIRST_S, 0.0
        except asyncio.CancelledError:
            found |= {query: "the source was closed" for query in batch.queries if query not in found}
            raise
        finally:
            if not batch.answer.done():
                batch.answer.set_result(found)

    async def _call(
        self,
        queries: Sequence[MetricQuery],
        start_s: float,
        end_s: float,
        many: asyncio.Semaphore,
        failures: list[str],
    ) -> dict[MetricQuery, QueryResult | str]:
        wire = [each for number, query in enumerate(queries) for each in query.wire(number)]
        try:
            async with many:
                found = await self._client.get(wire, start_s, end_s)
        except RefusedQueryError as error:
            if len(queries) == 1:
                self._resting[queries[0]] = self._clock.monotonic() + REST_S, str(error)
                return {queries[0]: str(error)}
            half = len(queries) // 2
            halves = [
                await self._call(part, start_s, end_s, many, failures)
                for part in (queries[:half], queries[half:])
            ]
            return halves[0] | halves[1]
        except AutoscalerError as error:
            failures.append(str(error))
            return dict.fromkeys(queries, str(error))
        except Exception as error:  # noqa: BLE001  a bug must not leave callers waiting
            return dict.fromkeys(queries, f"unexpected {type(error).__name__}: {error}; please report")
        return {query: found.get(f"r{number}", QueryResult(())) for number, query in enumerate(queries)}

    def _hold(self, why: str) -> None:
        now_s = self._clock.monotonic()
        if now_s >= self._held_until_s:
            self._held_until_s = now_s + self._hold_s
            self._hold_s = min(2.0 * self._hold_s, HOLD_MOST_S)
        self._held_why = why


def _parts(queries: Sequence[MetricQuery]) -> list[list[MetricQuery]]:
    """Split queries into calls of at most MOST_QUERIES. A metric and its expression stay together."""
    parts: list[list[MetricQuery]] = []
    room = 0
    for query in queries:
        if query.size > room:
            parts.append([])
            room = MOST_QUERIES
        parts[-1].append(query)
        room -= query.size
    return parts
