"""Parses a saved `/api/v1/query_range` answer of Prometheus into times and values, for use without access to it.

Rules of this file: several series are an error, never a sum. A value that is not a number is a gap, as in a live query
(`sources.prometheus_range`). The file does not contain its query, so the caller must know which step a value describes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from autoscaler.errors import TraceError
from autoscaler.traces.blocks import Progress, read_blocks
from autoscaler.traces.tables import is_json_with
from autoscaler.traces.trace import Float

_SERIES_NAMED = 3


def is_answer(path: Path) -> bool:
    """Return whether a file looks like such an answer."""
    return is_json_with(path, b'"resultType"', b'"metric"', b'"errorType"')


def read_answer(path: Path, progress: Progress | None = None) -> tuple[Float, Float, int]:
    """Read times in epoch seconds and values, float64 (n,) each, and the number of values that are not numbers.

    Raises:
        TraceError: The file is not such an answer, contains an error, or does not contain exactly one series.
    """
    try:
        answer = json.loads(b"".join(read_blocks(path, progress)))
    except ValueError as error:
        raise TraceError(
            f"{path}: this is not JSON: {error}; save the whole answer of /api/v1/query_range"
        ) from None
    series = _series(path, answer)
    if not series:
        raise TraceError(
            f"{path}: the answer is empty: no series has these names and labels, or none has a value in this period"
        )
    if len(series) != 1:
        named = "; ".join(series_name(labels) for labels, _ in series[:_SERIES_NAMED])
        more = f" and {len(series) - _SERIES_NAMED} more" if len(series) > _SERIES_NAMED else ""
        raise TraceError(
            f"{path}: it holds {len(series)} series ({named}{more}), but a trace is a single one: aggregate them in the query, for example "
            "with sum(…)"
        )
    ((_, pairs),) = series
    known = np.array([(at_s, value) for at_s, value in pairs if math.isfinite(value)], np.float64).reshape(
        -1, 2
    )
    return known[:, 0], known[:, 1], len(pairs) - len(known)


def _series(path: Path, answer: Any) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
    """Return the labels of each series, with its pairs of time and value."""
    try:
        if answer.get("status") == "error":
            raise TraceError(
                f"{path}: it is an error of Prometheus: {answer.get('error', 'no reason given')}"
            )
        found = answer.get("data", answer)["result"]
        return [
            (dict(one["metric"]), [(float(at_s), float(value)) for at_s, value in one["values"]])
            for one in found
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise TraceError(
            f"{path}: it holds no series of numbers over time; wanted is the answer of /api/v1/query_range (an answer of "
            "/api/v1/query is of one moment, and histograms cannot be used)"
        ) from None


def series_name(labels: Mapping[str, str]) -> str:
    """Format the name of a series as Prometheus does."""
    inner = ", ".join(f'{name}="{value}"' for name, value in sorted(labels.items()) if name != "__name__")
    return f"{labels.get('__name__', '')}{{{inner}}}"
