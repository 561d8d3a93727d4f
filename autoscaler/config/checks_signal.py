"""Checks of how a policy reads its signal: what cannot be read as written, and what would be read wrongly.

Rules as in `checks`.
"""

from __future__ import annotations

from collections.abc import Iterator

from autoscaler.config.documents import Severity, YamlPath
from autoscaler.config.finding import Finding, seconds_text
from autoscaler.config.policy import Policy

ADDRESS = "{address}"


def check_signal(policy: Policy, tick_s: float) -> Iterator[Finding]:
    """All findings of the section `signal`."""
    yield from _check_age(policy, tick_s)
    yield from _check_scrape(policy)


def _check_age(policy: Policy, tick_s: float) -> Iterator[Finding]:
    signal = policy.signal
    if signal.source == "scrape" and signal.scrape is None:
        yield Finding(
            (("signal", "source"),),
            "`signal.source` is scrape, but there is no section `signal.scrape`",
            "add it with at least `metric`",
        )
    if signal.max_age_s < tick_s:
        yield Finding(
            (("signal", "max_age"),),
            f"`signal.max_age` of {seconds_text(signal.max_age_s)} is shorter than a tick ({seconds_text(tick_s)}), so most readings will count as stale",
            f"write at least {seconds_text(2 * tick_s)}",
            Severity.WARNING,
        )
    if signal.trace and signal.trace.lag_s >= signal.max_age_s:
        yield Finding(
            (("signal", "trace", "lag"), ("signal", "max_age")),
            f"readings come {seconds_text(signal.trace.lag_s)} late and are stale after {seconds_text(signal.max_age_s)}: none would ever count",
            "raise `signal.max_age` above the lag",
        )


def _check_scrape(policy: Policy) -> Iterator[Finding]:
    signal, scrape = policy.signal, policy.signal.scrape
    if scrape is None or signal.source != "scrape":
        return
    at: tuple[YamlPath, ...] = (("signal", "scrape", "url"), ("signal", "kind"))
    if signal.kind == "total" and ADDRESS in scrape.url:
        yield Finding(
            at,
            "kind total is one reading for the fleet, but `signal.scrape.url` asks every VM",
            "give the address of the load balancer's metrics, without {address}",
        )
    if signal.kind != "total" and ADDRESS not in scrape.url:
        yield Finding(
            at,
            f"kind {signal.kind} is read from every VM, but `signal.scrape.url` has no {{address}}",
            "write for example http://{address}:9100/metrics",
        )
    if scrape.metric is None and scrape.type != "cpu":
        yield Finding(
            (("signal", "scrape", "metric"), ("signal", "scrape")),
            f"scraping a {scrape.type} needs `signal.scrape.metric`",
            "write the metric's name as the VMs show it",
        )
    if scrape.type == "cpu" and signal.kind != "utilisation":
        yield Finding(
            (("signal", "scrape", "type"), ("signal", "kind")),
            f"type cpu measures utilisation, but `signal.kind` is {signal.kind}",
            "write `kind: utilisation`, or a metric that counts work",
        )
