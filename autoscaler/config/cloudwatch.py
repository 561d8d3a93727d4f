"""Policy section: the CloudWatch query of a fleet."""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from autoscaler.config.quantities import DURATION, Quantity, refuse, shown
from autoscaler.config.section import DAY_S, HOUR_S, Filled, Section

METRIC = "{m}"
_DIMENSION = re.compile(r"[^=]{1,255}=.{1,1024}")
_STATISTIC = re.compile(
    r"SampleCount|Average|Sum|Minimum|Maximum|IQM|(p|tm|wm|tc|ts)(\d{1,2}(\.\d{1,10})?|100)"
)


def _dimension(raw: object) -> object:
    if not (isinstance(raw, str) and _DIMENSION.fullmatch(raw)):
        raise refuse(f"{shown(raw)} is not a dimension", "write for example `InstanceId={vm}`")
    return raw


def _statistic(raw: object) -> object:
    if not (isinstance(raw, str) and _STATISTIC.fullmatch(raw)):
        raise refuse(
            f"{shown(raw)} is not a statistic", "write Average, Sum, Minimum, Maximum, or for example p99"
        )
    return raw


def _expression(raw: object) -> object:
    if isinstance(raw, str) and METRIC not in raw:
        raise refuse(f"{shown(raw)} does not use the metric", "write {m} for it, for example `FILL({m}, 0)`")
    return raw


def _period(raw: object) -> object:
    seconds = DURATION.validate(raw)
    if seconds not in (1, 5, 10, 20, 30) and seconds % 60:
        raise refuse(
            f"{shown(raw)} is not a CloudWatch period", "write 1s, 5s, 10s, 20s, 30s, or whole minutes"
        )
    return raw


Dimension: TypeAlias = Annotated[str, BeforeValidator(_dimension)]
Statistic: TypeAlias = Annotated[str, BeforeValidator(_statistic)]


class CloudWatchInput(Section):
    """Which metric is requested from CloudWatch."""

    metric: Literal[
        "cpu", "alb_requests", "alb_requests_per_target", "sqs_visible", "sqs_oldest_age", "custom"
    ] = Field(
        description="cpu: CPUUtilization of each VM; alb_requests: RequestCount of a load balancer or target group; alb_requests_per_target: the same per VM; sqs_visible: messages that wait; sqs_oldest_age: seconds that the oldest one waits; custom: `namespace`, `name`, `dimensions`."
    )
    load_balancer: Filled | None = Field(
        None, description="End of its ARN (alb_…), for example app/web/50dc6c495c0c9188."
    )
    target_group: Filled | None = Field(
        None, description="End of its ARN (alb_…), for example targetgroup/web/73e2d6bc24d8a067."
    )
    queue: Filled | None = Field(None, description="Name of the queue (sqs_…).")
    namespace: Filled | None = Field(None, description="Namespace of a custom metric.")
    name: Filled | None = Field(None, description="Name of a custom metric.")
    dimensions: Annotated[tuple[Dimension, ...], Field(strict=False, max_length=30)] = Field(
        (),
        description="Dimensions of a custom metric, Name=Value each; {vm} is a VM's id, which makes it one metric per VM.",
    )
    statistic: Statistic | None = Field(
        None,
        description="Statistic; if not set, the usual one of the metric (Average, for counts Sum, for ages Maximum).",
    )
    value: Literal["gauge", "count", "percent"] | None = Field(
        None,
        description="What a custom metric's value is: a level, work within the period, or a percentage; if not set, a level.",
    )
    expression: Annotated[str, Field(max_length=1024), BeforeValidator(_expression)] | None = Field(
        None,
        description="Metric maths on the metric, which is {m}, for example FILL({m}, 0); CloudWatch computes it.",
    )
    clear_within_s: Annotated[float, Quantity(DURATION, 1, DAY_S)] | None = Field(
        None,
        description="sqs_visible with kind total: time in which waiting messages must be worked off, as demand; if not set, one second.",
    )
    period_s: Annotated[float, Quantity(DURATION, 1, HOUR_S), BeforeValidator(_period)] = Field(
        60.0,
        description="The metric's own period: it is asked for once in each. EC2 without detailed monitoring has 5m.",
    )
    delay_s: Annotated[float, Quantity(DURATION, 0, HOUR_S)] = Field(
        120.0,
        description="How long after its end a period's value is whole; lengthened where values turn out to be later.",
    )
