"""Builds the metric source that a policy names.

Why apart from `wiring`: each kind of source has its own settings to translate for an adapter, and the modules of unused kinds are not
imported. To add one: its section in `config/signals`, a function here, and a line in `_MAKERS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from autoscaler.config.cloudwatch import CloudWatchInput
from autoscaler.config.policy import Policy
from autoscaler.config.prometheus import FLEET, PrometheusInput
from autoscaler.core.types import Signal
from autoscaler.errors import ConfigError
from autoscaler.ports import Clock, MetricSource
from autoscaler.sources.rate_window import RateWindow
from autoscaler.sources.trace import TraceSource
from autoscaler.traces.trace import Trace, TraceKind

if TYPE_CHECKING:
    from autoscaler.sources.cloudwatch import Metric
    from autoscaler.sources.cloudwatch_client import Called, CloudWatchSettings
    from autoscaler.sources.cloudwatch_reader import CloudWatchReader
    from autoscaler.sources.prometheus import PrometheusPool
    from autoscaler.sources.prometheus_access import Address
    from autoscaler.sources.push import PushedSamples


CloudWatchOf: TypeAlias = Callable[[Policy], "CloudWatchSettings | None"]


class Sources:
    """Makes the sources of one daemon, which share connections and queries.

    Args:
        clock: Clock for the times of readings, and for playing traces.
        folder: Folder of the policy files. Files that they name are relative to it.
        pushed: Keeps pushed samples; None if they are not accepted.
        aws_of: Returns the CloudWatch settings for a policy; None if CloudWatch is not available.
        called: Called for every request to CloudWatch, which costs money.
        tick_s: Seconds between two regular readings. Rates of counters are not computed over less than half
            of it; None if there are no ticks.
    """

    def __init__(
        self,
        clock: Clock,
        folder: Path,
        pushed: PushedSamples | None = None,
        aws_of: CloudWatchOf | None = None,
        called: Called | None = None,
        *,
        tick_s: float | None = None,
    ) -> None:
        self.clock = clock
        self.rate_window = RateWindow() if tick_s is None else RateWindow.of_ticks(tick_s)
        self.folder = folder
        self.pushed = pushed
        self._aws_of = aws_of
        self._called = called
        self._cloudwatch: dict[CloudWatchSettings, CloudWatchReader] = {}
        self._prometheus: PrometheusPool | None = None

    @property
    def prometheus(self) -> PrometheusPool:
        """The pool of Prometheus addresses, shared by all fleets."""
        if self._prometheus is None:
            from autoscaler.sources.prometheus import PrometheusPool

            self._prometheus = PrometheusPool(self.clock)
        return self._prometheus

    def cloudwatch(self, policy: Policy) -> CloudWatchReader:
        """The CloudWatch reader for a policy, shared by all fleets with the same settings.

        Raises:
            ConfigError: There are no CloudWatch settings for the policy.
        """
        aws = self._aws_of(policy) if self._aws_of is not None else None
        if aws is None or not aws.region:
            raise ConfigError("signal.source is cloudwatch, and no AWS Region is set; set aws_region")
        reader = self._cloudwatch.get(aws)
        if reader is None:
            from autoscaler.sources.cloudwatch_client import CloudWatchClient
            from autoscaler.sources.cloudwatch_reader import CloudWatchReader

            client = CloudWatchClient(aws, self._called)
            reader = self._cloudwatch[aws] = CloudWatchReader(client, self.clock)
        return reader

    def source_for(self, policy: Policy) -> MetricSource:
        """Make the source that a policy names.

        Raises:
            ConfigError: The policy names a trace without a file, or a section is missing.
            TraceError: The file cannot be used.
        """
        source = _MAKERS[policy.signal.source](policy, self)
        learns = policy.vm.learn_capacity
        return source if learns is None else _with_utilisation(source, learns.url, self)


def source_for(
    policy: Policy,
    clock: Clock,
    folder: Path,
    aws_of: CloudWatchOf | None = None,
    *,
    tick_s: float | None = None,
) -> MetricSource:
    """Make one source that shares nothing; see `Sources`."""
    return Sources(clock, folder, aws_of=aws_of, tick_s=tick_s).source_for(policy)


def _with_utilisation(source: MetricSource, url: str, sources: Sources) -> MetricSource:
    from autoscaler.ports.sources import HistorySource
    from autoscaler.sources.paired import PairedHistorySource, PairedSource
    from autoscaler.sources.scrape import MetricType, ScrapeSource

    busy = ScrapeSource(
        url,
        None,
        MetricType.CPU,
        Signal.UTILISATION,
        sources.clock,
        window=sources.rate_window,
    )
    if isinstance(source, HistorySource):
        return PairedHistorySource(source, busy, source)
    return PairedSource(source, busy)


def _missing(policy: Policy) -> ConfigError:
    """Build the error for a source whose section is missing."""
    source = policy.signal.source
    return ConfigError(
        f"fleet {policy.fleet}: signal.source is {source}, and the section signal.{source} is missing"
    )


def _scrape_source(policy: Policy, sources: Sources) -> MetricSource:
    from autoscaler.sources.exposition import Metric
    from autoscaler.sources.fan_out import Limits
    from autoscaler.sources.scrape import MetricType, ScrapeSource

    scrape = policy.signal.scrape
    if scrape is None:
        raise _missing(policy)
    selected = scrape.metric
    return ScrapeSource(
        scrape.url,
        None if selected is None else Metric(selected.name, dict(selected.labels)),
        MetricType(scrape.type),
        signal_of(policy),
        sources.clock,
        Limits(timeout_s=scrape.timeout_s, deadline_s=max(4.0, 1.5 * scrape.timeout_s)),
        window=sources.rate_window,
    )


def _prometheus_source(policy: Policy, sources: Sources) -> MetricSource:
    from autoscaler.sources.prometheus import Join, JoinBy, PrometheusSource
    from autoscaler.sources.prometheus_history import Past

    asked = policy.signal.prometheus
    if asked is None:
        raise _missing(policy)
    join, select = asked.join, asked.select.labels if asked.select else ()
    return PrometheusSource(
        sources.prometheus.at(_prometheus_address(asked, policy.fleet, sources.folder)),
        Past(
            query=asked.query.replace(FLEET, policy.fleet),
            signal=signal_of(policy),
            select=tuple((name, value.replace(FLEET, policy.fleet)) for name, value in select),
            lag_s=asked.lag_s,
            own_query=asked.history_query and asked.history_query.replace(FLEET, policy.fleet),
            capacity_per_s=policy.vm.capacity_per_s,
            saturation=policy.signal.saturation,
            fleet=policy.fleet,
        ),
        sources.clock,
        join=Join(join.label, JoinBy(join.by)) if join else None,
    )


def _prometheus_address(asked: PrometheusInput, fleet: str, folder: Path) -> Address:
    from autoscaler.sources.prometheus_access import Address, Tls

    def file(name: str | None) -> Path | None:
        return None if name is None else folder / name

    tls, basic = asked.tls, asked.basic_auth
    headers = (header.replace(FLEET, fleet).partition(": ") for header in asked.headers)
    return Address(
        url=asked.url.rstrip("/"),
        timeout_s=asked.timeout_s,
        tls=Tls(file(tls.ca_file), file(tls.cert_file), file(tls.key_file), tls.verify),
        bearer_token_file=file(asked.bearer_token_file),
        username=basic.username if basic else "",
        password_file=file(basic.password_file) if basic else None,
        headers=tuple((name, value) for name, _, value in headers),
    )


def _haproxy_source(policy: Policy, sources: Sources) -> MetricSource:
    from autoscaler.sources.haproxy import HaproxySource

    asked = policy.signal.haproxy
    if asked is None:
        raise _missing(policy)
    return HaproxySource(
        asked.sockets,
        asked.backend,
        asked.join,
        Signal[policy.signal.kind.upper()],
        sources.clock,
        queue_within_s=asked.queue_within_s or math.inf,
        timeout_s=asked.timeout_s,
        window=sources.rate_window,
    )


def _cloudwatch_source(policy: Policy, sources: Sources) -> MetricSource:
    from autoscaler.sources.cloudwatch import CloudWatchSource

    given = policy.signal.cloudwatch
    if given is None:
        raise _missing(policy)
    return CloudWatchSource(metric_of(given), signal_of(policy), sources.cloudwatch(policy), sources.clock)


def metric_of(given: CloudWatchInput) -> Metric:
    """The CloudWatch metric that a policy reads. Namespaces, names and dimensions are those that AWS documents."""
    from autoscaler.sources.cloudwatch import VM_ID, Metric, Unit
    from autoscaler.sources.cloudwatch_reader import MetricQuery

    balanced = tuple(
        (name, value)
        for name, value in (("LoadBalancer", given.load_balancer), ("TargetGroup", given.target_group))
        if value
    )
    queue = (("QueueName", given.queue or ""),)
    presets: dict[str, tuple[str, str, tuple[tuple[str, str], ...], str, Unit]] = {
        "cpu": ("AWS/EC2", "CPUUtilization", (("InstanceId", VM_ID),), "Average", Unit.PERCENT),
        "alb_requests": ("AWS/ApplicationELB", "RequestCount", balanced, "Sum", Unit.COUNT),
        "alb_requests_per_target": (
            "AWS/ApplicationELB",
            "RequestCountPerTarget",
            balanced,
            "Sum",
            Unit.COUNT,
        ),
        "sqs_visible": ("AWS/SQS", "ApproximateNumberOfMessagesVisible", queue, "Average", Unit.GAUGE),
        "sqs_oldest_age": ("AWS/SQS", "ApproximateAgeOfOldestMessage", queue, "Maximum", Unit.GAUGE),
    }
    unit = Unit(given.value or "gauge")
    custom = tuple((name, value) for name, _, value in (each.partition("=") for each in given.dimensions))
    usual = "Sum" if unit is Unit.COUNT else "Average"
    namespace, name, dimensions, statistic, unit = presets.get(
        given.metric, (given.namespace or "", given.name or "", custom, usual, unit)
    )
    query = MetricQuery(
        namespace,
        name,
        dimensions,
        given.statistic or statistic,
        round(given.period_s),
        given.expression or "",
    )
    return Metric(query, unit, given.delay_s, given.clear_within_s or 1.0)


def _push_source(policy: Policy, sources: Sources) -> MetricSource:
    from autoscaler.config.push import PushInput
    from autoscaler.ports.pushing import Intake, SeriesRule
    from autoscaler.sources.push import not_taking

    if sources.pushed is None:
        raise not_taking(policy.fleet)
    push = policy.signal.push or PushInput()
    metric = push.metric
    rule = None if metric is None else SeriesRule(metric.name, metric.labels, push.fleet_label, push.vm_label)
    by_address = push.vms_by == "address"
    return sources.pushed.source(
        Intake(policy.fleet, signal_of(policy), policy.signal.max_age_s, by_address, rule)
    )


def _played_source(policy: Policy, sources: Sources) -> MetricSource:
    return trace_source(policy, sources.clock, _trace_of(policy, sources.folder), seed=0)


_MAKERS: Mapping[str, Callable[[Policy, Sources], MetricSource]] = {
    "scrape": _scrape_source,
    "prometheus": _prometheus_source,
    "push": _push_source,
    "cloudwatch": _cloudwatch_source,
    "haproxy": _haproxy_source,
    "trace": _played_source,
}
"""Functions that make sources, by `signal.source`."""


_READ_AS = {Signal.CONCURRENCY: Signal.THROUGHPUT, Signal.QUEUE: Signal.TOTAL}
"""Signals that are read like others, although `core.demand` treats them differently."""


def signal_of(policy: Policy) -> Signal:
    """How a fleet's readings are read: as a share per VM, as a number per VM, or as one number for the fleet."""
    signal = Signal[policy.signal.kind.upper()]
    return _READ_AS.get(signal, signal)


