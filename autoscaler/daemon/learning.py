"""What the daemon learns of its fleets over hours and days, and how that is kept over restarts.

What is learned changes what is planned with only between two ticks, at most once an hour, and only where a fleet's
policy says so; it is learned and shown in any case. Fleets in shadow learn nothing, since their VMs are simulated.

Rules of this file: what is kept has a version; what cannot be read is learned anew. Nothing here reads a clock.
"""

from __future__ import annotations

import math
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from autoscaler.config.policy import Policy
from autoscaler.config.section import DAY_S
from autoscaler.core.lead_time import (
    BINS,
    PLANNED_LEVEL,
    SOURCES,
    SPANS,
    LeadTimes,
    Span,
    StartSource,
)
from autoscaler.core.types import Float
from autoscaler.daemon.start_times import MeasuredStart
from autoscaler.ports import Learned

START_TIMES = "start_times"
"""Name under which start times are kept."""
APPLY_EVERY_S = 3600.0
"""What was learned changes what is planned with at most so often."""
STARTS_COUNTED = 1000
"""Times of starts kept per fleet, for their rate."""


class Learning:
    """What is learned of fleets, over lanes.

    Args:
        fleets: Their names, in lane order.
    """

    def __init__(self, fleets: Sequence[str]) -> None:
        self._lane_of = {fleet: lane for lane, fleet in enumerate(fleets)}
        self.lead_times = LeadTimes.empty(len(fleets))
        self._changed: set[str] = set()
        self._applied_at_s = float("-inf")
        self._pool_starts_s: dict[str, deque[float]] = {
            fleet: deque(maxlen=STARTS_COUNTED) for fleet in fleets
        }

    def carried_over(self, fleets: Sequence[str]) -> Learning:
        """The same for other fleets, which go on with what is known of those of the same names."""
        new = Learning(fleets)
        lanes = np.array([self._lane_of.get(fleet, -1) for fleet in fleets], np.int64)
        new.lead_times = self.lead_times.carried_over(lanes)
        new._changed = self._changed & set(fleets)
        new._pool_starts_s |= {f: kept for f, kept in self._pool_starts_s.items() if f in new._lane_of}
        new._applied_at_s = self._applied_at_s
        return new

    def started(self, fleet: str, starts: Iterable[MeasuredStart], now_s: float) -> None:
        """Learn starts that came into service."""
        starts = list(starts)
        from_pool = sum(start.source is not StartSource.FRESH for start in starts)
        self._pool_starts_s[fleet].extend([now_s] * from_pool)
        if not starts:
            return
        lane = np.full(len(starts), self._lane_of[fleet])
        source = np.array([start.source for start in starts], np.int64)
        seconds = np.array([start.parts for start in starts], np.float64).T
        self.lead_times.take(lane, source, seconds)
        self._changed.add(fleet)

    def pool_starts_per_h(self, fleet: str, began_s: float, now_s: float) -> float | None:
        """Starts from the warm pool per hour over the last day, or since the daemon began; None in its first hour.

        Of a fleet with very many the last thousand count.
        """
        counted = self._pool_starts_s[fleet]
        from_s = max(began_s, now_s - DAY_S)
        if len(counted) == STARTS_COUNTED:
            from_s = max(from_s, counted[0])
        hours = (now_s - from_s) / 3600.0
        return sum(at_s >= from_s for at_s in counted) / hours if hours >= 1.0 else None

    def start_times(self) -> Iterator[tuple[str, StartSource, float]]:
        """The high quantile that is planned with, of each fleet and each source from which starts were seen."""
        for source in StartSource:
            seconds = self.lead_times.quantile(PLANNED_LEVEL, Span.WHOLE, source).tolist()
            for fleet, lane in self._lane_of.items():
                if not math.isnan(seconds[lane]):
                    yield fleet, source, seconds[lane]

    # ── what is planned with ────────────────────────────────────────────────────────────────────────────

    def is_due(self, now_s: float) -> bool:
        """Whether what is planned with may be changed again; asked once per tick, and noted where it may."""
        if abs(now_s - self._applied_at_s) < APPLY_EVERY_S:
            return False
        self._applied_at_s = now_s
        return True

    def planned(self, policies: Sequence[Policy]) -> list[Policy]:
        """The policies with what was learned in the place of their guesses; the same objects where nothing was.

        Args:
            policies: In lane order.
        """
        guesses = np.array([policy.vm.start_time_s for policy in policies])
        start_time_s = self.lead_times.planned_s(guesses)
        return [
            _with_vm(policy, {"start_time_s": float(start_time_s[lane])})
            if policy.vm.learn_start_time and start_time_s[lane] != guesses[lane]
            else policy
            for lane, policy in enumerate(policies)
        ]

    # ── over restarts ───────────────────────────────────────────────────────────────────────────────────

    def to_keep(self) -> tuple[Learned, ...]:
        """What has changed since `kept`."""
        return tuple(
            Learned(
                fleet, START_TIMES, LeadTimes.version, _packed(self.lead_times.of_lane(self._lane_of[fleet]))
            )
            for fleet in sorted(self._changed)
        )

    def kept(self) -> None:
        """What `to_keep` gave is safe."""
        self._changed.clear()

    def take_up(self, learned: Iterable[Learned]) -> list[str]:
        """Go on with what earlier runs learned; for a person, what of it cannot be read."""
        wrong = []
        for row in learned:
            lane = self._lane_of.get(row.fleet)
            if lane is None or row.name != START_TIMES:
                continue
            weight = _unpacked(row, LeadTimes.version, (BINS, SPANS * SOURCES))
            if weight is None:
                wrong.append(
                    f"what was learned of the {row.name} of {row.fleet} cannot be read and is learned anew"
                )
            else:
                self.lead_times.put_lane(lane, weight)
        return wrong


def _with_vm(policy: Policy, changes: dict[str, object]) -> Policy:
    return policy.model_copy(update={"vm": policy.vm.model_copy(update=changes)})


def _packed(weight: Float) -> bytes:
    return zlib.compress(np.ascontiguousarray(weight, "<f8").tobytes(), 1)


def _unpacked(row: Learned, version: int, shape: tuple[int, ...]) -> Float | None:
    """The array that was kept; None where it is of another version, damaged, or not such an array."""
    if row.version != version:
        return None
    try:
        weight = np.frombuffer(zlib.decompress(row.body), "<f8").reshape(shape).astype(np.float64)
    except (zlib.error, ValueError):
        return None
    return weight if bool(np.isfinite(weight).all() and (weight >= 0.0).all()) else None
