"""The clairvoyant optimum, compared with trying every schedule and with the linear program."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.simulator.judging import clairvoyant
from autoscaler.simulator.judging.clairvoyant import Front, Optimum, Terms, peak_vms, warm_pool

TERMS = Terms(tick_s=60.0, vm_capacity=100.0, in_service_per_h=60.0)
"""One unit of money per VM and tick."""


def cheapest(demand: np.ndarray, terms: Terms, price: float) -> Optimum:
    return clairvoyant.cheapest(demand, terms, (price,))[0]


def every_schedule(ticks: int, most: int) -> np.ndarray:
    return np.array(list(itertools.product(range(most + 1), repeat=ticks)), np.int64)


def by_trying_all(demand: np.ndarray, terms: Terms, price: float, *, least_ticks: int = 0) -> float:
    """The least objective over all schedules, each priced tick by tick from the definition."""
    top = math.ceil(np.nanmax(demand, initial=0.0) / terms.vm_capacity)
    top = max(min(top, terms.ceiling), terms.minimum, terms.initial)
    vms = every_schedule(len(demand), top)
    started = np.maximum(np.diff(vms, axis=1, prepend=terms.initial), 0)
    allowed = (started[:, : terms.lead_ticks] == 0).all(axis=1)
    late = vms[:, terms.lead_ticks :]
    allowed &= (late >= terms.minimum).all(axis=1) & (vms <= max(terms.ceiling, terms.minimum)).all(axis=1)
    allowed &= (vms[:, : terms.lead_ticks] >= min(terms.minimum, terms.initial)).all(axis=1)
    for tick in range(len(demand)):
        first = max(tick - least_ticks + 1, 0)
        allowed &= vms[:, tick] >= (started[:, first : tick + 1].sum(axis=1) if least_ticks else 0)
    work = np.where(np.isnan(demand), 0.0, demand)
    missing = np.maximum(work - vms * terms.vm_capacity, 0.0).sum(axis=1) * terms.tick_s
    money = vms.sum(axis=1) * terms.vm_tick + started.sum(axis=1) * terms.per_start + disks_of(vms, terms)
    return float((money + price * missing)[allowed].min())


def disks_of(vms: np.ndarray, terms: Terms) -> np.ndarray:
    """What the disks of every schedule cost: those of the VMs that exist, and those of more while they serve."""
    stored = np.maximum(vms, terms.provisioned).sum(axis=1)
    return stored * terms.tick_s / 3600.0 * terms.stopped_per_h


small = st.lists(
    st.one_of(st.floats(0, 320), st.sampled_from([0.0, 100.0, 300.0, float("nan")])), min_size=1, max_size=6
).map(np.array)


@st.composite
def some_terms(draw: st.DrawFn) -> Terms:
    return replace(
        TERMS,
        start=draw(st.floats(0, 6)),
        lead_ticks=draw(st.integers(0, 3)),
        initial=draw(st.integers(0, 3)),
        minimum=draw(st.integers(0, 2)),
        ceiling=draw(st.integers(1, 4)),
        stopped_per_h=draw(st.sampled_from([0.0, 6.0, 300.0])),
        provisioned=draw(st.integers(0, 3)),
    )


@given(small, some_terms(), st.floats(0, 0.01))
@settings(max_examples=300, deadline=None)
def test_no_schedule_is_cheaper(demand: np.ndarray, terms: Terms, price: float) -> None:
    found = cheapest(demand, terms, price)
    assert found.exact
    assert found.objective == pytest.approx(by_trying_all(demand, terms, price), rel=1e-9, abs=1e-6)


@given(small, some_terms(), st.floats(0, 0.01), st.integers(2, 4))
@settings(max_examples=120, deadline=None)
def test_where_a_minimum_billing_binds_the_cheapest_is_a_lower_bound_and_says_so(
    demand: np.ndarray, terms: Terms, price: float, least: int
) -> None:
    terms = replace(terms, minimum_billing_s=60.0 * least)
    best = by_trying_all(demand, terms, price, least_ticks=least)
    found = cheapest(demand, terms, price)
    assert found.objective <= best + 1e-6
    assert found.exact == ("lower bound" not in found.remark)
    if found.exact:
        assert found.objective == pytest.approx(best, rel=1e-9, abs=1e-6)


def by_linear_program(demand: np.ndarray, terms: Terms, price: float) -> np.ndarray:
    """The schedule of least cost as HiGHS finds it: VMs, starts, whole VMs missing, the part of one, VMs beyond those that exist."""
    optimize, sparse = pytest.importorskip("scipy.optimize"), pytest.importorskip("scipy.sparse")
    wanted, ticks = demand / terms.vm_capacity, len(demand)
    early = np.arange(ticks) < terms.lead_ticks
    need = np.ceil(wanted)
    lost = price * terms.vm_capacity * terms.tick_s
    one, none = sparse.eye_array(ticks), None
    step = one - sparse.diags_array([np.ones(ticks - 1)], offsets=[-1], shape=(ticks, ticks))
    # The rows: x_t - x_(t-1) <= s_t; x_t + a_t + b_t >= need_t; x_t - y_t <= VMs that exist.
    rows = [[step, -one, none, none, none], [-one, none, -one, -one, none], [one, none, none, none, -one]]
    before = np.concatenate(([terms.initial], np.zeros(ticks - 1)))
    zero, most, least = np.zeros(ticks), max(terms.ceiling, terms.minimum), min(terms.minimum, terms.initial)
    bounds = [
        (np.where(early, least, terms.minimum), np.full(ticks, float(most))),
        (zero, np.where(early, 0.0, np.inf)),
        (zero, np.full(ticks, np.inf)),
        (zero, np.ones(ticks)),
        (zero, np.full(ticks, np.inf)),
    ]
    part = np.where(need > 0, wanted - (need - 1.0), 0.0)
    prices = (zero + terms.vm_tick, zero + terms.per_start, zero + lost, lost * part, zero + terms.disk_tick)
    found = optimize.linprog(
        c=np.concatenate(prices),
        A_ub=sparse.bmat(rows, format="csr"),
        b_ub=np.concatenate((before, -need, np.full(ticks, float(terms.provisioned)))),
        bounds=np.concatenate([np.column_stack(pair) for pair in bounds]),
        method="highs",
    ).x[:ticks]
    vms = np.rint(found).astype(np.int64)
    assert np.abs(found - vms).max() < 1e-6
    return vms


@given(st.integers(0, 10**6), some_terms(), st.floats(1e-4, 0.01))
@settings(max_examples=25, deadline=None)
def test_recursion_and_linear_program_agree(seed: int, terms: Terms, price: float) -> None:
    rng = np.random.default_rng(seed)
    demand = np.maximum(np.cumsum(rng.normal(0, 60, 150)) + 300, 0.0)
    terms = replace(terms, ceiling=terms.ceiling + 6)
    found = cheapest(demand, terms, price)
    vms = by_linear_program(demand, terms, price)
    starts = np.maximum(np.diff(vms, prepend=terms.initial), 0).sum()
    missing = np.maximum(demand - vms * terms.vm_capacity, 0.0).sum() * terms.tick_s
    money = vms.sum() * terms.vm_tick + starts * terms.per_start + price * missing
    money += disks_of(vms[np.newaxis], terms)[0]
    assert found.objective == pytest.approx(money, rel=1e-9)


@given(small, some_terms())
@settings(max_examples=100, deadline=None)
def test_at_an_infinite_price_everything_is_served_that_can_be(demand: np.ndarray, terms: Terms) -> None:
    found = cheapest(demand, terms, math.inf)
    need = np.ceil(np.nan_to_num(demand) / terms.vm_capacity - 1e-9)
    late = np.arange(len(demand)) >= terms.lead_ticks
    reach = np.where(late, max(terms.ceiling, terms.minimum), min(terms.initial, terms.ceiling))
    assert (found.vms >= np.minimum(need, reach)).all()


def test_a_schedule_by_hand() -> None:
    # One VM at 1 a tick and 2 a start. A gap of two ticks is bridged or not at the same price, three are not.
    terms = replace(TERMS, start=2.0)
    demand = np.array([100.0, 0.0, 100.0, 0.0, 0.0, 0.0, 100.0, 0.0])
    found = cheapest(demand, terms, 0.01)
    assert found.vms.tolist() == [1, 1, 1, 0, 0, 0, 1, 0]
    assert (found.running_cost, found.start_cost, found.starts) == (4.0, 4.0, 2)
    assert (found.unserved_work, found.objective) == (0.0, 8.0)
    # At 2.9 per full VM-tick a lone spike that costs 3 to serve is left.
    left = cheapest(demand, terms, 2.9 / 6000)
    assert left.vms.tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    assert left.unserved_work == 6000.0


def test_the_billed_part_of_a_start_is_money_and_the_disks_are_paid_apart() -> None:
    terms = replace(TERMS, start=0.5, start_billed_s=90.0, stopped_per_h=6.0, provisioned=5)
    found = cheapest(np.array([0.0, 100.0]), terms, 1.0)
    assert found.start_cost == pytest.approx(2.0)
    assert found.running_cost == pytest.approx(1.0)
    assert found.storage_cost == pytest.approx(5 * 6.0 * 2 / 60)
    assert found.cost == pytest.approx(4.0)


def test_where_starts_cost_nothing_a_vm_goes_for_one_tick() -> None:
    demand = np.array([100.0, 0.0, 100.0, 0.0, 100.0])
    found = cheapest(demand, replace(TERMS, initial=1, lead_ticks=2), 1.0)
    assert found.vms.tolist() == [1, 0, 1, 0, 1]
    dear = cheapest(demand, replace(TERMS, start=5.0, initial=1, lead_ticks=2), 1.0)
    assert dear.vms.max() == dear.vms.min() == 1


def test_before_the_first_start_serves_only_the_first_vms_do() -> None:
    found = cheapest(np.full(5, 300.0), replace(TERMS, initial=1, lead_ticks=2), math.inf)
    assert found.vms.tolist() == [1, 1, 3, 3, 3]
    assert found.unserved_share == pytest.approx(400 / 1500)


def test_nothing_wanted_needs_nothing_and_an_unknown_share() -> None:
    found = cheapest(np.zeros(4), TERMS, 1.0)
    assert found.vms.tolist() == [0, 0, 0, 0]
    assert found.cost == 0.0
    assert math.isnan(found.unserved_share)
    assert Front(np.zeros(4), TERMS).serving(0.999).cost == 0.0


def two_days() -> np.ndarray:
    rng = np.random.default_rng(3)
    hour = np.arange(2 * 1440) / 60
    return np.maximum(600 + 500 * np.sin(hour / 24 * 2 * np.pi) + rng.gamma(1.0, 60.0, len(hour)), 0.0)


@pytest.mark.parametrize("share", [0.0, 0.9, 0.999, 1.0])
def test_no_price_serves_a_share_for_less(share: float) -> None:
    demand, terms = two_days(), replace(TERMS, start=1.0)
    front = Front(demand, terms)
    found = front.serving(share)
    assert found.unserved_share <= 1 - share + 1e-9
    assert found.exact
    assert front.cost_serving(share) <= found.cost + 1e-9
    for price in np.geomspace(1e-6, 1e-1, 20):
        other = cheapest(demand, terms, price)
        if other.unserved_share <= 1 - share:
            assert other.cost >= found.cost - 1e-9
        # The front is below every schedule that there is.
        assert other.cost >= front.cost_serving(1 - other.unserved_share) * (1 - 1e-9)


@given(small, some_terms(), st.floats(0.0, 1.0))
@settings(max_examples=60, deadline=None)
def test_no_schedule_lies_below_the_front(demand: np.ndarray, terms: Terms, share: float) -> None:
    terms = replace(terms, lead_ticks=0, minimum=0)
    front = Front(demand, terms)
    top = max(math.ceil(np.nanmax(demand, initial=0.0) / terms.vm_capacity), terms.initial)
    vms = every_schedule(len(demand), min(top, terms.ceiling))
    started = np.maximum(np.diff(vms, axis=1, prepend=terms.initial), 0).sum(axis=1)
    money = vms.sum(axis=1) * terms.vm_tick + started * terms.per_start + disks_of(vms, terms)
    work = np.nan_to_num(demand)
    unserved = np.maximum(work - vms * terms.vm_capacity, 0.0).sum(axis=1) * terms.tick_s
    enough = unserved <= (1 - share) * front.work
    least = front.cost_serving(share)
    if enough.any():
        assert money[enough].min() >= least - 1e-6
    corner = front.serving(share)
    # Pieces below a billionth of a VM or of the work are nothing.
    like_it = np.abs(unserved - corner.unserved_work) <= 1e-8 * front.work + 1e-6
    assert np.abs(money[like_it] - corner.cost).min() < 1e-6


def test_a_share_out_of_reach_is_answered_with_the_most_that_can_be_served() -> None:
    found = Front(np.full(10, 500.0), replace(TERMS, ceiling=3)).serving(0.999)
    assert found.vms.tolist() == [3] * 10
    assert found.unserved_share == pytest.approx(0.4)


def test_dearer_shortage_never_means_more_of_it() -> None:
    demand, terms = two_days(), replace(TERMS, start=1.5)
    ladder = [cheapest(demand, terms, p) for p in np.geomspace(1e-5, 1e-2, 12)]
    unserved = [o.unserved_work for o in ladder]
    assert unserved == sorted(unserved, reverse=True)
    assert [o.cost for o in ladder] == sorted(o.cost for o in ladder)
    assert unserved[0] > unserved[-1]


def test_chunks_of_a_long_trace_do_not_show() -> None:
    rng = np.random.default_rng(5)
    demand = np.maximum(np.cumsum(rng.normal(0, 20, 9000)) + 300, 0.0)
    terms, price = replace(TERMS, start=3.0, initial=2), 4e-4
    found = cheapest(demand, terms, price)
    # From any cut on, the rest of an optimal schedule is optimal for the rest.
    for cut in (4095, 4096, 5000):
        rest = cheapest(demand[cut:], replace(terms, initial=int(found.vms[cut - 1])), price)
        tail = _objective(found, demand, terms, price, cut)
        assert tail == pytest.approx(rest.objective, rel=1e-12)


def _objective(found: Optimum, demand: np.ndarray, terms: Terms, price: float, cut: int) -> float:
    vms = found.vms[cut - 1 :]
    starts = np.maximum(np.diff(vms), 0).sum()
    missing = np.maximum(demand[cut:] - vms[1:] * terms.vm_capacity, 0).sum() * terms.tick_s
    return float(vms[1:].sum() * terms.vm_tick + starts * terms.per_start + price * missing)


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=6), st.floats(0.1, 2), st.floats(0, 5), st.integers(0, 3)
)
@settings(max_examples=100, deadline=None)
def test_no_pool_is_cheaper(in_service: list[int], hold: float, make: float, exist: int) -> None:
    need = np.array(in_service, np.int64)
    pool = warm_pool(need, per_vm_tick=hold, per_provision=make, provisioned=exist)
    every = every_schedule(len(need), max(*in_service, exist))
    every = every[(every >= need).all(axis=1)]

    def price(provisioned: np.ndarray) -> np.ndarray:
        made = np.maximum(np.diff(provisioned, axis=-1, prepend=exist), 0).sum(axis=-1)
        return provisioned.sum(axis=-1) * hold + made * make

    assert (pool >= need).all()
    assert price(pool) == pytest.approx(price(every).min())


def test_impossible_questions_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="at least one tick"):
        Front(np.array([]), TERMS)
    with pytest.raises(ValueError, match="between 0 and 1"):
        Front(np.ones(3), TERMS).serving(99.9)


def test_sizing_for_the_peak_keeps_to_the_bounds() -> None:
    demand = np.array([np.nan, 120.0, 340.0])
    assert peak_vms(demand, TERMS) == 4
    # What is exactly the work of so many VMs needs no more, whatever the last bit of a division.
    assert peak_vms(np.array([0.7]), replace(TERMS, vm_capacity=0.1)) == 7
    assert peak_vms(np.array([300.0]), TERMS) == 3
    assert peak_vms(demand, replace(TERMS, ceiling=2)) == 2
    assert peak_vms(np.array([np.nan]), replace(TERMS, minimum=3)) == 3


def test_a_corner_of_the_front_that_bills_no_more_than_its_minimum_is_exact():
    steady, brief = np.full(20, 250.0), np.where(np.arange(20) == 10, 250.0, 0.0)
    terms = replace(TERMS, start=1.0, minimum_billing_s=300.0, initial=0, lead_ticks=1)
    found = [Front(demand, terms).serving(0.9) for demand in (steady, brief)]
    assert [each.exact for each in found] == [True, False]
    assert "lower bound" not in found[0].remark
    assert "lower bound" in found[1].remark
    assert cheapest(steady, terms, 10.0).remark == found[0].remark, "no linear program is needed"
