"""Gathers the observations of all fleets into the arrays over lanes that core reads.

Rules of this file: nothing is decided here. Arrays that would be equal to those of the last tick are the same objects,
and read-only, because core does not examine an array again that it has seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter, is_
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from autoscaler.core.rules import is_fixed
from autoscaler.core.types import Bool, Float, Int, Readings
from autoscaler.daemon.vms.tracked import Counts
from autoscaler.daemon.vms.weights import types_of
from autoscaler.ports import FleetReadings

if TYPE_CHECKING:
    from autoscaler.daemon.fleets import Fleet

Kind = TypeVar("Kind", Int, Bool)
Own = TypeVar("Own", Int, Float)

_COUNTED = {
    "in_service": "in_service",
    "starting": "starting",
    "draining": "draining",
    "stopping": "stopping",
    "stopped": "startable",
    "provisioned": "provisioned",
    "stoppable": "stoppable",
}
"""Field of `Counts` for each field of the snapshot."""
_COLUMNS = tuple(_COUNTED)
_COLUMNS_OF = attrgetter(*_COUNTED.values())


class SnapshotBuilder:
    """Builds the arrays of each tick, and reuses those of the last tick if they would be equal.

    Args:
        fleets: The fleets in lane order.
        capacity: float64 (L,), planned work per second of a VM of weight 1.
    """

    def __init__(self, fleets: Sequence[Fleet], capacity: Float) -> None:
        self._fleets = fleets
        self.weighted = any(fleet.weights for fleet in fleets)
        """Whether the VMs of any fleet differ in size."""
        self._counts: list[Counts] | None = None
        self._columns: dict[str, Int] = {}
        self._listed: list[bool] = []
        self._where_listed = np.empty(0, np.bool_)
        self.plan_with(capacity)

    def plan_with(self, capacity: Float) -> None:
        """Plan with other capacities from now on.

        Args:
            capacity: float64 (L,), planned work per second of a VM of weight 1.
        """
        self._capacity = capacity
        self._sizes: list[int] | None = None
        self._expected: list[int] | None = None
        self._gathered: Readings | None = None
        self._parts: list[FleetReadings] = []
        self._lane = self._expected_vms = np.empty(0, np.int64)
        self._capacity_of_reading = self._expected_capacity = np.empty(0)

    def readings(self, readings: Mapping[str, FleetReadings], now_s: float) -> tuple[Readings, Int, Float]:
        """Gather the readings of all fleets.

        Args:
            readings: The readings of each fleet.
            now_s: The current time.

        Returns:
            The readings of all fleets in one set of arrays; int64 (L,), the VMs expected to report; float64 (L,), their
                capacity.
        """
        parts, expected = [], []
        for fleet in self._fleets:
            got = readings[fleet.name]
            parts.append(got)
            expected.append(fleet.expected(got.vm_ids, now_s))
        gathered = self._gathered
        if gathered is None or expected != self._expected or not all(map(is_, parts, self._parts)):
            gathered, expected_capacity = self._anew(parts, expected, now_s)
            self._expected_capacity = expected_capacity
            # Readings in read-only arrays need not be gathered again.
            kept = gathered.received_at_s is None and all(map(_is_kept, parts)) and not self.weighted
            self._gathered, self._parts = gathered if kept else None, parts
        return gathered, self._expected_vms, self._expected_capacity

    def _anew(self, parts: list[FleetReadings], expected: list[int], now_s: float) -> tuple[Readings, Float]:
        sizes = [len(got.values) for got in parts]
        if sizes != self._sizes:
            self._sizes = sizes
            self._lane = _shut(np.repeat(np.arange(len(sizes)), sizes))
            self._capacity_of_reading = _shut(self._capacity[self._lane])
        if expected != self._expected:
            self._expected = expected
            self._expected_vms = _shut(np.array(expected, np.int64))
        capacity, expected_capacity = self._capacity_of_reading, self._expected_vms * self._capacity
        if self.weighted:
            capacity, expected_capacity = self._by_weight(parts, capacity, expected_capacity)
        _shut(expected_capacity)
        gathered = Readings(
            lane=self._lane,
            value=_joined([p.values for p in parts]),
            observed_at_s=_joined([p.observed_at_s for p in parts]),
            capacity=capacity,
            received_at_s=_received(parts, now_s),
        )
        return gathered, expected_capacity

    def _by_weight(
        self, parts: Sequence[FleetReadings], capacity: Float, expected: Float
    ) -> tuple[Float, Float]:
        weights = [
            fleet.weights.of(got.vm_ids, types_of(fleet.inventory))
            for fleet, got in zip(self._fleets, parts, strict=True)
        ]
        for lane, (fleet, weight) in enumerate(zip(self._fleets, weights, strict=True)):
            # VMs that have not reported are assumed to have the mean weight of those that have.
            expected[lane] *= weight.mean() if len(weight) else fleet.weights.mean
        return capacity * _joined(weights), expected

    def of_weight_1(self, readings: Mapping[str, FleetReadings]) -> Mapping[str, FleetReadings]:
        """Return the readings as if every VM had weight 1, for learning what such a VM can do."""
        if not self.weighted:
            return readings
        return {
            f.name: replace(got, values=got.values / f.weights.of(got.vm_ids, types_of(f.inventory)))
            if f.weights
            else got
            for f in self._fleets
            for got in (readings[f.name],)
        }

    def columns(self, counts: Sequence[Counts]) -> dict[str, Int]:
        """Return the counts as fields of a Snapshot, each int64 (L,)."""
        if counts != self._counts:
            self._counts = list(counts)
            table = np.array([_COLUMNS_OF(c) for c in counts], np.int64).T
            self._columns = {name: _fixed(column) for name, column in zip(_COLUMNS, table, strict=True)}
        return self._columns

    def listed(self, listed: list[bool]) -> Bool:
        """Return `listed` as a read-only array: in lane order, whether the counts rest on a complete listing."""
        if listed != self._listed:
            self._listed, self._where_listed = listed, _fixed(np.array(listed, np.bool_))
        return self._where_listed


def _is_kept(readings: FleetReadings) -> bool:
    return is_fixed(readings.values) and is_fixed(readings.observed_at_s)


def _fixed(array: Kind) -> Kind:
    """Return a read-only copy."""
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def _joined(parts: Sequence[Float]) -> Float:
    return parts[0] if len(parts) == 1 else _shut(np.concatenate(parts))


def _shut(array: Own) -> Own:
    """Make an array read-only in place, and return it; it must have no other owner."""
    array.flags.writeable = False
    return array


def _received(parts: Sequence[FleetReadings], now_s: float) -> Float | None:
    """Return when each reading was received; None if all were received just now."""
    if all(p.received_at_s is None for p in parts):
        return None
    return _joined(
        [np.full(len(p.values), now_s) if p.received_at_s is None else p.received_at_s for p in parts]
    )
