"""Extracts the few wanted series from Prometheus text, without parsing the rest.

Why: a VM exposes about a thousand lines, of which one matters. Lines of the wanted metric are found by a search in the bytes, and label
sets, which are the same on every VM, are parsed once. A line with unusual syntax (escapes, an exemplar) goes through prometheus-client's
parser, which is thirty times slower.

Rules of this file: pure. A body without the metric is an error, not a zero.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeAlias

from prometheus_client.parser import text_string_to_metric_families

from autoscaler.sources.fan_out import UnreadableBodyError

Labels: TypeAlias = frozenset[tuple[str, str]]

REMEMBERED = 512
"""Longest label set, in bytes, that is parsed once for all VMs. Longer ones are parsed each time."""
_ENDS_NAME = (b"{", b" ", b"\t")
_LABEL = re.compile(rb'([a-zA-Z_][a-zA-Z0-9_]*)="([^"\\]*)"')
_ESCAPED = re.compile(r'[\\"\n]')
_PLAIN_LINE = re.compile(
    rb'[a-zA-Z_:][a-zA-Z0-9_:]*(?:\{((?:[a-zA-Z_][a-zA-Z0-9_]*="[^"\\]*",?)*)\})?'
    rb"[ \t]+([-+]?(?:[0-9.]+(?:[eE][-+]?[0-9]+)?|Inf|NaN))(?:[ \t]+(-?[0-9]+))?[ \t\r]*"
)
"""A line without escapes or exemplars: labels, value, time in milliseconds."""


@dataclass(frozen=True, slots=True)
class Metric:
    """Selects series by name and labels.

    Attributes:
        name: Metric name as exposed.
        labels: Labels that must match exactly. Series may have further labels.
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Series:
    """One line: its labels, its value, and the exporter's own timestamp (epoch seconds) if it gives one."""

    labels: Labels
    value: float
    stamp_s: float | None


def parse(body: bytes, metric: Metric, most_labels: float = math.inf) -> tuple[Series, ...]:
    """Parse all series of the metric.

    Args:
        body: Text in Prometheus' format.
        metric: Selects the series.
        most_labels: Most labels that may be read in all, which also bounds the time.

    Raises:
        UnreadableBodyError: There is no such series, they have too many labels, or one of their lines cannot be read.
    """
    found: list[Series] = []
    some, labels = False, 0
    try:
        texts = _told_as_written(metric)
        for line in _lines(body, metric.name.encode()):
            some = True
            # A search takes a tenth of the time of parsing, and most series of a metric are other ones.
            if texts and not all(map(line.__contains__, texts)):
                continue
            for one in _read(line):
                labels += len(one.labels) or 1
                if metric.labels.items() <= one.labels:
                    found.append(one)
            if labels > most_labels:
                break
    except (ValueError, IndexError, KeyError, TypeError):
        raise UnreadableBodyError(f"metric {metric.name} cannot be read") from None
    if not some:
        raise UnreadableBodyError(
            f"no metric {metric.name}" + (" (a web page came)" if _looks_like_html(body) else "")
        )
    if labels > most_labels:
        raise UnreadableBodyError(
            f"metric {metric.name} has series with more than {most_labels:,} labels in all"
        )
    if not found:
        raise UnreadableBodyError(f"metric {metric.name} has no series with these labels")
    return tuple(found)


def _told_as_written(metric: Metric) -> list[bytes]:
    """Return texts that each line with the wanted labels contains: their values, if nothing in them is written otherwise."""
    return [f'"{value}"'.encode() for value in metric.labels.values() if not _ESCAPED.search(value)]


def _lines(body: bytes, name: bytes) -> Iterator[bytes]:
    """Yield the lines of the metric with this name, not those of metrics whose names only begin with it."""
    at = 0 if body.startswith(name) else _after(body, name, 0)
    while at >= 0:
        after = at + len(name)
        end = body.find(b"\n", after)
        if body[after : after + 1] in _ENDS_NAME:
            yield body[at:] if end < 0 else body[at:end]
        at = -1 if end < 0 else _after(body, name, end)


def _after(body: bytes, name: bytes, start: int) -> int:
    """Position of the next line that begins with this name; -1 if there is none."""
    found = body.find(b"\n" + name, start)
    return found + 1 if found >= 0 else -1


def _read(line: bytes) -> Iterator[Series]:
    plain = _PLAIN_LINE.fullmatch(line)
    if plain is None:
        for family in text_string_to_metric_families(line.decode("utf-8") + "\n"):
            for sample in family.samples:
                stamp_s = None if sample.timestamp is None else float(sample.timestamp)
                yield Series(frozenset(sample.labels.items()), float(sample.value), stamp_s)
        return
    labels, value, stamp_ms = plain.groups()
    # Only short label sets, which VMs share, are cached. A VM whose labels change at each scrape would fill the cache.
    read = _shared_labels if labels is None or len(labels) <= REMEMBERED else _labels
    yield Series(read(labels or b""), float(value), None if stamp_ms is None else float(stamp_ms) / 1000.0)


def _labels(raw: bytes) -> Labels:
    return frozenset((name.decode("ascii"), value.decode("utf-8")) for name, value in _LABEL.findall(raw))


_shared_labels = lru_cache(maxsize=8192)(_labels)


def _looks_like_html(body: bytes) -> bool:
    return b"<html" in body[:2048].lower() or b"<!doctype" in body[:2048].lower()
