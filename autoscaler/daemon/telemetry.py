"""Metrics and log lines: what an operator's monitoring sees of the daemon.

Rules of this file: every metric is declared once, in `Telemetry`, with help text; labels are closed sets (fleet, verb,
outcome, reason, phase). One log line per tick says what was done and why; event names come from the table `EVENTS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from autoscaler.core.types import NO_CEILING, Reason
from autoscaler.daemon.operating.allowances import Allowances
from autoscaler.daemon.vms.inventory import Counts
from autoscaler.ports import ActionIntent, FleetTick, Outcome, TickRecord, Verb
from autoscaler.ports.budget import Budget

EVENTS = {
    "tick": "One turn of the loop: what was done for each fleet that changed, and why.",
    "tick_late": "The loop woke too late and skipped ticks.",
    "clock_set_ahead": "The clock was set ahead; the daemon waits for starts, drains and preparations as long as before.",
    "clock_set_back": "The clock was set back; guards start over; orders in flight and what was learned are kept.",
    "act_failed": "Handling the outcome of an action failed; a listing will show what became of it.",
    "tick_failed": "A turn of the loop failed as a whole; nothing was done in it.",
    "listing_failed": "The provider's listing is missing or incomplete; nothing is stopped until it is complete. Logged once an hour.",
    "listing_recovered": "The provider's listing is complete again.",
    "provider_failed": "A place could not be used at startup; its fleets are held, and it is retried at growing intervals.",
    "provider_recovered": "A place that could not be used can be used now; its fleets continue.",
    "credentials_not_renewed": "The cloud's credentials could not be renewed; those in use are used until they end.",
    "credentials_renewed": "The cloud's credentials could be renewed again.",
    "source_failed": "A fleet's metrics could not be read.",
    "source_recovered": "A fleet's metrics can be read again.",
    "journal_failed": "The journal cannot be written, so nothing is started or stopped until it can; or, at startup, something that an earlier run stored cannot be used, and is learned again.",
    "journal_migrated": "The journal was brought to this version's schema; an earlier version refuses it from now on.",
    "journal_recovered": "The journal was damaged: it was set aside and a new one was started.",
    "journal_written": "The journal can be written again.",
    "acting_held": "The provider denies access; the fleet's actions are held for a while.",
    "balancer_failed": "A fleet's load balancer did not do or answer what it was asked; its VMs keep serving.",
    "balancer_recovered": "A fleet's load balancer works again.",
    "vm": "Something happened to a VM outside of a decision.",
    "listening": "The address at which metrics, health and status are served.",
    "daemon_started": "The daemon started; the text says which fleets act and which run in shadow.",
    "daemon_stopping": "The daemon is stopping; VMs in service stay as they are.",
    "site_silent": "The server for metrics, status or operators' commands stopped answering and was restarted; or it has too many connections.",
    "close_failed": "An adapter did not close cleanly at the end.",
    "history_learned": "Forecasts, and with an objective also models, have learned from demand before the start; the text says how much, and from where.",
    "history_failed": "Demand before the start could not be learned from; learning begins now.",
    "policies_reloaded": "The policies were reloaded and are in use; the text says what changed.",
    "policies_not_kept": "The policies in use could not be saved for the next run, which would then leave out a fleet whose file is broken.",
    "policies_rejected": "Policies cannot be used. The last good ones stay in use, even across a restart; fleets without any are left out.",
    "policy_doubtful": "A policy is valid but probably does not do what was intended.",
    "task_failed": "A background task died; it is started again after a pause.",
    "push_refused": "Pushed samples were refused; the text says what to do. At most one line a minute for each reason.",
    "setting_unknown": "An environment variable looks like a setting but is not one.",
    "operator": "An operator paused, resumed or overrode something, or such a change expired.",
    "hint": "The cloud announced maintenance, an interruption or a lack of room that concerns a VM.",
    "loop_error": "An error that nothing handles, or too many open files; at most one line a minute for each.",
    "log_lines_lost": "Log lines could not be written (a full disk, or a reader that hangs or is gone); the text says how many.",
    "action_settled": "An action left open by an earlier run was settled by a listing.",
}
"""Every event that is logged, with its meaning."""

_START_BUCKETS_S = (5, 10, 15, 20, 25, 30, 40, 50, 60, 90, 120, 180, 300, 600)
_BURSTS, _BURST_CALLS = (10, 100, 1000), 3
"""Sizes in VMs of the bursts whose ordering time is published; each burst is ordered in one call per zone, for three
zones.
"""
_TICK_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)

_CLOUDWATCH_PRICE = 0.01 / 1000
"""US dollars per metric requested: the list price in most Regions."""


class Telemetry:
    """The daemon's metrics, in a registry of their own, and its logger."""

    _published: dict[str, _Published]
    _budgets: dict[str, _PublishedBudget]

    def __init__(self, log: Any = None) -> None:
        self.registry = CollectorRegistry()
        self.log: Any = structlog.get_logger("autoscaler") if log is None else log
        fleet = ("fleet",)
        self._fleet_gauges: list[Gauge] = []
        self._published, self._budgets = {}, {}

        def gauge(name: str, text: str, labels: Sequence[str] = fleet) -> Gauge:
            made = Gauge(f"autoscaler_{name}", text, labels, registry=self.registry)
            if "fleet" in labels:
                self._fleet_gauges.append(made)
            return made

        def counter(name: str, text: str, labels: Sequence[str] = fleet) -> Counter:
            return Counter(f"autoscaler_{name}", text, labels, registry=self.registry)

        self.demand = gauge("demand_work_per_second", "Demand; NaN while unknown.")
        self.capacity = gauge("capacity_work_per_second", "Work that the VMs in service can do.")
        self.shortage = gauge("shortage_work_per_second", "Demand beyond capacity.")
        self.forecast = gauge("forecast_work_per_second", "Median demand at the lead time.")
        self.forecast_hi = gauge("forecast_high_work_per_second", "95 % quantile of demand at the lead time.")
        self.coverage = gauge("metrics_coverage_ratio", "Share of the VMs in service that reported freshly.")
        self.signal_age = gauge("signal_age_seconds", "Age of the oldest reading used; NaN without one.")
        self.desired, self.missing_vms, self.held_back = (
            gauge("desired_vms", "VMs wanted in service, after guards."),
            gauge(
                "missing_vms", "Wanted VMs that neither serve nor are on their way, and cannot be had now."
            ),
            gauge(
                "held_back_vms", "VMs that the fleet wants but a limit shared with other fleets denies it."
            ),
        )
        self.condition = gauge(
            "condition",
            "Condition of the VMs: 0 unknown, 1 well, 2 a few are slow or silent, 3 about half, 4 nearly all.",
        )
        self.slow_vms = gauge("slow_vms", "VMs in service that are slow or silent.")
        self.learned_start = gauge(
            "learned_start_seconds",
            "Learned 90 % quantile of start times, by the state that starts begin from; absent before the first start.",
            ("fleet", "source"),
        )
        self.warm_target, self.hibernated_target = (
            gauge("warm_target_vms", "Stopped VMs wanted in the warm pool."),
            gauge(
                "hibernated_target_vms",
                "Waiting VMs that should be hibernated; NaN if all that may hibernate should, absent if none may.",
            ),
        )
        self.vms = gauge("vms", "VMs by phase.", ("fleet", "phase"))
        self.evaluated = gauge("last_evaluation_timestamp_seconds", "Time of the fleet's last decision.")
        self.acts = gauge("acts", "1 if the fleet's VMs are really started and stopped, 0 in shadow.")
        self.paused = gauge("paused", "1 if an operator has paused the verb, else 0.", ("fleet", "verb"))
        self.override_floor = gauge(
            "override_floor_vms", "An operator's floor in place of the policy's minimum; absent without one."
        )
        self.override_ceiling = gauge(
            "override_ceiling_vms",
            "An operator's ceiling in place of the policy's maximum; absent without one.",
        )
        self.operator_changes = counter(
            "operator_changes",
            "Pauses and overrides that operators made or ended, or that expired.",
            ("kind",),
        )
        self.cost = counter("cost", "Money spent, in the settings' currency.")
        self.actions, self.missed_starts = _of_acting(counter)
        self.reasons = counter("reasons", "Ticks in which a reason shaped the decision.", ("fleet", "reason"))
        self.source_errors = counter("source_errors", "Ticks in which a source reported a problem.")
        self.listing_errors, self.last_listing, self.provider_usable = _of_places(counter, gauge)
        self.journal_errors = counter("journal_errors", "Writes to the journal that failed.", ())
        self.ticks_skipped = counter("ticks_skipped", "Ticks skipped because the loop was late.", ())
        self.ticks_failed = counter("ticks_failed", "Ticks that failed entirely.", ())
        self.push_samples = counter("push_samples", "Pushed samples, by result.", ("result",))
        self.push_requests_refused = counter(
            "push_requests_refused", "Requests with pushed samples that were refused entirely.", ("reason",)
        )
        self.cloudwatch_metrics_requested = counter(
            "cloudwatch_metrics_requested", "Metrics requested from CloudWatch, by outcome.", ("outcome",)
        )
        self.cloudwatch_cost = counter(
            "cloudwatch_cost_dollars",
            "Cost of CloudWatch requests, estimated from the list price.",
            (),
        )
        self.early_turns = counter(
            "early_turns", "Decisions made within a tick, by what triggered them.", ("cause",)
        )
        self.hints = counter("hints", "Hints from the cloud, by kind and result.", ("kind", "result"))
        self.policy_reloads = counter("policy_reloads", "Reloads of policies, by result.", ("result",))
        self.policy_reload_success = gauge(
            "policy_reload_success_timestamp_seconds", "When the policies in use were loaded.", ()
        )
        self.policy_reload_failed = gauge(
            "policy_reload_failed", "1 if the policy folder is not in use entirely, else 0.", ()
        )
        self.task_restarts = counter(
            "task_restarts", "Background tasks that died and were restarted.", ("task",)
        )
        self.api_tokens, self.api_refill, self.api_burst, self.api_refusals = _api_budget(gauge)
        self.start_s = Histogram(
            "autoscaler_start_seconds",
            "Time from the request to start a VM until it is in service.",
            fleet,
            buckets=_START_BUCKETS_S,
            registry=self.registry,
        )
        self.tick_s = Histogram(
            "autoscaler_tick_seconds",
            "Duration of a tick, in seconds of the machine.",
            buckets=_TICK_BUCKETS_S,
            registry=self.registry,
        )

    def ticked(self, record: TickRecord, counts: Mapping[str, Counts]) -> None:
        """Publish a tick: gauges, reasons, and the one log line."""
        for t in record.fleets:
            published = self._published.get(t.fleet)
            if published is None:
                published = self._published[t.fleet] = _Published(self, t.fleet)
            published.tick(t, record.at_s, counts[t.fleet])
        changed = [t for t in record.fleets if t.start or t.stop or t.provision]
        shown = changed or record.fleets[:3]
        more = "" if len(shown) == len(record.fleets) or changed else f" (+{len(record.fleets) - 3} fleets)"
        line = " | ".join(f"{t.fleet}: {t.sentence}" for t in shown) + more
        self.log.info("tick", tick=record.tick, text=line)

    def policies_loaded(self, at_s: float, *, complete: bool) -> None:
        """Record that policies came into use; `complete` means that they are all policies of the folder."""
        self.policy_reload_success.set(at_s)
        self.policy_reload_failed.set(not complete)

    def budget(self, provider: str, budget: Budget) -> None:
        """Publish what is left of a provider's API budget, and how long bursts of starts would take.

        The name is empty if there is only one provider.
        """
        published = self._budgets.get(provider)
        if published is None:
            published = self._budgets[provider] = _PublishedBudget(self, provider)
        published.show(budget)

    def allowed(self, fleets: Sequence[str], allowances: Allowances) -> None:
        """Publish what operators have in force."""
        for lane, fleet in enumerate(fleets):
            for verb, may in (
                (Verb.START, allowances.may_start),
                (Verb.PROVISION, allowances.may_provision),
                (Verb.STOP, allowances.may_stop),
                (Verb.REFILL, allowances.may_refill),
            ):
                self.paused.labels(fleet, verb.value).set(not may[lane])
            for metric, vms, none in (
                (self.override_floor, allowances.floor[lane], 0),
                (self.override_ceiling, allowances.ceiling[lane], NO_CEILING),
            ):
                if vms == none:
                    metric.remove_by_labels({"fleet": fleet})
                else:
                    metric.labels(fleet).set(vms)

    def forget(self, fleet: str) -> None:
        """Remove the gauges of a fleet that no longer exists; its counters stay."""
        self._published.pop(fleet, None)
        for metric in self._fleet_gauges:
            metric.remove_by_labels({"fleet": fleet})

    def cloudwatch_called(self, metrics: int, outcome: str) -> None:
        """Count one request to CloudWatch, and its cost if it was answered."""
        self.cloudwatch_metrics_requested.labels(outcome).inc(metrics)
        if outcome == "answered":
            self.cloudwatch_cost.inc(metrics * _CLOUDWATCH_PRICE)

    def count_outcomes(self, intent: ActionIntent, outcomes: Sequence[Outcome]) -> None:
        """Count the outcomes of one intent."""
        for outcome in outcomes:
            self.actions.labels(intent.fleet, str(intent.verb), str(outcome.kind)).inc()


