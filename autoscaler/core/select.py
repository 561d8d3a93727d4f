"""Selects VMs: a stable order of candidates that keeps zones balanced.

A candidate's level is the number of VMs that its zone would have if it and all better candidates of the zone were taken. Taking
candidates by rising level keeps zones balanced, like water filling vessels. For stops the same order is used with levels counted down,
so the fullest zone is drained first.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.types import Int


def start_order(zone: Int, rank: Int, ordered_in_zone: Int) -> Int:
    """Candidates in the order in which to start them.

    Args:
        zone: int64 (M,), zone index of each stopped candidate.
        rank: int64 (M,), lower is better, distinct.
        ordered_in_zone: int64 (Z,), VMs of the fleet in service or starting, per zone.

    Returns:
        int64 (M,), indices into the candidates; any prefix spreads as evenly over zones as it can.
    """
    level = ordered_in_zone[zone] + _place_in_zone(zone, rank)
    return np.lexsort((rank, level)).astype(np.int64)


def stop_order(zone: Int, rank: Int, ordered_in_zone: Int) -> Int:
    """Candidates in the order in which to stop them: fullest zone first, then by rank.

    Args:
        zone: int64 (M,), zone index of each candidate in service.
        rank: int64 (M,), lower is stopped earlier, distinct.
        ordered_in_zone: int64 (Z,), VMs of the fleet in service or starting, per zone.

    Returns:
        int64 (M,), indices into the candidates.
    """
    level = ordered_in_zone[zone] - _place_in_zone(zone, rank)
    return np.lexsort((rank, -level)).astype(np.int64)


def _place_in_zone(zone: Int, rank: Int) -> Int:
    """Position of each candidate among those of its zone, by rank, from 0: int64 (M,)."""
    by_zone = np.lexsort((rank, zone))
    sorted_zone = zone[by_zone]
    first = np.searchsorted(sorted_zone, sorted_zone, side="left")
    place = np.empty(len(zone), np.int64)
    place[by_zone] = np.arange(len(zone)) - first
    return place
