"""How many stopped VMs should wait.

The rule so far: hold what the highest desired of the memory window, plus a spare share, would need beyond
what is ordered now. It is what operators of stopped pools do by hand, on a clock that never forgets to; a
rule from prices and the forecast of the refill horizon replaces it with the forecaster that can feed it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from autoscaler.core.params import LaneParams
from autoscaler.core.rules import ROUNDING, within
from autoscaler.core.types import CountType, Int, SmallInt


def warm_target(params: LaneParams, counts: CountType) -> Callable[[SmallInt, Int], Int]:
    """A function of the highest desired of the memory window and of desired, each (L,).

    It gives the stopped VMs wanted: int (L,) of the type `counts`, within the policy's bounds on them.
    """
    with_spare = 1.0 + params.warm_spare
    rounding = np.array(ROUNDING)
    minimum, maximum = within(params.warm_minimum, counts), within(params.warm_maximum, counts)

    def target(peak: SmallInt, desired: Int) -> Int:
        kept = peak.astype(np.float64)
        kept *= with_spare
        kept -= rounding
        wanted = np.ceil(kept, out=kept).astype(counts)
        clipped: Int = np.minimum(np.maximum(wanted - desired, minimum), maximum)
        return clipped

    return target