def trace_source(
    policy: Policy,
    clock: Clock,
    trace: Trace,
    *,
    seed: int,
    offset_s: float | None = None,
    imbalance: float = 0.05,
) -> TraceSource:
    """Make a source that plays a trace as if it were live.

    Args:
        policy: Policy of the fleet that it drives.
        clock: Clock by which it is played.
        trace: The recording.
        seed: Seed of the uneven distribution over VMs.
        offset_s: Seconds added to the clock's time to find the moment in the recording. None begins now with the policy's
            `start_at`, or else with the beginning of the recording.
        imbalance: How unevenly VMs are loaded.
    """
    given = policy.signal.trace
    if offset_s is None:
        begin_s = given.start_at.timestamp() if given and given.start_at else trace.start_s
        offset_s = begin_s - clock.now()
    return TraceSource(
        trace,
        clock,
        signal_of(policy),
        policy.vm.capacity_per_s,
        seed=seed,
        imbalance=imbalance,
        lag_s=given.lag_s if given else 0.0,
        offset_s=offset_s,
        loop=bool(given and given.loop),
    )


def _trace_of(policy: Policy, folder: Path) -> Trace:
    from autoscaler.traces.reading import read_trace

    given = policy.signal.trace
    if given is None or given.file is None:
        msg = (
            f"fleet {policy.fleet}: signal.source is trace, and signal.trace.file is missing; name the file, "
            "or play one with `autoscaler demo --trace FILE`"
        )
        raise ConfigError(msg)
    trace = read_trace(folder / given.file, kind=TraceKind(given.kind) if given.kind else None)
    if given.scale_to_vms is not None:
        trace = trace.scaled_to_peak(given.scale_to_vms * policy.vm.capacity_per_s)
    return trace
