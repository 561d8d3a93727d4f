"""The section `signal.prometheus`: what it refuses, what it warns about, and what it compiles to."""

from __future__ import annotations

import pytest

from autoscaler.config.loading import load_policies
from autoscaler.config.policy import policy_from
from autoscaler.config.rendering import effective_data
from autoscaler.wiring_sources import Sources
from tests.sources.doubles import ManualClock

BASE = """\
fleet: web
signal:
  kind: {kind}
  source: prometheus
  prometheus:
    {more}
    query: {query}
vm: {{capacity: 120/s, start_time: 40s}}
bounds: {{minimum: 1, maximum: 10}}
reactive: {{}}
"""
MORE, QUERY = 6, 7


def load(folder, more="url: http://127.0.0.1:9090", query="sum(rate(requests_total[1m]))", kind="total"):
    (folder / "web.yaml").write_text(BASE.format(kind=kind, more=more, query=query))
    return load_policies(folder, 10.0)


def test_the_base_is_clean(tmp_path):
    loaded = load(tmp_path)
    assert (loaded.errors, loaded.warnings, len(loaded.policies)) == ((), (), 1)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("url: http://scaler:s3cret@prometheus:9090", "use `basic_auth`"),
        ("url: http://prometheus:9090/api/v1/query?query=up", "leave out /api/v1/query"),
        ("url: prometheus:9090", "is not a web address"),
        ('headers: ["X-Scope-OrgID web"]', "is not a header"),
        ('headers: ["Authorization: Bearer s3cret"]', "would put a secret into a policy"),
        ("select: {service: web}", "is not labels"),
        ("join: {label: instance}", "kind total is one series"),
        ("join: {label: 'a-b'}", "signal.prometheus.join.label"),
        ("bearer_token_file: a\n    basic_auth: {username: u, password_file: p}", "one kind of credentials"),
        ("basic_auth: {username: 'a:b', password_file: p}", "signal.prometheus.basic_auth.username"),
        ("tls: {key_file: a}", "`tls.cert_file`, which is missing"),
        ("url: http://p:9090\n    tls: {ca_file: a}", "no effect on an address that begins with http://"),
        ("lag: 60s", "none would ever count"),
        ("timeout: 2m", "0.1s to 1m"),
    ],
)
def test_what_is_refused(tmp_path, more, words):
    loaded = load(tmp_path, more)
    assert loaded.policies == ()
    (error,) = loaded.errors
    assert words in str(error)
    assert error.mark.line in {4, MORE, MORE + 1}
    assert "s3cret" not in str(error).replace(more, "")


@pytest.mark.parametrize(
    ("more", "query", "kind", "words"),
    [
        ("timeout: 5s", "sum(load)", "total", "a VM that falls silent looks unchanged"),
        ("timeout: 5s", "sum(rate(x_total[5m]))", "total", "each value is over 5m"),
        ("timeout: 5s", "sum(rate(x_total[6m])) / sum(rate(y_total[1m]))", "total", "each value is over 6m"),
        ("timeout: 5s", "100 * avg_over_time(busy[1m])", "utilisation", "looks like a percentage"),
        ("timeout: 5s", "avg_over_time(busy[1m]) * 100", "utilisation", "looks like a percentage"),
        ("url: http://p:9090\n    bearer_token_file: a", "rate(x[1m])", "total", "unencrypted"),
        ("url: https://p:9090\n    tls: {verify: false}", "rate(x[1m])", "total", "trusts any server"),
    ],
)
def test_what_is_warned_of(tmp_path, more, query, kind, words):
    loaded = load(tmp_path, more, query, kind)
    assert (loaded.errors, len(loaded.policies)) == ((), 1)
    (warning,) = loaded.warnings
    assert words in str(warning)
    assert warning.advice


@pytest.mark.parametrize(
    "query", ["fleet:demand:rate1m", "'load{fleet=\"{fleet}\"}'", "max_over_time(x[4m59s])"]
)
def test_queries_that_show_their_age_are_not_warned_of(tmp_path, query):
    assert load(tmp_path, query=query).warnings == ()


@pytest.mark.parametrize(
    "more",
    [
        "url: https://p:9090\n    bearer_token_file: a",
        "url: http://localhost:9090\n    bearer_token_file: a",
        "url: 'http://[::1]:9090'\n    bearer_token_file: a",
        "url: http://127.0.0.1:9090\n    bearer_token_file: a",
    ],
)
def test_credentials_that_nobody_else_hears_are_not_warned_of(tmp_path, more):
    assert load(tmp_path, more).warnings == ()


def test_a_total_may_be_a_percentage(tmp_path):
    assert load(tmp_path, query="100 * sum(rate(x[1m]))").warnings == ()


def test_no_section_no_policy(tmp_path):
    text = BASE.format(kind="total", more="x", query="y").split("  prometheus:\n")
    (tmp_path / "web.yaml").write_text(text[0] + text[1].split("query: y\n")[1])
    (error,) = load_policies(tmp_path, 10.0).errors
    assert "no section `signal.prometheus`" in str(error)


async def test_a_policy_becomes_an_address_and_a_query(tmp_path):
    more = (
        "url: https://mimir.example/prometheus/\n    tls: {ca_file: ca.pem}\n    bearer_token_file: /run/token\n"
        "    headers: ['X-Scope-OrgID: {fleet}']\n    select: '{service=\"{fleet}\"}'"
    )
    (policy,) = load(tmp_path, more, "'sum by (service) (rate(x{env=\"{fleet}\"}[1m]))'").policies
    sources = Sources(ManualClock(), tmp_path)
    first, second = sources.source_for(policy), sources.source_for(policy)
    address = first._queries.access.address
    assert first._queries is second._queries
    assert (address.url, address.headers) == ("https://mimir.example/prometheus", (("X-Scope-OrgID", "web"),))
    assert (address.tls.ca_file, str(address.bearer_token_file)) == (tmp_path / "ca.pem", "/run/token")
    assert first._select == (("service", "web"),)
    assert first._query == 'sum by (service) (rate(x{env="web"}[1m]))'
    await first.close()
    await first.close()
    assert sources.prometheus.at(address) is second._queries
    await second.close()
    assert sources.prometheus.at(address) is not second._queries


@pytest.mark.parametrize(
    "more",
    [
        "timeout: 5s",
        (
            "select: '{service=\"{fleet}\",zone=\"a\"}'\n    headers: ['X-Scope-OrgID: web']\n    tls: {ca_file: ca.pem}\n"
            "    url: https://p\n    basic_auth: {username: u, password_file: p}\n    history_query: sum(x)\n    lag: 15s"
        ),
    ],
)
def test_the_effective_policy_is_shown_and_loads_again(tmp_path, more):
    (policy,) = load(tmp_path, more).policies
    assert policy_from(effective_data(policy)) == policy
