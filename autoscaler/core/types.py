"""The interface of core: every value that enters or leaves it, with shape, dtype and unit.

Rules of this file: plain frozen dataclasses of arrays and closed enums, nothing that computes. L is the number of lanes (live: fleets),
S the number of series (live: one per lane), N the number of readings, Q the number of forecast quantiles, K the number of stages of
the decision chain. Times are epoch seconds as float; demand, capacity and shortage are work per second; counts are VMs.

Missing is never zero: an absent demand is NaN, with a `Freshness` that says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from autoscaler.core.allocation import HeldBack
    from autoscaler.core.objective.economics import Economics
    from autoscaler.core.warm.tiers import Tiers

Float: TypeAlias = NDArray[np.float64]
SmallFloat: TypeAlias = NDArray[np.float32]
Int: TypeAlias = NDArray[np.int64]
SmallInt: TypeAlias = NDArray[np.int32]
Code: TypeAlias = NDArray[np.uint16]
Bool: TypeAlias = NDArray[np.bool_]
Array: TypeAlias = Float | SmallFloat | Int | SmallInt | Code | Bool
CountType: TypeAlias = np.dtype[np.int64]
"""Type of VM counts: int64, or int32 or int16 if a simulation asks for it."""

NO_CEILING = 2**31 - 1
"""`Snapshot.ceiling` if no operator has overridden the policy's maximum."""

MOST_VMS = 10**9
"""Upper bound on all numbers of VMs, chosen so that counts and sums of two counts fit into 32 bits."""

QUANTILE_LEVELS: tuple[float, ...] = (0.5, 0.9, 0.95, 0.99)
"""Levels of the predictive distribution that an Outlook carries, ascending; the first is the median."""


class Horizon(IntEnum):
    """Which part of future demand a predictive law describes."""

    LEAD = 0
    """Demand at the lead time, the first tick that a start ordered now can serve."""
    KEEP = 1
    """The highest demand until just before a VM stopped now could serve again (stop time plus lead time)."""
    HOLD = 2
    """The highest demand within the hold window, a multiple of the keep window; scaling in weighs it."""
    REFILL = 3
    """The highest demand within the refill horizon of the warm pool."""


LAW_BINS = 64
"""Bins of a predictive law."""
LAW_LOW, LAW_STEP = -5.5, 12.5 / LAW_BINS
"""Where the bins of a law start and how wide they are, in terms of `arsinh(log ratio / spread)`: even and narrow
where outcomes are likely, ever wider in the tails (spread * sinh(7) is 548 times the spread)."""


class Signal(IntEnum):
    """What a reading measures."""

    UTILISATION = 0
    """Share of the VM's capacity in use, 0..1 (above 1 if the metric allows it)."""
    THROUGHPUT = 1
    """Work per second that arrived at the VM, served or not."""
    TOTAL = 2
    """Work per second wanted from the whole fleet, measured outside it (by a load balancer)."""
    CONCURRENCY = 3
    """Work in flight in the VM (requests, sessions)."""
    QUEUE = 4
    """Work waiting for the whole fleet (a backlog); `core.queues` turns it into demand."""


class Freshness(IntEnum):
    """How far the demand of a lane can be trusted, ordered from best to worst."""

    FRESH = 0
    STALE = 1
    """Readings arrived, all older than the policy allows."""
    INVALID = 2
    """Readings arrived, none with a possible value (NaN, infinite, negative)."""
    ABSENT = 3
    """Nothing arrived."""


class Stage(IntEnum):
    """The fixed chain of `decide`, in order. The first five propose, the rest guard."""

    REACTIVE = 0
    STEPS = 1
    SCHEDULE = 2
    COVER = 3
    ECONOMIC = 4
    STABILISATION = 5
    DATA = 6
    COOLDOWN = 7
    BOUNDS = 8
    RATE = 9
    ON_TIME = 10
    PAUSE = 11
    SHARED = 12
    SUPPLY = 13


