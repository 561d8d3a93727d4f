"""Compiled policies: the arrays over lanes or series that `config` makes from the YAML.

Rules of this file: values only. Everything that a person writes in seconds, per cent or VMs arrives here compiled; windows that need a
ring of state are compiled to ticks. Shapes: L lanes, S series, R step rules (padded), E schedule windows (padded). Padding never
matches: a rule with lower > upper, a window with end <= start.
"""

from __future__ import annotations

from dataclasses import dataclass

from autoscaler.core.types import Bool, Float, Int


@dataclass(frozen=True, slots=True)
class FoldParams:
    """How readings become demand, per lane.

    Attributes:
        signal: int64 (L,) of `Signal`.
        max_age_s: float64 (L,), readings older than this are stale.
        saturation: float64 (L,), mean utilisation from which demand counts as censored (UTILISATION only).
        in_flight: float64 (L,), work in flight in a VM that just meets its objective (CONCURRENCY only).
        drain_s: float64 (L,), time in which a backlog is to be worked off (QUEUE only).
    """

    signal: Int
    max_age_s: Float
    saturation: Float
    in_flight: Float
    drain_s: Float


@dataclass(frozen=True, slots=True)
class SeriesParams:
    """Forecast settings per series.

    Attributes:
        tick_s: Length of a tick.
        lead_ticks: int64 (S,), ticks until the first sample of what a VM ordered now serves, at least 1: one more than
            until it serves where laws are wanted, since samples are of ticks that are over.
        keep_ticks: int64 (S,), ticks until a VM stopped now could serve again (stop time plus lead time); one less where laws
            are wanted, since what comes at the lead time has a law of its own.
        hold_ticks: int64 (S,), the window of the longer peak that scaling in weighs.
        refill_ticks: int64 (S,), the window of the peak that the warm pool must meet.
        half_life_ticks: float64 (S,), age in ticks at which an outcome weighs half.
        scale: float64 (S,), work per second added to both sides of an error ratio, so that zero demand is
            an ordinary value: `SCALE_IN_VMS` of a VM's capacity.
        laws: bool (S,), whole laws are wanted; where no series asks for them they are not kept.
        refill_laws: bool (S,), likewise that of `Horizon.REFILL`, which only those need that hibernate; never without the others.
        event_start_s, event_end_s: float64 (E, S), epoch seconds of known events, half open; padding has
            end <= start.
        event_factor: float64 (E, S), how many times the usual demand is expected during it, more than 0.
        event_odds: float64 (E, S), probability that it is so, 0..1.
    """

    tick_s: float
    lead_ticks: Int
    keep_ticks: Int
    hold_ticks: Int
    refill_ticks: Int
    half_life_ticks: Float
    scale: Float
    laws: Bool
    refill_laws: Bool
    event_start_s: Float
    event_end_s: Float
    event_factor: Float
    event_odds: Float


SCALE_IN_VMS = 0.3
"""`SeriesParams.scale` as a share of one VM's capacity."""


