"""Checks of signals from CloudWatch and of pushed signals.

The rules of `checks` apply.
"""

from __future__ import annotations

from collections.abc import Iterator

from autoscaler.config.cloudwatch import CloudWatchInput
from autoscaler.config.documents import Severity, YamlPath
from autoscaler.config.finding import Finding, seconds_text
from autoscaler.config.policy import Policy

VM = "{vm}"
_NEEDS = {
    "alb_requests": ("load_balancer",),
    "alb_requests_per_target": ("target_group",),
    "sqs_visible": ("queue",),
    "sqs_oldest_age": ("queue",),
    "custom": ("namespace", "name"),
}
_KINDS = {
    "cpu": ("utilisation",),
    "alb_requests": ("total",),
    "alb_requests_per_target": ("throughput",),
    "sqs_visible": ("queue", "total"),
    "sqs_oldest_age": ("total",),
}
_CUSTOM_ONLY = ("namespace", "name", "dimensions", "value")


def check_cloudwatch(policy: Policy) -> Iterator[Finding]:
    """Yield all findings of the section `signal.cloudwatch`."""
    given = policy.signal.cloudwatch
    if given is None:
        yield Finding(
            (("signal", "source"),),
            "`signal.source` is cloudwatch, but there is no section `signal.cloudwatch`",
            "add it with at least `metric`",
        )
        return
    yield from _check_fields(given)
    yield from _check_kind(policy, given)
    yield from _check_times(policy, given)


def check_push(policy: Policy) -> Iterator[Finding]:
    """Yield all findings of the section `signal.push`."""
    push = policy.signal.push
    if push is not None and push.metric is not None and push.fleet_label is None and not push.metric.labels:
        yield Finding(
            (("signal", "push", "fleet_label"), ("signal", "push", "metric")),
            f"with `fleet_label: off` every series called {push.metric.name} would be this fleet's",
            'name labels in `metric`, for example `requests{service="web"}`, or a label that holds the fleet',
        )


def _at(*keys: str) -> tuple[YamlPath, ...]:
    return (*(("signal", "cloudwatch", key) for key in keys), ("signal", "cloudwatch"))


def _check_fields(given: CloudWatchInput) -> Iterator[Finding]:
    for field in _NEEDS.get(given.metric, ()):
        if not getattr(given, field):
            yield Finding(
                _at("metric"),
                f"metric {given.metric} needs `signal.cloudwatch.{field}`",
                "add it; the reference of policies says how it is written",
            )
    if given.metric != "custom":
        for field in _CUSTOM_ONLY:
            if getattr(given, field):
                yield Finding(
                    _at(field),
                    f"`signal.cloudwatch.{field}` belongs to metric custom, but `metric` is {given.metric}",
                    "remove it, or write `metric: custom`",
                )
    if given.clear_within_s is not None and given.metric != "sqs_visible":
        yield Finding(
            _at("clear_within"),
            f"`signal.cloudwatch.clear_within` belongs to metric sqs_visible, but `metric` is {given.metric}",
            "remove it",
        )


def _check_kind(policy: Policy, given: CloudWatchInput) -> Iterator[Finding]:
    kind, wanted = policy.signal.kind, _KINDS.get(given.metric, ())
    at: tuple[YamlPath, ...] = (("signal", "cloudwatch", "metric"), ("signal", "kind"))
    if wanted and kind not in wanted:
        yield Finding(
            at,
            f"metric {given.metric} is of kind {' or '.join(wanted)}, but `signal.kind` is {kind}",
            f"write `kind: {wanted[0]}`, or another metric",
        )
    if kind == "queue" and given.clear_within_s is not None:
        yield Finding(
            (("signal", "cloudwatch", "clear_within"), ("signal", "kind")),
            "kind queue works waiting messages off in `signal.drain_time`, so `clear_within` would count them twice",
            "remove `clear_within`",
        )
    per_vm = any(VM in dimension for dimension in given.dimensions)
    if given.metric == "custom" and per_vm and kind in ("total", "queue"):
        yield Finding(
            (("signal", "cloudwatch", "dimensions"), ("signal", "kind")),
            f"kind {kind} is one reading for the fleet, but the dimension {{vm}} makes it one per VM",
            "leave {vm} out, or write `kind: throughput` or `kind: utilisation`",
        )


def _check_times(policy: Policy, given: CloudWatchInput) -> Iterator[Finding]:
    # A value is oldest just before the next one is published.
    oldest_s = given.delay_s + 2.0 * given.period_s
    if policy.signal.max_age_s < oldest_s:
        yield Finding(
            (("signal", "max_age"), ("signal", "cloudwatch", "delay")),
            f"a value of CloudWatch is up to {seconds_text(oldest_s)} old before the next one is known, and `signal.max_age` is {seconds_text(policy.signal.max_age_s)}: it would be stale most of the time",
            f"write `max_age: {seconds_text(oldest_s)}` or more",
        )
    elif given.period_s < 60.0 and given.metric != "custom":
        yield Finding(
            _at("period"),
            f"metric {given.metric} has a value once a minute at most",
            "write `period: 1m`",
            Severity.WARNING,
        )
