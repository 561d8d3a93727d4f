"""Parses saved CloudWatch output (`aws cloudwatch get-metric-statistics`, `get-metric-data`) into times and values.

Rules of this file: a trace is one metric and one statistic, never a sum. The caller names them if the file has several.
Datapoints may be in any order. A period without a datapoint is a gap here, because CloudWatch does not tell whether nothing
happened or nothing was recorded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from autoscaler.errors import TraceError
from autoscaler.traces.blocks import Progress, read_blocks
from autoscaler.traces.tables import is_json_with
from autoscaler.traces.trace import Float, describe_time

_NO_STATISTICS = {"Timestamp", "Unit", "ExtendedStatistics"}


def is_cloudwatch(path: Path) -> bool:
    """Return whether a file looks like such output."""
    return is_json_with(path, b'"Datapoints"', b'"MetricDataResults"')


def read_cloudwatch(
    path: Path, value: str = "", progress: Progress | None = None
) -> tuple[Float, Float, str]:
    """Read times in epoch seconds, ascending, and values, float64 (n,) each, and a description of the values.

    Args:
        path: The file.
        value: The statistic (`Sum`), or the Id or label of a result. May be empty if there is only one.
        progress: Called with the share that has been read.

    Raises:
        TraceError: The file is not such output, is incomplete, or contains several metrics.
    """
    text = b"".join(read_blocks(path, progress))
    try:
        answer = json.loads(text)
    except json.JSONDecodeError as error:
        raise TraceError(
            f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}; save the whole answer"
        ) from None
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{path}: not JSON: {error}") from None
    if not isinstance(answer, dict):
        raise TraceError(f"{path}: it is not a CloudWatch response")
    if answer.get("NextToken"):
        raise TraceError(
            f"{path}: it is one page of several (`NextToken`); save all of them as one, which the AWS command line does "
            "without `--no-paginate` and `--max-items`"
        )
    if "MetricDataResults" in answer:
        points, what = _result(path, answer["MetricDataResults"], value)
    else:
        points, what = _statistic(path, answer.get("Datapoints"), value, answer.get("Label"))
    if len(points) < 2:
        raise TraceError(f"{path}: it holds {len(points)} datapoints of {what}, and a trace needs two")
    points.sort()
    stamps, values = np.array(points, np.float64).T
    again = np.flatnonzero(np.diff(stamps) == 0)
    if len(again):
        raise TraceError(
            f"{path}: {describe_time(float(stamps[again[0]]))} appears twice; save one metric with one period"
        )
    return stamps, values, what


def _result(path: Path, results: Any, value: str) -> tuple[list[tuple[float, float]], str]:
    if not (isinstance(results, list) and all(isinstance(one, dict) for one in results)):
        raise TraceError(f"{path}: `MetricDataResults` is not a list of results")
    named = {str(one.get("Id", at)): one for at, one in enumerate(results)}
    found = [one for name, one in named.items() if not value or value in (name, one.get("Label"))]
    listed = ", ".join(f"{name} ({one.get('Label', 'no label')})" for name, one in list(named.items())[:5])
    if len(found) != 1:
        several = f"it holds {len(named)} results: {listed}" if named else "it holds no result"
        which = f"`{value}` names {len(found)} of them; " if value and named else ""
        raise TraceError(
            f"{path}: {several}; {which}a trace is one of them, named with `--value`, or their sum: let CloudWatch add "
            "them with metric math"
        )
    (one,) = found
    what = str(one.get("Label") or one.get("Id"))
    if one.get("StatusCode") not in (None, "Complete"):
        raise TraceError(
            f"{path}: {what} is not complete (`StatusCode` {one['StatusCode']}); ask for a shorter time, or again"
        )
    times, values = one.get("Timestamps"), one.get("Values")
    if not (isinstance(times, list) and isinstance(values, list) and len(times) == len(values)):
        raise TraceError(f"{path}: {what} has no `Timestamps` and `Values` of one length")
    return _points(path, zip(times, values, strict=True), f"`Values` of {what}"), what


def _statistic(path: Path, points: Any, value: str, label: Any) -> tuple[list[tuple[float, float]], str]:
    if not (isinstance(points, list) and all(isinstance(one, dict) for one in points)):
        raise TraceError(
            f"{path}: it is not a CloudWatch response: wanted is what `get-metric-statistics` or `get-metric-data` prints"
        )
    rows = [_flat(one) for one in points]
    known = list(dict.fromkeys(name for row in rows for name in row))
    if not value and len(known) == 1:
        value = known[0]
    if rows and value not in known:
        which = f"there is no statistic `{value}`" if value else "it holds several statistics"
        raise TraceError(f"{path}: {which}; name one with `--value`: {', '.join(known)}")
    units = {str(one.get("Unit")) for one in points}
    if len(units) > 1:
        raise TraceError(f"{path}: its datapoints are in several units: {', '.join(sorted(units))}")
    pairs = ((one.get("Timestamp"), row.get(value)) for one, row in zip(points, rows, strict=True))
    unit = f" in {units.pop()}" if units - {"None"} else ""
    return _points(path, pairs, "`Datapoints`"), f"{value} of {label or 'the metric'}{unit}"


def _flat(point: Mapping[str, Any]) -> dict[str, Any]:
    """Return the statistics of a datapoint, including percentiles."""
    own = {name: value for name, value in point.items() if name not in _NO_STATISTICS}
    return own | dict(point.get("ExtendedStatistics") or {})


def _points(path: Path, pairs: Iterable[tuple[Any, Any]], where: str) -> list[tuple[float, float]]:
    found = []
    for at, (stamp, value) in enumerate(pairs):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise TraceError(f"{path}: {where}, number {at + 1}: {json.dumps(value)[:40]} is not a number")
        found.append((_time(path, stamp, f"{where}, number {at + 1}"), float(value)))
    return found


def _time(path: Path, stamp: Any, where: str) -> float:
    """Parse a time in epoch seconds or ISO 8601 (`cli_timestamp_format`)."""
    if isinstance(stamp, int | float) and not isinstance(stamp, bool):
        return float(stamp)
    try:
        at = datetime.fromisoformat(stamp)
    except (TypeError, ValueError):
        raise TraceError(
            f"{path}: {where}: {json.dumps(stamp)[:40]} is not a time such as 2026-03-01T08:00:00Z"
        ) from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