def _of_acting(counter: Callable[..., Counter]) -> tuple[Counter, Counter]:
    """Declare the metrics of actions, and of starts that the warm pool could not serve."""
    return (
        counter("actions", "VMs asked for, by what came back.", ("fleet", "verb", "outcome")),
        counter(
            "missed_warm_starts", "VMs made from nothing for demand, since no stopped VM could be started."
        ),
    )


def _of_places(counter: Callable[..., Counter], gauge: Callable[..., Gauge]) -> tuple[Counter, Gauge, Gauge]:
    """Declare the metrics of the places in which VMs exist."""
    return (
        counter("listing_errors", "Listings that failed or were incomplete.", ()),
        gauge(
            "last_whole_listing_timestamp_seconds",
            "Time of a place's last complete listing; before the first one, the time when the daemon started.",
            ("provider",),
        ),
        gauge(
            "provider_usable",
            "1 if a place can be used, 0 if it could not be at startup and is being retried.",
            ("provider",),
        ),
    )


def _api_budget(gauge: Callable[[str, str, Sequence[str]], Gauge]) -> tuple[Gauge, Gauge, Gauge, Gauge]:
    """Declare the metrics of the provider's API budget."""
    return (
        gauge("api_budget_tokens", "Tokens left in the provider's API budget.", ("provider", "bucket")),
        gauge("api_budget_refill_per_second", "Estimated refill rate of the budget.", ("provider", "bucket")),
        gauge(
            "api_burst_seconds",
            "Time until the last of this many starts could be requested.",
            ("provider", "vms"),
        ),
        gauge("api_budget_refusals", "Calls that the provider throttled since startup.", ("provider",)),
    )


