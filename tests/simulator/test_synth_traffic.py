"""Generated traffic: its measured properties are those that its arguments state."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autoscaler.errors import TraceError
from autoscaler.simulator.traffic.parts import DEFAULT_START_S, VM_CAPACITY_PER_S, Crowd
from autoscaler.simulator.traffic.synth import synth_day
from autoscaler.traces.trace import TraceKind, describe_time

HOUR_S = 3600.0


def hourly(trace) -> np.ndarray:
    return trace.rates.reshape(-1, round(HOUR_S / trace.interval_s)).mean(axis=1)


def test_the_default_day() -> None:
    trace = synth_day(1)
    assert describe_time(trace.start_s) == "2026-03-02T00:00:00Z"
    assert (trace.kind, trace.interval_s, len(trace.values), trace.missing) == (
        TraceKind.COUNT,
        10.0,
        8640,
        0,
    )
    vms = hourly(trace) / VM_CAPACITY_PER_S
    ordinary = np.delete(vms, [10])
    assert ordinary.min() == pytest.approx(5.0, abs=0.2)
    assert ordinary.max() == pytest.approx(18.0, abs=0.3)
    minutely = trace.rates.reshape(-1, 6).mean(axis=1) / VM_CAPACITY_PER_S
    assert minutely[10 * 60 + 4] == pytest.approx(16.0, abs=1.0)
    assert minutely.max() == pytest.approx(45.0, abs=2.0)
    assert int(minutely.argmax()) in range(10 * 60 + 8, 10 * 60 + 11)
    # Forty minutes after the peak a twentieth of the crowd is left.
    assert minutely[10 * 60 + 49] == pytest.approx(16.7 + 29 / 20, abs=0.7)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("dispersion", [1.0, 4.0, 50.0])
def test_dispersion_is_as_stated(seed, dispersion) -> None:
    trace = synth_day(seed, days=2.0, daily_amplitude=0.0, base=300.0, crowds=(), dispersion=dispersion)
    counts = trace.values
    assert counts.mean() == pytest.approx(3000.0, rel=0.01)
    # The relative error of a variance of n values is about sqrt(2 / n): 1 % here.
    assert counts.var() / counts.mean() == pytest.approx(dispersion, rel=0.06)
    assert (counts == np.floor(counts)).all()


def test_dispersion_holds_along_the_day_as_well() -> None:
    trace = synth_day(3, days=40.0, interval_s=60.0, crowds=(), dispersion=20.0)
    days = trace.values.reshape(40, 1440)
    ratio = days.var(axis=0, ddof=1) / days.mean(axis=0)
    assert ratio[:480].mean() == pytest.approx(20.0, rel=0.05)
    assert ratio[600:1080].mean() == pytest.approx(20.0, rel=0.05)


def test_the_daily_cycle_peaks_where_it_should_and_repeats() -> None:
    trace = synth_day(1, days=3.0, crowds=(), daily_peak_at_s=20.5 * HOUR_S, dispersion=1.0)
    days = hourly(trace).reshape(3, 24)
    assert set(days.argmax(axis=1)) == {20}
    assert set(days.argmin(axis=1)) == {8}
    np.testing.assert_allclose(days[0], days[1], rtol=0.01)


def test_the_clock_of_the_day_is_utc_whatever_the_start() -> None:
    late = synth_day(1, DEFAULT_START_S + 6 * HOUR_S, days=0.5, dispersion=1.0)
    whole = synth_day(2, dispersion=1.0)
    np.testing.assert_allclose(hourly(late), hourly(whole)[6:18], rtol=0.01)


def test_a_crowd_rises_to_its_height_in_its_time_and_falls_to_a_twentieth() -> None:
    crowd = Crowd(at_s=2 * HOUR_S, rise_s=100.0, height=50_000.0, decay_s=1000.0)
    trace = synth_day(
        1, days=0.2, interval_s=1.0, base=0.0, daily_amplitude=0.0, crowds=(crowd,), dispersion=1.0
    )
    rates = trace.values
    assert not rates[:7200].any()
    assert rates[7250] == pytest.approx(25_000, rel=0.05)
    assert rates[7300] == pytest.approx(50_000, rel=0.02)
    assert int(rates.argmax()) in range(7290, 7311)
    assert rates[8300] == pytest.approx(2_500, rel=0.1)


def test_crowds_add_up() -> None:
    one, other = Crowd(at_s=HOUR_S), Crowd(at_s=2 * HOUR_S, height=1000.0)
    quiet, first, second, both = (
        synth_day(1, days=0.2, crowds=crowds, dispersion=1.0).values.sum()
        for crowds in ((), (one,), (other,), (one, other))
    )
    assert both - quiet == pytest.approx(first - quiet + second - quiet, rel=0.01)


def test_equal_arguments_give_the_same_trace_and_another_seed_another() -> None:
    assert synth_day(5, days=0.1).digest == synth_day(5, days=0.1).digest
    assert synth_day(5, days=0.1).digest != synth_day(6, days=0.1).digest


def test_nothing_is_negative_even_where_almost_nothing_comes() -> None:
    values = synth_day(1, base=0.0, daily_amplitude=0.01, crowds=(), dispersion=100.0).values
    assert values.min() == 0.0
    assert 0 < values.max() < math.inf


def test_days_that_the_interval_does_not_divide_are_covered_whole() -> None:
    assert len(synth_day(1, days=0.1, interval_s=7.0).values) == math.ceil(8640 / 7)
    assert len(synth_day(1, days=1 / 3, interval_s=10.0).values) == 2880


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"days": 0.0}, "length must be more than 0"),
        ({"days": math.nan}, "length must be more than 0"),
        ({"interval_s": -1.0}, "interval must be more than 0"),
        ({"dispersion": 0.5}, r"dispersion must be 1 \(Poisson\) or more, not 0.5"),
        ({"base": -1.0}, "work of level must be 0"),
        ({"daily_amplitude": math.inf}, "amplitude of daily must be 0"),
        ({"crowds": (Crowd(rise_s=0.0),)}, "rise_s of crowd must be more than 0"),
        ({"seed": -1}, "seed must be 0 or more"),
    ],
)
def test_impossible_arguments_are_named(wrong, message) -> None:
    with pytest.raises(TraceError, match=message):
        synth_day(**{"seed": 1, **wrong})
