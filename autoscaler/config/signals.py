"""Policy section: what is measured and how it is read, with one model per kind of source."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from autoscaler.config.balancing import HaproxyInput
from autoscaler.config.cloudwatch import CloudWatchInput
from autoscaler.config.prometheus import BackfillSection, PrometheusInput
from autoscaler.config.push import PushInput
from autoscaler.config.quantities import DURATION, METRIC, MOMENT, PERCENT, MetricSelector, Quantity
from autoscaler.config.section import DAY_S, HOUR_S, Filled, Off, Section, Url

SignalKind: TypeAlias = Literal["utilisation", "throughput", "total", "concurrency", "queue"]


class Scrape(Section):
    """How the VMs are scraped."""

    url: Url = Field(
        "http://{address}:9100/metrics",
        description="URL of a VM's metrics; {address} is its private address (kind total: one address without it).",
    )
    metric: Annotated[MetricSelector, METRIC] | None = Field(
        None,
        description='Metric to read, by name and optionally exact labels, for example requests_total{code="200"}; series that match are summed (type cpu: node_cpu_seconds_total if not set).',
    )
    type: Literal["gauge", "counter", "cpu"] = Field(
        "gauge",
        description="gauge: the value counts as it is; counter: its rate between two scrapes; cpu: the share of time not idle.",
    )
    timeout_s: Annotated[float, Quantity(DURATION, 0.1, 60)] = Field(
        3.0, description="Longest wait for the answer of one VM."
    )


class TraceInput(Section):
    """Which recording is played."""

    file: Filled | None = Field(
        None,
        description="Trace file, relative to this policy's folder; if not set, the command supplies it.",
    )
    kind: Literal["count", "gauge"] | None = Field(
        None, description="What its values mean; if not set, the manifest.csv beside it says so."
    )
    loop: bool = Field(False, description="Whether it starts again when it ends.")
    scale_to_vms: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        None, description="Scale it so that its peak needs this many VMs at their capacity."
    )
    start_at: Annotated[datetime, MOMENT] | None = Field(
        None, description="Time in the recording to start from; if not set, its start."
    )
    lag_s: Annotated[float, Quantity(DURATION, 0, HOUR_S)] = Field(
        0.0, description="How late readings are known, as with a lagging monitoring system."
    )


class SignalSection(Section):
    """What is measured, and how it is read."""

    kind: SignalKind = Field(
        description="utilisation: share of a VM's capacity in use; throughput: work per second that arrives at a VM; total: work per second wanted from the fleet; concurrency: work in flight in a VM; queue: work that waits for the fleet."
    )
    source: Literal["scrape", "prometheus", "push", "cloudwatch", "haproxy", "trace"] = Field(
        description="Where readings come from; the section of the same name says how."
    )
    max_age_s: Annotated[float, Quantity(DURATION, 1, DAY_S)] = Field(
        60.0, description="Readings older than this are stale: nothing is scaled in on them."
    )
    saturation: Annotated[float, Quantity(PERCENT, 0.5, 1)] = Field(
        0.9, description="Mean utilisation from which demand counts as hidden (kind utilisation only)."
    )
    in_flight: Annotated[float, Field(ge=1e-3, le=1e9)] | None = Field(
        None,
        description="Work in flight in a VM that just meets its service objective, a number (kind concurrency only).",
    )
    drain_time_s: Annotated[float, Quantity(DURATION, 1, DAY_S)] = Field(
        300.0, description="Time in which a backlog must be worked off (kind queue only)."
    )
    loss_hold_s: Annotated[float, Quantity(DURATION, 0, DAY_S)] = Field(
        300.0,
        description="How long a fleet without data keeps what it has; then the largest of the last good wish, the schedule and the forecast.",
    )
    zero_hold_s: Annotated[float, Quantity(DURATION, 0, DAY_S)] = Field(
        300.0,
        description="How long demand that vanishes at all VMs at once counts as an outage (kinds measured per VM); 0s not at all.",
    )
    backfill: Annotated[BackfillSection | None, Off] = Field(
        BackfillSection(), description="What is learned at startup from the past, or off."
    )
    scrape: Annotated[Scrape | None, Off] = Field(None, description="How VMs are scraped (source scrape).")
    prometheus: Annotated[PrometheusInput | None, Off] = Field(
        None, description="How a Prometheus is queried (source prometheus)."
    )
    cloudwatch: Annotated[CloudWatchInput | None, Off] = Field(
        None, description="What is requested from CloudWatch (source cloudwatch)."
    )
    haproxy: Annotated[HaproxyInput | None, Off] = Field(
        None, description="Which HAProxy is read (source haproxy)."
    )
    push: Annotated[PushInput | None, Off] = Field(
        None, description="How samples are pushed (source push; may be left out)."
    )
    trace: Annotated[TraceInput | None, Off] = Field(
        None, description="Which recording is played (source trace)."
    )

    @property
    def of_the_fleet(self) -> bool:
        """True if there is one reading for the whole fleet, which exists even if no VM runs."""
        return self.kind in ("total", "queue")
