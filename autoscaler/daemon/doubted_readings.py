"""Says what is wrong with readings that arrived but do not count, and when a sudden fall in demand is doubted.

A source that fails reports that itself. One that delivers impossible or old numbers does not notice: the fold leaves
them out, and only this module says which VM it was and what to do. A fall is often an outage elsewhere.

Rules of this file: nothing is decided here; a tick's samples and rows show what is ignored or doubted. `complaint` contains no number that
changes from tick to tick, or it would be logged again each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from autoscaler.core.demand import CLOCK_SKEW_S
from autoscaler.core.types import Bool, Int, Reason, Samples, Stage
from autoscaler.daemon.decision_sentences import work
from autoscaler.ports import FleetReadings, FleetTick, Note
from autoscaler.words import some

if TYPE_CHECKING:
    from autoscaler.daemon.fleets import Fleet

_SHOWN = 3
_WELL_FOR_S = 60.0
"""Time without an implausible reading after which a VM is believed again, in seconds. Without it, a VM that reports
nonsense now and then would be reported each time.
"""


def complaint(
    readings: FleetReadings, values: Sequence[Any], now_s: float, max_age_s: float, beyond: Iterable[str] = ()
) -> str:
    """Return, for people, what the source reports and what is wrong with its readings; empty if nothing is.

    Args:
        readings: The readings of one fleet.
        values: The fleet's entry of `fleet_rows.lane_values`: item 2 is the freshness, item 3 the coverage.
        now_s: Time of the decision, epoch seconds.
        max_age_s: Age above which readings do not count.
        beyond: VMs whose readings are left out because no VM can do so much work.
    """
    if not values[2] and values[3] >= 1.0 and not beyond:
        return readings.error
    told = (readings.error, doubts(readings, now_s, max_age_s), _left_out_as_beyond(sorted(beyond)))
    return "; ".join(filter(None, told))


def doubts(readings: FleetReadings, now_s: float, max_age_s: float) -> str:
    """Return, for people, why some of the readings do not count and what to do about it; empty if all count.

    Args:
        readings: The readings of one fleet.
        now_s: Time of the decision, epoch seconds.
        max_age_s: Age above which readings do not count.
    """
    impossible, old, ahead = _left_out(readings, now_s, max_age_s)
    if not (impossible | old | ahead).any():
        return ""
    told = []
    if impossible.any():
        values = readings.values
        no_number, endless, negative = np.isnan(values), np.isposinf(values), values < 0.0
        kinds = (("not a number", no_number), ("infinite", endless), ("negative", negative))
        named = [f"{what}{_where(readings, which)}" for what, which in kinds if which.any()]
        told.append(
            f"{_share(readings, impossible)} impossible: {', '.join(named)}; demand is a finite number of at least 0, so fix what is measured there{' (0 divided by 0 gives no number)' if no_number.any() else ''}"
        )
    if old.any():
        told.append(
            f"{_share(readings, old)} older than {max_age_s:g} s{_where(readings, old)}; check that the exporter or sender runs and its clock is right, or allow more by `signal.max_age`"
        )
    if ahead.any():
        told.append(
            f"{_share(readings, ahead)} stamped more than {CLOCK_SKEW_S:g} s ahead of our clock"
            f"{_where(readings, ahead)}; set both clocks by one time service"
        )
    return "; ".join(told)


def _left_out_as_beyond(ids: Sequence[str]) -> str:
    if not ids:
        return ""
    verb = "reports" if len(ids) == 1 else "report"
    return f"{some(ids, _SHOWN)} {verb} many times what a VM can do, unlike the others; fix what is measured there"


def counting(readings: FleetReadings, now_s: float, max_age_s: float) -> int:
    """Return how many of the readings count; arguments as in `doubts`."""
    impossible, old, ahead = _left_out(readings, now_s, max_age_s)
    return int(np.count_nonzero(~(impossible | old | ahead)))


def _left_out(readings: FleetReadings, now_s: float, max_age_s: float) -> tuple[Bool, Bool, Bool]:
    """Return which readings are impossible, which others are too old, and which others are ahead of our clock: bool (n,)
    each.
    """
    values, at_s = readings.values, readings.observed_at_s
    impossible = ~((values >= 0.0) & (values < np.inf))
    old = ~impossible & ~(now_s - at_s <= max_age_s)
    came_s = now_s if readings.received_at_s is None else np.minimum(readings.received_at_s, now_s)
    return impossible, old, ~impossible & (at_s - came_s > CLOCK_SKEW_S)


def _share(readings: FleetReadings, which: Bool) -> str:
    asked, number = len(which), np.count_nonzero(which)
    if readings.vm_ids == ("",):
        return "the reading is"
    return f"{number} of {asked} readings {'is' if number == 1 else 'are'}"


def _where(readings: FleetReadings, which: Bool) -> str:
    """Name the first few of the VMs; empty if the reading is that of the whole fleet."""
    ids = [readings.vm_ids[at] for at in np.flatnonzero(which) if readings.vm_ids[at]]
    return f" at {some(ids, _SHOWN)}" if ids else ""


class ImpossibleReadings:
    """Reports VMs whose readings are left out as implausible. The VMs themselves are noted on the fleets.

    Args:
        fleets: The fleets in lane order.
    """

    def __init__(self, fleets: Sequence[Fleet]) -> None:
        self._fleets = fleets
        self._some = True
        """Whether any reading was left out recently; True at first, because fleets may be carried over from a reload."""

    def follow(self, samples: Samples, lane: Int, readings: Mapping[str, FleetReadings]) -> Sequence[Note]:
        """Return what to report after a fold.

        Args:
            samples: What the fold made of the readings.
            lane: int64 (N,), the lane of each reading, ascending.
            readings: The readings of each fleet.
        """
        if samples.beyond is None and not self._some:
            return ()
        notes = []
        for at in () if samples.beyond is None else samples.beyond.tolist():
            fleet = self._fleets[lane[at]]
            got = readings[fleet.name]
            own = at - int(lane.searchsorted(lane[at]))
            vm_id = got.vm_ids[own]
            if vm_id not in fleet.beyond:
                notes.append(Note("reading_beyond", fleet.name, _words(fleet, vm_id, float(got.values[own]))))
            fleet.beyond[vm_id] = samples.now_s
        self._some = False
        for fleet in self._fleets:
            if not fleet.beyond:
                continue
            ids = readings[fleet.name].vm_ids
            for vm_id, since_s in [*fleet.beyond.items()]:
                if abs(samples.now_s - since_s) < _WELL_FOR_S:
                    continue
                del fleet.beyond[vm_id]
                now = "reports what a VM can do again" if vm_id in ids else "is not read any more"
                notes.append(Note("reading_believed", fleet.name, f"{vm_id} {now}"))
            self._some = self._some or bool(fleet.beyond)
        return notes


def _words(fleet: Fleet, vm_id: str, value: float) -> str:
    said = {
        "utilisation": f"to be busy {value:,.0f} times over",
        "concurrency": f"{value:,.0f} in flight",
    }.get(fleet.policy.signal.kind, f"{value:,.0f}/s, and a VM does {fleet.capacity_per_s:.4g}/s")
    return f"{vm_id} reports {said}; this reading is ignored, since the other VMs report nothing like it: fix what is measured there"


class VanishedDemand:
    """Follows the fleets whose fall in demand is doubted."""

    def __init__(self) -> None:
        self._fell: set[str] = set()

    def follow(self, row: FleetTick) -> list[Note]:
        """Return what to report about a fleet's part of a tick."""
        held = _held(row)
        if held and row.fleet not in self._fell:
            self._fell.add(row.fleet)
            text = (
                f"demand fell suddenly to {work(row.demand)}; that may be an outage in front of the fleet, so up to "
                f"{held} of its VMs stay for a while: check whether requests reach it"
            )
            return [Note("demand_fell", row.fleet, text)]
        if not held and row.fleet in self._fell:
            self._fell.remove(row.fleet)
            now = f"demand is {work(row.demand)}" if row.demand >= 0.0 else "demand is not known"
            return [Note("demand_believed", row.fleet, f"{now}, and doubted no longer")]
        return []


def _held(row: FleetTick) -> int:
    if row.reasons and row.reasons[Stage.DATA] == Reason.DEMAND_VANISHED:
        return row.in_service + row.starting
    return 0 if row.earnings is None else row.earnings.doubted
