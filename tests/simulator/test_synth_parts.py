"""Traffic made of parts: each part is what it says, streams are independent, recipes are shown as YAML."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoscaler.errors import TraceError
from autoscaler.simulator.traffic.parts import (
    DAY_S,
    DEFAULT_START_S,
    PARTS,
    Crowd,
    Crowds,
    Daily,
    Level,
    OnOff,
    Outage,
    Outages,
    Ramp,
    Recipe,
    Trend,
    Weekly,
    expected_rate,
    generate,
)
from autoscaler.simulator.traffic.recipe import read_recipe
from autoscaler.traces.statistics import gaps_of
from autoscaler.traces.trace import TraceKind

HOUR_S = 3600.0
PLAIN = Recipe(kind=TraceKind.GAUGE, parts=(Level(100.0),))


def gauge(*parts, **more):
    """A gauge without noise."""
    return generate(replace(PLAIN, parts=parts, **more))


def at(trace, *hours):
    return trace.rate_at(trace.start_s + np.array(hours) * HOUR_S).tolist()


def test_parts_add_and_factors_multiply():
    trace = gauge(Level(100.0), OnOff(7200.0, 3600.0, 50.0), Trend(1.0), length_s=2 * DAY_S)
    middle = 30 / 86_400  # values are those of the middle of the minute
    np.testing.assert_allclose(at(trace, 0, 1, 24, 25), [150 * (1 + middle), 100 * (1 + 1 / 24 + middle),
                                                         150 * (2 + middle), 100 * (2 + 1 / 24 + middle)])  # fmt: skip


def test_the_day_peaks_when_it_should_and_weekends_are_weaker():
    trace = gauge(Daily(1000.0, 20 * HOUR_S), Weekly(0.25), length_s=7 * DAY_S, interval_s=HOUR_S)
    days = trace.values.reshape(7, 24)
    assert set(days.argmax(axis=1)) <= {19, 20}
    np.testing.assert_allclose(days[5:] / days[:2], 0.25)
    np.testing.assert_allclose(days[:5], np.tile(days[0], (5, 1)), rtol=1e-6)


def test_ramps_crowds_and_falling_trends_never_go_below_nothing():
    trace = gauge(Ramp(HOUR_S, 3 * HOUR_S, 1000.0), Ramp(5 * HOUR_S, 6 * HOUR_S, -5000.0), length_s=DAY_S)
    np.testing.assert_allclose(at(trace, 0, 2, 4, 7), [0, 500 + 1000 / 240, 1000, 0], rtol=1e-6)
    assert gauge(Level(1.0), Trend(-1.0), length_s=2 * DAY_S).values[-1] == 0.0
    crowd = gauge(Crowd(2 * HOUR_S, 600.0, 5000.0, 1200.0), length_s=DAY_S)
    assert crowd.values.max() == pytest.approx(5000.0, rel=0.05)
    assert at(crowd, 1.99)[0] == 0.0


@pytest.mark.parametrize("dispersion", [1.0, 20.0])
def test_counts_have_the_stated_dispersion_around_their_expectation(dispersion):
    recipe = Recipe(length_s=20 * DAY_S, dispersion=dispersion, parts=(Level(50.0), Daily(100.0)))
    trace = generate(recipe)
    mean = expected_rate(recipe, trace.timestamps + 30.0) * 60.0
    assert (trace.values == np.floor(trace.values)).all()
    # The relative error of a variance of n values is about sqrt(2 / n): 1 % here.
    assert ((trace.values - mean) ** 2 / mean).mean() == pytest.approx(dispersion, rel=0.05)


def test_a_gauge_has_the_stated_variation():
    trace = gauge(Level(100.0), variation=0.2, length_s=20 * DAY_S)
    assert trace.values.std() / trace.values.mean() == pytest.approx(0.2, rel=0.03)


# ── Streams ─────────────────────────────────────────────────────────────────────────────────────────────

BUSY = Recipe(
    seed=3, length_s=4 * DAY_S, dispersion=20.0, parts=(Level(50.0), Crowds(2.0, 500.0), Outages(1.0, 1800.0))
)


def test_equal_recipes_give_equal_digests_and_other_seeds_others():
    assert generate(BUSY).digest == generate(BUSY).digest
    assert generate(BUSY).digest != generate(replace(BUSY, seed=4)).digest


def test_a_part_that_is_added_changes_only_the_hours_that_it_reaches():
    crowd = Crowd(26 * HOUR_S, 600.0, 900.0, 600.0)
    before, after = generate(BUSY), generate(replace(BUSY, parts=(crowd, *BUSY.parts)))
    assert before.timestamps.tolist() == after.timestamps.tolist()  # the same outages
    changed = before.timestamps[before.values != after.values] - before.start_s
    assert len(changed) > 20
    assert changed.min() >= 26 * HOUR_S
    assert changed.max() < 27 * HOUR_S


def test_more_random_parts_shift_no_draws_of_others():
    more = replace(
        BUSY, parts=(Crowds(3.0, 100.0, name="small"), *BUSY.parts, Outages(1.0, 60.0, "zero", "short"))
    )
    crowds = expected_rate(BUSY, generate(BUSY).timestamps)
    both = expected_rate(more, generate(BUSY).timestamps)
    small = expected_rate(replace(BUSY, parts=more.parts[:1]), generate(BUSY).timestamps)
    np.testing.assert_allclose(both, crowds + small)
    assert gaps_of(generate(more)) == gaps_of(generate(BUSY))


def test_a_longer_time_begins_like_a_shorter_one_and_a_later_start_goes_on_like_an_earlier():
    short, long = generate(replace(BUSY, length_s=2 * DAY_S)), generate(BUSY)
    assert long.cut(long.start_s, short.end_s).digest == short.digest
    late = generate(replace(BUSY, start_s=DEFAULT_START_S + DAY_S, length_s=3 * DAY_S))
    assert long.cut(late.start_s, long.end_s).digest == late.digest


def test_random_crowds_and_outages_come_as_often_as_stated():
    recipe = replace(
        BUSY,
        length_s=200 * DAY_S,
        interval_s=60.0,
        kind=TraceKind.GAUGE,
        parts=(Level(1.0), Outages(2.0, 900.0)),
    )
    gaps = gaps_of(generate(recipe))
    # 400 are expected, with a standard deviation of 20; some merge with another.
    assert 330 < len(gaps) < 460
    crowds = replace(recipe, parts=(Crowds(2.0, 300.0, 300.0, 600.0),))
    lasting = 300.0 / 2 + 600.0 / np.log(20.0)
    mean = generate(crowds).values.mean()
    assert mean == pytest.approx(2.0 * 300.0 * lasting / DAY_S, rel=0.2)


def test_outages_are_gaps_or_zeros():
    gap = gauge(Level(5.0), Outage(HOUR_S, 600.0), length_s=DAY_S)
    zero = gauge(Level(5.0), Outage(HOUR_S, 600.0, "zero"), length_s=DAY_S)
    assert [(found.start_s - gap.start_s, found.intervals) for found in gaps_of(gap)] == [(HOUR_S, 10)]
    assert (zero.missing, int((zero.values == 0).sum())) == (0, 10)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": -1}, "seed must be 0"),
        ({"length_s": 0.0}, "length must be more"),
        ({"interval_s": 0.0}, "interval must be more"),
        ({"length_s": 60.0}, "are not 2 to"),
        ({"length_s": 1e12}, "are not 2 to"),
        ({"dispersion": 0.5}, "dispersion must be 1"),
        ({"variation": -0.1}, "variation must be"),
        ({"parts": ()}, "no parts"),
        ({"parts": (Level(-1.0),)}, "work of level must be 0 or more"),
        ({"parts": (Level(float("nan")),)}, "work of level must be 0 or more"),
        ({"parts": (Crowds(1.0, 1.0, rise_s=0.0),)}, "rise_s of crowds must be more than 0"),
        ({"parts": (Crowds(1e9, 1.0),)}, "at most 1000 a day"),
        ({"parts": (Ramp(5.0, 5.0, 1.0),)}, "end after it begins"),
        ({"parts": (OnOff(5.0, 6.0, 1.0),)}, "not last longer than its period"),
        ({"parts": (Outage(0.0, 5.0, "hole"),)}, "`gap` or `zero`, not `hole`"),
        ({"parts": (Level(1.0), Outage(0.0, 1e9))}, "cover all of it"),
    ],
)
def test_impossible_recipes_are_named(wrong, message):
    with pytest.raises(TraceError, match=message):
        generate(replace(PLAIN, **wrong))


# ── Recipes as YAML ─────────────────────────────────────────────────────────────────────────────────────

RECIPE = """\
seed: 7
start: 2026-03-02T00:00:00Z
length: 14d
interval: 1m
dispersion: 20
parts:
  - level: {work: 600}
  - daily: {amplitude: 1500, peak_at: 13h30m}
  - weekly: {weekend: 40%}
  - trend: {per_day: -1%}
  - crowd: {at: 1d10h5m, rise: 4m, height: 3000, decay: 40m}
  - crowds: {per_day: 0.5, height: 3000}
  - ramp: {begin: 2d, end: 2d3h, height: 500}
  - on_off: {period: 30m, on: 10m, height: 900}
  - outage: {at: 3d2h, lasts: 20m}
  - outages: {per_day: 0.2, lasts: 15m, shows: zero}
