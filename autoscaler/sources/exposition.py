"""Numbers out of Prometheus text: the few series that are wanted, without parsing the rest.

Why: a VM shows some thousand lines and one of them matters. Lines of the wanted metric are cut out first and
only these go through prometheus-client's parser, so that a round over many VMs does not hold up the loop.

Rules of this file: pure. A body without the metric is an error, not a zero.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import SupportsFloat, TypeAlias

from prometheus_client.parser import text_string_to_metric_families

from autoscaler.sources.fan_out import UnreadableBodyError

Labels: TypeAlias = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Metric:
    """Which series are wanted.

    Attributes:
        name: Metric name as exposed.
        labels: Labels that must match exactly; further labels are free.
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Series:
    """One line: its labels, its value, and the exporter's own stamp (epoch seconds) where it gives one."""

    labels: Labels
    value: float
    stamp_s: float | None


def parse(body: bytes, metric: Metric) -> tuple[Series, ...]:
    """All series of the metric.

    Raises:
        UnreadableBodyError: There is none, or a line of it cannot be read.
    """
    wanted = re.compile(rb"^" + re.escape(metric.name.encode()) + rb"[{ \t][^\n]*", re.MULTILINE)
    lines = wanted.findall(body)
    if not lines:
        raise UnreadableBodyError(
            f"no metric {metric.name}" + (" (a web page came)" if _looks_like_html(body) else "")
        )
    try:
        text = b"\n".join(lines).decode("utf-8") + "\n"
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        found = tuple(
            Series(frozenset(sample.labels.items()), float(sample.value), _seconds(sample.timestamp))
            for sample in samples
            if metric.labels.items() <= sample.labels.items()
        )
    except (ValueError, IndexError, KeyError, TypeError):
        raise UnreadableBodyError(f"metric {metric.name} cannot be read") from None
    if not found:
        raise UnreadableBodyError(f"metric {metric.name} has no series with these labels")
    return found


def _seconds(stamp: SupportsFloat | None) -> float | None:
    return None if stamp is None else float(stamp)


def _looks_like_html(body: bytes) -> bool:
    return b"<html" in body[:2048].lower() or b"<!doctype" in body[:2048].lower()
