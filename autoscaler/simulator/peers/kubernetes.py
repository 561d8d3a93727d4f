"""The Kubernetes autoscalers, as peers (rules of these files: `peer`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.params import LaneParams
from autoscaler.core.types import Float, Int, Snapshot
from autoscaler.simulator.peers.peer import (
    ROUNDING,
    UNKNOWN,
    USUAL_UTILISATION,
    RollingMaximum,
    Sized,
    measured_utilisation,
    ordered,
    over_lanes,
    passes,
    vms_for,
    window_ticks,
)


class Kubernetes(Sized):
    """The horizontal pod autoscaler, version 2 (Kubernetes 1.18 to 1.33), with its default behaviour.

    Every 15 s it compares measured with target utilisation over the VMs in service. If their ratio is within 10 % of 1,
    nothing changes; otherwise the wish is the VMs in service times the ratio, rounded up. For a rise, VMs that are still
    starting count as idle, and nothing changes if that brings the ratio back. Scale-out is limited to the larger of doubling
    and 4 more in 15 s. Scale-in goes to the highest wish of the last 300 s. It keeps the number that it has set, as a
    Deployment does, so a VM that fails to start is started again. If nothing is in service there is no metric, so it cannot
    scale from zero. With an external metric it can: the wish is total work divided by the target work of a VM. The tolerance
    then applies to the work per VM that it has set, whether started or not (`GetExternalPerPodMetricReplicas`).

    With ticks shorter than 15 s, it decides at every multiple of 15 s of the clock. Longer ticks allow one measurement, and
    the growth of as many turns of 15 s as they contain.

    Args:
        params: The lanes.
        utilisation: Share of a VM's capacity to aim at.
        external: The metric is the work wanted from the whole fleet, measured outside of it.
    """

    _SYNC_S = 15.0
    _MORE = 4
    _TOLERANCE = 0.1
    """Relative difference up to which nothing changes."""
    _STABILISATION_S = 300.0
    """How long a wish holds back scale-in."""

    def __init__(
        self,
        params: LaneParams,
        *,
        utilisation: float | Float = USUAL_UTILISATION,
        external: bool = False,
    ) -> None:
        lanes = len(params.vm_capacity)
        super().__init__(params)
        self._wanted = over_lanes(utilisation, params)
        self._syncs = max(1, int(params.tick_s / self._SYNC_S + ROUNDING))
        turns = window_ticks(self._STABILISATION_S, max(params.tick_s, self._SYNC_S))
        self._recent = RollingMaximum(turns, lanes)
        self._replicas: Int = np.full(lanes, UNKNOWN, np.int64)
        self._external = external

    def sized(self, snapshot: Snapshot) -> Int:
        """Return the VMs wanted (see `Peer.sized`)."""
        if (self._replicas == UNKNOWN).any():
            self._replicas = ordered(snapshot)
            self._recent.push(self._replicas, self._replicas >= 0)
        if passes(self._SYNC_S, snapshot.now_s, self._params.tick_s):
            self._turn(snapshot)
        return self._replicas

    def memory(self, now_s: float) -> list[NDArray[Any]]:
        """Return all that its future depends on (see `Peer.memory`)."""
        del now_s
        return [self._recent.memory(), self._replicas[np.newaxis]]

    def _turn(self, snapshot: Snapshot) -> None:
        """Set the number of VMs once, as at each multiple of 15 s."""
        current = self._replicas
        if self._external:
            known, wish = ~np.isnan(snapshot.demand), self._outside(snapshot)
        else:
            ratio = measured_utilisation(self._params, snapshot) / self._wanted
            known = ~np.isnan(ratio)
            wish = np.where(known, self._wish(snapshot, np.where(known, ratio, 1.0)), current)
        highest = self._recent.push(wish, known)
        steady = np.minimum(np.maximum(current, wish), np.maximum(highest, wish))
        most = current
        for _ in range(self._syncs):
            most = np.maximum(2 * most, most + self._MORE)
        allowed = np.minimum(np.where(known, steady, current), most)
        self._replicas = np.minimum(np.maximum(allowed, self._params.minimum), self._params.maximum)

    def _outside(self, snapshot: Snapshot) -> Int:
        """Return the VMs wanted by an external metric."""
        current = self._replicas
        usable = self._wanted * self._params.vm_capacity
        need = vms_for(snapshot.demand, usable)
        ratio = np.where(current > 0, snapshot.demand / (usable * np.maximum(current, 1)), np.inf)
        held = (np.abs(ratio - 1.0) <= self._TOLERANCE + ROUNDING) | np.isnan(snapshot.demand)
        return np.where(held, current, need)

    def _wish(self, snapshot: Snapshot, ratio: Float) -> Int:
        """Return the VMs wanted by the measured utilisation."""
        current, ready = self._replicas, snapshot.in_service
        pending = np.maximum(current - ready, 0)
        rising = (ratio > 1.0) & (pending > 0)
        diluted = np.where(rising, ratio * ready / np.maximum(ready + pending, 1), ratio)
        counted = np.where(rising, ready + pending, ready)
        wish = np.ceil(diluted * counted - ROUNDING).astype(np.int64)
        held = np.abs(diluted - 1.0) <= self._TOLERANCE + ROUNDING
        held |= rising & ((diluted < 1.0) | (wish < current))
        return np.where(held, current, wish)
