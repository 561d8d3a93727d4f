"""The score card of simulated fleets, computed for all lanes at once from the ledger's sums.

Rules of this file: figures are declared once, in `report.figures`, with their unit, direction and meaning; tables, pages,
sweeps and the generated reference read that declaration. A figure that cannot be known is NaN, never 0. It cannot be known
if its sums contain something unknown, if it is a ratio to zero, or if what it is compared with was not given. Figures are
float64 (L,). Shares and means about demand leave out the ticks whose demand is unknown.

The source of each figure is given at the function that computes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoscaler.config.policy import Policy
from autoscaler.core.types import Float, Int
from autoscaler.simulator.judging.ledger import Amount, Count, Sums
from autoscaler.simulator.report.figures import FIGURES

__all__ = ["FIGURES", "Case", "Comparators", "LanePrices", "Score", "score"]

_HOUR_S, _DAY_S = 3600.0, 86_400.0


@dataclass(frozen=True, slots=True)
class LanePrices:
    """Prices from which the parts of the cost are computed, float64 (L,).

    Attributes:
        in_service_per_h: Money per VM-hour billed as running.
        stopped_per_h: Money per VM-hour of storage.
    """

    in_service_per_h: Float
    stopped_per_h: Float

    @classmethod
    def of(cls, policies: Sequence[Policy]) -> LanePrices:
        """Return the prices of the lanes' policies."""
        prices = [policy.prices for policy in policies]
        return cls(
            in_service_per_h=np.array([each.in_service_per_h for each in prices]),
            stopped_per_h=np.array([each.stopped_per_h for each in prices]),
        )