"""


def put(folder, text):
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def test_a_recipe_with_every_part(tmp_path):
    assert read_recipe(put(tmp_path, RECIPE)) == Recipe(
        seed=7, start_s=DEFAULT_START_S, length_s=14 * DAY_S, interval_s=60.0, dispersion=20.0,
        parts=(
            Level(600.0), Daily(1500.0, 13.5 * HOUR_S), Weekly(0.4), Trend(-0.01),
            Crowd(34 * HOUR_S + 300.0, 240.0, 3000.0, 2400.0), Crowds(0.5, 3000.0),
            Ramp(2 * DAY_S, 2 * DAY_S + 3 * HOUR_S, 500.0), OnOff(1800.0, 600.0, 900.0),
            Outage(3 * DAY_S + 2 * HOUR_S, 1200.0), Outages(0.2, 900.0, "zero"),
        ),
    )  # fmt: skip
    assert generate(read_recipe(put(tmp_path, RECIPE))).missing == 20


@pytest.mark.parametrize(
    ("old", "new", "place", "message"),
    [
        ("seed: 7", "sed: 7", "1:1", "unknown key `sed`; did you mean `seed`"),
        ("seed: 7", "seed: some", "1:7", "`some` is not a valid `seed`; write a whole number"),
        ("14d", "14", "3:9", "write a number with ms, s, m, h or d"),
        ("work: 600", "wrok: 600", "7:13", "unknown key `wrok`; did you mean `work`"),
        ("work: 600", "", "7:5", "`level` needs `work`"),
        ("work: 600", "work: -1", "7:19", "work of level must be 0 or more"),
        ("- weekly", "- weakly", "9:5", "unknown key `weakly`; did you mean `weekly`"),
        ("shows: zero", "shows: hole", "16:48", "`gap` or `zero`, not `hole`"),
        ("weekend: 40%", "weekend: 0.4", "9:23", "percent sign"),
        ("{work: 600}", "600", "7:12", "not a section"),
        ("- level: {work: 600}", "- level", "7:5", "is not a part"),
    ],
)
def test_what_a_recipe_may_say_wrong_and_where(tmp_path, old, new, place, message):
    assert old in RECIPE
    path = put(tmp_path, RECIPE.replace(old, new, 1))
    with pytest.raises(TraceError, match=message) as refused:
        read_recipe(path)
    assert str(refused.value).startswith(f"{path}:{place}: error: ")


def test_all_problems_of_a_recipe_are_told_at_once(tmp_path):
    path = put(tmp_path, RECIPE.replace("seed", "sed").replace("wor", "wro").replace("14d", "long"))
    with pytest.raises(TraceError) as refused:
        read_recipe(path)
    assert len(str(refused.value).splitlines()) == 4


@pytest.mark.parametrize(
    "text", ["", "parts: []\n", "seed: 1\n", "- level\n", "parts: {level: 1}\n", "a: b: c\n"]
)
def test_what_is_no_recipe(tmp_path, text):
    with pytest.raises(TraceError, match=r"recipe\.yaml"):
        read_recipe(put(tmp_path, text))


def test_the_shipped_recipe_has_every_part_and_can_be_generated():
    recipe = read_recipe(Path(__file__).parents[2] / "simulations" / "recipes" / "two-weeks.yaml")
    assert {type(part) for part in recipe.parts} == set(PARTS.values())
    trace = generate(recipe)
    assert trace.end_s - trace.start_s == 14 * DAY_S
    assert 0 < trace.missing < 14 * 60
