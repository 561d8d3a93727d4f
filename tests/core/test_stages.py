"""Each stage of the chain on its own, by tables of cases."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.core import guards, sizing, trust
from autoscaler.core.decide import CHAIN, decide
from autoscaler.core.state import LaneState
from autoscaler.core.types import Freshness, Reason, Stage
from tests.core.builders import apply, lane_params, outlook, snapshot

NOW_S = 1_000_000.0


def run(stage, wish: int = 0, *, params=None, state=None, view=None, seen=None) -> tuple[int, Reason]:
    params = lane_params() if params is None else params
    state = LaneState.empty(params) if state is None else state
    view = snapshot() if view is None else view
    value, reason = apply(stage, params, state, view, outlook() if seen is None else seen, np.array([wish]))
    return int(value[0]), Reason(int(reason[0]))


def test_the_chain_has_every_stage_once_in_order():
    assert list(CHAIN) == list(Stage)


@pytest.mark.parametrize(
    ("demand", "in_service", "starting", "expected"),
    [
        (0.0, 4, 0, (0, Reason.NONE)),
        (1.0, 0, 0, (1, Reason.DEMAND)),
        (400.0, 0, 0, (5, Reason.DEMAND)),  # 400 x 1.25 = 500, exactly five VMs
        (400.1, 0, 0, (6, Reason.DEMAND)),
        (880.0, 10, 0, (10, Reason.TOLERANCE)),  # 1100 -> 11, within 10 % of 10
        (970.0, 10, 0, (13, Reason.DEMAND)),
        (880.0, 6, 4, (10, Reason.TOLERANCE)),
        (np.nan, 4, 0, (0, Reason.NONE)),
    ],
)
def test_reactive(demand: float, in_service: int, starting: int, expected: tuple[int, Reason]):
    params = lane_params(reactive=True, headroom=0.25, tolerance=0.1)
    view = snapshot(demand=demand, in_service=in_service, starting=starting)
    assert run(sizing.reactive, params=params, view=view) == expected


@pytest.mark.parametrize(
    ("demand", "expected"),
    [
        (1900.0, (20, Reason.TOLERANCE)),  # 21 wanted, and 20 still leave more than half of the headroom
        (1950.0, (22, Reason.DEMAND)),  # 22 wanted is within 10 % too, but 20 leave less than half of it
    ],
)
def test_the_tolerance_eats_at_most_half_of_the_headroom(demand: float, expected: tuple[int, Reason]):
    params = lane_params(reactive=True, headroom=0.1, tolerance=0.1)
    assert run(sizing.reactive, params=params, view=snapshot(demand=demand, in_service=20)) == expected


def test_reactive_plans_for_more_than_is_seen_where_demand_is_censored_and_does_not_compound():
    params = lane_params(reactive=True, headroom=0.25, censored_growth=1.6)
    view = snapshot(demand=400.0, censored=True, in_service=4)
    assert run(sizing.reactive, params=params, view=view) == (8, Reason.CENSORED)
    view = snapshot(demand=400.0, censored=True, in_service=4, starting=4)
    assert run(sizing.reactive, params=params, view=view) == (8, Reason.CENSORED)


@pytest.mark.parametrize(
    ("demand", "expected"),
    [
        (850.0, (11, Reason.STEP_RULE)),  # +10 % of 10
        (1200.0, (13, Reason.STEP_RULE)),  # +30 % of 10
        (600.0, (10, Reason.TOLERANCE)),
        (300.0, (9, Reason.STEP_RULE)),
        (np.nan, (0, Reason.NONE)),
    ],
)
def test_steps(demand: float, expected: tuple[int, Reason]):
    params = lane_params(
        steps=True,
        step_lower=np.array([[0.8], [1.0], [-np.inf]]),
        step_upper=np.array([[1.0], [np.inf], [0.4]]),
        step_vms=np.array([[0], [0], [-1]]),
        step_share=np.array([[0.1], [0.3], [0.0]]),
    )
    assert run(sizing.steps, params=params, view=snapshot(demand=demand, in_service=10)) == expected


def test_steps_by_a_small_negative_share_move_one_vm_and_never_below_zero():
    params = lane_params(
        steps=True,
        step_lower=np.array([[-np.inf]]),
        step_upper=np.array([[0.4]]),
        step_vms=np.array([[0]]),
        step_share=np.array([[-0.1]]),
    )
    assert run(sizing.steps, params=params, view=snapshot(demand=10.0, in_service=3)) == (2, Reason.STEP_RULE)
    assert run(sizing.steps, params=params, view=snapshot(demand=10.0, in_service=1)) == (0, Reason.NONE)


def test_schedule_takes_the_highest_open_window_and_ends_are_exclusive():
    params = lane_params(
        schedule=True,
        window_start_s=np.array([[NOW_S - 10], [NOW_S], [NOW_S - 100]]),
        window_end_s=np.array([[NOW_S + 10], [NOW_S + 1], [NOW_S]]),
        window_floor=np.array([[5], [8], [50]]),
    )
    assert run(sizing.schedule, params=params) == (8, Reason.SCHEDULE)
    assert run(sizing.schedule, wish=9, params=params) == (9, Reason.NONE)
    assert run(sizing.schedule, params=params, view=snapshot(now_s=NOW_S + 10)) == (0, Reason.NONE)


@pytest.mark.parametrize(
    ("in_service", "expected"),
    [
        (3, (6, Reason.FORECAST_COVER)),
        (6, (6, Reason.FORECAST_COVER)),
        (7, (7, Reason.FORECAST_KEEP)),
        (20, (9, Reason.FORECAST_KEEP)),
    ],
)
def test_cover_orders_up_to_a_quantile_with_a_dead_zone(in_service: int, expected: tuple[int, Reason]):
    seen = outlook(at_lead=600.0, peak=900.0)
    params = lane_params(cover=True)
    assert run(sizing.cover, params=params, view=snapshot(in_service=in_service), seen=seen) == expected


def test_cover_says_nothing_without_fresh_data():
    view = snapshot(in_service=3, freshness=int(Freshness.STALE))
    assert run(sizing.cover, params=lane_params(cover=True), view=view, seen=outlook(at_lead=600.0)) == (
        0,
        Reason.NONE,
    )


def test_stabilisation_holds_the_highest_wish_of_its_window_and_never_scales_out():
    params = lane_params(stabilisation_ticks=3)
    state = LaneState.empty(params)
    got = [
        run(
            guards.stabilisation,
            wish,
            params=params,
            state=state,
            view=snapshot(now_s=NOW_S + 10 * i, in_service=8),
        )
        for i, wish in enumerate([9, 4, 4, 4, 4])
    ]
    # The 9 of the first tick holds all eight VMs (not nine: holding is not scaling out) for three ticks.
    assert [value for value, _ in got] == [9, 8, 8, 4, 4]
    assert got[1][1] == Reason.STABILISATION
    assert got[3][1] == Reason.NONE


def test_the_first_reading_after_a_loss_longer_than_the_window_stops_nothing():
    params = lane_params(stabilisation_ticks=15, reactive=True, loss_hold_s=20.0)
    state = LaneState.empty(params)
    told = []
    # For as long as it was away, data that has come back is doubted; until the window is over, the last good wish counts.
    for i, work in enumerate([600.0, *[None] * 10, *[300.0] * 16]):
        lost = {"demand": np.nan, "freshness": int(Freshness.ABSENT)} if work is None else {"demand": work}
        view = snapshot(now_s=NOW_S + 10 * i, in_service=6, **lost)
        decided = decide(params, state, view, outlook())
        told.append((int(decided.desired[0]), Reason(int(decided.reason[Stage.DATA, 0]))))
    assert [desired for desired, _ in told] == [*[6] * 25, 3, 3]
    assert told[1:3] == [(6, Reason.DATA_ABSENT)] * 2


def test_a_long_window_is_covered_at_least_and_forgotten_soon_after():
    params = lane_params(stabilisation_ticks=100)
    state = LaneState.empty(params)
    values = [
        run(
            guards.stabilisation,
            wish,
            params=params,
            state=state,
            view=snapshot(now_s=NOW_S + 10 * i, in_service=8),
        )[0]
        for i, wish in enumerate([8] + [2] * 110)
    ]
    held = values.index(2)
    assert 100 <= held <= 104


@pytest.mark.parametrize(
    ("fields", "wish", "expected"),
    [
        ({"freshness": int(Freshness.ABSENT)}, 0, (6, Reason.DATA_ABSENT)),
        ({"freshness": int(Freshness.STALE)}, 3, (6, Reason.DATA_STALE)),
        ({"freshness": int(Freshness.INVALID)}, 3, (6, Reason.DATA_INVALID)),
        ({"coverage": 0.5}, 3, (6, Reason.LOW_COVERAGE)),
        ({"coverage": 0.5}, 9, (9, Reason.NONE)),
        ({"freshness": int(Freshness.ABSENT)}, 9, (9, Reason.NONE)),
        ({"coverage": 0.7}, 3, (3, Reason.NONE)),
        ({"listed": False}, 3, (6, Reason.LISTING_INCOMPLETE)),
        ({"listed": False}, 9, (9, Reason.NONE)),
    ],
)
def test_scale_in_needs_fresh_and_sufficient_data(fields: dict, wish: int, expected: tuple[int, Reason]):
    params = lane_params(min_coverage=0.7)
    view = snapshot(in_service=4, starting=2, **fields)
    assert run(trust.data, wish, params=params, view=view) == expected


def test_a_schedule_only_lane_needs_no_data():
    view = snapshot(in_service=4, freshness=int(Freshness.ABSENT))
    assert run(trust.data, 1, params=lane_params(uses_signal=False), view=view) == (1, Reason.NONE)


def test_cooldowns_per_direction():
    params = lane_params(cooldown_out_s=60.0, cooldown_in_s=120.0)
    state = LaneState.empty(params)
    view = snapshot(in_service=5)
    assert run(guards.cooldown, 9, params=params, state=state, view=view) == (9, Reason.NONE)
    state.last_out_s[:] = NOW_S - 59.0
    assert run(guards.cooldown, 9, params=params, state=state, view=view) == (5, Reason.COOLDOWN_OUT)
    assert run(guards.cooldown, 2, params=params, state=state, view=view) == (2, Reason.NONE)
    state.last_out_s[:] = NOW_S - 60.0
    assert run(guards.cooldown, 9, params=params, state=state, view=view) == (9, Reason.NONE)
    state.last_starting_s[:] = NOW_S - 119.0
    assert run(guards.cooldown, 2, params=params, state=state, view=view) == (5, Reason.COOLDOWN_IN)
    state.last_starting_s[:] = NOW_S - 120.0
    state.last_in_s[:] = NOW_S - 10.0
    assert run(guards.cooldown, 2, params=params, state=state, view=view) == (5, Reason.COOLDOWN_IN)


def test_a_cooldown_runs_from_the_order_on_also_where_its_vms_served_at_once():
    params = lane_params(reactive=True, cooldown_out_s=25.0, cooldown_in_s=35.0)
    state = LaneState.empty(params)

    def desired(at_s: float, demand: float, in_service: int) -> tuple[int, int]:
        view = snapshot(now_s=NOW_S + at_s, demand=demand, in_service=in_service)
        decision = decide(params, state, view, None)
        return int(decision.start[0]), int(decision.stop[0])

    assert desired(0.0, 700.0, 5) == (2, 0)
    # Nobody is ever seen starting: what was ordered serves at the next tick.
    assert [desired(at_s, 900.0, 7) for at_s in (10.0, 20.0)] == [(0, 0)] * 2
    assert desired(30.0, 300.0, 7) == (0, 0)
    assert desired(35.0, 300.0, 7) == (0, 4)
    assert desired(45.0, 100.0, 3) == (0, 0)
    assert desired(60.0, 500.0, 3) == (2, 0)


@pytest.mark.parametrize(
    ("guard", "out", "stops", "held"),
    [
        ({"cooldown_out_s": 25.0}, True, False, (0, 0)),
        ({"cooldown_in_s": 25.0}, True, True, (0, 0)),
        ({"cooldown_in_s": 25.0}, False, True, (0, 0)),
        ({"rate_out_vms": 2.0}, True, False, (0, 0)),
        ({"rate_in_vms": 2.0}, False, True, (0, 0)),
        ({}, True, False, (2, 0)),
        ({}, False, True, (0, 2)),
    ],
)
def test_each_of_the_guards_that_look_back_does_so_alone(guard: dict, out: bool, stops: bool, held: tuple):
    params = lane_params(reactive=True, **{"rate_out_vms": np.inf, "rate_in_vms": np.inf, **guard})
    state = LaneState.empty(params)

    def moved(at_s: float, demand: float, in_service: int) -> tuple[int, int]:
        view = snapshot(now_s=NOW_S + at_s, demand=demand, in_service=in_service)
        decision = decide(params, state, view, None)
        return int(decision.start[0]), int(decision.stop[0])

    assert moved(0.0, 700.0 if out else 300.0, 5) == ((2, 0) if out else (0, 2))
    serve = 7 if out else 3
    assert moved(10.0, 100.0 * (serve - 2 if stops else serve + 2), serve) == held


def test_the_pause_before_a_scale_in_begins_when_the_last_vm_has_started():
    params = lane_params(reactive=True, cooldown_in_s=25.0, rate_out_vms=np.inf, rate_in_vms=np.inf)
    state = LaneState.empty(params)
    decide(params, state, snapshot(demand=500.0, in_service=4, starting=1), None)
    stops = []
    for at_s in (20.0, 30.0):
        view = snapshot(now_s=NOW_S + at_s, demand=300.0, in_service=5)
        stops.append(int(decide(params, state, view, None).stop[0]))
    assert stops == [0, 2]


def test_bounds():
    params = lane_params(minimum=2, maximum=10)
    assert run(guards.bounds, 0, params=params) == (2, Reason.MINIMUM)
    assert run(guards.bounds, 11, params=params) == (10, Reason.MAXIMUM)
    assert run(guards.bounds, 7, params=params) == (7, Reason.NONE)


@pytest.mark.parametrize(
    ("fields", "wish", "expected"),
    [
        ({"floor": 4}, 1, (4, Reason.OVERRIDE_FLOOR)),
        ({"floor": 4}, 11, (10, Reason.MAXIMUM)),
        ({"floor": 1}, 0, (2, Reason.MINIMUM)),
        ({"floor": 14}, 1, (14, Reason.OVERRIDE_FLOOR)),
        ({"floor": 14}, 20, (14, Reason.OVERRIDE_FLOOR)),
        ({"ceiling": 5}, 8, (5, Reason.OVERRIDE_CEILING)),
        ({"ceiling": 5}, 0, (2, Reason.MINIMUM)),
        ({"ceiling": 30}, 20, (20, Reason.NONE)),
        ({"ceiling": 30}, 40, (30, Reason.OVERRIDE_CEILING)),
        ({"ceiling": 0}, 1, (0, Reason.OVERRIDE_CEILING)),
        ({"ceiling": 1}, 0, (1, Reason.OVERRIDE_CEILING)),
        ({"floor": 6, "ceiling": 3}, 9, (6, Reason.OVERRIDE_FLOOR)),
        ({"floor": 6, "ceiling": 3}, 4, (6, Reason.OVERRIDE_FLOOR)),
        ({"floor": 1, "ceiling": 0}, 0, (1, Reason.OVERRIDE_FLOOR)),
        ({"floor": 3, "ceiling": 12}, 7, (7, Reason.NONE)),
    ],
)
def test_an_operator_overrides_bounds(fields: dict, wish: int, expected: tuple[int, Reason]):
    params = lane_params(minimum=2, maximum=10)
    assert run(guards.bounds, wish, params=params, view=snapshot(**fields)) == expected


@pytest.mark.parametrize(
    ("fields", "wish", "expected"),
    [
        ({"may_stop": False}, 1, (6, Reason.PAUSED_STOP)),
        ({"may_stop": False}, 9, (9, Reason.NONE)),
        ({"may_start": False}, 9, (9, Reason.NONE)),
        ({"may_provision": False}, 9, (9, Reason.NONE)),
        ({"may_start": False, "may_provision": False}, 9, (6, Reason.PAUSED_START)),
        ({"may_start": False, "may_provision": False}, 3, (3, Reason.NONE)),
        ({"may_start": False, "may_provision": False, "may_stop": False}, 3, (6, Reason.PAUSED_STOP)),
        ({"may_start": False, "may_provision": False, "may_stop": False}, 6, (6, Reason.NONE)),
    ],
)
def test_pauses_hold_what_is_ordered(fields: dict, wish: int, expected: tuple[int, Reason]):
    view = snapshot(in_service=4, starting=2, **fields)
    assert run(guards.pause, wish, view=view) == expected


@pytest.mark.parametrize(
    ("fields", "provision", "expected"),
    [
        ({"may_start": False}, True, (0, 5, Reason.PAUSED_START)),
        ({"may_start": False}, False, (0, 0, Reason.PAUSED_START)),
        ({"may_start": False, "stopped": 0}, True, (0, 5, Reason.PROVISION)),
        ({"may_start": False, "stopped": 0}, False, (0, 0, Reason.WARM_POOL_EMPTY)),
        ({"may_provision": False}, True, (3, 0, Reason.PAUSED_PROVISION)),
        ({"may_provision": False, "provisioned": 24}, True, (3, 0, Reason.PAUSED_PROVISION)),
        ({"may_provision": False, "provisioned": 30}, True, (3, 0, Reason.WARM_POOL_EMPTY)),
        ({"may_provision": False}, False, (3, 0, Reason.WARM_POOL_EMPTY)),
        ({"may_provision": False, "stopped": 9}, True, (5, 0, Reason.NONE)),
    ],
)
def test_supply_under_a_pause(fields: dict, provision: bool, expected: tuple[int, int, Reason]):
    params = lane_params(reactive=True, provision=provision, max_provisioned=25)
    view = snapshot(**({"demand": 1000.0, "in_service": 5, "stopped": 3, "provisioned": 20} | fields))
    decision = decide(params, LaneState.empty(params), view, outlook())
    got = (int(decision.start[0]), int(decision.provision[0]), Reason(int(decision.reason[Stage.SUPPLY, 0])))
    assert got == expected
    assert decision.desired[0] == 10


def test_rate_limits_are_token_buckets_per_direction():
    params = lane_params(
        reactive=True, rate_out_vms=4.0, rate_out_period_s=60.0, rate_in_vms=2.0, rate_in_period_s=60.0
    )
    state = LaneState.empty(params)
    desired = []
    in_service = 2
    for i in range(4):
        decision = decide(
            params, state, snapshot(now_s=NOW_S + 15 * i, in_service=in_service, demand=2000.0), outlook()
        )
        desired.append(int(decision.desired[0]))
        in_service += int(decision.start[0])
    assert desired == [6, 7, 8, 9]  # four at once, then one every 15 s
    decision = decide(params, state, snapshot(now_s=NOW_S + 60, in_service=9, demand=0.0), outlook())
    assert (int(decision.stop[0]), Reason(int(decision.reason[Stage.RATE, 0]))) == (2, Reason.RATE_LIMIT_IN)


def test_what_may_stop_comes_back_at_the_pace_of_the_limit_on_stops():
    params = lane_params(
        reactive=True, rate_out_vms=9.0, rate_out_period_s=10.0, rate_in_vms=2.0, rate_in_period_s=60.0
    )
    state, in_service, stopped = LaneState.empty(params), 12, []
    for i in range(7):
        view = snapshot(now_s=NOW_S + 15.0 * i, in_service=in_service, demand=100.0)
        stopped.append(int(decide(params, state, view, None).stop[0]))
        in_service -= stopped[-1]
    assert stopped == [2, 0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize(("way", "other"), [("out", "in"), ("in", "out")])
def test_a_limit_that_is_there_again_at_each_tick_lends_nothing_to_a_slower_one(way: str, other: str):
    limits = {f"rate_{way}_vms": 4.0, f"rate_{way}_period_s": np.array([60.0, 600.0])}
    params = lane_params(
        2, reactive=True, **limits, **{f"rate_{other}_vms": 9.0, f"rate_{other}_period_s": 60.0}
    )
    state, changed = LaneState.empty(params), []
    for i in range(3):
        demand = 5000.0 if way == "out" else 0.0
        decision = decide(
            params, state, snapshot(2, now_s=NOW_S + 60.0 * i, in_service=20, demand=demand), None
        )
        changed.append((decision.start if way == "out" else decision.stop).tolist())
    assert changed == [[4, 4], [4, 0], [4, 0]]


def test_minimum_on_time_keeps_young_vms():
    view = snapshot(in_service=6, stoppable=2)
    assert run(guards.on_time, 1, view=view) == (4, Reason.MINIMUM_ON_TIME)
    assert run(guards.on_time, 5, view=view) == (5, Reason.NONE)


@pytest.mark.parametrize(
    ("stopped", "provision", "provisioned", "expected"),
    [
        (10, False, 20, (5, 0, Reason.NONE)),
        (3, False, 20, (3, 0, Reason.WARM_POOL_EMPTY)),
        (3, True, 20, (3, 2, Reason.PROVISION)),
        (3, True, 24, (3, 1, Reason.WARM_POOL_EMPTY)),
        (0, True, 25, (0, 0, Reason.WARM_POOL_EMPTY)),
        (0, True, 30, (0, 0, Reason.WARM_POOL_EMPTY)),
    ],
)
def test_supply(stopped: int, provision: bool, provisioned: int, expected: tuple[int, int, Reason]):
    params = lane_params(reactive=True, provision=provision, max_provisioned=25)
    view = snapshot(demand=1000.0, in_service=5, stopped=stopped, provisioned=provisioned)
    decision = decide(params, LaneState.empty(params), view, outlook())
    got = (int(decision.start[0]), int(decision.provision[0]), Reason(int(decision.reason[Stage.SUPPLY, 0])))
    assert got == expected
    assert decision.desired[0] == 10


def test_vms_in_service_are_not_stopped_to_make_room_for_starting_ones():
    params = lane_params(reactive=True)
    decision = decide(
        params, LaneState.empty(params), snapshot(demand=1000.0, in_service=10, starting=5), outlook()
    )
    assert (int(decision.desired[0]), int(decision.stop[0])) == (10, 0)


def test_the_warm_target_remembers_the_peak_and_adds_the_spare():
    params = lane_params(reactive=True, warm_memory_ticks=6, warm_spare=0.2, warm_minimum=1)
    state = LaneState.empty(params)
    wanted = []
    for i, demand in enumerate([1000.0, 300.0, 300.0, 300.0, 300.0, 300.0, 300.0]):
        decision = decide(
            params, state, snapshot(now_s=NOW_S + 10 * i, in_service=10, demand=demand), outlook()
        )
        wanted.append(int(decision.warm_target[0]))
    # 10 x 1.2 = 12 wanted in all while the peak is remembered; then 3 x 1.2 = 4.
    assert wanted == [2, 9, 9, 9, 9, 9, 1]


def test_nothing_is_held_for_an_operators_floor_beyond_the_maximum_once_it_is_lifted():
    params = lane_params(reactive=True, maximum=20, warm_memory_ticks=6, warm_spare=0.0)
    state = LaneState.empty(params)
    wanted = []
    for i, floor in enumerate([99, 99, 0, 0]):
        decision = decide(
            params,
            state,
            snapshot(now_s=NOW_S + 10 * i, in_service=10, demand=1000.0, floor=floor),
            outlook(),
        )
        wanted.append((int(decision.desired[0]), int(decision.warm_target[0])))
    assert wanted == [(99, 0), (99, 0), (10, 10), (10, 10)]


def test_a_lane_state_survives_dump_and_restore():
    params = lane_params(2, reactive=True, stabilisation_ticks=5, rate_in_vms=3.0)
    state = LaneState.empty(params)
    decide(params, state, snapshot(2, in_service=4, demand=[900.0, 0.0]), outlook(2))
    restored = LaneState.restore(state.dump())
    view = snapshot(2, now_s=NOW_S + 10, in_service=4, demand=[100.0, 100.0])
    one, two = decide(params, state, view, outlook(2)), decide(params, restored, view, outlook(2))
    np.testing.assert_array_equal(one.value, two.value)
    with pytest.raises(ValueError, match="version 7"):
        LaneState.restore(state.dump() | {"version": 7})
