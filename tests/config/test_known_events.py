"""Known events in a policy: single and recurring, in local time, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from ruamel.yaml import YAML

from autoscaler.clock import VirtualClock, run_virtual
from autoscaler.config.checks import check_policy
from autoscaler.config.compiling import compile_params
from autoscaler.config.documents import Severity
from autoscaler.config.known_events import KnownEvent, occurrences
from autoscaler.config.loading import load_policies, load_policy
from autoscaler.config.policy import policy_from
from autoscaler.config.rendering import effective_data, effective_yaml
from autoscaler.daemon.policies import PolicyFolder


def utc(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def policy(*events, fleet="web", **sections):
    return policy_from(
        {
            "fleet": fleet,
            "signal": {"kind": "total", "source": "trace", "trace": {}},
            "vm": {"capacity": "120/s"},
            "bounds": {"maximum": 10},
            "forecast": {},
            "events": list(events),
            **sections,
        }
    )


def event(**fields):
    return KnownEvent.model_validate({"name": "release", "lasts": "2h", "factor": 3, **fields})


def test_once():
    found = list(occurrences(event(begins="2026-06-03T18:00:00Z"), utc("2026-06-01T00:00:00")))
    assert found == [(utc("2026-06-03T18:00:00"), utc("2026-06-03T20:00:00"))]
    assert not list(occurrences(event(begins="2026-06-03T18:00:00Z"), utc("2026-06-10T00:00:00")))


def test_for_as_long_as_a_run_takes():
    found = list(occurrences(event(at="08:00"), utc("2026-06-01T12:00:00"), 20 * 86400.0))
    assert found[-1][0] == utc("2026-06-29T08:00:00")
    assert found == sorted(set(found))
    once = event(begins="2026-06-20T08:00:00Z")
    assert not list(occurrences(once, utc("2026-06-01T12:00:00")))
    assert len(list(occurrences(once, utc("2026-06-01T12:00:00"), 20 * 86400.0))) == 1


def test_again_and_again_in_local_time_over_a_change_of_clocks():
    mornings = event(days="mon-fri", at="08:00", time_zone="Europe/Berlin")
    found = [start for start, _ in occurrences(mornings, utc("2026-03-26T12:00:00"))]
    assert utc("2026-03-27T07:00:00") in found
    assert utc("2026-03-30T06:00:00") in found
    assert utc("2026-03-28T07:00:00") not in found
    assert found == sorted(found)


def test_those_that_began_days_ago_and_are_not_over_for_a_day():
    long = event(days="mon", at="22:00", lasts="60h")
    over_s = utc("2026-06-04T10:00:00")
    for now_s, known in ((over_s - 1, True), (over_s + 86399, True), (over_s + 86400, False)):
        assert ((utc("2026-06-01T22:00:00"), over_s) in occurrences(long, now_s)) is known


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])
def test_a_local_time_that_is_missing_or_comes_twice_is_the_earlier_of_both(day):
    nightly = event(at="02:30", time_zone="Europe/Berlin")
    found = [start for start, _ in occurrences(nightly, utc(f"{day}T12:00:00"))]
    begins = utc(f"{day}T00:00:00")
    assert [start for start in found if begins <= start < begins + 86400] == [utc(f"{day}T00:30:00")]


def test_events_are_compiled_to_their_own_series_and_padding_never_matches():
    with_events = policy(
        {"name": "match", "begins": "2026-06-03T18:00:00Z", "lasts": "90m", "factor": 5, "odds": "60%"}
    )
    series = compile_params([policy(fleet="plain"), with_events], 10.0, utc("2026-06-03T00:00:00")).series
    assert series.event_start_s.shape == (1, 2)
    assert series.event_start_s[0, 1] == utc("2026-06-03T18:00:00")
    assert series.event_end_s[0, 1] == utc("2026-06-03T19:30:00")
    assert (series.event_factor[0, 1], series.event_odds[0, 1]) == (5.0, 0.6)
    assert (series.event_end_s <= series.event_start_s).tolist() == [[True, False]]
    assert series.event_odds.dtype == np.float64


def test_lanes_know_from_when_on_orders_meet_an_event_and_until_when_it_may_not_have_shown():
    match = {"name": "match", "begins": "2026-06-03T18:00:00Z", "lasts": "90m", "factor": 5}
    begins_s = utc("2026-06-03T18:00:00")
    # A start takes four ticks; who orders at the beginning of one serves until the end of the fifth.
    for asks in ({}, {"forecast": "off", "objective": {"served": "99%"}, "prices": {"in_service": "1/h"}}):
        one = policy(match, **{"vm": {"capacity": "120/s", "start_time": "40s"}, **asks})
        lanes = compile_params([policy(fleet="plain"), one], 10.0, utc("2026-06-03T00:00:00")).lanes
        known = (lanes.known_from_s, lanes.known_begins_s, lanes.known_end_s)
        assert [times_s[0, 1] - begins_s for times_s in known] == [-50.0, 0.0, 600.0]
        assert lanes.known_end_s[0, 0] <= lanes.known_from_s[0, 0]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "must either begin once or recur"),
        ({"begins": "2026-06-03T18:00:00Z", "at": "08:00"}, "must either begin once or recur"),
        ({"at": "08:00", "time_zone": "Europe/Berln"}, "there is no time zone `Europe/Berln`"),
    ],
)
def test_events_that_cannot_be_meant_are_refused(fields, words):
    found = check_policy(policy({"name": "x", "lasts": "1h", "factor": 2, **fields}), 10.0)
    assert any(words in finding.message for finding in found)


def test_an_event_begins_on_a_day_and_not_at_its_end():
    with pytest.raises(ValueError, match='a day ends at 24:00: write "00:00", with the days after'):
        policy({"name": "x", "at": "24:00", "lasts": "1h", "factor": 2})


@pytest.mark.parametrize(
    ("fields", "now", "told"),
    [
        ({"begins": "2026-06-03T18:00:00Z"}, "2026-06-03T20:00:00", True),
        ({"begins": "2026-06-03T18:00:00Z"}, "2026-06-03T19:59:59", False),  # it is not over yet
        ({"begins": "2026-06-03T18:00:00Z"}, None, False),  # a replay may be of that day
        ({"at": "08:00"}, "2036-06-03T20:00:00", False),
    ],
)
def test_an_event_that_is_over_and_never_comes_again_is_told(fields, now, told):
    over = policy({"name": "match", "lasts": "2h", "factor": 2, **fields})
    found = check_policy(over, 10.0, None if now is None else utc(now))
    said = [(each.severity, each.message) for each in found if "match" in each.message]
    words = "event `match` was over at 2026-06-03 20:00 UTC and never comes again"
    assert said == ([(Severity.WARNING, words)] if told else [])


def test_whoever_reads_policies_for_now_is_told_of_events_that_are_over(tmp_path):
    file = tmp_path / "web.yaml"
    file.write_text(
        "fleet: web\nsignal: {kind: total, source: trace, trace: {}}\nvm: {capacity: 120/s}\nbounds: {maximum: 10}\n"
        "forecast: {}\nevents: [{name: match, begins: 2026-06-03T18:00:00Z, lasts: 2h, factor: 2}]\n"
    )

    async def read():
        clock = VirtualClock(utc("2026-06-04T00:00:00"))
        return PolicyFolder(tmp_path, 10.0, clock).load().warnings

    (warning,) = run_virtual(read)
    assert (warning.mark.line, warning.advice) == (6, "write when it comes next, or remove it")
    assert load_policy(file, now_s=utc("2026-06-04T00:00:00")).warnings == (warning,)
    assert PolicyFolder(tmp_path, 10.0).load().warnings == load_policies(tmp_path).warnings == ()


def test_events_that_nothing_reads_are_told():
    found = check_policy(
        policy({"name": "x", "at": "08:00", "lasts": "1h", "factor": 2}, forecast="off", reactive={}), 10.0
    )
    assert any("nothing in this policy uses them" in finding.message for finding in found)


@pytest.mark.parametrize(
    ("event", "unsaid"),
    [
        ({"name": "mail", "days": "mon", "at": "09:00", "lasts": "30m", "factor": 1.8}, "begins"),
        ({"name": "match", "begins": "2026-06-03T18:00:00Z", "lasts": "2h", "factor": 2}, "at"),
    ],
)
def test_an_event_is_written_out_as_it_was_read(event, unsaid):
    held = policy(event)
    written = effective_data(held)
    assert written["events"][0][unsaid] is None
    assert policy_from(written) == held
    assert policy_from(YAML(typ="safe").load(effective_yaml(held))) == held
