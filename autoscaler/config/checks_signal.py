"""Checks of signals: what cannot be read as written, and what would be misread.

The rules of `checks` apply.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from autoscaler.config.checks_cloudwatch import check_cloudwatch, check_push
from autoscaler.config.documents import Severity, YamlPath
from autoscaler.config.finding import Finding, seconds_text
from autoscaler.config.policy import Policy
from autoscaler.config.prometheus import PrometheusInput
from autoscaler.config.quantities import DURATION
from autoscaler.ports.sources import ADDRESS

LONG_RANGE_S = 300.0
"""Shortest range of a query, in seconds, with which a burst shows minutes late."""
_RANGE = re.compile(r"\[\s*([0-9a-z]+)\s*(?::[^\]]*)?\]")
_SELECTOR = re.compile(r'\s*[a-zA-Z_:][a-zA-Z0-9_:]*\s*(\{(?:[^{}"]|"(?:[^"\\]|\\.)*")*\})?\s*')
_PERCENT = re.compile(r"\*\s*100\b(?!\.)|\b100\s*[-*]")


def check_signal(policy: Policy, tick_s: float) -> Iterator[Finding]:
    """Yield all findings of the section `signal`."""
    yield from _check_age(policy, tick_s)
    yield from _check_scrape(policy)
    if policy.signal.source == "prometheus":
        yield from _check_prometheus(policy)
    elif policy.signal.source == "cloudwatch":
        yield from check_cloudwatch(policy)
    elif policy.signal.source == "push":
        yield from check_push(policy)


def _check_age(policy: Policy, tick_s: float) -> Iterator[Finding]:
    signal = policy.signal
    for source, given, needs in (
        ("scrape", signal.scrape, "metric"),
        ("prometheus", signal.prometheus, "query"),
        ("haproxy", signal.haproxy, "backend"),
    ):
        if signal.source == source and given is None:
            yield Finding(
                (("signal", "source"),),
                f"`signal.source` is {source}, but there is no section `signal.{source}`",
                f"add it with at least `{needs}`",
            )
    if signal.max_age_s < tick_s:
        yield Finding(
            (("signal", "max_age"),),
            f"`signal.max_age` of {seconds_text(signal.max_age_s)} is shorter than a tick ({seconds_text(tick_s)}), so most readings will count as stale",
            f"write at least {seconds_text(2 * tick_s)}",
            Severity.WARNING,
        )
    late = {"trace": signal.trace, "prometheus": signal.prometheus}.get(signal.source)
    if late and late.lag_s >= signal.max_age_s:
        yield Finding(
            (("signal", signal.source, "lag"), ("signal", "max_age")),
            f"readings come {seconds_text(late.lag_s)} late and are stale after {seconds_text(signal.max_age_s)}: none would ever count",
            "raise `signal.max_age` above the lag",
        )


def _check_scrape(policy: Policy) -> Iterator[Finding]:
    signal, scrape = policy.signal, policy.signal.scrape
    if scrape is None or signal.source != "scrape":
        return
    at: tuple[YamlPath, ...] = (("signal", "scrape", "url"), ("signal", "kind"))
    if signal.of_the_fleet and ADDRESS in scrape.url:
        yield Finding(
            at,
            f"kind {signal.kind} is one reading for the fleet, but `signal.scrape.url` asks every VM",
            "give the address of the load balancer's metrics, without {address}",
        )
    if not signal.of_the_fleet and ADDRESS not in scrape.url:
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


# ── Prometheus ──────────────────────────────────────────────────────────────────────────────────────────


def _check_prometheus(policy: Policy) -> Iterator[Finding]:
    asked = policy.signal.prometheus
    if asked is None:
        return
    if policy.signal.of_the_fleet and asked.join:
        yield Finding(
            (_at("join"), ("signal", "kind")),
            f"kind {policy.signal.kind} is one series, and `signal.prometheus.join` tells series apart by VM",
            "remove `join`; `select` chooses among series",
        )
    yield from _check_query(policy, asked)
    yield from _check_access(asked)


def _at(key: str) -> YamlPath:
    return ("signal", "prometheus", key)


def _check_query(policy: Policy, asked: PrometheusInput) -> Iterator[Finding]:
    ranges = _RANGE.findall(asked.query)
    if not ranges and not _SELECTOR.fullmatch(asked.query):
        yield Finding(
            (_at("query"),),
            "Prometheus repeats a value for up to 5m after its last scrape, and this query does not show its age: a VM "
            "that falls silent looks unchanged",
            "ask over a range, for example avg_over_time(…[1m]), or for the metric alone",
            Severity.WARNING,
        )
    longest_s = max((_seconds(text) for text in ranges), default=0.0)
    if longest_s >= LONG_RANGE_S:
        yield Finding(
            (_at("query"),),
            f"each value is over {seconds_text(longest_s)}, so a burst shows minutes late",
            "a range of four scrape intervals is usual, for example [1m]",
            Severity.WARNING,
        )
    if policy.signal.kind == "utilisation" and _PERCENT.search(asked.query):
        yield Finding(
            (_at("query"), ("signal", "kind")),
            "the query looks like a percentage, and kind utilisation is a share: 1 is all of a VM",
            "leave out the factor of 100",
            Severity.WARNING,
        )


def _seconds(text: str) -> float:
    """Return the length of a PromQL range in seconds; 0 if its form is not known here."""
    try:
        return float(DURATION.validate(text))
    except ValueError:
        return 0.0


def _check_access(asked: PrometheusInput) -> Iterator[Finding]:
    tls, where = asked.tls, urlsplit(asked.url)
    if asked.bearer_token_file and asked.basic_auth:
        yield Finding(
            (_at("bearer_token_file"), _at("basic_auth")),
            "a request carries one kind of credentials, but both `bearer_token_file` and `basic_auth` are given",
            "remove one",
        )
    if tls.key_file and not tls.cert_file:
        yield Finding(
            (_at("tls"),),
            "`tls.key_file` is the key of `tls.cert_file`, which is missing",
            "name the certificate",
        )
    if where.scheme == "http" and (tls.ca_file or tls.cert_file):
        yield Finding(
            (_at("tls"), _at("url")),
            "`tls` has no effect on an address that begins with http://",
            "write https:// if it speaks that",
        )
    if where.scheme == "https" and not tls.verify:
        yield Finding(
            (_at("tls"),),
            "`tls.verify: false` trusts any server, which could then scale the fleet",
            "name the authority with `tls.ca_file`",
            Severity.WARNING,
        )
    local = where.hostname in {"localhost", "::1"} or (where.hostname or "").startswith("127.")
    if where.scheme == "http" and not local and (asked.bearer_token_file or asked.basic_auth):
        yield Finding(
            (_at("url"),),
            "credentials go over the network unencrypted",
            "use https://",
            Severity.WARNING,
        )
