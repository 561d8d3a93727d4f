"""The warm target: how many stopped VMs should wait.

Without an objective: as many as the maximum desired number within the memory window, plus a spare share, would need beyond what is
ordered now. Operators of stopped pools do the same by hand. With an objective: as many as are worth their cost
(`warm/provisioned_target`), once there is an hour of experience.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.params import LaneParams
from autoscaler.core.rules import ROUNDING, is_fixed, within
from autoscaler.core.types import CountType, Float, Int, SmallInt


class WarmTarget:
    """Computes the warm target for compiled policies.

    It computes anew only what has changed. Peaks seldom change, and unchanged desired numbers and worth arrive as the same array
    objects.

    Args:
        params: The policies, L lanes.
        counts: The type of counts.
    """

    def __init__(self, params: LaneParams, counts: CountType) -> None:
        self._counts = counts
        self._with_spare = 1.0 + params.warm_spare
        self._rounding = np.array(ROUNDING)
        self._minimum, self._maximum = (
            within(bound, counts) for bound in (params.warm_minimum, params.warm_maximum)
        )
        self._economic = np.flatnonzero(params.economic)
        self._everywhere = len(self._economic) == len(params.economic)
        self._peak: SmallInt = np.zeros(0, np.int32)
        self._kept: Int = np.zeros(0, counts)
        self._worth: Int | None = None
        self._exist = self._target = self._kept
        self._desired: Int | None = None

    def of(self, peak: SmallInt, desired: Int, worth: Int | None = None) -> Int:
        """Stopped VMs wanted, within the policy's bounds: int (L,) of the type of counts.

        Arguments and result must not be changed afterwards.

        Args:
            peak: int (L,), the highest desired number within the memory window.
            desired: int (L,), VMs wanted in service.
            worth: int64 (n,), VMs worth having in the lanes with an objective, -1 if not known yet; None if no lane has one.
        """
        same = peak is self._peak or self._as_before(peak)
        if not same or worth is not self._worth:
            self._exist, self._worth = self._existing(worth), worth
        elif desired is self._desired:
            return self._target
        target = self._exist - desired
        np.maximum(target, self._minimum, out=target)
        np.minimum(target, self._maximum, out=target)
        self._target, self._desired = target, None
        if is_fixed(desired):
            # Nothing can change `desired`, so the same array object will need the same target.
            self._desired, target.flags.writeable = desired, False
        return target

    def _as_before(self, peak: SmallInt) -> bool:
        """Remember the peak; return whether it asks for as many VMs as the one before."""
        before, self._peak = self._peak, peak
        # Comparing bytes takes a quarter of the time of comparing numbers.
        if peak.tobytes() == before.tobytes():
            return True
        moved = (peak != before).nonzero()[0] if len(before) else None
        if moved is None or 4 * len(moved) > len(peak):
            self._kept = self._spared(peak, self._with_spare)
        elif len(moved):
            self._kept[moved] = self._spared(peak[moved], self._with_spare[moved])
        else:
            return True
        return False

    def _spared(self, peak: SmallInt, spare: Float) -> Int:
        vms = peak.astype(np.float64)
        vms *= spare
        vms -= self._rounding
        return np.ceil(vms, out=vms).astype(self._counts)

    def _existing(self, worth: Int | None) -> Int:
        """VMs that should exist in total: int (L,)."""
        if worth is None:
            return self._kept
        of_lanes = self._kept if self._everywhere else self._kept[self._economic]
        found = np.where(worth >= 0, worth, of_lanes).astype(self._counts, copy=False)
        if self._everywhere:
            return found
        all_lanes = self._kept.copy()
        all_lanes[self._economic] = found
        return all_lanes
