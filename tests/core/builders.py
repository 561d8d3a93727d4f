"""Builds arrays for core tests; the defaults do nothing and are overridden field by field."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

import numpy as np

from autoscaler.core import rules
from autoscaler.core.forecast import SeriesState
from autoscaler.core.objective.competition_state import Trial
from autoscaler.core.params import FoldParams, LaneParams, SeriesParams
from autoscaler.core.types import NO_CEILING, QUANTILE_LEVELS, Freshness, Outlook, Samples, Signal, Snapshot

DECIDED = (
    "wish",
    "desired",
    "start",
    "provision",
    "stop",
    "warm_target",
    "forecast",
    "forecast_hi",
    "reason",
    "value",
)
"""All fields of a decision."""

_LANE_DEFAULTS = {
    "vm_capacity": 100.0,
    "reactive": False,
    "headroom": 0.0,
    "tolerance": 0.0,
    "censored_growth": 1.5,
    "steps": False,
    "schedule": False,
    "cover": False,
    "cover_quantile": QUANTILE_LEVELS.index(0.95),
    "uses_signal": True,
    "min_coverage": 0.0,
    "loss_hold_s": float("inf"),
    "zero_hold_s": 0.0,
    "stabilisation_ticks": 0,
    "cooldown_out_s": 0.0,
    "cooldown_in_s": 0.0,
    "minimum": 0,
    "maximum": 1_000_000,
    "rate_out_vms": 1e6,
    "rate_out_period_s": 60.0,
    "rate_in_vms": 1e6,
    "rate_in_period_s": 60.0,
    "provision": False,
    "max_provisioned": 1_000_000,
    "warm_minimum": 0,
    "warm_maximum": 1_000_000,
    "warm_memory_ticks": 0,
    "warm_spare": 0.0,
    "economic": False,
    "shortage_price": 100.0,
    "unserved_target": 0.0,
    "start_cost": 1.0,
    "lead_ticks": 3,
    "hold_ticks": 30,
    "billed_ticks": 0,
    "start_success": 1.0,
    "stopped_cost": 0.0,
    "provision_cost": 0.0,
    "cold_ticks": 30,
    "hibernate": False,
    "sooner_ticks": float("nan"),
    "unbilled_ticks": 0.0,
    "saving_cost": 0.0,
    "memory_cost": 0.0,
    "group": -1,
    "group_vms": float("inf"),
    "group_money": float("inf"),
    "group_starts": float("inf"),
    "group_period_s": 60.0,
    "vm_price": 0.0,
}


def _column(value: object, lanes: int) -> np.ndarray:
    array = np.asarray(value)
    dtype = {"b": np.bool_, "i": np.int64, "f": np.float64}[array.dtype.kind]
    return np.broadcast_to(array.astype(dtype), (lanes,)).copy()


def lane_params(lanes: int = 1, *, tick_s: float = 10.0, **overrides: object) -> LaneParams:
    """Build LaneParams. Step rules and windows are given as (R, L) and (E, L) arrays, all else as scalars or (L,)."""
    values: dict[str, object] = {
        "tick_s": tick_s,
        "series": np.arange(lanes),
        "step_lower": np.full((0, lanes), np.nan),
        "step_upper": np.full((0, lanes), np.nan),
        "step_vms": np.zeros((0, lanes), np.int64),
        "step_share": np.zeros((0, lanes)),
        "window_start_s": np.zeros((0, lanes)),
        "window_end_s": np.zeros((0, lanes)),
        "window_floor": np.zeros((0, lanes), np.int64),
        "known_from_s": np.zeros((0, lanes)),
        "known_begins_s": np.zeros((0, lanes)),
        "known_end_s": np.zeros((0, lanes)),
    }
    for name, default in _LANE_DEFAULTS.items():
        column = _column(overrides.pop(name, default), lanes)
        values[name] = column.astype(np.asarray(default).dtype)
    values.update(overrides)
    assert set(values) == {f.name for f in fields(LaneParams)}
    return LaneParams(**values)


def snapshot(lanes: int = 1, **overrides: object) -> Snapshot:
    values = {
        "now_s": 1_000_000.0,
        "demand": 0.0,
        "observed_at_s": 999_990.0,
        "freshness": int(Freshness.FRESH),
        "coverage": 1.0,
        "censored": False,
        "in_service": 0,
        "starting": 0,
        "draining": 0,
        "stopping": 0,
        "stopped": 1_000,
        "provisioned": 1_000,
        "stoppable": None,
        "listed": True,
        "may_start": True,
        "may_provision": True,
        "may_stop": True,
        "floor": 0,
        "ceiling": NO_CEILING,
    } | overrides
    if values["stoppable"] is None:
        values["stoppable"] = values["in_service"]
    now_s = float(values.pop("now_s"))
    tick = int(values.pop("tick", now_s // 10.0))
    return Snapshot(now_s=now_s, tick=tick, **{k: _column(v, lanes) for k, v in values.items()})


def outlook(series: int = 1, at_lead: object = np.nan, peak: object = None) -> Outlook:
    """Build an Outlook whose quantiles are all equal, unless (Q, S) arrays are given."""
    shape = (len(QUANTILE_LEVELS), series)
    lead = np.broadcast_to(np.asarray(at_lead, np.float64), shape).copy()
    high = lead.copy() if peak is None else np.broadcast_to(np.asarray(peak, np.float64), shape).copy()
    return Outlook(at_lead=lead, peak=high, evidence=np.zeros(series))


def fold_params(lanes: int = 1, signal: object = Signal.THROUGHPUT, max_age_s: float = 60.0) -> FoldParams:
    return FoldParams(
        signal=_column(np.asarray(signal, np.int64), lanes),
        max_age_s=np.full(lanes, max_age_s),
        saturation=np.full(lanes, 0.95),
        in_flight=np.full(lanes, 10.0),
        drain_s=np.full(lanes, 100.0),
    )


def series_params(
    series: int = 1,
    *,
    lead: int = 3,
    keep: int = 6,
    hold: int = 30,
    refill: int = 360,
    half_life: float = 1e6,
    tick_s: float = 10.0,
    laws: bool = False,
) -> SeriesParams:
    return SeriesParams(
        tick_s=tick_s,
        lead_ticks=np.full(series, lead),
        keep_ticks=np.full(series, keep),
        hold_ticks=np.full(series, hold),
        refill_ticks=np.full(series, refill),
        half_life_ticks=np.full(series, half_life),
        scale=np.full(series, 30.0),
        laws=np.full(series, laws),
        refill_laws=np.full(series, laws),
        event_start_s=np.zeros((0, series)),
        event_end_s=np.zeros((0, series)),
        event_factor=np.ones((0, series)),
        event_odds=np.zeros((0, series)),
    )


def samples(now_s: float, demand: object, *, freshness: int = 0, censored: bool = False) -> Samples:
    values = np.atleast_1d(np.asarray(demand, np.float64))
    count = len(values)
    return Samples(
        now_s=now_s,
        demand=values,
        observed_at_s=np.full(count, now_s - 10.0),
        freshness=np.full(count, freshness),
        coverage=np.ones(count),
        censored=np.full(count, censored),
    )


def apply(stage, params, state, view, seen, wish):
    """Return the wish after one stage and its reasons, each (L,)."""
    rule = stage(params, wish.dtype)
    if rule is None:
        return wish, np.zeros(len(wish), np.int64)
    value, why = rule(rules.InputCache().at(state, view, seen), wish)
    (reason,) = rules.reasons([why], np.stack([wish, value]))
    return value, reason


UNSAID = frozenset({"read_at", "asked_at", "asked"})
"""Fields of a `SeriesState` that record what was issued. `forecast.learn` issues nothing and leaves them alone."""


def arrays_of(state, within: str = "") -> dict[str, np.ndarray]:
    """The arrays of a state and of the states within it, by name."""
    if isinstance(state, SeriesState | Trial):
        state.settle()
    found = {}
    for f in fields(state):
        value = getattr(state, f.name)
        if not f.init:
            continue
        if isinstance(value, np.ndarray):
            found[within + f.name] = value
        elif is_dataclass(value):
            found |= arrays_of(value, f"{f.name}.")
    return found
