"""Plays a recorded trace as if it were live: the fleet's demand, spread over the VMs in service.

Why: the demo, the tests and a shadow run need per-VM metrics that depend on how many VMs serve, as behind a real
load balancer. The source reveals nothing that a monitoring system could not know at that time: a count is known
once its interval is over, a gauge at its stamp, both later by the lag.

Rules of this file: no look-ahead, no interpolation; a gap in the recording is a gap in the readings.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.types import Signal
from autoscaler.errors import SourceError
from autoscaler.ports import Clock, FleetReadings, Vm
from autoscaler.traces.trace import Trace, TraceKind, describe_time

NO_VALUES: NDArray[np.float64] = np.empty(0)
NO_VALUES.setflags(write=False)
_CERTAIN_S = 1e-3
"""Closer than this to the end of an interval, in seconds, the current interval is looked up again because of rounding."""


@dataclass(frozen=True, slots=True)
class _Told:
    """The last readings, and their inputs."""

    vms: Sequence[Vm]
    rate: float
    observed_at_s: float
    readings: FleetReadings


@dataclass(frozen=True, slots=True)
class _Shares:
    """The shares of these VMs, in the same order."""

    vms: Sequence[Vm]
    ids: tuple[str, ...]
    weights: NDArray[np.float64]
    total: float


class TraceSource:
    """A `MetricSource` that plays a trace.

    Args:
        trace: The recording; its rates are `Trace.rates`.
        clock: Clock by which it is played.
        signal: What the readings are: throughput or utilisation per VM, or one total for the fleet.
        capacity_per_s: Work per second of one VM. Utilisation is relative to it and at most 1.
        imbalance: How unevenly VMs are loaded: each gets a fixed share drawn from 1 ± imbalance, 0..0.5.
        seed: Seed of the shares. A VM's share depends only on this and its id.
        lag_s: Delay after which a reading is known, in seconds.
        offset_s: Seconds added to the clock's time to find the moment in the recording.
        loop: Whether the recording begins again at its end.
    """

    answers_at_once = True
    """Reading never waits; see `autoscaler.at_once`."""

    def __init__(
        self,
        trace: Trace,
        clock: Clock,
        signal: Signal,
        capacity_per_s: float,
        *,
        imbalance: float = 0.05,
        seed: int = 0,
        lag_s: float = 0.0,
        offset_s: float = 0.0,
        loop: bool = False,
    ) -> None:
        if not (capacity_per_s > 0 and 0 <= imbalance <= 0.5 and lag_s >= 0):
            raise SourceError(
                "capacity must be above 0, imbalance within 0..0.5, lag at least 0", retryable=False
            )
        self._trace = trace
        self._rates = trace.rates
        self._start_s, self._end_s = trace.start_s, trace.end_s
        self._clock = clock
        self._signal = signal
        self._capacity_per_s = capacity_per_s
        self._imbalance = imbalance
        self._seed = seed
        self._lag_s = lag_s
        self._offset_s = offset_s
        self._loop = loop
        self._step, self._row = -1, -1
        """Number of the interval of the recording that was looked up last, and its row."""
        self._weights: dict[str, float] = {}
        self._shares: _Shares | None = None
        self._told: _Told | None = None
        self._known = math.inf, -math.inf, 0.0, 0.0
        """From when until when the last known value holds, the value, and the end of its window."""

    async def read(self, vms: Sequence[Vm]) -> FleetReadings:
        """Return the last value known by now, as each of these VMs would report it, or the load balancer for a total."""
        known_at_s = self._clock.now() - self._lag_s
        rate, observed_at_s, error = self._last_known(known_at_s)
        if error or (not vms and self._signal is not Signal.TOTAL):
            return FleetReadings((), NO_VALUES, NO_VALUES, error)
        told = self._told
        if told is not None and told.vms is vms and (rate, observed_at_s) == (told.rate, told.observed_at_s):
            return told.readings
        if self._signal is Signal.TOTAL:
            readings = FleetReadings(("",), np.array([rate]), np.array([observed_at_s]))
        else:
            values = self._spread(rate, vms)
            if self._signal is Signal.UTILISATION:
                values = np.minimum(1.0, values / self._capacity_per_s)
            readings = FleetReadings(self._ids(vms), values, np.full(len(vms), observed_at_s))
        # Read-only, because the same readings are returned until the recording moves on.
        readings.values.flags.writeable = readings.observed_at_s.flags.writeable = False
        # The contents of a list may change although it is the same object.
        self._told = _Told(vms, rate, observed_at_s, readings) if isinstance(vms, tuple) else None
        return readings

    async def close(self) -> None:
        """Do nothing: no resources are held."""

    def _ids(self, vms: Sequence[Vm]) -> tuple[str, ...]:
        shares = self._shares
        if shares is not None and shares.vms is vms:
            return shares.ids
        return tuple(vm.id for vm in vms)

    def _last_known(self, known_at_s: float) -> tuple[float, float, str]:
        """Rate, end of its window in the clock's time, and why there is none."""
        from_s, until_s, rate, observed_at_s = self._known
        if from_s <= known_at_s < until_s:
            return rate, observed_at_s, ""
        trace, at_s = self._trace, known_at_s + self._offset_s
        span_s = self._end_s - self._start_s
        lap_s = math.floor((at_s - self._start_s) / span_s) * span_s if self._loop else 0.0
        at_s -= lap_s
        count = trace.kind is TraceKind.COUNT
        step = math.floor((at_s - self._start_s) / trace.interval_s) - (1 if count else 0)
        if (
            step < 0 and lap_s > 0
        ):  # the first interval of a lap is not over: the last known one is at the end of the previous lap
            step += round(span_s / trace.interval_s)
            lap_s -= span_s
        start_s = self._start_s + step * trace.interval_s
        if step < 0:
            return math.nan, math.nan, self._too_early(at_s, known_at_s)
        if start_s >= self._end_s:
            return math.nan, math.nan, f"trace {trace.name} ended at {describe_time(self._end_s)}"
        if step != self._step:
            self._step, self._row = step, self._row_at(start_s + trace.interval_s / 2)
        row = self._row
        if row < 0:
            return math.nan, math.nan, f"trace {trace.name} has a gap at {describe_time(start_s)}"
        over_s = trace.interval_s if count else 0.0
        rate, observed_at_s = float(self._rates[row]), start_s + over_s + lap_s - self._offset_s
        if observed_at_s <= known_at_s and not self._loop:
            # Valid while this interval is the last one that is over, less a margin for rounding at its end.
            until_s = observed_at_s + trace.interval_s - _CERTAIN_S
            self._known = known_at_s, until_s, rate, observed_at_s
        return rate, min(observed_at_s, known_at_s), ""

    def _row_at(self, at_s: float) -> int:
        """Like `Trace.row_at`, for a single time; -1 in a gap."""
        stamps = self._trace.timestamps
        row = int(stamps.searchsorted(at_s, "right")) - 1
        return row if row >= 0 and at_s < float(stamps[row]) + self._trace.interval_s else -1

    def _too_early(self, at_s: float, known_at_s: float) -> str:
        """Why nothing is known yet, given the moment of the recording."""
        trace = self._trace
        if at_s < trace.start_s:
            return f"trace {trace.name} does not begin before {describe_time(trace.start_s)}"
        # A point in time rather than the time left, which would be reported anew in each tick.
        moment_s = round(known_at_s + self._lag_s + trace.start_s + trace.interval_s - at_s)
        return f"trace {trace.name}: its first count is known at {describe_time(moment_s)}, once its interval is over"

    def _spread(self, rate: float, vms: Sequence[Vm]) -> NDArray[np.float64]:
        """Divide the rate over VMs, float64 (n,). The parts are uneven and add up to the rate."""
        shares = self._shares
        if shares is None or shares.vms is not vms:
            self._weights = {vm.id: self._weights.get(vm.id) or self._weight(vm.id) for vm in vms}
            weights = [self._weights[vm.id] for vm in vms]
            shares = _Shares(vms, tuple(vm.id for vm in vms), np.array(weights), math.fsum(weights))
            # The contents of a list may change although it is the same object.
            self._shares = shares if isinstance(vms, tuple) else None
        parts = shares.weights * (rate / shares.total)
        parts[-1] = rate - math.fsum(parts[:-1].tolist())
        return parts

    def _weight(self, vm_id: str) -> float:
        drawn = hashlib.blake2b(f"{self._seed} {vm_id}".encode(), digest_size=8).digest()
        return 1.0 + self._imbalance * (int.from_bytes(drawn, "big") / 2**63 - 1.0)
