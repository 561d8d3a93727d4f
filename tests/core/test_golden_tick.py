"""One tick of three fleets, computed by hand. If this test changes, the meaning of the product changes.

Readings at 12:00:10 (now), one tick of 10 s, demand in requests per second, a VM does 100/s.

api (throughput, 3 VMs in service, 1 starting, 6 stopped):
    readings 110, 130, 120 -> demand 360, headroom 25 % -> 450 -> 5 VMs; 4 ordered -> start 1.
    forecast cover asks for its 95 % quantile of 500 -> 5; nothing more to raise. Rate, bounds: free.
batch (utilisation, 5 VMs in service of which 2 past their minimum on-time):
    readings 0.2 x5 -> demand 100, headroom 25 % -> 125 -> 2 VMs. The stabilisation window holds no more.
    Minimum on-time: only 2 may be stopped, so 3 stay: desired 3, stop 2.
quiet (throughput, 2 VMs in service, both readings 300 s old; policy allows 60 s):
    stale -> no proposal; scale-in is held at 2 by DATA; nothing moves.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.decide import decide
from autoscaler.core.demand import fold
from autoscaler.core.state import LaneState
from autoscaler.core.types import Freshness, Readings, Reason, Signal, Snapshot, Stage
from tests.core.builders import fold_params, lane_params, outlook

NOW_S = 1_772_452_810.0


def test_one_tick_by_hand():
    in_service = np.array([3, 5, 2])
    readings = Readings(
        lane=np.array([0, 0, 0, 1, 1, 1, 1, 1, 2, 2]),
        value=np.array([110.0, 130.0, 120.0, 0.2, 0.2, 0.2, 0.2, 0.2, 90.0, 95.0]),
        observed_at_s=np.array([NOW_S - 10.0] * 8 + [NOW_S - 300.0] * 2),
        capacity=np.full(10, 100.0),
    )
    signal = [Signal.THROUGHPUT, Signal.UTILISATION, Signal.THROUGHPUT]
    samples = fold(fold_params(3, signal), readings, in_service, in_service * 100.0, NOW_S)

    np.testing.assert_allclose(samples.demand, [360.0, 100.0, np.nan])
    assert samples.freshness.tolist() == [Freshness.FRESH, Freshness.FRESH, Freshness.STALE]
    assert samples.coverage.tolist() == [1.0, 1.0, 0.0]
    assert samples.censored.tolist() == [False, False, False]

    params = lane_params(
        3, reactive=True, headroom=0.25, cover=[True, False, False], min_coverage=0.7, minimum=1, maximum=10
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
        starting=np.array([1, 0, 0]),
        draining=np.zeros(3, np.int64),
        stopping=np.zeros(3, np.int64),
        stopped=np.array([6, 5, 8]),
        provisioned=np.array([10, 10, 10]),
        stoppable=np.array([3, 2, 2]),
        listed=np.ones(3, np.bool_),
    )
    decision = decide(params, LaneState.empty(params), snapshot, outlook(3, at_lead=[500.0, np.nan, np.nan]))

    assert decision.wish.tolist() == [5, 2, 0]
    assert decision.desired.tolist() == [5, 3, 2]
    assert decision.start.tolist() == [1, 0, 0]
    assert decision.stop.tolist() == [0, 2, 0]
    assert decision.provision.tolist() == [0, 0, 0]
    assert decision.warm_target.tolist() == [0, 0, 0]

    def stack(lane: int) -> list[tuple[Stage, Reason, int]]:
        return [
            (stage, Reason(int(decision.reason[stage, lane])), int(decision.value[stage, lane]))
            for stage in Stage
            if decision.reason[stage, lane] != Reason.NONE
        ]

    assert stack(0) == [(Stage.REACTIVE, Reason.DEMAND, 5)]
    assert stack(1) == [(Stage.REACTIVE, Reason.DEMAND, 2), (Stage.ON_TIME, Reason.MINIMUM_ON_TIME, 3)]
    assert stack(2) == [(Stage.DATA, Reason.DATA_STALE, 2)]
