"""One tick of five fleets, computed by hand. If this test changes, the meaning of the product changes.

Readings at 12:00:10 (now), one tick of 10 s, demand in requests per second, a VM does 100/s.

api (throughput, 3 VMs in service, 1 starting, 6 stopped):
    readings 110, 130, 120 -> demand 360, headroom 25 % -> 450 -> 5 VMs; 4 ordered -> start 1.
    forecast cover asks for its 95 % quantile of 500 -> 5; nothing more to raise. Rate, bounds: free.
batch (utilisation, 5 VMs in service of which 2 past their minimum on-time):
    readings 0.2 x5 -> demand 100, headroom 25 % -> 125 -> 2 VMs. The stabilisation window holds no more.
    Minimum on-time: only 2 may be stopped, so 3 stay: desired 3, stop 2.
quiet (throughput, 2 VMs in service, both readings 300 s old; policy allows 60 s):
    stale -> no proposal; scale-in is held at 2 by DATA; nothing moves.
held (throughput, 6 VMs in service; an operator has paused stops):
    readings 20 x6 -> demand 120, headroom 25 % -> 150 -> 2 VMs. PAUSE keeps the 6; nothing moves.
event (throughput, 2 VMs in service, 3 stopped; an operator's floor is 12, above the maximum of 10, and starts
from the warm pool are paused):
    readings 50 x2 -> demand 100 -> 125 -> 2 VMs. The floor makes that 12, which is desired. Nothing is started, and
    6 are provisioned, since at most 11 VMs may exist and 5 do: 8 will be in service.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.decide import decide
from autoscaler.core.demand import fold
from autoscaler.core.state import LaneState
from autoscaler.core.types import NO_CEILING, Freshness, Readings, Reason, Signal, Snapshot, Stage
from tests.core.builders import fold_params, lane_params, outlook

NOW_S = 1_772_452_810.0


def test_one_tick_by_hand():
    in_service = np.array([3, 5, 2, 6, 2])
    readings = Readings(
        lane=np.repeat(np.arange(5), in_service),
        value=np.array([110.0, 130.0, 120.0] + [0.2] * 5 + [90.0, 95.0] + [20.0] * 6 + [50.0] * 2),
        observed_at_s=np.repeat(
            [NOW_S - 10.0, NOW_S - 10.0, NOW_S - 300.0, NOW_S - 10.0, NOW_S - 10.0], in_service
        ),
        capacity=np.full(18, 100.0),
    )
    signal = [Signal.THROUGHPUT, Signal.UTILISATION, Signal.THROUGHPUT, Signal.THROUGHPUT, Signal.THROUGHPUT]
    samples = fold(fold_params(5, signal), readings, in_service, in_service * 100.0, NOW_S)

    np.testing.assert_allclose(samples.demand, [360.0, 100.0, np.nan, 120.0, 100.0])
    fresh = Freshness.FRESH
    assert samples.freshness.tolist() == [fresh, fresh, Freshness.STALE, fresh, fresh]
    assert samples.coverage.tolist() == [1.0, 1.0, 0.0, 1.0, 1.0]
    assert not samples.censored.any()

    params = lane_params(
        5,
        reactive=True,
        headroom=0.25,
        cover=[True, False, False, False, False],
        min_coverage=0.7,
        minimum=1,
        maximum=10,
        provision=[False, False, False, False, True],
        max_provisioned=11,
    )
    snapshot = Snapshot(
        now_s=NOW_S,
        tick=int(NOW_S // 10.0),
        demand=samples.demand,
        observed_at_s=samples.observed_at_s,
        freshness=samples.freshness,
        coverage=samples.coverage,
        censored=samples.censored,
        in_service=in_service,
        starting=np.array([1, 0, 0, 0, 0]),
        draining=np.zeros(5, np.int64),
        stopping=np.zeros(5, np.int64),
        stopped=np.array([6, 5, 8, 4, 3]),
        provisioned=np.array([10, 10, 10, 10, 5]),
        stoppable=np.array([3, 2, 2, 6, 2]),
        listed=np.ones(5, np.bool_),
        may_start=np.array([True, True, True, True, False]),
        may_provision=np.ones(5, np.bool_),
        may_stop=np.array([True, True, True, False, True]),
        floor=np.array([0, 0, 0, 0, 12]),
        ceiling=np.full(5, NO_CEILING),
    )
    seen = outlook(5, at_lead=[500.0] + [np.nan] * 4)
    decision = decide(params, LaneState.empty(params), snapshot, seen)

    assert decision.wish.tolist() == [5, 2, 0, 2, 2]
    assert decision.desired.tolist() == [5, 3, 2, 6, 12]
    assert decision.start.tolist() == [1, 0, 0, 0, 0]
    assert decision.stop.tolist() == [0, 2, 0, 0, 0]
    assert decision.provision.tolist() == [0, 0, 0, 0, 6]
    assert decision.warm_target.tolist() == [0, 0, 0, 0, 0]

    def stack(lane: int) -> list[tuple[Stage, Reason, int]]:
        return [
            (stage, Reason(int(decision.reason[stage, lane])), int(decision.value[stage, lane]))
            for stage in Stage
            if decision.reason[stage, lane] != Reason.NONE
        ]

    assert stack(0) == [(Stage.REACTIVE, Reason.DEMAND, 5)]
    assert stack(1) == [(Stage.REACTIVE, Reason.DEMAND, 2), (Stage.ON_TIME, Reason.MINIMUM_ON_TIME, 3)]
    assert stack(2) == [(Stage.DATA, Reason.DATA_STALE, 2)]
    assert stack(3) == [(Stage.REACTIVE, Reason.DEMAND, 2), (Stage.PAUSE, Reason.PAUSED_STOP, 6)]
    assert stack(4) == [
        (Stage.REACTIVE, Reason.DEMAND, 2),
        (Stage.BOUNDS, Reason.OVERRIDE_FLOOR, 12),
        (Stage.SUPPLY, Reason.PAUSED_START, 8),
    ]
