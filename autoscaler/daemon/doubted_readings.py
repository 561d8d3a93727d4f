"""Describes what is wrong with readings that arrived but do not count.

A source that fails reports that itself. One that delivers impossible or old numbers does not notice: the fold leaves
them out, and only this module says which VM it was and what to do.

Rules of this file: nothing is decided here. The sentences contain no number that changes from tick to tick, or they would be
logged again each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from autoscaler.core.demand import CLOCK_SKEW_S
from autoscaler.core.types import Bool
from autoscaler.ports import FleetReadings
from autoscaler.words import some

_SHOWN = 3


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
