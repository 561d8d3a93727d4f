"""The axes of a sweep as written: every form, and a message for every mistake."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoscaler.errors import ConfigError
from autoscaler.simulator.judging.score import FIGURES, Score
from autoscaler.simulator.search.axes import current_values, read_axis
from autoscaler.simulator.search.limits import NO_WORSE, first_broken, kept, read_limit
from autoscaler.simulator.search.nearby import nearby
from autoscaler.simulator.search.variants import Axis, Between, grid, sampled
from tests.search.builders import BASE
from tests.simulator.builders import policy


@pytest.mark.parametrize(
    ("text", "path", "values"),
    [
        ("reactive.headroom=10%..60%/6", "reactive.headroom", ("10%", "20%", "30%", "40%", "50%", "60%")),
        ("guards.stabilisation=1m, 5m,15m", "guards.stabilisation", ("1m", "5m", "15m")),
        ("vm.capacity=100/s..200/s/3", "vm.capacity", ("100/s", "150/s", "200/s")),
        ("bounds.minimum=1..4/9", "bounds.minimum", (1, 2, 3, 4)),
        ("guards.stabilisation=1m..4m/3log", "guards.stabilisation", ("1m", "2m", "4m")),
        ("plant.start=20s,1m", "plant.start", (20.0, 60.0)),
        ("plant.stop=10s..30s/2", "plant.stop_s", (10.0, 30.0)),
        ("plant.start.p95=60s", "plant.start.p95_s", (60.0,)),
        ("plant.start_failure=0%..5%/3", "plant.start_failure", (0.0, 0.025, 0.05)),
        ("plant.shortage=lost,queued", "plant.shortage", ("lost", "queued")),
        ("prices.start=0.5", "prices.start", (0.5,)),
        ("vm.learn_start_time=true,false", "vm.learn_start_time", (True, False)),
    ],
)
def test_axes_are_read_in_the_units_of_their_fields(text, path, values):
    axis = read_axis(text, BASE)
    assert axis == Axis(path, values)
    assert len(list(grid(BASE, [axis]))) == len(values)


def test_a_range_without_a_count_is_drawn_from():
    assert read_axis("reactive.headroom=5%..60%", BASE, at_random=True) == Between(
        "reactive.headroom", "5%", "60%"
    )
    assert read_axis("guards.stabilisation=1m..1h/log", BASE, at_random=True).logarithmic
    listed = read_axis("guards.stabilisation=1m,5m", BASE, at_random=True)
    drawn = list(sampled(BASE, [listed, Between("reactive.headroom", "5%", "60%")], 40, seed=1))
    assert {each.values["guards.stabilisation"] for each in drawn} == {"1m", "5m"}
    assert len({each.values["reactive.headroom"] for each in drawn}) > 30


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("reactive.headroom", r"does not say what to vary; write PATH=VALUE"),
        ("reactive.headroom=", r"does not say what to vary"),
        ("reactive.headrom=5%", r"not a field of a policy; did you mean `reactive\.headroom`\?"),
        ("plant.strat=5", r"not a field of the plant; did you mean `plant\.start`\?"),
        ("plant.start.p95_=5", r"not a field of the plant; did you mean `plant\.start\.p95_s`\?"),
        ("plant=5", r"not a field of the plant"),
        ("reactive.headroom=5%,,6%", r"a value is missing between two commas"),
        ("reactive.headroom=5%..6%", r"how many values\? Write reactive\.headroom=5%\.\.6%/5"),
        ("reactive.headroom=..6%/3", r"the range needs two ends"),
        ("reactive.headroom=5%..6%/1", r"2 to 10,000 values, not 1"),
        ("reactive.headroom=6%..5%/3", r"ends at 5% before it begins at 6%"),
        ("reactive.headroom=1..2/3", r"a range needs numbers, not 1; write a number with a percent sign"),
        ("plant.vms=nan..4/3", r"write finite numbers"),
        ("plant.stop=0..4/3log", r"a logarithmic range begins above 0"),
    ],
)  # fmt: skip
def test_a_wrong_axis_is_told(text, words):
    with pytest.raises(ConfigError, match=words):
        read_axis(text, BASE)


def test_the_values_of_the_policy_itself_are_known():
    found = current_values(BASE, ["reactive.headroom", "plant.start", "forecast.cover", "plant.stop_s"])
    assert found == {
        "reactive.headroom": "20%",
        "plant.start": 40.0,
        "forecast.cover": "off",
        "plant.stop_s": 25.0,
    }


def test_candidates_nearby_hold_the_policys_own_values_and_are_all_allowed():
    given = policy()
    axes = nearby(given)
    assert {axis.path for axis in axes} >= {"reactive.headroom", "forecast.cover", "guards.stabilisation"}
    base = type(BASE)(given, BASE.plant, 60.0)
    own = current_values(base, [axis.path for axis in axes])
    assert all(own[axis.path] in axis.values for axis in axes)
    made = list(grid(base, axes))
    assert any(each.policy == base.variant({}).policy for each in made)
    with pytest.raises(ConfigError, match="say what to vary"):
        nearby(policy(reactive="off", forecast="off"))
    prices = {"in_service": "0.1/h", "stopped": "0.01/h"}
    with pytest.raises(ConfigError, match=r"has an objective, .* --vary objective\.served=99%,99\.5%,99\.9%"):
        nearby(policy(reactive="off", forecast="off", objective={"served": "99.9%"}, prices=prices))
    with pytest.raises(ConfigError, match=r"--vary objective\.shortage_price=2/h,5/h,10/h,20/h"):
        nearby(policy(reactive="off", forecast="off", objective={"shortage_price": "9/h"}, prices=prices))


@pytest.mark.parametrize("start_time", ["45s", "100s"])
def test_candidates_nearby_wait_for_what_was_started_before_they_stop(start_time):
    given = policy(vm={"start_time": start_time})
    axes = nearby(given)
    (cooldown,) = (axis for axis in axes if axis.path == "guards.cooldown_in")
    assert cooldown.values == (start_time, "2m", "6m")
    assert len(list(grid(type(BASE)(given, BASE.plant, 60.0), axes))) > 3


# ── limits ──────────────────────────────────────────────────────────────────────────────────────────────


def scored(**columns):
    width = len(next(iter(columns.values())))
    return Score({f.key: np.array(columns.get(f.key, [np.nan] * width), float) for f in FIGURES})


def test_limits_are_read_in_the_unit_of_their_figure():
    assert read_limit("unserved=0.1%").value == pytest.approx(0.001)
    assert read_limit("unserved_share=0").value == 0.0
    assert read_limit("longest_episode=5m").value == 300.0
    assert read_limit("starts_per_day=12.5").value == 12.5
    assert str(read_limit("longest_episode=5m")) == "longest episode at most 5 min"
    assert str(read_limit("warm_hits=99%", at_least=True)).endswith("at least 99.0%")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("unserved", r"write FIGURE=VALUE"),
        ("unservd=1%", r"there is no figure unservd; did you mean unserved\?"),
        ("unserved=0.001", r"'0\.001' is no value of .*; write a number with a percent sign"),
        ("longest_episode=5", r"write a number with ms, s, m, h or d, for example"),
        ("starts_per_day=many", r"write a plain number"),
        ("starts_per_day=inf", r"limits nothing"),
        ("regret=3%", r"there is no figure regret"),
    ],
)
def test_a_wrong_limit_is_told(text, words):
    with pytest.raises(ConfigError, match=words):
        read_limit(text)


def test_what_is_unknown_keeps_no_limit_and_the_first_broken_one_is_named():
    figures = scored(
        cost=[3, 2, 1, 1], unserved_share=[0.01, 0.0, 0.02, np.nan], longest_episode_s=[60, 900, 900, 0]
    )
    limits = (read_limit("unserved=1%"), read_limit("longest_episode=5m"))
    assert kept(limits, figures, 0).tolist() == [True, False, False, False]
    told = first_broken(limits, figures, 0)
    assert told[0] == ""
    assert told[1] == "longest episode at most 5 min: 15 min"
    assert told[2].endswith("at most 1.00%: 2.00%")
    assert told[3].endswith("at most 1.00%: ?")
    assert kept((NO_WORSE,), figures, 0).tolist() == [True, True, False, False]
    assert kept((read_limit("unserved=1%", at_least=True),), figures, 0).tolist() == [
        True,
        False,
        True,
        False,
    ]


def test_ranges_of_fields_that_may_be_left_out():
    assert read_axis("objective.served=99%..99.8%/5", BASE).values == (
        "99%",
        "99.2%",
        "99.4%",
        "99.6%",
        "99.8%",
    )
    assert read_axis("objective.shortage_price=1/h..9/h/3", BASE).values == ("1/h", "5/h", "9/h")
    priced = replace(BASE, policy=policy(objective={"served": "95%"}, prices={"in_service": "1/h"}))
    drawn = sampled(priced, [Between("objective.served", "90%", "99%")], 3, seed=1)
    assert all(90 <= float(str(one.values["objective.served"]).removesuffix("%")) <= 99 for one in drawn)
