"""The measured worth of the warm pool: time and money saved compared with VMs made from nothing.

Rules of this file: values that were not measured are None, never guessed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from autoscaler.core.learned.lead_time import LeadTimes, Span, StartSource
from autoscaler.daemon.vms.metering import Prices

_WARM = StartSource.STOPPED, StartSource.HIBERNATED
_FRESH = (StartSource.FRESH,)


@dataclass(frozen=True, slots=True)
class PoolBenefit:
    """The warm pool of one fleet, compared with making its VMs from nothing.

    Attributes:
        pool_s: Median seconds from the order until a VM from the pool serves; None if none was measured.
        fresh_s: The same for a VM made from nothing.
        saved_s: Seconds that a start from the pool is quicker; None unless both were measured.
        saved_money: Money that it is cheaper, from the price of provisioning and the billed part of the start; None
            unless both were measured.
        pool_per_h: Money per hour for the VMs that wait stopped now.
        starts_per_h: Starts from the pool per hour, over the last day or since the daemon began; None at first.
    """

    pool_s: float | None
    fresh_s: float | None
    saved_s: float | None
    saved_money: float | None
    pool_per_h: float
    starts_per_h: float | None

    def sentence(self) -> str:
        """Describe the benefit for people."""
        if self.saved_s is None or self.saved_money is None:
            missing = "start from the warm pool" if self.pool_s is None else "VM made from nothing"
            return f"its worth is not known: no {missing} has been measured"
        way = "sooner" if self.saved_s >= 0 else "later"
        worth = f"a VM from it serves {abs(self.saved_s):.0f} s {way} than one made from nothing"
        worth += f" ({self.pool_s:.0f} s against {self.fresh_s:.0f} s)"
        saved = f"and is {abs(self.saved_money):.4g} {'cheaper' if self.saved_money >= 0 else 'dearer'}"
        cost = f"it costs {self.pool_per_h:.4g}/h"
        if self.starts_per_h is not None:
            cost += f" and gives {self.starts_per_h:.3g} starts/h"
        return f"{worth} {saved}; {cost}"


def pool_benefit(
    times: LeadTimes, lane: int, prices: Prices, stopped: int, starts_per_h: float | None
) -> PoolBenefit:
    """Return what the warm pool of one lane is worth now.

    Args:
        times: What was learned of start times.
        lane: The lane.
        prices: The prices of its policy.
        stopped: How many VMs wait.
        starts_per_h: As in `PoolBenefit`.
    """
    pool_s, fresh_s = _median(times, lane, Span.WHOLE, _WARM), _median(times, lane, Span.WHOLE, _FRESH)
    saved_s = None if pool_s is None or fresh_s is None else fresh_s - pool_s
    billed_s = [_median(times, lane, Span.READY, sources) for sources in (_WARM, _FRESH)]
    saved_money = None
    if billed_s[0] is not None and billed_s[1] is not None:
        saved_money = prices.provision + (billed_s[1] - billed_s[0]) / 3600.0 * prices.in_service_per_h
    return PoolBenefit(pool_s, fresh_s, saved_s, saved_money, stopped * prices.stopped_per_h, starts_per_h)


def _median(times: LeadTimes, lane: int, span: Span, sources: tuple[StartSource, ...]) -> float | None:
    value = float(times.quantile(0.5, span, *sources)[lane])
    return None if math.isnan(value) else value