class Reason(IntEnum):
    """Why a number is what it is. Closed: these are metric labels, journal values and the docs' headings."""

    NONE = 0
    """The stage left the wish as it was."""
    DEMAND = 1
    """Demand plus headroom."""
    TOLERANCE = 2
    """The wish differs from the VMs ordered by less than the tolerance, so their number stays."""
    CENSORED = 3
    """VMs are saturated, which hides demand, so the plan is for more than is measured."""
    STEP_RULE = 4
    """A step rule matched the utilisation."""
    SCHEDULE = 5
    """A schedule asks for at least this many."""
    FORECAST_COVER = 6
    """The forecast quantile at the lead time needs this many."""
    FORECAST_KEEP = 7
    """The highest demand forecast until a stopped VM could serve again needs this many."""
    STABILISATION = 8
    """A higher wish within the stabilisation window delays scale-in."""
    DATA_ABSENT = 9
    """No reading arrived, so nothing is stopped."""
    DATA_STALE = 10
    """All readings are older than the policy allows, so nothing is stopped."""
    DATA_INVALID = 11
    """All readings have impossible values, so nothing is stopped."""
    LOW_COVERAGE = 12
    """Too few of the VMs in service reported for a scale-in."""
    COOLDOWN_OUT = 13
    """The pause after the last scale-out is not over."""
    COOLDOWN_IN = 14
    """The pause before a scale-in is not over."""
    MINIMUM = 15
    """The policy's minimum."""
    MAXIMUM = 16
    """The policy's maximum."""
    RATE_LIMIT_OUT = 17
    """No more VMs may be started in this period."""
    RATE_LIMIT_IN = 18
    """No more VMs may be stopped in this period."""
    MINIMUM_ON_TIME = 19
    """VMs in service have not been on for the minimum time, or are protected."""
    WARM_POOL_EMPTY = 20
    """There are fewer stopped VMs than wanted starts, and the policy does not allow provisioning more."""
    PROVISION = 21
    """The warm pool is empty; the rest is provisioned from nothing."""
    LISTING_INCOMPLETE = 22
    """The provider's listing is missing or incomplete, so nothing is stopped."""
    OVERRIDE_FLOOR = 23
    """An operator's override of the minimum; if it is above the maximum, it replaces the maximum too."""
    OVERRIDE_CEILING = 24
    """An operator's override of the maximum."""
    PAUSED_STOP = 25
    """An operator has paused stops."""
    PAUSED_START = 26
    """An operator has paused starts from the warm pool; VMs may still be provisioned."""
    PAUSED_PROVISION = 27
    """An operator has paused provisioning, and the warm pool has fewer VMs than wanted."""
    DEMAND_VANISHED = 28
    """All demand vanished at once, which counts as an outage for a while, so nothing is stopped."""
    DATA_FALLBACK = 29
    """Data has been missing for a long time: the largest of the last good wish, the schedule and the forecast."""
    WORTH_START = 30
    """Given the prices and the forecast at the lead time, this many VMs earn more than they cost."""
    WORTH_KEEP = 31
    """Given the prices and the forecast of the highest demand to come, this many VMs earn more than they cost."""
    MODEL_DEMAND = 32
    """Demand plus headroom drives: of all models, it would recently have cost the fleet least."""
    MODEL_USUAL = 33
    """The usual need drives: of all models, it would recently have cost the fleet least."""
    MODEL_YESTERDAY = 34
    """The need at this time on earlier days drives: of all models, it would recently have cost the fleet least."""
    WORTH_UNKNOWN = 35
    """There is no forecast yet, so the plan is for demand plus headroom."""
    MODEL_PEAK = 36
    """Demand plus headroom drives, and its maximum over a window keeps this many."""
    SHARED_VMS = 37
    """The group of fleets may run no more VMs, and VMs of other fleets earn more or already run."""
    SHARED_MONEY = 38
    """The group of fleets may cost no more, and VMs of other fleets earn more or already run."""
    SHARED_STARTS = 39
    """The group of fleets may start no more VMs for now."""
    FALL_DOUBTED = 40
    """Demand fell suddenly and unusually deep, which may be an outage: the VMs needed before stay while that is worthwhile."""
    DATA_RETURNED = 41
    """Data has only just come back, possibly of a part of the fleet only, so nothing is stopped for a while."""


