"""Policies with CloudWatch or pushed samples: what is refused, with position and advice, and what they compile to."""

import pytest

from autoscaler.config.loading import load_policies
from autoscaler.core.types import Signal
from autoscaler.errors import ConfigError
from autoscaler.ports.pushing import SeriesRule
from autoscaler.sources.cloudwatch import CloudWatchSource
from autoscaler.sources.cloudwatch_client import CloudWatchSettings
from autoscaler.sources.push import PushedSamples
from autoscaler.wiring_sources import Sources
from tests.sources.doubles import ManualClock

POLICY = """\
fleet: web
signal:
  kind: {kind}
  source: {source}
  max_age: {max_age}
{section}
vm: {{capacity: 100/s}}
bounds: {{minimum: 1, maximum: 5}}
reactive: {{}}
prices: {{in_service: 1/h, stopped: 0.1/h}}
"""


def loaded(folder, section, kind="total", source="cloudwatch", max_age="10m"):
    text = POLICY.format(
        kind=kind, source=source, max_age=max_age, section="\n".join(f"  {line}" for line in section)
    )
    (folder / "web.yaml").write_text(text)
    return load_policies(folder, 10.0)


def problems_of(folder, *section, **more):
    found = loaded(folder, section, **more)
    return [f"{each.mark.line}: {each.message}; {each.advice}" for each in (*found.errors, *found.warnings)]


WRONG = {
    "no section": ((), {}, "4: `signal.source` is cloudwatch, but there is no section"),
    "no metric": (("cloudwatch: {}",), {}, "signal.cloudwatch.metric"),
    "no queue": (("cloudwatch: {metric: sqs_visible}",), {}, "6: metric sqs_visible needs `signal.cloudwatch.queue`"),
    "kind": (
        ("cloudwatch: {metric: cpu}",), {"kind": "total"}, "metric cpu is of kind utilisation, but `signal.kind` is total"
    ),
    "not custom": (
        ("cloudwatch: {metric: sqs_visible, queue: q, namespace: N}",), {}, "belongs to metric custom"
    ),
    "clear within": (
        ("cloudwatch: {metric: sqs_oldest_age, queue: q, clear_within: 1m}",), {}, "belongs to metric sqs_visible"
    ),
    "too old": (
        ("cloudwatch: {metric: sqs_visible, queue: q}",), {"max_age": "60s"}, "up to 4m old before the next one is known"
    ),
    "dimension": (
        ("cloudwatch: {metric: custom, namespace: N, name: M, dimensions: [VM]}",), {}, "is not a dimension"
    ),
    "twice": (
        ("drain_time: 2m", "cloudwatch: {metric: sqs_visible, queue: q, clear_within: 1m}"), {"kind": "queue"},
        "would count them twice",
    ),
    "vm of a total": (
        ('cloudwatch: {metric: custom, namespace: N, name: M, dimensions: ["VM={vm}", "Stage=x"]}',), {}, "makes it one per VM"
    ),
    "statistic": (("cloudwatch: {metric: sqs_visible, queue: q, statistic: mean}",), {}, "write Average, Sum"),
    "expression": (
        ('cloudwatch: {metric: sqs_visible, queue: q, expression: "FILL(m1, 0)"}',), {}, "does not use the metric"
    ),
    "period": (("cloudwatch: {metric: sqs_visible, queue: q, period: 90s}",), {}, "is not a CloudWatch period"),
    "oftener": (
        ("cloudwatch: {metric: sqs_visible, queue: q, period: 10s}",), {}, "a value once a minute at most"
    ),
    "typo": (("cloudwatch: {metric: sqs_visible, queue: q, delai: 1m}",), {}, "delay"),
    "whole metric": (
        ("push: {metric: requests, fleet_label: off}",), {"source": "push"}, "every series called requests would be"
    ),
    "wake": (("push: {wake: always}",), {"source": "push"}, "shortage"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_as_written_is_said_with_what_to_write(tmp_path, wrong):
    section, more, words = WRONG[wrong]
    problems = problems_of(tmp_path, *section, **more)
    assert len(problems) == 1, problems
    assert words in problems[0]


RIGHT = {
    "cpu": (("cloudwatch: {metric: cpu, period: 5m, delay: 6m}",), {"kind": "utilisation", "max_age": "20m"}),
    "alb": (("cloudwatch: {metric: alb_requests, load_balancer: app/web/1}",), {}),
    "queue": (('cloudwatch: {metric: sqs_visible, queue: q, expression: "FILL({m}, 0)", clear_within: 5m}',), {}),
    "backlog": (("drain_time: 2m", "cloudwatch: {metric: sqs_visible, queue: q}"), {"kind": "queue"}),
    "own": (
        ('cloudwatch: {metric: custom, namespace: N, name: M, dimensions: ["VM={vm}"], statistic: p99.9, value: count}',),
        {"kind": "throughput"},
    ),
    "own total": (
        ('cloudwatch: {metric: custom, namespace: N, name: M, dimensions: ["Stage=x"]}',), {},
    ),
    "just fresh enough": (("cloudwatch: {metric: sqs_visible, queue: q}",), {"max_age": "4m"}),
    "push": ((), {"source": "push", "max_age": "60s"}),
    "remote write": (
        ('push: {metric: \'rate1m{job="lb"}\', vms_by: address, vm_label: instance, wake: any}',),
        {"source": "push", "kind": "throughput"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("right", RIGHT)
def test_these_are_right_and_become_sources(tmp_path, right):
    section, more = RIGHT[right]
    assert problems_of(tmp_path, *section, **more) == []
    (policy,) = loaded(tmp_path, section, **more).policies
    clock = ManualClock()
    sources = Sources(clock, tmp_path, PushedSamples(clock), lambda _: CloudWatchSettings("eu-central-1"))
    source = sources.source_for(policy)
    if right == "own":
        assert isinstance(source, CloudWatchSource)
        query = source._metric.of("i-1")
        assert (query.dimensions, query.statistic) == ((("VM", "i-1"),), "p99.9")
        assert source._metric.reading(120.0) == 2.0
    if right == "remote write":
        intake = sources.pushed.intake("web")
        assert intake.series == SeriesRule("rate1m", (("job", "lb"),), "fleet", "instance")
        assert (intake.by_address, intake.signal) == (True, Signal.THROUGHPUT)


def test_without_a_region_or_a_file_of_tokens_it_is_one_sentence(tmp_path):
    (policy,) = loaded(tmp_path, RIGHT["alb"][0]).policies
    with pytest.raises(ConfigError, match="no AWS Region is set; set aws_region"):
        Sources(ManualClock(), tmp_path).source_for(policy)
    (policy,) = loaded(tmp_path, (), source="push").policies
    with pytest.raises(ConfigError, match="push_token_file"):
        Sources(ManualClock(), tmp_path).source_for(policy)