@dataclass(frozen=True, slots=True)
class Comparators:
    """What a run is compared with, on the same demand, VMs and prices; None if not known.

    Attributes:
        peak_cost: float64 (L,), cost of a fleet sized for the highest demand and always on.
        optimum_cost: float64 (L,), least cost of leaving as large a share unserved as the run
            (`clairvoyant.Front.cost_serving`), including storage of the same VMs.
        without_pool: Sums of the same policy with no stopped VMs to start, L lanes.
    """

    peak_cost: Float | None = None
    optimum_cost: Float | None = None
    without_pool: Sums | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One run to be judged, as passed to the functions that compute figures."""

    sums: Sums
    prices: LanePrices | None
    beside: Comparators

    @property
    def unknown(self) -> Float:
        """float64 (L,) of NaN, for a figure that is not known."""
        return np.full(self.sums.lanes, np.nan)

    @property
    def days(self) -> Float:
        """float64 (L,), length of the run in days."""
        return np.full(self.sums.lanes, self.sums.ticks * self.sums.tick_s / _DAY_S)

    @property
    def known_ticks(self) -> Float:
        """float64 (L,), number of ticks whose demand is known."""
        return (self.sums.ticks - self.sums.count(Count.UNKNOWN_TICKS)).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Score:
    """The figures of a run: float64 (L,) for each key of `FIGURES`."""

    values: Mapping[str, Float]

    def __getitem__(self, key: str) -> Float:
        return self.values[key]

    def of_lane(self, lane: int) -> dict[str, float]:
        """Return the figures of one lane by key."""
        return {key: float(value[lane]) for key, value in self.values.items()}


def score(sums: Sums, prices: LanePrices | None = None, beside: Comparators | None = None) -> Score:
    """Compute the figures of a run.

    Args:
        sums: Sums over the ticks that count, without the warm-up, L lanes.
        prices: Prices for the parts of the cost; without them only the total cost is known.
        beside: What the run is compared with; without it the comparisons are unknown.
    """
    case = Case(sums, prices, beside or Comparators())
    with np.errstate(divide="ignore", invalid="ignore"):
        return Score({figure.key: _OF[figure.key](case) for figure in FIGURES})


# ── money ───────────────────────────────────────────────────────────────────────────────────────────────


def _cost(case: Case) -> Float:
    return case.sums.amount(Amount.COST)


def _running_cost(case: Case) -> Float:
    if case.prices is None:
        return case.unknown
    return case.sums.amount(Amount.BILLED_VM_S) / _HOUR_S * case.prices.in_service_per_h


def _start_cost(case: Case) -> Float:
    """Return what remains of the total cost: starts that came into service, and provisionings."""
    rest = _cost(case) - _running_cost(case) - _storage_cost(case)
    # A rest below the rounding error of the sums counts as zero.
    return np.where(np.abs(rest) < 1e-9 * np.abs(_cost(case)), 0.0, rest)


def _storage_cost(case: Case) -> Float:
    if case.prices is None:
        return case.unknown
    return _seconds(case.sums, case.sums.count(Count.PROVISIONED)) / _HOUR_S * case.prices.stopped_per_h


def _utilisation(case: Case) -> Float:
    served = case.sums.amount(Amount.DEMAND) - case.sums.amount(Amount.SHORTAGE)
    return served / _or_unknown(case.sums.amount(Amount.CAPACITY))


# ── service ─────────────────────────────────────────────────────────────────────────────────────────────


def _unserved_share(case: Case) -> Float:
    return case.sums.amount(Amount.SHORTAGE) / _or_unknown(case.sums.amount(Amount.DEMAND))


def _shortage_s(case: Case) -> Float:
    return _seconds(case.sums, case.sums.short.ticks)


def _mean_wait_s(case: Case) -> Float:
    """Return the mean time from the tick in which more VMs are wanted than serve until as many serve as are wanted."""
    return _seconds(case.sums, case.sums.waiting.ticks) / _or_unknown(case.sums.waiting.runs)


def _warm_hits(case: Case) -> Float:
    """Return the share of ordered VMs that the warm pool could give, like the hit ratio of a cache."""
    starts, made = case.sums.count(Count.STARTS), case.sums.count(Count.PROVISIONS)
    return starts / _or_unknown(starts + made)


def _failed_share(case: Case) -> Float:
    ordered = case.sums.count(Count.STARTS) + case.sums.count(Count.PROVISIONS)
    return case.sums.count(Count.FAILED_STARTS) / _or_unknown(ordered)


# ── stability ───────────────────────────────────────────────────────────────────────────────────────────


def _churn(case: Case) -> Float:
    sums = case.sums
    moved = sums.count(Count.STARTS) + sums.count(Count.PROVISIONS) + sums.count(Count.STOPS)
    return moved / _or_unknown(case.days)


def _thrash(case: Case) -> Float:
    """Return the movement against the trend (`streaks.Movement`) per day, divided by the range of the desired number of VMs."""
    desired = case.sums.desired
    span = desired.highest - desired.lowest
    ranges: Float = desired.against_trend() / np.maximum(span, 1)
    return ranges / _or_unknown(case.days)


# ── elasticity: SPEC Research Group; Herbst, Kounev, Reussner 2013; the normalised form of Herbst et al. 2018 ────


def _over_known(case: Case, summed: Float | Int) -> Float:
    if not case.sums.elasticity:
        return case.unknown
    return summed / _or_unknown(case.known_ticks)


def _under_accuracy(case: Case) -> Float:
    """Return the mean over time of the VMs missing against the need, as a share of the need."""
    return _over_known(case, case.sums.amount(Amount.UNDER))


def _over_accuracy(case: Case) -> Float:
    """Return the mean over time of the VMs beyond the need, as a share of the need, or of one VM if nothing is needed."""
    return _over_known(case, case.sums.amount(Amount.OVER))


def _instability(case: Case) -> Float:
    """Return the share of ticks in which supply and need did not move alike (up, down or not at all)."""
    return case.sums.count(Count.UNSTABLE_TICKS) / _or_unknown(case.sums.count(Count.COMPARED_TICKS))


# ── compared with others ────────────────────────────────────────────────────────────────────────────────


def _regret(case: Case) -> Float:
    """Return the cost divided by the clairvoyant's, less 1 (the regret of online optimisation as a ratio)."""
    best = case.beside.optimum_cost
    return case.unknown if best is None else _cost(case) / _or_unknown(best) - 1.0


