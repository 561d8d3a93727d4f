"""From policies to core's arrays: units, ticks, padding, and schedules on the nights when clocks change."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.config.calendar import spans
from autoscaler.config.compiling import SharedParams, compile_params
from autoscaler.config.compiling_objective import EconomicParams
from autoscaler.config.policy import policy_from
from autoscaler.config.section import whole_ticks
from autoscaler.config.wishes import ScheduleWindow
from autoscaler.core.params import FoldParams, LaneParams, SeriesParams
from autoscaler.core.types import Signal


def utc(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def policy(fleet="web", **sections):
    return policy_from(
        {
            "fleet": fleet,
            "signal": {"kind": "throughput", "source": "trace"},
            "vm": {"capacity": "120/s"},
            "bounds": {"maximum": 10},
            "reactive": {},
            **sections,
        }
    )


FULL = policy(
    signal={"kind": "utilisation", "source": "trace", "max_age": "90s", "saturation": "85%"},
    vm={"capacity": "50/s", "start_time": "31s", "stop_time": "45s"},
    bounds={"minimum": 2, "maximum": 40},
    reactive={"headroom": "25%", "tolerance": "5%", "censored_growth": "40%"},
    forecast={"cover": "99%", "half_life": "2h"},
    steps=[{"above": "80%", "change": 2}, {"above": "10%", "below": "30%", "change": "-10%"}],
    schedule=[{"name": "day", "from": "08:00", "to": "18:00", "at_least": 7}],
    guards={
        "stabilisation": "4m",
        "cooldown_out": "50s",
        "cooldown_in": "3m",
        "minimum_coverage": "60%",
        "rate_out": {"vms": 8, "per": "2m"},
        "rate_in": {"vms": 2, "per": "90s"},
    },
    warm_pool={"minimum": 3, "maximum": 30, "memory": "2h", "spare": "20%"},
    provision={"launch_template": "lt-1", "maximum": 60},
)


@pytest.mark.parametrize(
    ("tick_s", "lead", "keep", "hold"),
    [(10.0, 7, 8, 30), (60.0, 2, 1, 5), (300.0, 2, 1, 2), (3600.0, 2, 1, 2)],
)
def test_forecasts_are_for_the_first_sample_of_what_a_start_serves_and_for_all_before_it(
    tick_s, lead, keep, hold
):
    """An order at tick t serves from t + L on, and what is wanted in tick t + L is known when it is over."""
    fleet = policy(
        signal={"kind": "total", "source": "trace", "trace": {}},
        vm={"capacity": "50/s", "start_time": "60s", "stop_time": "25s"},
        objective={"served": "99%"},
    )
    compiled = compile_params([fleet], tick_s, utc("2026-06-01T00:00:00"))
    assert compiled.series.lead_ticks.tolist() == [lead]
    assert compiled.lanes.lead_ticks.tolist() == [lead - 1]
    assert compiled.series.keep_ticks.tolist() == [keep]
    assert compiled.series.hold_ticks.tolist() == [hold]


def test_every_field_of_a_full_policy():
    compiled = compile_params([FULL], 10.0, utc("2026-06-01T00:00:00"))
    fold, series, lanes = compiled.fold, compiled.series, compiled.lanes
    assert (fold.signal.tolist(), fold.max_age_s.tolist(), fold.saturation.tolist()) == (
        [Signal.UTILISATION],
        [90.0],
        [0.85],
    )
    assert (series.lead_ticks.tolist(), series.keep_ticks.tolist(), series.half_life_ticks.tolist()) == (
        [4],
        [8],
        [720.0],
    )
    assert series.scale.tolist() == pytest.approx([15.0])
    expected = {
        "series": 0, "vm_capacity": 50.0, "reactive": True, "headroom": 0.25, "tolerance": 0.05, "censored_growth": 1.4,
        "steps": True, "schedule": True, "cover": True, "cover_quantile": 3, "uses_signal": True, "min_coverage": 0.6,
        "loss_hold_s": 300.0, "zero_hold_s": 300.0,
        "stabilisation_ticks": 24, "cooldown_out_s": 50.0, "cooldown_in_s": 180.0, "minimum": 2, "maximum": 40,
        "rate_out_vms": 8.0, "rate_out_period_s": 120.0, "rate_in_vms": 2.0, "rate_in_period_s": 90.0,
        "provision": True, "max_provisioned": 60, "warm_minimum": 3, "warm_maximum": 30, "warm_memory_ticks": 720, "warm_spare": 0.2,
    }  # fmt: skip
    for name, value in expected.items():
        assert getattr(lanes, name).tolist() == [value], name
    assert lanes.step_lower.tolist() == [[0.8], [0.1]]
    assert lanes.step_upper.tolist() == [[np.inf], [0.3]]
    assert lanes.step_vms.tolist() == [[2], [0]]
    assert lanes.step_share.tolist() == [[0.0], [-0.1]]
    assert set(lanes.window_floor[:, 0]) == {7}
    economic = set(EconomicParams.__annotations__)
    assert not lanes.economic.any()
    covered = {
        *expected,
        *economic,
        *SharedParams.__annotations__,
        "tick_s",
        "step_lower",
        "step_upper",
        "step_vms",
        "step_share",
        "window_start_s",
        "window_end_s",
        "window_floor",
        "known_from_s",
        "known_begins_s",
        "known_end_s",
    }
    assert covered == {field.name for field in dataclasses.fields(LaneParams)}


def test_one_lane_per_fleet_and_padding_that_never_matches():
    quiet = policy(
        "quiet",
        reactive="off",
        schedule=[{"name": "x", "from": "08:00", "to": "09:00", "days": "mon", "at_least": 1}],
    )
    compiled = compile_params([quiet, FULL, policy("plain")], 10.0, utc("2026-06-03T12:00:00"))
    lanes = compiled.lanes
    assert lanes.series.tolist() == [0, 1, 2]
    assert lanes.uses_signal.tolist() == [False, True, True]
    assert lanes.reactive.tolist() == [False, True, True]
    assert (lanes.step_lower > lanes.step_upper).tolist() == [[True, False, True], [True, False, True]]
    alive = lanes.window_end_s > lanes.window_start_s
    assert alive.sum(axis=0).tolist() == [1, 10, 0]
    assert lanes.max_provisioned.tolist() == [10, 60, 10]
    assert lanes.warm_maximum.tolist() == [10, 30, 10]


def test_dtypes_and_shapes_are_those_of_the_seam():
    compiled = compile_params([FULL, policy("api")], 10.0, 0.0)
    for values, kind in (
        (compiled.fold, FoldParams),
        (compiled.series, SeriesParams),
        (compiled.lanes, LaneParams),
    ):
        for field in dataclasses.fields(kind):
            array = getattr(values, field.name)
            if field.name == "tick_s":
                continue
            assert array.dtype == {"Int": np.int64, "Float": np.float64, "Bool": np.bool_}[field.type], (
                field.name
            )
            assert array.shape[-1] == 2
            assert array.ndim == (
                2 if field.name.startswith(("step_", "window_", "event_", "known_")) else 1
            ), field.name


@pytest.mark.parametrize(
    ("seconds", "tick_s", "expected"),
    [
        (0, 10, 1),
        (1, 10, 1),
        (10, 10, 1),
        (10.001, 10, 2),
        (30, 10, 3),
        (0.3, 0.1, 3),
        (300, 3600, 1),
        (86400, 60, 1440),
    ],
)
def test_seconds_become_ticks_rounded_up(seconds, tick_s, expected):
    assert whole_ticks(seconds, tick_s) == expected


# ── Schedules ───────────────────────────────────────────────────────────────────────────────────────────


def window(start, end, days="daily", zone="Europe/Berlin"):
    return ScheduleWindow.model_validate(
        {"name": "w", "days": days, "from": start, "to": end, "time_zone": zone, "at_least": 1}
    )


def on(day, found):
    """The one span that begins on this UTC day."""
    begins = utc(f"{day}T00:00:00")
    spans_of_day = [span for span in found if begins <= span[0] < begins + 86400]
    assert len(spans_of_day) == 1
    return spans_of_day[0]


def test_office_hours_keep_their_local_time_over_both_changes():
    office = window("08:00", "18:00")
    spring = list(spans(office, utc("2026-03-27T12:00:00")))
    assert on("2026-03-28", spring) == (utc("2026-03-28T07:00:00"), utc("2026-03-28T17:00:00"))
    assert on("2026-03-29", spring) == (utc("2026-03-29T06:00:00"), utc("2026-03-29T16:00:00"))
    autumn = list(spans(office, utc("2026-10-24T12:00:00")))
    assert on("2026-10-24", autumn) == (utc("2026-10-24T06:00:00"), utc("2026-10-24T16:00:00"))
    assert on("2026-10-25", autumn) == (utc("2026-10-25T07:00:00"), utc("2026-10-25T17:00:00"))


def test_a_night_is_an_hour_shorter_in_spring_and_longer_in_autumn():
    night = window("22:00", "06:00")
    spring = on("2026-03-28", spans(night, utc("2026-03-28T12:00:00")))
    assert spring == (utc("2026-03-28T21:00:00"), utc("2026-03-29T04:00:00"))
    autumn = on("2026-10-24", spans(night, utc("2026-10-24T12:00:00")))
    assert autumn == (utc("2026-10-24T20:00:00"), utc("2026-10-25T05:00:00"))


def test_a_window_that_begins_in_the_hour_that_is_missing_begins_early():
    found = on("2026-03-29", spans(window("02:30", "04:00", "sun"), utc("2026-03-28T12:00:00")))
    assert found == (utc("2026-03-29T00:30:00"), utc("2026-03-29T02:00:00"))


def test_a_window_within_the_hour_that_is_missing_does_not_vanish():
    start, end = on("2026-03-29", spans(window("02:15", "02:45"), utc("2026-03-28T12:00:00")))
    assert (start, end) == (utc("2026-03-29T00:15:00"), utc("2026-03-29T01:45:00"))


def test_a_window_within_the_hour_that_comes_twice_covers_both():
    found = on("2026-10-25", spans(window("02:30", "02:45"), utc("2026-10-24T12:00:00")))
    assert found == (utc("2026-10-25T00:30:00"), utc("2026-10-25T01:45:00"))


def test_days_are_the_days_on_which_a_window_begins():
    found = list(spans(window("22:00", "02:00", "fri", "UTC"), utc("2026-06-03T00:00:00")))
    assert found == [(utc("2026-06-05T22:00:00"), utc("2026-06-06T02:00:00"))]


def test_whole_days_join_without_a_seam():
    found = list(spans(window("00:00", "24:00"), utc("2026-03-28T12:00:00")))
    assert all(this[1] == following[0] for this, following in pairwise(found))
    assert found[0][0] <= utc("2026-03-27T12:00:00")
    assert found[-1][1] >= utc("2026-04-05T12:00:00")


@settings(max_examples=40, deadline=None)
@given(
    now=st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)),  # noqa: DTZ001  made aware below
    zone=st.sampled_from(
        ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia"]
    ),
    start=st.integers(0, 1439),
    minutes=st.integers(1, 1439),
)
def test_around_any_now_a_daily_window_covers_at_least_the_times_its_clock_shows(now, zone, start, minutes):
    end = (start + minutes) % 1440
    daily = window(f"{start // 60:02}:{start % 60:02}", f"{end // 60:02}:{end % 60:02}", zone=zone)
    now_s = now.replace(tzinfo=UTC).timestamp()
    found = list(spans(daily, now_s))
    assert found == sorted(found)
    for at_s in np.arange(now_s - 86000, now_s + 8 * 86400, 7211.0):
        local = datetime.fromtimestamp(at_s, UTC).astimezone(ZoneInfo(zone))
        minute = local.hour * 60 + local.minute
        shown = start <= minute < end if start < end else (minute >= start or minute < end)
        inside = any(begin <= at_s < stop for begin, stop in found)
        assert inside or not shown, (local, found)
