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
        max_age_s: float64 (L,), age beyond which a reading is stale.
        saturation: float64 (L,), mean utilisation from which demand counts as censored (UTILISATION only).
        in_flight: float64 (L,), work in flight in a VM that just meets its objective (CONCURRENCY only).
        drain_s: float64 (L,), time within which a backlog should be cleared (QUEUE only).
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
        lead_ticks: int64 (S,), ticks until the first sample of demand that a VM ordered now can serve, at least 1. One more
            with `laws`, because a sample describes a tick that is over.
        keep_ticks: int64 (S,), ticks until a VM stopped now could serve again (stop time plus lead time). One less with
            `laws`, because demand at the lead time has a law of its own.
        hold_ticks: int64 (S,), length of the hold window, whose peak scaling in weighs.
        refill_ticks: int64 (S,), length of the window whose peak the warm pool must meet.
        half_life_ticks: float64 (S,), age in ticks at which an outcome has half its weight.
        scale: float64 (S,), work per second added to both sides of an error ratio, so that zero demand is
            an ordinary value: `SCALE_IN_VMS` times a VM's capacity.
        laws: bool (S,), whether full laws are needed; if no series needs them, none are kept.
        refill_laws: bool (S,), whether the law of `Horizon.REFILL` is needed, as it is for fleets that hibernate VMs; never
            True without `laws`.
        event_start_s, event_end_s: float64 (E, S), epoch seconds of known events, half open; padding has
            end <= start.
        event_factor: float64 (E, S), multiple of the usual demand that is expected during the event, above 0.
        event_odds: float64 (E, S), probability that the event takes place, 0..1.
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
        reactive: bool (L,), whether the reactive stage proposes.
        headroom: float64 (L,), planned surplus over demand; 0.3 is 30 %.
        tolerance: float64 (L,), relative difference between wish and ordered VMs below which nothing changes.
        censored_growth: float64 (L,), factor on demand that saturation hides, at least 1.
        steps: bool (L,), whether the step rules propose.
        step_lower, step_upper: float64 (R, L), a rule matches if lower <= utilisation < upper.
        step_vms: int64 (R, L), VMs that a matching rule adds (removes if negative).
        step_share: float64 (R, L), share of the ordered VMs that a matching rule adds besides `step_vms`.
        schedule: bool (L,), whether the schedule proposes.
        window_start_s, window_end_s: float64 (E, L), epoch seconds, half open.
        window_floor: int64 (E, L), fewest VMs wanted within the window.
        known_from_s, known_end_s: float64 (E, L), epoch seconds, both exclusive, between which orders meet a known event that
            demand may not show yet; padding has end <= from.
        known_begins_s: float64 (E, L), epoch seconds at which that event begins.
        cover: bool (L,), whether the forecast stage proposes.
        cover_quantile: int64 (L,), index into QUANTILE_LEVELS.
        uses_signal: bool (L,), whether scale-in needs demand data (False for schedule-only policies).
        min_coverage: float64 (L,), share of VMs in service that must report fresh before a scale-in.
        loss_hold_s: float64 (L,), how long a lane without usable data keeps its VMs before it falls back; infinite: forever.
        zero_hold_s: float64 (L,), how long demand that vanished at once is doubted; 0: never.
        stabilisation_ticks: int64 (L,), window whose highest wish limits scale-in.
        cooldown_out_s: float64 (L,), pause after a scale-out order before the next one.
        cooldown_in_s: float64 (L,), pause before a scale-in after the last scale-in, and after the last
            ordered VM has come into service.
        minimum, maximum: int64 (L,), bounds on VMs ordered.
        rate_out_vms, rate_in_vms: float64 (L,), VMs that may be started / stopped within the period (a token
            bucket of this size); infinite: no limit.
        rate_out_period_s, rate_in_period_s: float64 (L,), time in which an empty bucket is full again.
        provision: bool (L,), whether VMs may be provisioned when the warm pool is empty.
        max_provisioned: int64 (L,), the most VMs that may exist.
        warm_minimum, warm_maximum: int64 (L,), bounds on the warm target.
        warm_memory_ticks: int64 (L,), how long a peak of desired VMs raises the warm target.
        warm_spare: float64 (L,), share added to that peak.
        economic: bool (L,), whether the economic stage proposes (the lane has an objective). The fields below, up to
            `memory_cost`, matter only then; prices are in VM-ticks: multiples of the price of one VM in service for one tick.
        shortage_price: float64 (L,), price of one VM-tick of unserved work; with an `unserved_target`, the first estimate of
            that price.
        unserved_target: float64 (L,), share of work that may stay unserved, from which the price of shortage is found; 0 if
            the price is given.
        start_cost: float64 (L,), price of one start: its billed part and any extra price.
        lead_ticks: int64 (L,), ticks from an order to the first tick that it serves.
        hold_ticks: int64 (L,), ticks for which a started VM is expected to be useful.
        billed_ticks: int64 (L,), ticks in service that every start is billed for at least.
        start_success: float64 (L,), share of starts that reach service, above 0.
        stopped_cost: float64 (L,), price of one stopped VM for one tick.
        provision_cost: float64 (L,), price of provisioning one VM.
        cold_ticks: float64 (L,), how many ticks later a newly provisioned VM serves than a stopped one.
        hibernate: bool (L,), whether VMs may save their memory when they stop.
        sooner_ticks: float64 (L,), how many ticks sooner a hibernated VM serves than a stopped one; NaN if not known. The
            next three fields matter only if it is known.
        unbilled_ticks: float64 (L,), how many of those ticks are billed if the VM starts from stopped.
        saving_cost: float64 (L,), price of saving one VM's memory.
        memory_cost: float64 (L,), price of keeping one VM's memory over the whole refill horizon.
        group: int64 (L,), number of the group of lanes that share limits; -1: none.
        group_vms, group_money: float64 (L,), how many VMs the group may run and what they may cost, money per hour; infinite:
            no limit. All lanes of a group have the same values, also of the next two fields.
        group_starts: float64 (L,), VMs that the group may start within the period (a token bucket); infinite: no
            limit.
        group_period_s: float64 (L,), time in which that bucket, when empty, is full again.
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
