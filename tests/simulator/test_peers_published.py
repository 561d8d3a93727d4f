"""Peers from published rules, each computed by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core.params import LaneParams
from autoscaler.simulator.benchmark.oracle import ShortOracle
from autoscaler.simulator.peers.alarms import StepScaling, TargetTracking
from autoscaler.simulator.peers.classic import Adapt, Hist, React, quantile_of
from autoscaler.simulator.peers.knative import Knative
from autoscaler.simulator.peers.kubernetes import Kubernetes
from autoscaler.simulator.peers.lazy import LazyCapacity
from autoscaler.simulator.peers.peer import Peer
from autoscaler.simulator.peers.periodic import PeriodicQuantile, PredictiveScaling
from autoscaler.simulator.peers.regression import ConPaaS, Reg, burg
from tests.core.builders import lane_params
from tests.simulator.peering import BEGIN_S, VM, Fleet, played, steps

HOUR_S = 3600.0
UNKNOWN = float("nan")


# ---- from zero ------------------------------------------------------------------------------------------------


def outside(params: LaneParams) -> Peer:
    return Kubernetes(params, utilisation=0.5, external=True)


def test_kubernetes_comes_from_zero_by_an_external_metric() -> None:
    # 6 are needed; 15 s allow 4 more than none, then the rest.
    assert played(outside, *steps((3.0, 3)), begin=0, tick_s=15.0) == [4, 6, 6]
    assert played(outside, *steps((0.0, 2)), begin=0, tick_s=15.0) == [0, 0]
    # What one VM could do is no reason to have none.
    assert played(outside, *steps((0.5, 2)), begin=0, tick_s=15.0) == [1, 1]


def test_kubernetes_looks_at_what_it_has_set_by_an_external_metric() -> None:
    # 2.6 over half of 5 VMs is 1.04, held; 2.9 is 1.16: ceil(5.8), whatever is still starting.
    assert played(outside, 2.6, 2.9, 2.9, begin=5, lead=4, tick_s=15.0) == [5, 6, 6]


@pytest.mark.parametrize("make", [TargetTracking, StepScaling, PredictiveScaling])
def test_a_group_of_at_least_one_vm_grows_again(make: type[TargetTracking | StepScaling]) -> None:
    rule = lambda p: make(p, utilisation=0.5, least=1)  # noqa: E731
    found = played(rule, *steps((0.0, 20), (2.0, 20)), begin=1)
    assert found[:20] == [1] * 20
    assert found[-1] > 1


# ---- knative -----------------------------------------------------------------------------------------------------


def kpa(params: LaneParams) -> Peer:
    return Knative(params, utilisation=0.5)


def test_knative_panics_where_six_seconds_need_twice_what_is_ready() -> None:
    # Ticks of 2 s. The means of three ticks are 2, 3 and 4 VMs; the first of them needs 4 where 2 are ready.
    wanted = played(kpa, *steps((1.0, 5), (4.0, 3)), begin=2, tick_s=2.0)
    assert wanted == [2] * 5 + [4, 6, 8]


def test_knative_takes_nothing_back_while_it_panics() -> None:
    wanted = played(kpa, *steps((1.0, 5), (4.0, 3), (1.0, 60)), begin=2, tick_s=2.0)
    # Panic began at the sixth tick and crossed its threshold never again: 30 ticks of 2 s.
    assert wanted[7:35] == [8] * 28
    assert wanted[35] < 8


def test_knative_follows_the_mean_of_a_minute() -> None:
    # Half a minute at 1 and half at 2 VMs: 1.5 over 0.5 is 3.
    assert played(kpa, *steps((1.0, 15), (2.0, 15)), begin=2, tick_s=2.0)[-1] == 3


def test_knative_of_long_ticks_is_the_last_tick() -> None:
    assert played(kpa, 1.0, 4.0, 1.0, 0.0, 0.0, begin=2, tick_s=60.0) == [2, 8, 2, 1, 0]


# ---- predictive scaling ----------------------------------------------------------------------------------------------


def test_predictive_scaling_prepares_an_hour_that_was_busy_the_day_before() -> None:
    rule = lambda p: PredictiveScaling(p, utilisation=0.5)  # noqa: E731
    day = [8.0 if hour == 5 else 1.0 for hour in range(24)]
    wanted = played(rule, *day, *([1.0] * 8), begin=2, tick_s=HOUR_S)
    # At 05:00 of the second day; nobody comes, and an hour later target tracking has its way.
    assert wanted[24 + 3 : 24 + 6] == [2, 16, 2]


def test_predictive_scaling_is_five_minutes_early() -> None:
    rule = lambda p: PredictiveScaling(p, utilisation=0.5)  # noqa: E731
    day = list(itertools.chain.from_iterable([8.0 if h == 5 else 1.0] * 12 for h in range(24)))
    wanted = played(rule, *day, *([1.0] * 60), begin=2, tick_s=300.0)
    ends = {round((at + 1) * 300 / 60) - 24 * 60: vms for at, vms in enumerate(wanted)}
    assert (ends[4 * 60 + 50], ends[4 * 60 + 55]) == (2, 16)


# ---- lazy capacity -----------------------------------------------------------------------------------------------------


def test_lazy_capacity_moves_when_the_past_says_that_it_should_have() -> None:
    # A start costs 2 ticks, shortage 2 a tick: after two ticks of need, being on would have paid; after two idle
    # ticks, being off.
    rule = lambda p: LazyCapacity(p, shortage_price=2.0, start_ticks=2.0)  # noqa: E731
    assert played(rule, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, begin=0) == [0, 1, 1, 1, 0, 0]
    # A quarter of a VM is not worth one.
    assert played(rule, *steps((0.25, 9)), begin=0) == [0] * 9
    dear = lambda p: LazyCapacity(p, shortage_price=100.0, start_ticks=2.0)  # noqa: E731
    assert played(dear, 2.0, UNKNOWN, 0.5, 0.0, 0.0, begin=0) == [2, 2, 2, 1, 0]


@given(
    demand=st.lists(st.sampled_from([0.0, 0.3, 0.7, 1.0]), min_size=1, max_size=40),
    price=st.sampled_from([1.5, 3.0, 10.0]),
    start=st.sampled_from([1.0, 2.5, 6.0]),
)
@settings(max_examples=60, deadline=None)
def test_lazy_capacity_lies_between_the_prefix_optima(
    demand: list[float], price: float, start: float
) -> None:
    rule = lambda p: LazyCapacity(p, shortage_price=price, start_ticks=start)  # noqa: E731
    found = played(rule, *demand, begin=0)
    on, off = np.inf, 0.0
    for wanted, here in zip(demand, found, strict=True):
        on, off = min(on, off + start) + 1.0, min(off, on) + price * wanted
        # On in every cheapest past and still worth it: must be on. Off likewise.
        if on < off - 1e-9:
            assert here == 1
        if on > off + start + 1e-9:
            assert here == 0


# ---- the classic five ----------------------------------------------------------------------------------------------------


def test_react_adds_more_than_lacks_and_keeps_more_than_is_needed() -> None:
    assert played(React, 6.0, begin=4) == [6]
    assert played(React, 10.0, begin=4) == [11]
    assert played(React, 2.0, begin=4) == [3]
    assert played(React, 5.0, begin=10) == [6]
    assert played(React, 3.7, begin=4) == [4]
    assert played(React, 0.0, 5.0, begin=4) == [0, 6]


def test_adapt_adds_up_gains_and_is_slow_on_the_way_in() -> None:
    # 2 lack at a mean of 4: 2 by gain, and 1.1 * 6 less 4 is 3 more. Then 3 too many at 9 over a mean of 17/3:
    # a quarter of -4.76 is -1.19, one VM.
    assert played(Adapt, 4.0, 6.0, 6.0, begin=4) == [4, 9, 8]


def test_hist_expects_what_the_hour_needed_and_corrects_by_its_errors() -> None:
    day = [6.0 if hour == 5 else 2.0 for hour in range(24)]
    for came, then in ((6.0, 2), (4.0, 2), (8.0, 3)):
        wanted = played(Hist, *day, *([2.0] * 5), came, begin=2, tick_s=HOUR_S)
        assert wanted[24 + 4 : 24 + 6] == [6, then]
    # On the first day it follows.
    assert played(Hist, *day, begin=2, tick_s=HOUR_S)[:7] == [2, 2, 2, 2, 2, 6, 2]


def test_hist_follows_demand_where_it_was_short_too_often() -> None:
    rising = [2.0, 2.0, 2.0, 2.0, 2.0, 3.0, 5.0, 8.0, 12.0, 17.0, 23.0]
    wanted = played(Hist, *([2.0] * 24), *rising, begin=2, tick_s=HOUR_S)
    # 2 and a fifth of what the last five lacked; after six ticks too short, 1.05 * 23.
    assert wanted[24 + 4 :] == [2, 3, 3, 4, 6, 9, 25]


def test_reg_goes_out_by_need_and_in_by_a_parabola() -> None:
    assert played(Reg, 3.0, begin=2) == [4]
    # A parabola that ends at 3 is found again, and one bad tick hardly moves it.
    demand = [0.006 * (59.0 - at) ** 2 + 3.0 for at in range(60)]
    assert played(Reg, *demand, begin=30)[-1] == 4
    dip = [*demand[:-1], 0.5]
    at_last = np.polyval(np.polyfit(np.arange(60), dip, 2), 59)
    assert played(Reg, *dip, begin=30)[-1] == int(np.ceil(1.2 * np.ceil(at_last))) == 4


def test_burg_finds_the_models_that_are_known() -> None:
    fading = 0.8 ** np.arange(20.0)[:, np.newaxis]
    np.testing.assert_allclose(burg(fading, 1)[0], 2 * 0.8 / (1 + 0.64))
    wave = np.sin(0.3 * np.arange(2000.0))[:, np.newaxis]
    np.testing.assert_allclose(burg(wave, 2)[:, 0], [2 * np.cos(0.3), -1.0], atol=5e-3)
    assert not burg(np.zeros((20, 3)), 9).any()


def test_conpaas_weighs_the_next_twenty_by_their_distance() -> None:
    assert played(ConPaaS, *steps((4.2, 25)), begin=5)[-1] == 5
    demand = [14.0 + 9.0 * np.sin(0.3 * at) for at in range(20)]
    around = np.array(demand) - np.mean(demand)
    weights = burg(around[:, np.newaxis], 9)[:, 0]
    course = list(around)
    for _ in range(20):
        course.append(sum(w * course[-1 - lag] for lag, w in enumerate(weights)))
    expected = np.mean(demand) + np.average(course[20:], weights=range(1, 21))
    assert played(ConPaaS, *demand, begin=5)[-1] == int(np.ceil(expected))
    assert np.ceil(expected) != np.ceil(np.mean(demand) + np.mean(course[20:]))


# ---- by the time of the day ----------------------------------------------------------------------------------------------


def test_periodic_quantile_takes_its_level_of_the_days_before() -> None:
    params = lane_params(3, tick_s=HOUR_S, minimum=0, maximum=30)
    fleet = Fleet(params, np.array([1, 1, 1]))
    peer = PeriodicQuantile(params, level=np.array([0.0, 0.5, 1.0]), ahead_s=60.0)
    for day in (2.0, 4.0, 6.0, 4.0):
        found = [fleet.go(peer, np.full(3, day * VM)).desired.tolist() for _ in range(24)]
    assert found[12] == [2, 4, 6]


def test_periodic_quantile_follows_on_the_first_day_and_looks_a_lead_time_ahead() -> None:
    rule = lambda p: PeriodicQuantile(p, level=1.0, ahead_s=HOUR_S)  # noqa: E731
    day = [9.0 if hour == 12 else 2.0 for hour in range(24)]
    wanted = played(rule, *day, *day, begin=2, tick_s=HOUR_S)
    assert wanted[12] == 9
    # At 10:00 the hour from 11:00 on is looked at, with those beside it.
    assert wanted[24:][8:14] == [2, 9, 9, 9, 2, 2]


@given(seed=st.integers(0, 10**6), level=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
@settings(max_examples=30, deadline=None)
def test_quantiles_leave_out_what_is_unknown(seed: int, level: float) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(int(rng.integers(1, 12)), 4))
    values[rng.random(values.shape) < 0.3] = np.nan
    found = quantile_of(values, level)
    for column, here in zip(values.T, found, strict=True):
        known = column[~np.isnan(column)]
        np.testing.assert_allclose(here, np.quantile(known, level) if len(known) else np.nan)


# ---- with hindsight ----------------------------------------------------------------------------------------------------


def test_the_oracle_sees_as_far_as_a_start_takes() -> None:
    demand = np.array([1.0, 1.0, 5.0, 1.0, 1.0, 1.0]) * VM
    params = lane_params(1, tick_s=60.0, minimum=0, maximum=30)
    first = round(BEGIN_S / 60.0)
    peer = ShortOracle(params, demand, first + 1, lead_ticks=1, break_even_s=60.0)
    fleet = Fleet(params, np.array([1]))
    found = [int(fleet.go(peer, np.array([UNKNOWN])).desired[0]) for _ in demand]
    assert found == [1, 5, 5, 5, 1, 1]
