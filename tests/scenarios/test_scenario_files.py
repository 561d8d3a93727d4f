"""Scenario files: messages for wrong ones, and no expectation passes because there was nothing to check."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoscaler.errors import ConfigError, TraceError
from autoscaler.ports import Verb
from autoscaler.simulator.scenarios.figures import FIGURES
from autoscaler.simulator.scenarios.judging import judge
from autoscaler.simulator.scenarios.playing import play
from autoscaler.simulator.scenarios.reading import read_scenario

POLICY = Path(__file__).parents[2] / "policies" / "web.yaml"

GOOD = """\
story: A short hour.
policy: {policy}
change:
  guards: {{cooldown_in: 30s}}
begin: 2026-03-02T00:10:00Z
length: 20m
fleet: {{running: 3, stopped: 9}}
traffic:
  start: 2026-03-02T00:00:00Z
  length: 1h
  parts:
    - level: {{work: 240}}
    - ramp: {{begin: 15m, end: 20m, height: 600}}
expect:
  - {{figure: unserved, at_most: 5%, why: it is served}}
"""


@pytest.fixture
def written(tmp_path):
    def write(*changes, more=""):
        text = GOOD.format(policy=POLICY)
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "hour.yaml"
        path.write_text(text + more, encoding="utf-8")
        return path

    return write


WRONG = {
    "typo in a key": ([("running: 3", "runing: 3")], r"hour\.yaml:7:9: error: unknown key `fleet\.runing`; did you mean"),
    "typo in the policy's part": (
        [("cooldown_in", "cooldown_inn")],
        r"hour\.yaml:4:12: error: unknown key `guards\.cooldown_inn`; did you mean `cooldown_in`",
    ),
    "policy that is not there": ([("policy: ", "policy: no-such/")], r"no-such.*cannot be read"),
    "typo in the traffic": ([("work: 240", "wok: 240")], r"hour\.yaml:12:\d+: error: unknown key `wok`; did you mean"),
    "a recording in the traffic": (
        [("    - level: {work: 240}\n    - ramp: {begin: 15m, end: 20m, height: 600}\n", "    - level: {work: 240}\n  recording: {file: day.csv}\n")],
        r"hour\.yaml:13:\d+: error: `traffic` is a recipe; write `recording` instead of `traffic`, not inside it",
    ),
    "unknown figure": ([("figure: unserved", "figure: unservd")], r"did you mean `unserved`"),
    "bound without a unit": ([("at_most: 5%", "at_most: 5")], r"hour\.yaml:15:\d+: error: `at_most`: 5 is no share"),
    "no bound": ([("at_most: 5%, ", "")], r"the expectation has no bound; add `at_most` or `at_least`"),
    "part beyond the run": (
        [("at_most: 5%", "at_most: 5%, from: 30m")],
        r"`from` and `to` do not name a part of the run",
    ),
    "run beyond the traffic": ([("length: 20m", "length: 2h")], r"hour\.yaml:\d+: the run must lie within its traffic"),
    "no VMs": ([("running: 3, stopped: 9", "running: 0")], r"the fleet has no VMs"),
    "no expectations": ([("expect:\n  - {figure: unserved, at_most: 5%, why: it is served}\n", "")], r"`expect` is missing"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "said"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_with_its_place(written, changes, said):
    with pytest.raises((ConfigError, TraceError), match=said):
        read_scenario(written(*changes))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("faults:\n  - {kind: no_capcity, from: 1m, to: 2m}\n", r"hour\.yaml:17.*did you mean 'no_capacity'"),
        (
            "faults:\n  - {kind: no_capacity, from: 3m, to: 2m}\n",
            r"hour\.yaml:17.*to \(120\.0\) must be after from \(180\.0\)",
        ),
        ("faults:\n  - {kind: latency, from: 1m, to: 2m}\n", r"hour\.yaml:17.*latency needs delay"),
        ("faults:\n  - {kind: no_capacity, zne: a}\n", r"unknown key 'zne'; did you mean 'zone'"),
        ("faults:\n  - {kind: no_capacity, from: 1}\n", r"hour\.yaml:17"),
        (
            "faults:\n  - {kind: no_capacity, from: 20m, to: 25m}\n",
            r"hour\.yaml:17:\d+: error: this fault begins after the run has ended",
        ),
        (
            "faults:\n  - {kind: no_capacity, zone: us-east-1z, from: 1m, to: 2m}\n",
            r"hour\.yaml:17:\d+: error: the cloud has no zone `us-east-1z`; its zones are us-east-1a, us-east-1b, us-east-1c",
        ),
        ("kills:\n  - {at: 5m, back_after: 2m}\n  - {at: 6m}\n", r"a daemon that is dead cannot be killed"),
        ("losses:\n  - {from: 5m, to: 4m}\n", r"does not lie within the run"),
        ("misreadings:\n  - {from: 5m, to: 4h, times: 2}\n", r"does not lie within the run"),
        ("edits:\n  - {at: 5m, change: {reactive: {headrom: 30%}}}\n", r"hour\.yaml:17:\d+.*headrom"),
    ],
)
def test_what_happens_meanwhile_is_checked_too(written, more, said):
    with pytest.raises(ConfigError, match=said):
        read_scenario(written(more=more))


def test_a_policy_in_the_place_of_a_scenario_is_one_sentence(tmp_path):
    path = tmp_path / "web.yaml"
    path.write_text("fleet: web\nsignal: {kind: total}\nvm: {capacity: 1/s}\n")
    with pytest.raises(ConfigError, match=r"web\.yaml: this is a policy; give a scenario"):
        read_scenario(path)


def test_both_or_none_of_traffic_and_recording_is_refused(written):
    with pytest.raises(ConfigError, match=r"either `traffic` or `recording`"):
        read_scenario(written(more="recording: {file: day.csv}\n"))


def test_an_expectation_that_is_not_met_is_broken_and_says_so(written):
    (verdict,) = judge(play(read_scenario(written(("unserved, at_most: 5%", "starts, at_most: 0")))))
    assert not verdict.holds
    assert "is more than 0, so this does not hold: it is served" in verdict.broken


def test_an_unknown_figure_breaks_its_bound(written):
    played = play(read_scenario(written(("unserved, at_most: 5%", "cost_of_peak, at_most: 100%"))))
    free = played.scenario.policy.model_copy(
        update={
            "prices": played.scenario.policy.prices.model_copy(
                update={"in_service_per_h": 0.0, "stopped_per_h": 0.0}
            )
        }
    )
    (verdict,) = judge(replace(played, scenario=replace(played.scenario, policy=free)))
    assert math.isnan(verdict.value)
    assert "unknown, so its bounds cannot be checked" in verdict.broken


@pytest.mark.parametrize("figure", sorted(name for name in FIGURES if not FIGURES[name].whole_run))
def test_a_history_that_is_too_short_breaks_every_bound(written, figure):
    played = play(read_scenario(written()))
    one = replace(played.scenario.expectations[0], figure=figure, at_most=1e9, to_s=50.0)
    (verdict,) = judge(replace(played, scenario=replace(played.scenario, expectations=(one,))))
    assert "known in only 5 ticks" in verdict.broken


def test_demand_that_is_mostly_unknown_breaks_every_bound(written):
    with_gap = written(("    - ramp", "    - outage: {at: 14m, lasts: 10m}\n    - ramp"))
    (verdict,) = judge(play(read_scenario(with_gap)))
    assert "demand is known in" in verdict.broken


def test_lost_readings_are_lost(written):
    whole = play(read_scenario(written()))
    lost = play(read_scenario(written(more="losses:\n  - {from: 4m, to: 16m, share: 100%}\n")))
    begin_s = whole.scenario.begin_s

    def starts(played, from_s, to_s):
        return [
            a for a in played.actions if from_s <= a.at_s - begin_s < to_s and a.intent.verb is Verb.START
        ]

    # The readings that came last are still fresh for a while.
    assert starts(whole, 420.0, 960.0)
    assert not starts(lost, 420.0, 960.0)
    assert starts(lost, 960.0, 1200.0)


def test_wrong_readings_are_read_and_what_is_so_is_judged(written):
    more = "misreadings:\n  - {from: 4m, to: 6m, shows: 1200}\n  - {from: 12m, to: 13m, times: 0}\n"
    true, wrong = play(read_scenario(written())), play(read_scenario(written(more=more)))
    np.testing.assert_array_equal(true.seen(0.0, 1200.0).demand, wrong.seen(0.0, 1200.0).demand)
    rows = {row.timestamp_s - wrong.scenario.begin_s: row for row in wrong.rows}
    assert rows[300.0].forecast > 3 * true.rows[30].forecast
    assert rows[740.0].forecast < 0.1 * rows[740.0].demand
    # 1200/s need twelve or more VMs where three serve, and there are twelve in all.
    assert (true.seen(0.0, 350.0).most_at_once, wrong.seen(0.0, 350.0).most_at_once) == (0, 9)


def test_a_daemon_may_come_back_with_another_tick(written):
    played = play(read_scenario(written(more="kills:\n  - {at: 5m, back_after: 10s, tick: 60s}\n")))
    at_s = [row.timestamp_s - played.scenario.begin_s for row in played.rows]
    before, after = [at for at in at_s if at < 300.0], [at for at in at_s if at > 360.0]
    assert set(np.diff(before)) == {10.0}
    assert set(np.diff(after)) == {60.0}
    assert len(played.glances) == 120


@pytest.mark.parametrize(
    ("short", "recovery"),
    [([0, 0, 0, 0, 0, 0], 0.0), ([0, 5, 0, 5, 0, 0], 40.0), ([5, 0, 0, 0, 0, 5], math.nan)],
)
def test_recovery_is_until_the_last_shortage_and_unknown_while_one_lasts(written, short, recovery):
    seen = play(read_scenario(written())).seen(0.0, 60.0)
    capacity = np.full(6, 100.0)
    value = FIGURES["recovery"].measure(replace(seen, capacity=capacity, demand=capacity + np.array(short)))
    assert value == pytest.approx(recovery, nan_ok=True)


def test_a_killed_daemon_decides_nothing_until_it_is_back(written):
    played = play(read_scenario(written(more="kills:\n  - {at: 5m2s, back_after: 6m}\n")))
    dead_s = (played.scenario.begin_s + 302.0, played.scenario.begin_s + 662.0)
    assert not [row for row in played.rows if dead_s[0] <= row.timestamp_s < dead_s[1]]
    assert [row for row in played.rows if row.timestamp_s >= dead_s[1]]
    assert len(played.glances) == 120
    assert played.seen(300.0, 660.0).starts == 0


def test_a_rollout_replaces_every_vm_and_the_fleet_keeps_its_size(written):
    played = play(read_scenario(written(more="rollouts:\n  - {at: 1m, batch: 4, every: 1m}\n")))
    last = played.glances[-1]
    assert last.serving > 0
    assert (
        played.rows[-1].in_service
        + played.rows[-1].starting
        + played.rows[-1].stopped
        + played.rows[-1].draining
        <= 12
    )
    assert min(glance.serving for glance in played.glances) < 3, "those that served were replaced too"


def test_an_edit_takes_effect_at_its_time(written):
    edited = written(more="edits:\n  - {at: 10m, change: {bounds: {maximum: 3}}}\n")
    played = play(read_scenario(edited))
    assert played.seen(0.0, 600.0).serving.max() > 3
    assert played.seen(1080.0, 1200.0).serving.max() == 3


def test_equal_scenarios_give_equal_runs(written):
    path = written(
        more="faults:\n  - {kind: stuck_pending, from: 2m, to: 12m, probability: 0.5, delay: 1m}\n"
    )
    first, second = (play(read_scenario(path)) for _ in range(2))
    assert first.glances == second.glances
    np.testing.assert_equal([r.desired for r in first.rows], [r.desired for r in second.rows])
    assert first.cost == second.cost