_PHASES = ("in_service", "starting", "draining", "stopping", "stopped")


def _hibernated(t: FleetTick) -> float:
    wanted = None if t.memories is None else t.memories.hibernated
    return math.nan if wanted is None else wanted


def _held_back(t: FleetTick) -> int:
    return 0 if t.shared is None else t.shared.wanted - t.desired


class _PublishedBudget:
    """Publishes the API budget of one provider, with gauges that are looked up once."""

    def __init__(self, telemetry: Telemetry, provider: str) -> None:
        self._telemetry = telemetry
        self._provider = provider
        self._of_bucket: dict[str, tuple[Gauge, Gauge]] = {}
        self._bursts = [(vms, telemetry.api_burst.labels(provider, str(vms))) for vms in _BURSTS]
        self._refusals = telemetry.api_refusals.labels(provider)

    def show(self, budget: Budget) -> None:
        """Publish what is left of the budget now."""
        for bucket in budget.state():
            gauges = self._of_bucket.get(bucket.name)
            if gauges is None:
                labels = self._provider, bucket.name
                gauges = (
                    self._telemetry.api_tokens.labels(*labels),
                    self._telemetry.api_refill.labels(*labels),
                )
                self._of_bucket[bucket.name] = gauges
            left, refill = gauges
            left.set(bucket.left)
            refill.set(bucket.refill_per_s)
        for vms, gauge in self._bursts:
            gauge.set(budget.burst_s(vms, calls=_BURST_CALLS))
        self._refusals.set(budget.refusals)


