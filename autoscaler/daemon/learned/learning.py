"""Learns about fleets over hours and days (start times, capacities), and applies it where the policy says so.

Learned values change planning only between two ticks, at most once an hour, and only if a fleet's policy says so; they
are learned and shown in any case. Fleets in shadow learn no start times, because their VMs are simulated.

Rules of this file: saved state has a version; state that cannot be read is learned again. Nothing here reads a clock.
"""

from __future__ import annotations

import math
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from autoscaler.config.compiling_objective import hibernation_saving_s
from autoscaler.config.policy import Policy
from autoscaler.config.section import DAY_S
from autoscaler.config.vms import CapacityLearning
from autoscaler.core.learned.capacity import Capacities, CapacityParams
from autoscaler.core.learned.lead_time import (
    BINS,
    PLANNED_LEVEL,
    SOURCES,
    SPANS,
    LeadTimes,
    Span,
    StartSource,
)
from autoscaler.core.types import Float
from autoscaler.daemon.vms.start_times import MeasuredStart
from autoscaler.ports import FleetReadings, Learned

START_TIMES = "start_times"
CAPACITY = "capacity"
"""Names under which what is learned is stored."""
APPLY_EVERY_S = 3600.0
"""Shortest time between two changes of planned values, in seconds."""
READ_EVERY_S = 10.0
"""Shortest time between two readings from which capacities are learned, in seconds."""
STARTS_COUNTED = 1000
"""Most times of starts kept per fleet, for the rate of starts."""


