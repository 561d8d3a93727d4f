"""Imports history from Prometheus: one series over a time range, as a trace.

Which interval a value describes depends on the query: a level holds from its time on, while `rate(x[1m])` and
`increase(x[1m])` describe the minute before. Traces stamp the beginning, so the latter are moved back.

Rules of this file: read only. What Prometheus does not return, or returns as NaN, stays a gap. Several series are
an error, never a sum. Requests stay below the limit of 11,000 points, and answers below a bound.
"""

from __future__ import annotations

import json
import math
import re
import ssl
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from autoscaler.errors import SourceError, TraceError
from autoscaler.ports import Clock
from autoscaler.sources.prometheus_access import trusting
from autoscaler.traces.blocks import Progress
from autoscaler.traces.query_range import series_name
from autoscaler.traces.trace import RowError, Trace, TraceKind, describe_time
from autoscaler.words import some

POINTS_AT_ONCE = 10_000
"""Points per request. Prometheus refuses more than 11,000 points per series in one answer."""
MAX_POINTS = 50_000_000
MAX_ANSWER_BYTES = 64 << 20
MOST_SAID = 300
"""Most characters of Prometheus' own error message that are shown."""
TRIES = 3
WAIT_S = 2.0
_RANGE = re.compile(r"\[\s*([0-9a-z]+)\s*(?::[^\]]*)?\]")
_DURATION_PART = re.compile(r"(\d+)(ms|s|m|h|d|w|y)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0, "y": 31_536_000.0}


class Describes(StrEnum):
    """Which interval a value describes."""

    BEFORE = "before"
    """The step that ends at its time, as with rate() and increase()."""
    AFTER = "after"
    """The step that begins at its time: a level at that moment."""


@dataclass(frozen=True, slots=True)
class RangeQuery:
    """What to query.

    Attributes:
        url: URL of the Prometheus, without /api.
        query: PromQL query that returns one series.
        start_s, end_s: Range in epoch seconds; the end is excluded.
        step_s: Seconds from one value to the next, which is the trace's interval.
        kind: What the values mean.
        describes: Which interval a value describes. None stands for the one before with counts and with queries over a
            range, otherwise for the one after.
    """

    url: str
    query: str
    start_s: float
    end_s: float
    step_s: float
    kind: TraceKind
    describes: Describes | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach the Prometheus.

    Attributes:
        token_file: File whose content is sent as bearer token.
        ca_file: Certificates to trust instead of the system's.
        timeout_s: Longest wait for one answer.
    """

    token_file: Path | None = None
    ca_file: Path | None = None
    timeout_s: float = 60.0


@dataclass(slots=True)
class _Found:
    """What has been read so far."""

    labels: dict[str, str] | None = None
    stamps: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    unknown: int = 0
    warnings: set[str] = field(default_factory=set)


async def read_range(
    asked: RangeQuery, access: Access, clock: Clock, progress: Progress | None = None
) -> tuple[Trace, list[str]]:
    """Read a series as a trace, together with notes for a person.

    Raises:
        SourceError: Prometheus did not answer usefully.
        TraceError: The result does not make a trace: no value, several series, negative values.
    """
    describes = _check(asked)
    found = _Found()
    # The first moment on the grid of whole steps, so that traces of several ranges fit together.
    shift_s = asked.step_s if describes is Describes.BEFORE else 0.0
    first = math.ceil(asked.start_s / asked.step_s - 1e-9)
    last = math.ceil(asked.end_s / asked.step_s - 1e-9)
    total = last - first
    try:
        async with _session(access) as session:
            for begin in range(first, last, POINTS_AT_ONCE):
                end = min(begin + POINTS_AT_ONCE, last) - 1
                window = (begin * asked.step_s + shift_s, end * asked.step_s + shift_s)
                _take(found, await _ask(session, asked, window, clock), asked)
                if progress:
                    progress((end + 1 - first) / total)
    except (OSError, ssl.SSLError) as error:
        raise SourceError(f"{asked.url}: {error}") from None
    return _trace(found, asked, shift_s), _notes(found, asked, describes)


def _check(asked: RangeQuery) -> Describes:
    if not asked.url.startswith(("http://", "https://")):
        raise SourceError(
            f"{asked.url} is not an address; write for example http://127.0.0.1:9090", retryable=False
        )
    points = (asked.end_s - asked.start_s) / asked.step_s
    if not 2 <= points <= MAX_POINTS:
        raise TraceError(
            f"from {describe_time(asked.start_s)} to {describe_time(asked.end_s)} there are {max(points, 0.0):.0f} steps of "
            f"{asked.step_s:g} s; 2 to {MAX_POINTS:,} are possible (`--start`, `--end`, `--step`)"
        )
    ranges = {text: _prometheus_seconds(text) for text in _RANGE.findall(asked.query)}
    if asked.kind is TraceKind.COUNT:
        for text, seconds in ranges.items():
            if seconds is not None and abs(seconds - asked.step_s) > 1e-6:
                raise TraceError(
                    f"the query counts over [{text}] at each step of {asked.step_s:g} s, so work would be counted "
                    f"{seconds / asked.step_s:g} times; let the range and `--step` be equal"
                )
    counted = asked.kind is TraceKind.COUNT or bool(ranges)
    return asked.describes or (Describes.BEFORE if counted else Describes.AFTER)


def _prometheus_seconds(text: str) -> float | None:
    parts = _DURATION_PART.findall(text)
    if "".join(number + unit for number, unit in parts) != text:
        return None
    return math.fsum(int(number) * _SECONDS[unit] for number, unit in parts)


def _session(access: Access) -> aiohttp.ClientSession:
    headers = {}
    if access.token_file is not None:
        try:
            token = access.token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(
                f"the token file {access.token_file} cannot be read: {error}", retryable=False
            ) from None
        headers["Authorization"] = f"Bearer {token}"
    try:
        context = trusting(access.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SourceError(
            f"the file of certificates {access.ca_file} cannot be used: {error}", retryable=False
        ) from None
    return aiohttp.ClientSession(
        headers=headers,
        connector=aiohttp.TCPConnector(ssl=context),
        timeout=aiohttp.ClientTimeout(total=access.timeout_s),
        trust_env=False,
    )


async def _ask(
    session: aiohttp.ClientSession, asked: RangeQuery, window: tuple[float, float], clock: Clock
) -> dict[str, Any]:
    """The `data` of one answer, after a few tries if Prometheus is busy or unreachable."""
    for attempt in range(1, TRIES + 1):
        try:
            return await _ask_once(session, asked, window)
        except SourceError as error:
            if not error.retryable or attempt == TRIES:
                raise
        await clock.sleep_until(clock.monotonic() + WAIT_S * attempt)
    raise AssertionError


async def _ask_once(
    session: aiohttp.ClientSession, asked: RangeQuery, window: tuple[float, float]
) -> dict[str, Any]:
    url = f"{asked.url.rstrip('/')}/api/v1/query_range"
    form = {
        "query": asked.query,
        "start": repr(window[0]),
        "end": repr(window[1]),
        "step": repr(asked.step_s),
    }
    try:
        async with session.post(url, data=form, allow_redirects=False) as answer:
            body = await _bounded(answer, asked)
            status = answer.status
    except aiohttp.ClientSSLError as error:
        raise SourceError(f"{asked.url}: {error}", retryable=False) from None
    except (aiohttp.ClientError, TimeoutError) as error:
        why = str(error) or "no answer in time"
        raise SourceError(f"{asked.url}: {why}") from None
    try:
        found = json.loads(body)
        good = found["status"] == "success"
    except (ValueError, KeyError, TypeError, RecursionError):
        if status in {401, 403}:
            raise SourceError(
                f"{asked.url}: it denies access ({status}); is `--token-file` right?", retryable=False
            ) from None
        retryable = status >= 500
        raise SourceError(
            f"{asked.url}: the answer (status {status}) is not that of a Prometheus", retryable=retryable
        ) from None
    if not good:
        why = f"{found.get('errorType', status)}: {str(found.get('error', 'no reason given'))[:MOST_SAID]}"
        raise SourceError(f"{asked.url}: the query failed: {why}", retryable=status >= 500)
    data: dict[str, Any] = found["data"]
    data["warnings"] = found.get("warnings", [])
    return data


async def _bounded(answer: aiohttp.ClientResponse, asked: RangeQuery) -> bytes:
    body = bytearray()
    async for part in answer.content.iter_chunked(1 << 20):
        body += part
        if len(body) > MAX_ANSWER_BYTES:
            raise TraceError(
                f"{asked.url}: the answer is larger than {MAX_ANSWER_BYTES >> 20} MiB; aggregate to one series, for "
                "example with sum(…)"
            )
    return bytes(body)


def _take(found: _Found, data: dict[str, Any], asked: RangeQuery) -> None:
    found.warnings.update(map(str, data["warnings"]))
    try:
        series = [(dict(one["metric"]), one["values"]) for one in data["result"]]
        pairs = [(float(at), float(value)) for _, values in series for at, value in values]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise SourceError(
            f"{asked.url}: the answer holds no series of numbers (histograms cannot be used)", retryable=False
        ) from None
    kinds = [labels for labels, _ in series]
    if found.labels is not None:
        kinds = [found.labels, *(labels for labels in kinds if labels != found.labels)]
    if len(kinds) > 1:
        shown = some([*map(series_name, kinds)])
        raise TraceError(
            f"the query gives {len(kinds)} series ({shown}); a trace is one: aggregate them in the query, for "
            f"example sum({asked.query})"
        )
    if kinds:
        found.labels = kinds[0]
    for at_s, value in pairs:
        if math.isfinite(value):
            found.stamps.append(at_s)
            found.values.append(value)
        else:
            found.unknown += 1


def _trace(found: _Found, asked: RangeQuery, shift_s: float) -> Trace:
    if len(found.stamps) < 2:
        raise TraceError(
            f"the query gives {len(found.stamps)} values from {describe_time(asked.start_s)} to "
            f"{describe_time(asked.end_s)}, and a trace needs two; does the metric exist in that time, and under this name?"
        )
    stamps = np.array(found.stamps) - shift_s
    try:
        return Trace.build(
            np.round(stamps / asked.step_s) * asked.step_s,
            found.values,
            kind=asked.kind,
            name="prometheus",
            interval_s=asked.step_s,
        )
    except RowError as error:
        raise TraceError(f"at {describe_time(stamps[error.row])}: {error}") from None


def _notes(found: _Found, asked: RangeQuery, describes: Describes) -> list[str]:
    told = [f"{asked.query} of {asked.url}"]
    if describes is Describes.BEFORE:
        told.append("each value describes the step before its time, so stamps were moved back by one step")
    elif not _RANGE.search(asked.query):
        told.append(
            "Prometheus repeats the last value of a metric for up to 5 minutes, so shorter outages are not seen as gaps; "
            "a query over a range, such as avg_over_time(…), shows them"
        )
    longest_s = max((_prometheus_seconds(text) or 0.0 for text in _RANGE.findall(asked.query)), default=0.0)
    if longest_s > asked.step_s:
        told.append(
            f"each value is over {longest_s:g} s, which flattens what is shorter; a range of one step does not"
        )
    if found.unknown:
        told.append(f"{found.unknown} values were no numbers and stay unknown")
    told += [f"Prometheus warns: {text}" for text in sorted(found.warnings)]
    return told