class TierReason(IntEnum):
    """Why this many of the waiting VMs should wait hibernated."""

    UNPRICED = 0
    """The fleet has no objective, so the cost of a slower start is unknown: all VMs that may hibernate do."""
    NO_FORECAST = 1
    """There is no forecast yet: all VMs that may hibernate do."""
    UNMEASURED = 2
    """It is not yet known how much sooner hibernated VMs serve: all VMs that may hibernate do."""
    WEIGHED = 3
    """Given the prices and the forecast, this many memories are worth saving and holding."""


@dataclass(frozen=True, slots=True)
class Readings:
    """Per-VM readings of all lanes of one tick, in any order.

    Attributes:
        lane: int64 (N,), lane index.
        value: float64 (N,), in the unit of the lane's signal.
        observed_at_s: float64 (N,), end of the window that the value describes.
        capacity: float64 (N,), work per second of that VM at the objective (unused for TOTAL).
        received_at_s: float64 (N,), when the reading arrived, by the clock of `fold`; None means now.
    """

    lane: Int
    value: Float
    observed_at_s: Float
    capacity: Float
    received_at_s: Float | None = None


@dataclass(frozen=True, slots=True)
class Samples:
    """One demand sample per series, folded from Readings by `demand.fold`.

    Attributes:
        now_s: Time of the fold.
        demand: float64 (S,), work per second; NaN unless fresh.
        observed_at_s: float64 (S,), when the oldest reading used was observed; NaN unless fresh.
        freshness: int64 (S,) of `Freshness`.
        coverage: float64 (S,), share of the VMs in service with a fresh reading, 0..1.
        censored: bool (S,), whether demand is only a lower bound because VMs are saturated.
        beyond: int64 (n,), indices of the Readings that were ignored as beyond what a VM can do; None if there were none.
    """

    now_s: float
    demand: Float
    observed_at_s: Float
    freshness: Int
    coverage: Float
    censored: Bool
    beyond: Int | None = None


@dataclass(frozen=True, slots=True)
class Laws:
    """Full predictive distributions per series, one for each `Horizon`, as the expected excess over each edge.

    Edge b = 0..LAW_BINS lies at demand `(level + scale) * exp(spread * sinh(LAW_LOW + b * LAW_STEP)) - scale`, so the
    position of a demand between the edges has a closed form. No outcome is expected above the last edge; every outcome
    is expected above the first.

    Attributes:
        level: float64 (S, H), the point that each law is relative to, work per second; NaN before the first
            fresh sample, and if the law is not needed (`SeriesParams.refill_laws`).
        spread: float64 (S, H), the unit of the log ratio, above 0.
        scale: float64 (S,), at least `SeriesParams.scale`; more if demand comes in lumps.
        excess: float32 (S, H, LAW_BINS + 1), E[max(outcome - edge, 0)], work per second, with edges below 0 taken as
            0: convex in the edge, never rising. The k-th VM of capacity c is expected to serve
            excess((k - 1) * c) - excess(k * c).
    """

    level: Float
    spread: Float
    scale: Float
    excess: SmallFloat


@dataclass(frozen=True, slots=True)
class BurstOdds:
    """How likely a burst is by the time that a start ordered now serves.

    Attributes:
        odds: float64 (S,), probability that a burst runs or begins by then; 1 if one runs now.
        at_s: float64 (S,), epoch seconds at which a burst is due, if bursts follow the clock and one is due by then; NaN
            otherwise. Accurate to a minute or a tick, whichever is longer.
        period_s: float64 (S,), time between such bursts; 0 if bursts do not follow the clock.
    """

    odds: Float
    at_s: Float
    period_s: Float


