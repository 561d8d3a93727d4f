"""The week that the demo's fleet has in memory: it can be read, belongs to the policy, and pays off on unseen days."""

import json
import zipfile
from dataclasses import replace

import pytest

from autoscaler.cli import demo_week
from autoscaler.config.loading import require_policy
from autoscaler.errors import ConfigError
from autoscaler.simulator.judging.baselines import always_on, plain_reactive
from autoscaler.simulator.replay.loopback import LoopRun, run_loop
from autoscaler.simulator.replay.timeline import totals

TICK_S = demo_week.TICK_S
SEEDS = 1, 2
WARM_UP_S, SPAN_S = 300.0, 2.5 * 3600.0


@pytest.fixture(name="policy", scope="module")
def _policy():
    return require_policy(demo_week.policy_file(), tick_s=TICK_S)


@pytest.fixture(name="week", scope="module")
def _week(policy):
    return demo_week.remembered(policy)


def played(policy, seed, span_s, learned=()):
    """The time line of the played day, from where the demo begins."""
    cloud = demo_week.cloud_of(policy, demo_week.VMS, seed)
    day = demo_week.played_day(seed)
    return run_loop(
        LoopRun(policy, day, cloud, demo_week.BEGIN_S, span_s, TICK_S, seed, learned=learned)
    ).rows


def total(policy, rows):
    """What the rows after the warm-up cost, with the work that found no VM at the policy's price."""
    found = totals([row for row in rows if row.timestamp_s >= rows[0].timestamp_s + WARM_UP_S], TICK_S)
    lost_vm_hours = found.unserved_work / policy.vm.capacity_per_s / 3600.0
    return found.cost + policy.objective.shortage_price_per_h * lost_vm_hours


@pytest.mark.parametrize("seed", SEEDS)
def test_with_the_week_before_a_day_costs_less_than_under_a_plain_rule(policy, week, seed):
    ours = total(policy, played(policy, seed, SPAN_S, week))
    rows = played(plain_reactive(policy), seed, SPAN_S)
    assert ours < total(policy, rows)
    assert ours < total(policy, always_on(rows, policy, TICK_S))


def test_what_is_remembered_matters(policy, week):
    def wanted(rows):
        return [row.desired for row in rows]

    assert wanted(played(policy, 1, 600.0, week)) != wanted(played(policy, 1, 600.0))


def test_the_week_ends_where_the_day_begins_and_its_noise_is_another():
    week, day = demo_week.week_before(), demo_week.played_day(1)
    assert week.start_s <= demo_week.BEGIN_S - demo_week.DAYS * 86400.0
    assert day.start_s < demo_week.BEGIN_S < week.end_s
    for midnight in range(demo_week.DAYS):
        night = slice(midnight * 8640, midnight * 8640 + 1000)
        assert (week.values[night] != day.values[:1000]).mean() > 0.9


def test_a_week_is_lived_kept_and_read_again(policy, tmp_path):
    lived = demo_week.live(policy, days=1 / 96)
    assert [row.name for row in lived] == ["lanes", "forecasts", "queues"]
    demo_week.keep(tmp_path / "week.zip", policy, lived)
    assert demo_week.remembered(policy, tmp_path / "week.zip") == lived
    again = tmp_path / "again.zip"
    demo_week.keep(again, policy, demo_week.live(policy, days=1 / 96))
    assert again.read_bytes() == (tmp_path / "week.zip").read_bytes()


def test_under_another_policy_it_is_no_past(policy):
    other = policy.model_copy(update={"bounds": policy.bounds.model_copy(update={"maximum": 50})})
    with pytest.raises(ConfigError, match="lived under another policy"):
        demo_week.remembered(other)


@pytest.mark.parametrize("body", [b"", b"no zip"], ids=repr)
def test_what_cannot_be_read_is_said(policy, tmp_path, body):
    (tmp_path / "week.zip").write_bytes(body)
    with pytest.raises(ConfigError, match=r"the week before cannot be read from .*week\.zip"):
        demo_week.remembered(policy, tmp_path / "week.zip")
    with pytest.raises(ConfigError, match="cannot be read"):
        demo_week.remembered(policy, tmp_path / "none.zip")


def test_states_of_another_layout_are_refused_before_anything_is_run(policy, week):
    others = tuple(replace(row, version=row.version + 1) for row in week)
    with pytest.raises(ConfigError, match="cannot be read and start over"):
        played(policy, 1, 60.0, others)


def test_the_file_says_what_is_in_it(policy):
    with zipfile.ZipFile(demo_week.folder() / "week.zip") as kept:
        about = json.loads(kept.read("about.json"))
        assert sorted(kept.namelist()) == sorted(["about.json", *(each["name"] for each in about["states"])])