@dataclass(frozen=True, slots=True)
class LaneParams:
    """Sizing and guards per lane.

    Attributes:
        tick_s: Length of a tick.
        series: int64 (L,), the series whose Outlook this lane reads.
        vm_capacity: float64 (L,), work per second of one VM at the objective.
        reactive: bool (L,), the reactive stage proposes.
        headroom: float64 (L,), planned surplus over demand, 0.3 is 30 %.
        tolerance: float64 (L,), relative difference between wish and ordered within which nothing moves.
        censored_growth: float64 (L,), factor on demand where saturation hides it, at least 1.
        steps: bool (L,), the step rules propose.
        step_lower, step_upper: float64 (R, L), a rule matches where lower <= utilisation < upper.
        step_vms: int64 (R, L), VMs to add (negative: to remove) where it matches.
        step_share: float64 (R, L), share of the ordered VMs to add likewise; added to step_vms.
        schedule: bool (L,), the schedule proposes.
        window_start_s, window_end_s: float64 (E, L), epoch seconds, half open.
        window_floor: int64 (E, L), VMs wanted at least within the window.
        known_from_s, known_end_s: float64 (E, L), epoch seconds between which, both without, orders meet a known event that may not
            have shown yet; padding has end <= from.
        known_begins_s: float64 (E, L), when it begins.
        cover: bool (L,), the forecast stage proposes.
        cover_quantile: int64 (L,), index into QUANTILE_LEVELS.
        uses_signal: bool (L,), scale-in needs demand data (all but schedule-only policies).
        min_coverage: float64 (L,), share of VMs in service that must report fresh before a scale-in.
        loss_hold_s: float64 (L,), how long a blind lane keeps what it has before it falls back; infinite for ever.
        zero_hold_s: float64 (L,), how long demand that vanished at once is doubted; 0 not at all.
        stabilisation_ticks: int64 (L,), scale-in goes at most to the highest wish of so many ticks.
        cooldown_out_s: float64 (L,), pause after a scale-out order before the next one.
        cooldown_in_s: float64 (L,), pause before a scale-in after the last scale-in, and after the last
            ordered VM has come into service.
        minimum, maximum: int64 (L,), bounds on VMs ordered.
        rate_out_vms, rate_in_vms: float64 (L,), VMs that may be started / stopped within the period (a token
            bucket of this size); infinite for no limit.
        rate_out_period_s, rate_in_period_s: float64 (L,), time in which an empty bucket is full again.
        provision: bool (L,), VMs may be made from nothing when the warm pool is empty.
        max_provisioned: int64 (L,), the most VMs that may exist.
        warm_minimum, warm_maximum: int64 (L,), bounds on the warm target.
        warm_memory_ticks: int64 (L,), how long a peak of desired keeps its VMs in the warm target.
        warm_spare: float64 (L,), share added to that peak.
        economic: bool (L,), the economic stage proposes. All that follows matters there only, and is counted in
            VM-ticks: the price of one VM in service for one tick.
        shortage_price: float64 (L,), price of one VM-tick of unserved work; where there is a target, the first
            guess at it.
        unserved_target: float64 (L,), share of work that may stay unserved, for which the price is found; 0 where the
            price is given.
        start_cost: float64 (L,), price of one start: its billed part and what else is paid for it.
        lead_ticks: int64 (L,), ticks from an order to the first tick it serves.
        hold_ticks: int64 (L,), ticks over which a VM that is started is expected to be of use.
        billed_ticks: int64 (L,), ticks in service that every start is billed for anyway.
        start_success: float64 (L,), share of the starts that come to serve, above 0.
        stopped_cost: float64 (L,), price of one stopped VM for one tick.
        provision_cost: float64 (L,), price of one VM made from nothing.
        cold_ticks: float64 (L,), ticks that a VM made from nothing serves later than a stopped one.
        hibernate: bool (L,), VMs that stop may save their memory.
        sooner_ticks: float64 (L,), ticks that a start of a hibernated VM is quicker than one of a stopped VM; NaN where
            nobody knows. What follows matters where this is known and there is an objective.
        unbilled_ticks: float64 (L,), how many of them are billed anyway where the VM starts from stopped.
        saving_cost: float64 (L,), price of saving one memory.
        memory_cost: float64 (L,), price of keeping one over the whole refill horizon.
        group: int64 (L,), number of the group of lanes that share limits; -1 for none.
        group_vms, group_money: float64 (L,), VMs that the group may run, money per hour that they may cost; infinite
            for no limit. All lanes of a group have the same, like what follows.
        group_starts: float64 (L,), VMs that the group may start within the period (a token bucket); infinite for no
            limit.
        group_period_s: float64 (L,), time in which that empty bucket is full again.
        vm_price: float64 (L,), money per hour of one VM in service.
    """

    tick_s: float
    series: Int
    vm_capacity: Float
    reactive: Bool
    headroom: Float
    tolerance: Float
    censored_growth: Float
    steps: Bool
    step_lower: Float
    step_upper: Float
    step_vms: Int
    step_share: Float
    schedule: Bool
    window_start_s: Float
    window_end_s: Float
    window_floor: Int
    known_from_s: Float
    known_begins_s: Float
    known_end_s: Float
    cover: Bool
    cover_quantile: Int
    uses_signal: Bool
    min_coverage: Float
    loss_hold_s: Float
    zero_hold_s: Float
    stabilisation_ticks: Int
    cooldown_out_s: Float
    cooldown_in_s: Float
    minimum: Int
    maximum: Int
    rate_out_vms: Float
    rate_out_period_s: Float
    rate_in_vms: Float
    rate_in_period_s: Float
    provision: Bool
    max_provisioned: Int
    warm_minimum: Int
    warm_maximum: Int
    warm_memory_ticks: Int
    warm_spare: Float
    economic: Bool
    shortage_price: Float
    unserved_target: Float
    start_cost: Float
    lead_ticks: Int
    hold_ticks: Int
    billed_ticks: Int
    start_success: Float
    stopped_cost: Float
    provision_cost: Float
    cold_ticks: Float
    hibernate: Bool
    sooner_ticks: Float
    unbilled_ticks: Float
    saving_cost: Float
    memory_cost: Float
    group: Int
    group_vms: Float
    group_money: Float
    group_starts: Float
    group_period_s: Float
    vm_price: Float