@dataclass(frozen=True, slots=True)
class Outlook:
    """Predictive distribution per series, issued now.

    Attributes:
        at_lead: float64 (Q, S), quantiles of demand (work per second) at the lead time, the first moment that a start
            ordered now can serve, kept calibrated by outcomes (`forecast.coverage`); NaN before the first fresh sample.
        peak: float64 (Q, S), quantiles of the highest demand from now to the end of the keep window, the
            time until a VM stopped now could serve again.
        evidence: float64 (S,), effective number of outcomes behind the spread (0 at a cold start).
        laws: The full distributions; None if no series needs them.
        bursts: How likely a burst is, for people to read; None if it was not kept.
    """

    at_lead: Float
    peak: Float
    evidence: Float
    laws: Laws | None = None
    bursts: BurstOdds | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All inputs of one decision. Counts are int64 (L,), or all int32 or all int16; demand fields as in `Samples`, per lane.

    Pass arrays that do not change from tick to tick as the same read-only arrays (`flags.writeable` off, owning their
    memory), because core then evaluates them only once. Candidates are the operators' overrides and, if nothing ever
    fails, freshness, coverage, listed and censored. `stoppable` may be `in_service` itself.

    Attributes:
        now_s: Time of the decision; the only time that core sees.
        tick: Number of the tick on the absolute grid, floor(now / tick length).
        demand, observed_at_s, freshness, coverage, censored: as in `Samples`.
        in_service: VMs in service.
        starting: VMs ordered (started or provisioned) but not yet in service.
        draining: VMs leaving service, still running.
        stopping: VMs on their way to stopped.
        stopped: VMs that could be started now (the warm pool without quarantined VMs).
        provisioned: All VMs of the fleet that exist, whatever their state.
        stoppable: VMs in service that are past their minimum on-time and not protected.
        listed: bool (L,), whether the counts rest on a complete listing of this tick.
        may_start, may_provision, may_stop: bool (L,), False if an operator has paused the action.
        floor: An operator's override of the policy's minimum, 0 if there is none; it only raises the minimum.
        ceiling: An operator's override of the policy's maximum, `NO_CEILING` if there is none; may be above the policy's
            maximum or below its minimum. A floor above the maximum raises the maximum to the floor.
    """

    now_s: float
    tick: int
    demand: Float
    observed_at_s: Float
    freshness: Int
    coverage: Float
    censored: Bool
    in_service: Int
    starting: Int
    draining: Int
    stopping: Int
    stopped: Int
    provisioned: Int
    stoppable: Int
    listed: Bool
    may_start: Bool
    may_provision: Bool
    may_stop: Bool
    floor: Int
    ceiling: Int


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, with the reasons. Counts are int64 (L,), or narrower if the snapshot's counts are.

    Attributes:
        wish: VMs that the policy stages propose, before guards.
        desired: VMs wanted in service, after guards and pauses; the last row of `value` is what supply allows of that.
        start: Stopped VMs to start.
        provision: VMs to make from nothing.
        stop: VMs in service to stop.
        warm_target: Stopped VMs wanted in the warm pool.
        forecast: float64 (L,), median demand at the lead time, work per second.
        forecast_hi: float64 (L,), 95 % quantile of demand at the lead time.
        reason: int64 (K, L) of `Reason`, one row per `Stage`; NONE where the stage changed nothing.
        value: int64 (K, L), the wish after each stage.
        economics: The numbers behind the economic stage; None if no lane has an objective.
        held_back: Lanes that shared limits keep below their wish.
        bursts: As in the Outlook, over series; None without an Outlook.
        tiers: How many of the waiting VMs should wait hibernated; None if no lane's VMs may hibernate.
    """

    wish: Int
    desired: Int
    start: Int
    provision: Int
    stop: Int
    warm_target: Int
    forecast: Float
    forecast_hi: Float
    reason: Int
    value: Int
    economics: Economics | None = None
    held_back: tuple[HeldBack, ...] = ()
    bursts: BurstOdds | None = None
    tiers: Tiers | None = None
