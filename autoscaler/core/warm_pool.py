"""How many stopped VMs should wait.

The rule so far: hold what the highest desired of the memory window, plus a spare share, would need beyond
what is ordered now. It is what operators of stopped pools do by hand, on a clock that never forgets to; a
rule from prices and the forecast of the refill horizon replaces it with the forecaster that can feed it.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core import windows
from autoscaler.core.params import LaneParams
from autoscaler.core.state import LaneState
from autoscaler.core.types import Int, Snapshot


def warm_target(params: LaneParams, state: LaneState, snapshot: Snapshot, desired: Int) -> Int:
    """Stopped VMs wanted: int64 (L,), within the policy's bounds on it.

    Args:
        params: Memory, spare share and bounds.
        state: Its rolling maximum of desired is updated in place.
        snapshot: Now.
        desired: int64 (L,), VMs wanted in service.
    """
    peak = windows.push_and_max(
        state.peaks,
        state.peak_bucket,
        tick=snapshot.tick,
        grid=state.peak_grid,
        value=desired,
        known=np.ones_like(desired, dtype=np.bool_),
    )
    wanted = np.ceil(peak * (1.0 + params.warm_spare) - 1e-9).astype(np.int64)
    clipped: Int = np.minimum(np.maximum(wanted - desired, params.warm_minimum), params.warm_maximum)
    return clipped