class Learning:
    """What is learned of fleets, over lanes.

    Args:
        fleets: The names of the fleets, in lane order.
    """

    def __init__(self, fleets: Sequence[str]) -> None:
        self._lane_of = {fleet: lane for lane, fleet in enumerate(fleets)}
        self.lead_times = LeadTimes.empty(len(fleets))
        self.capacities = Capacities.empty(len(fleets))
        self._changed: set[tuple[str, str]] = set()
        self._applied_at_s = float("-inf")
        self._since_applied_s = 0.0
        self._read_at_s = float("-inf")
        self._pool_starts_s: dict[str, deque[float]] = {
            fleet: deque(maxlen=STARTS_COUNTED) for fleet in fleets
        }

    def carried_over(self, fleets: Sequence[str]) -> Learning:
        """Return what was learned, for other fleets; fleets of the same names keep what is known of them."""
        new = Learning(fleets)
        lanes = np.array([self._lane_of.get(fleet, -1) for fleet in fleets], np.int64)
        new.lead_times = self.lead_times.carried_over(lanes)
        new.capacities = self.capacities.carried_over(lanes)
        new._changed = {(fleet, name) for fleet, name in self._changed if fleet in new._lane_of}
        new._read_at_s = self._read_at_s
        new._pool_starts_s |= {f: kept for f, kept in self._pool_starts_s.items() if f in new._lane_of}
        new._applied_at_s = self._applied_at_s
        return new

    def started(self, starts: Mapping[str, Sequence[MeasuredStart]], now_s: float) -> None:
        """Learn from starts that came into service, given by fleet, for all fleets at once."""
        lanes: list[int] = []
        found: list[MeasuredStart] = []
        for fleet, own in starts.items():
            if not own:
                continue
            from_pool = sum(start.source is not StartSource.FRESH for start in own)
            self._pool_starts_s[fleet].extend([now_s] * from_pool)
            lanes += [self._lane_of[fleet]] * len(own)
            found += own
            self._changed.add((fleet, START_TIMES))
        if not found:
            return
        source = np.array([start.source for start in found], np.int64)
        seconds = np.array([start.parts for start in found], np.float64).T
        self.lead_times.take(np.array(lanes, np.int64), source, seconds)

    def heard(self, policies: Sequence[Policy], readings: Mapping[str, FleetReadings], now_s: float) -> None:
        """Learn the capacity of VMs from readings that include utilisation, at most every `READ_EVERY_S`."""
        told = [fleet for fleet in self._lane_of if readings[fleet].utilisation is not None]
        if not told or abs(now_s - self._read_at_s) < READ_EVERY_S:
            return
        self._read_at_s = now_s
        params = capacity_params(policies)
        for fleet in told:
            lane, got = self._lane_of[fleet], readings[fleet]
            busy = got.utilisation
            if policies[lane].signal.kind != "throughput" or busy is None:
                continue
            fresh = now_s - got.observed_at_s <= policies[lane].signal.max_age_s
            lanes = np.full(int(np.count_nonzero(fresh)), lane)
            self.capacities.take(params, lanes, got.values[fresh], busy[fresh])
            self._changed.add((fleet, CAPACITY))

    def pool_starts_per_h(self, fleet: str, began_s: float, now_s: float) -> float | None:
        """Return the starts from the warm pool per hour over the last day, or since the daemon began; None in its first
        hour.

        Only the last thousand starts of a fleet count.
        """
        counted = self._pool_starts_s[fleet]
        from_s = max(began_s, now_s - DAY_S)
        if len(counted) == STARTS_COUNTED:
            from_s = max(from_s, counted[0])
        hours = (now_s - from_s) / 3600.0
        return sum(at_s >= from_s for at_s in counted) / hours if hours >= 1.0 else None

    def start_times(self) -> Iterator[tuple[str, StartSource, float]]:
        """Yield the planned high quantile of start times, for each fleet and each source from which starts were seen."""
        for source in StartSource:
            seconds = self.lead_times.quantile(PLANNED_LEVEL, Span.WHOLE, source).tolist()
            for fleet, lane in self._lane_of.items():
                if not math.isnan(seconds[lane]):
                    yield fleet, source, seconds[lane]

    # ── what is planned with ────────────────────────────────────────────────────────────────────────────

    def is_due(self, now_s: float) -> bool:
        """Return whether planned values may be changed again. If they may, the time is noted, so call this once per tick."""
        if abs(now_s - self._applied_at_s) < APPLY_EVERY_S:
            return False
        # A long time without ticks must not allow one large move.
        self._since_applied_s = min(max(now_s - self._applied_at_s, 0.0), 2.0 * APPLY_EVERY_S)
        if math.isinf(self._applied_at_s):
            self._since_applied_s = 0.0
        self._applied_at_s = now_s
        return True

    def move(self, policies: Sequence[Policy]) -> None:
        """Move the planned capacities towards what was learned, as far as the time before the last `is_due` allows."""
        if any(policy.vm.learn_capacity is not None for policy in policies):
            elapsed_s = np.full(len(policies), self._since_applied_s)
            self.capacities.move(capacity_params(policies), elapsed_s)
        self._since_applied_s = 0.0

    def planned(self, policies: Sequence[Policy]) -> list[Policy]:
        """Return the policies with what was learned in place of their guesses; the same objects if nothing was learned.

        Args:
            policies: The policies in lane order.
        """
        guesses = np.array([policy.vm.start_time_s for policy in policies])
        start_time_s = self.lead_times.planned_s(guesses).tolist()
        capacity_per_s = self.capacities.planned.tolist()
        planned = []
        for lane, policy in enumerate(policies):
            vm, changes = policy.vm, dict[str, object]()
            if vm.learn_start_time and start_time_s[lane] != vm.start_time_s:
                changes["start_time_s"] = start_time_s[lane]
            known = not math.isnan(capacity_per_s[lane])
            if vm.learn_capacity is not None and known and capacity_per_s[lane] != vm.capacity_per_s:
                changes["capacity_per_s"] = capacity_per_s[lane]
            planned.append(with_vm(policy, changes) if changes else policy)
        return planned

    def hibernation_saving_s(self, policies: Sequence[Policy]) -> Float:
        """Return how much sooner hibernated VMs serve than stopped ones: float64 (L,), in seconds, NaN if unknown.

        It is the measured time if the policy lets start times be learned, else the policy's own.

        Args:
            policies: The policies in lane order, with their own guesses.
        """
        said = np.array([hibernation_saving_s(policy) for policy in policies])
        learns = np.array(
            [policy.warm_pool.hibernate is not None and policy.vm.learn_start_time for policy in policies]
        )
        if not learns.any():
            return said
        stopped_s = np.array([policy.vm.start_time_s for policy in policies])
        return np.where(learns, self.lead_times.hibernation_saving_s(stopped_s, stopped_s - said), said)

    # ── over restarts ───────────────────────────────────────────────────────────────────────────────────

    def to_keep(self) -> tuple[Learned, ...]:
        """Return what has changed since `kept`."""
        return tuple(
            Learned(fleet, name, *self._of(name, self._lane_of[fleet]))
            for fleet, name in sorted(self._changed)
        )

    def _of(self, name: str, lane: int) -> tuple[int, bytes]:
        if name == START_TIMES:
            return LeadTimes.version, _packed(self.lead_times.of_lane(lane))
        return Capacities.version, _packed(self.capacities.of_lane(lane))

    def kept(self) -> None:
        """Note that what `to_keep` returned is stored."""
        self._changed.clear()

    def take_up(self, learned: Iterable[Learned]) -> list[str]:
        """Restore what earlier runs learned; return, for people, what of it cannot be read."""
        wrong = []
        for row in learned:
            lane = self._lane_of.get(row.fleet)
            if lane is None or row.name not in (START_TIMES, CAPACITY):
                continue
            if not self._put(row, lane):
                wrong.append(
                    f"what was learned of the {row.name} of {row.fleet} cannot be read and is learned again"
                )
        return wrong

    def _put(self, row: Learned, lane: int) -> bool:
        if row.name == START_TIMES:
            weight = _unpacked(row, LeadTimes.version, (BINS, SPANS * SOURCES))
            if weight is None or not bool((weight >= 0.0).all()):
                return False
            self.lead_times.put_lane(lane, weight)
            return True
        learned = _unpacked(row, Capacities.version, self.capacities.of_lane(lane).shape)
        # The first two of the last four numbers may be NaN.
        if learned is None or not bool((learned[:-4] >= 0.0).all() and (learned[-2:] >= 0.0).all()):
            return False
        self.capacities.put_lane(lane, learned)
        return True


def with_vm(policy: Policy, changes: dict[str, object]) -> Policy:
    """Return the policy with other values in its section `vm`."""
    return policy.model_copy(update={"vm": policy.vm.model_copy(update=changes)})


def _packed(weight: Float) -> bytes:
    return zlib.compress(np.ascontiguousarray(weight, "<f8").tobytes(), 1)


def _unpacked(row: Learned, version: int, shape: tuple[int, ...]) -> Float | None:
    """Return the stored array; None if it has another version, is damaged, or has another shape."""
    if row.version != version:
        return None
    try:
        weight = np.frombuffer(zlib.decompress(row.body), "<f8").reshape(shape).astype(np.float64)
    except (zlib.error, ValueError):
        return None
    return None if bool(np.isinf(weight).any()) else weight


def capacity_params(policies: Sequence[Policy]) -> CapacityParams:
    """Return core's settings for learning capacities; policies that do not learn get the defaults."""
    sections = [policy.vm.learn_capacity or CapacityLearning() for policy in policies]
    return CapacityParams(
        guess=np.array([policy.vm.capacity_per_s for policy in policies]),
        at=np.array([section.at for section in sections]),
        saturation=np.array([policy.signal.saturation for policy in policies]),
        within=np.array([section.within for section in sections]),
        most_per_day=np.array([section.most_per_day for section in sections]),
    )