class _Published:
    """Publishes the metrics of one fleet. Gauges are evaluated on the last tick when they are scraped."""

    def __init__(self, telemetry: Telemetry, fleet: str) -> None:
        self._telemetry = telemetry
        self._fleet = fleet
        self._row: FleetTick | None = None
        self._counts: Counts | None = None
        self._at_s = math.nan
        self._reasons_of: tuple[int, ...] = ()
        self._shaped_by: list[Counter] = []
        self._cost = telemetry.cost.labels(fleet)
        # A counter must exist before its first increment, or alerts do not see the first miss.
        telemetry.missed_starts.labels(fleet)
        self._reasons: dict[int, Counter] = {}
        self._hibernates = False
        for gauge, value in (
            (telemetry.demand, attrgetter("demand")),
            (telemetry.capacity, attrgetter("capacity")),
            (telemetry.shortage, attrgetter("shortage")),
            (telemetry.forecast, attrgetter("forecast")),
            (telemetry.forecast_hi, attrgetter("forecast_hi")),
            (telemetry.coverage, attrgetter("coverage")),
            (telemetry.desired, attrgetter("desired")),
            (telemetry.held_back, _held_back),
            (telemetry.warm_target, attrgetter("warm_target")),
        ):
            gauge.labels(fleet).set_function(partial(self._of_row, value))
        for phase in _PHASES:
            telemetry.vms.labels(fleet, phase).set_function(partial(self._of_counts, attrgetter(phase)))
        telemetry.signal_age.labels(fleet).set_function(self._age_s)
        telemetry.evaluated.labels(fleet).set_function(lambda: self._at_s)

    def tick(self, t: FleetTick, at_s: float, counts: Counts) -> None:
        """Show this tick from now on, and count it."""
        self._row, self._counts, self._at_s = t, counts, at_s
        if t.memories is not None and not self._hibernates:
            self._hibernates = True
            shown = self._telemetry.hibernated_target.labels(self._fleet)
            shown.set_function(partial(self._of_row, _hibernated))
        if t.reasons != self._reasons_of:
            self._reasons_of = t.reasons
            self._shaped_by = [self._reason(code) for code in t.reasons if code != Reason.NONE]
        if t.cost > 0.0:
            self._cost.inc(t.cost)
        for counter in self._shaped_by:
            counter.inc()
        if t.source_error:
            self._telemetry.source_errors.labels(self._fleet).inc()

    def _of_row(self, value: Callable[[FleetTick], float]) -> float:
        return math.nan if self._row is None else value(self._row)

    def _of_counts(self, value: Callable[[Counts], float]) -> float:
        return math.nan if self._counts is None else value(self._counts)

    def _age_s(self) -> float:
        return math.nan if self._row is None else self._at_s - self._row.observed_at_s

    def _reason(self, code: int) -> Counter:
        counter = self._reasons.get(code)
        if counter is None:
            name = Reason(code).name.lower()
            counter = self._reasons[code] = self._telemetry.reasons.labels(self._fleet, name)
        return counter
