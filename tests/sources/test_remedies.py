"""Each reason why a VM gave no reading has its remedy, and those that heal by themselves have none."""

import pytest

from autoscaler.sources.remedies import remedy


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("first scrape (a rate takes two)", ""),
        ("no answer when the round ended after 8 s", ""),
        ("no answer within 3 s", "`signal.scrape.timeout`"),
        ("no address", "once it runs"),
        ("HTTP 401", "no credentials"),
        ("HTTP 403", "no credentials"),
        ("HTTP 404", "the path of `signal.scrape.url`"),
        ("HTTP 503", "its own log"),
        ("not a URL", "mend `signal.scrape.url`"),
        ("no metric load (a web page came)", "no page of metrics"),
        ("CPU counters stand still", "node_exporter"),
        ("connection refused", "does an exporter listen there"),
        ("no route to host", "does an exporter listen there"),
    ],
)
def test_what_to_do(reason, advice):
    assert advice in remedy({"a": reason})
    assert bool(remedy({"a": reason})) == bool(advice)


def test_most_vms_come_first_and_what_heals_is_passed_over():
    errors = {"a": "HTTP 404", "b": "connection refused", "c": "connection refused", "d": "first scrape"}
    assert "listen there" in remedy(errors)
    assert "its own log" in remedy({"a": "first scrape", "b": "first scrape", "c": "HTTP 500"})
    assert remedy({}) == ""