def _captured(case: Case) -> Float:
    """Return which share of the saving from the always-on fleet's cost to the least possible cost the run achieved."""
    peak, best = case.beside.peak_cost, case.beside.optimum_cost
    if peak is None or best is None:
        return case.unknown
    return np.where(peak > best, (peak - _cost(case)) / _or_unknown(peak - best), np.nan)


def _avoided_s(case: Case) -> Float:
    without = case.beside.without_pool
    if without is None:
        return case.unknown
    return _seconds(without, without.short.ticks) - _shortage_s(case)


def _pool_cost(case: Case) -> Float:
    without = case.beside.without_pool
    return case.unknown if without is None else _cost(case) - without.amount(Amount.COST)


def _per_avoided_s(case: Case) -> Float:
    avoided_s = _avoided_s(case)
    return np.where(avoided_s > 0, _pool_cost(case) / _or_unknown(avoided_s), np.nan)


def _or_unknown(below: Float | Int) -> Float:
    """Return the divisor with zeros replaced by NaN, so that ratios to zero are unknown."""
    divisor: Float = np.where(below == 0, np.nan, below)
    return divisor


def _seconds(sums: Sums, ticks: Int) -> Float:
    spans: Float = ticks.astype(np.float64) * sums.tick_s
    return spans


# ── the declaration ─────────────────────────────────────────────────────────────────────────────────────


def _per_day(work_out: Callable[[Case], Float]) -> Callable[[Case], Float]:
    return lambda case: work_out(case) / _or_unknown(case.days)


def _count(which: Count) -> Callable[[Case], Float]:
    return lambda case: case.sums.count(which).astype(np.float64)


_OF: dict[str, Callable[[Case], Float]] = {
    "cost": _cost,
    "cost_per_day": _per_day(_cost),
    "running_cost": _running_cost,
    "start_cost": _start_cost,
    "storage_cost": _storage_cost,
    "vm_hours": lambda case: _seconds(case.sums, case.sums.count(Count.IN_SERVICE)) / _HOUR_S,
    "billed_vm_hours": lambda case: case.sums.amount(Amount.BILLED_VM_S) / _HOUR_S,
    "pool_vm_hours": lambda case: _seconds(case.sums, case.sums.count(Count.STOPPED)) / _HOUR_S,
    "capacity_used": _utilisation,
    "unserved_share": _unserved_share,
    "unserved_work": lambda case: case.sums.amount(Amount.SHORTAGE) * case.sums.tick_s,
    "shortage_s": _shortage_s,
    "unknown_s": lambda case: _seconds(case.sums, case.sums.count(Count.UNKNOWN_TICKS)),
    "episodes": lambda case: case.sums.short.runs.astype(np.float64),
    "longest_episode_s": lambda case: _seconds(case.sums, case.sums.short.longest),
    "mean_episode_s": lambda case: _shortage_s(case) / _or_unknown(case.sums.short.runs),
    "worst_shortage": lambda case: case.sums.worst_shortage,
    "mean_wait_s": _mean_wait_s,
    "longest_wait_s": lambda case: _seconds(case.sums, case.sums.waiting.longest),
    "warm_hits": _warm_hits,
    "failed_starts": _failed_share,
    "starts_per_day": _per_day(_count(Count.STARTS)),
    "churn_per_day": _churn,
    "reversals_per_day": _per_day(lambda case: case.sums.desired.turns.astype(np.float64)),
    "thrash_per_day": _thrash,
    "under_accuracy": _under_accuracy,
    "over_accuracy": _over_accuracy,
    "under_time": lambda case: _over_known(case, case.sums.count(Count.UNDER_TICKS)),
    "over_time": lambda case: _over_known(case, case.sums.count(Count.OVER_TICKS)),
    "instability": _instability,
    "regret": _regret,
    "captured": _captured,
    "pool_cost": _pool_cost,
    "shortage_avoided_s": _avoided_s,
    "cost_per_avoided_s": _per_avoided_s,
}
