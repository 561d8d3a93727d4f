"""How fast shortages ended: each episode compared with the best that the start time allows.

A shortage that begins with a rise of demand above everything ordered cannot end before the rise is seen (signal age),
ordered (the next tick) and served by started VMs (start time). If it ends later, the decisions were poor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoscaler.simulator.replay.timeline import Episode, TimelineRow, column, shortage_episodes

_LOOK_BACK_S = 900.0


@dataclass(frozen=True, slots=True)
class Recovery:
    """How long one episode of shortage took to end.

    Attributes:
        episode: The run of intervals with shortage.
        last_rise_s: Start of the last interval, up to the end of the episode, in which demand exceeded all VMs
            that were ordered by then; the episode's start if there was none.
        took_s: Time from then to the end of the episode.
    """

    episode: Episode
    last_rise_s: float
    took_s: float


def recoveries(rows: Sequence[TimelineRow], vm_capacity_per_s: float, tick_s: float) -> tuple[Recovery, ...]:
    """Return the recovery from every episode of a timeline.

    Args:
        rows: In time order.
        vm_capacity_per_s: Work per second of one VM.
        tick_s: Length of a row's interval.
    """
    stamps = column(rows, "timestamp_s")
    ordered = (
        column(rows, "in_service")
        + column(rows, "starting")
        + column(rows, "starts")
        + column(rows, "provisions")
    )
    above = column(rows, "demand") > ordered * vm_capacity_per_s
    found = []
    for episode in shortage_episodes(stamps, column(rows, "shortage"), tick_s):
        near = above & (stamps >= episode.start_s - _LOOK_BACK_S) & (stamps < episode.end_s)
        rise_s = float(stamps[np.flatnonzero(near)[-1]]) if near.any() else episode.start_s
        found.append(Recovery(episode, rise_s, episode.end_s - rise_s))
    return tuple(found)
