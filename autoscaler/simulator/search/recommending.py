"""What to change in a policy, if anything: constraints first, then cost, confirmed on data not used for the choice.

The figures come from `walkforward`. In each fold, the cheapest candidate that keeps the limits is chosen on the time before
the embargo. It is judged on the time after the embargo, by the difference to the policy as it is. The advice is what the
same rule chooses on the whole trace. It is given only if this way of choosing has paid on time that the choices had not
seen: the interval of those paired differences must lie on the right side of zero, and so must that of the advised candidate.
Otherwise the verdict is that the candidates are not distinguishable from the policy as it is, which is also a result.

Rules of this file: nothing is recommended that is not better than the policy's own run, and every candidate that is not
taken has a reason. If a trace is too short for folds, choosing and judging use the same time, and the interval is widened by
the number of candidates tried (Bonferroni), because the luckiest of many looks good.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from autoscaler.core.types import Bool, Float
from autoscaler.simulator.judging.score import Score
from autoscaler.simulator.report.wording import money, plural, rounded_share, share, span
from autoscaler.simulator.search.intervals import LEVEL, Interval, interval_of
from autoscaler.simulator.search.limits import NO_WORSE, Limit, first_broken, kept
from autoscaler.simulator.search.walkforward import Plan, WalkForwardResult

_DAY_S = 86_400.0
WORTH = 0.005
"""Least share of the cost that a change must save; a smaller saving is not worth a change, however certain."""


class Verdict(StrEnum):
    """The outcome of a recommendation."""

    CHANGE = "change"
    """A candidate is better, and choosing this way was better on time not used for the choice."""
    UNSURE = "not distinguishable"
    """A candidate looks better, but this may be luck."""
    KEEP = "keep"
    """No candidate is better."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The outcome of one fold.

    Attributes:
        row: The candidate chosen.
        gain_in, gain_out: Share of the cost that it saves against the policy as it is, on the time that it was chosen on
            and on the time that it is judged on.
        rank_stability: Spearman's correlation between the candidates' costs on both; NaN for fewer than three candidates.
        broken: Limits with a value that it broke on the time that it is judged on, in words.
        broke_anew: Those of `broken` that the policy as it is kept there.
    """

    row: int
    gain_in: float
    gain_out: float
    rank_stability: float
    broken: tuple[str, ...]
    broke_anew: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Advice:
    """A verdict and everything it rests on.

    Attributes:
        verdict: The outcome.
        row: The candidate that the verdict is about; the policy as it is if there is none.
        current: Row of the policy as it is.
        headline, sentences: The advice in words.
        folds: The outcomes of the folds; empty if the trace is too short.
        cost_per_day, unserved: Intervals of the paired differences between what the folds chose and the policy as it is:
            money per day, and share of the work.
        own_cost_per_day: Interval of the difference in cost for the candidate itself, over the same time.
        reasons: For each candidate, why it is not taken; empty for the one that is.
        tried: Number of candidates besides the policy as it is.
    """

    verdict: Verdict
    row: int
    current: int
    headline: str
    sentences: tuple[str, ...]
    folds: tuple[Judged, ...]
    cost_per_day: Interval | None
    unserved: Interval | None
    own_cost_per_day: Interval | None
    reasons: tuple[str, ...]
    tried: int

    @property
    def decay(self) -> float:
        """By how much less choosing saved on time not used for the choice: share of the cost; NaN without folds."""
        if not self.folds:
            return math.nan
        return float(np.mean([fold.gain_in - fold.gain_out for fold in self.folds]))

    @property
    def rank_stability(self) -> float:
        """Mean rank stability over the folds that have one; NaN if none has."""
        known = [fold.rank_stability for fold in self.folds if not math.isnan(fold.rank_stability)]
        return float(np.mean(known)) if known else math.nan


def chosen(figures: Score, limits: Sequence[Limit], current: int) -> int | None:
    """Return the cheapest candidate that keeps the limits, or the policy as it is if none is cheaper; None if none keeps them."""
    fit = kept(limits, figures, current) & np.isfinite(figures["cost"])
    if not fit.any():
        return None
    cost = np.where(fit, figures["cost"], np.inf)
    best = int(np.argmin(cost))
    return current if fit[current] and not cost[best] < cost[current] else best


def advise(
    walked: WalkForwardResult, plan: Plan, limits: Sequence[Limit], *, tick_s: float, seed: int
) -> Advice:
    """Choose a candidate, judge it, and explain the verdict in words.

    Args:
        walked: The candidates; number 0 is the policy as it is and has finished.
        plan: The folds they were run with.
        limits: What a candidate must keep.
        tick_s: Length of a tick.
        seed: Seed of the intervals.
    """
    current = walked.numbers.index(0)
    whole = walked.whole
    best = chosen(whole, limits, current)
    tried = len(walked.variants) - 1
    reasons = _reasons(whole, limits, current, best)
    nothing = Advice(Verdict.KEEP, current, current, "", (), (), None, None, None, reasons, tried)
    if best is None:
        return _with_words(nothing, _none_fits(whole, limits, current))
    if best == current:
        words = (
            f"Keep the policy as it is: of {plural(tried, 'variant', 'variants')}, none is cheaper and keeps "
        )
        told = (words + _listed(limits), _kept_count(whole, limits, current), _allowing_more(limits))
        return _with_words(nothing, told)
    must_change = not kept(limits, whole, current)[current]
    if not must_change and _gain(whole["cost"], best, current) < WORTH:
        return _with_words(nothing, _not_worth_it(whole, limits, best, current))
    folds = _judged(walked, limits, current)
    picks = [fold.row for fold in folds] or [best]
    level = LEVEL if folds else 1.0 - (1.0 - LEVEL) / max(tried, 1)
    cost, unserved = _differences(walked, plan, picks, current, tick_s=tick_s, seed=seed, level=level)
    itself = [best] * len(picks)
    own, _ = _differences(walked, plan, itself, current, tick_s=tick_s, seed=seed, level=level)
    # A limit on shortage permits that much shortage; without one, today's service is the measure.
    may_serve_less = any(limit.allows_shortage for limit in limits)
    if must_change:
        lacking = [limit for limit in limits if not limit.kept(whole, current)[current]]
        verdict, why = _verdict_of_change(unserved, folds, lacking, may_serve_less=may_serve_less)
    else:
        verdict, why = _verdict(cost, own, unserved, folds, may_serve_less=may_serve_less)
    advice = Advice(verdict, best, current, "", (), folds, cost, unserved, own, reasons, tried)
    return _with_words(advice, _told(advice, walked, plan, limits, why, must_change=must_change))


def _judged(walked: WalkForwardResult, limits: Sequence[Limit], current: int) -> tuple[Judged, ...]:
    """Choose in each fold, and judge each choice."""
    made = []
    for before, after in zip(walked.chosen_on, walked.judged_on, strict=True):
        pick = chosen(before, limits, current)
        row = current if pick is None else pick
        broken = {
            limit.broken_by(float(after[limit.figure.key][row])): bool(held[current])
            for limit in limits
            if not limit.relative and not (held := limit.kept(after, current))[row]
        }
        made.append(
            Judged(
                row,
                _gain(before["cost"], row, current),
                _gain(after["cost"], row, current),
                _stability(before, after, kept(limits, before, current)),
                tuple(broken),
                tuple(words for words, anew in broken.items() if anew),
            )
        )
    return tuple(made)


def _gain(cost: Float, row: int, current: int) -> float:
    """Return the share of the cost that a candidate saves against the policy as it is."""
    return float(1.0 - cost[row] / cost[current]) if cost[current] > 0 else math.nan


def _stability(before: Score, after: Score, fit: Bool) -> float:
    """Return the rank stability of the candidates that kept the limits, or of all if those are fewer than three."""
    rows = fit if fit.sum() > 2 else np.ones(len(fit), np.bool_)
    if rows.sum() < 3:
        return math.nan
    return spearman(before["cost"][rows], after["cost"][rows])


def spearman(one: Float, other: Float) -> float:
    """Return the rank correlation (Spearman 1904), where ties share their mean rank; NaN if one side does not vary."""
    a, b = (_ranks(values) - (len(values) - 1) / 2 for values in (one, other))
    size = math.sqrt(float(np.add.reduce(a * a)) * float(np.add.reduce(b * b)))
    return float(np.add.reduce(a * b)) / size if size else math.nan


def _ranks(values: Float) -> Float:
    """Return ranks from 0, where ties share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts + 1) / 2)[inverse], np.float64)


def _differences(
    walked: WalkForwardResult,
    plan: Plan,
    picks: Sequence[int],
    current: int,
    *,
    tick_s: float,
    seed: int,
    level: float,
) -> tuple[Interval, Interval]:
    """Return intervals of the paired differences over the cells that are judged: money per day, and share of the work."""
    ends = np.array(walked.cells.ends)
    spans = [(fold.judged_from, fold.judged_to) for fold in plan.folds] or [(0, int(ends[-1]))]
    cost: list[Float] = []
    short: list[Float] = []
    demand: list[Float] = []
    for pick, (first, end) in zip(picks, spans, strict=True):
        rows = (ends > first) & (ends <= end)
        cost.append(walked.cells.cost[rows, pick] - walked.cells.cost[rows, current])
        short.append(walked.cells.shortage[rows, pick] - walked.cells.shortage[rows, current])
        demand.append(walked.cells.demand[rows, current])
    judged_s = sum(end - max(first, walked.begin) for first, end in spans) * tick_s
    step_s = judged_s / sum(len(each) for each in cost)
    mean_demand = float(np.mean(np.concatenate(demand)))
    shares = np.concatenate(short) / mean_demand if mean_demand > 0 else np.concatenate(short)
    return (
        interval_of(np.concatenate(cost) * (_DAY_S / step_s), step_s, seed, level=level),
        interval_of(shares, step_s, seed, level=level),
    )


def _verdict(
    cost: Interval, own: Interval, unserved: Interval, folds: Sequence[Judged], *, may_serve_less: bool
) -> tuple[Verdict, str]:
    """Return the verdict on a policy that keeps the limits, and the reason if it should not be changed."""
    if math.isnan(cost.low):
        return Verdict.UNSURE, _too_few(cost)
    if broken := [fold.broke_anew for fold in folds if fold.broke_anew]:
        return Verdict.UNSURE, _broken_in(broken, folds)
    if unserved.above_zero and not may_serve_less:
        return Verdict.UNSURE, _SERVES_LESS
    if not (cost.below_zero and own.below_zero):
        return Verdict.UNSURE, "the difference in cost may be luck"
    return Verdict.CHANGE, ""


_SERVES_LESS = "it leaves more work unserved on data not used for the choice"


def _verdict_of_change(
    unserved: Interval, folds: Sequence[Judged], failed: Sequence[Limit], *, may_serve_less: bool
) -> tuple[Verdict, str]:
    """Return the verdict on a policy that breaks these limits, and the reason if a change is not advised.

    The candidate must keep the limits on time not used for the choice, too.
    """
    if broken := [fold.broken for fold in folds if fold.broken]:
        return Verdict.UNSURE, _broken_in(broken, folds)
    if unserved.above_zero and not may_serve_less:
        return Verdict.UNSURE, _SERVES_LESS
    if any(limit.figure.group == NO_WORSE.figure.group for limit in failed):
        if math.isnan(unserved.low):
            return Verdict.UNSURE, _too_few(unserved)
        if not unserved.below_zero:
            return (
                Verdict.UNSURE,
                "on data not used for the choice, it leaves no less work unserved than luck explains",
            )
    elif not folds:
        return (
            Verdict.UNSURE,
            "the trace is too short to see whether it keeps them on data not used for the choice",
        )
    return Verdict.CHANGE, ""


def _too_few(interval: Interval) -> str:
    return f"{plural(interval.count, 'cell', 'cells')} of about an hour are too few for a confidence interval"


def _broken_in(broken: Sequence[tuple[str, ...]], folds: Sequence[Judged]) -> str:
    return (
        f"in {len(broken)} of {len(folds)} folds the chosen variant broke a limit on the data it was judged on "
        f"({broken[0][0]}); a stricter limit leaves a margin for luck"
    )


def _reasons(whole: Score, limits: Sequence[Limit], current: int, best: int | None) -> tuple[str, ...]:
    """Return why each candidate is not taken; empty for the one that is."""
    broken, cost = first_broken(limits, whole, current), whole["cost"]
    told = []
    for row, why in enumerate(broken):
        if row == current:
            told.append("the policy as it is" + (f"; breaks {why}" if why else ""))
        elif why:
            told.append(f"breaks {why}")
        elif row == best:
            told.append("")
        elif best is None or not math.isfinite(cost[row]):
            told.append("its cost is not known")
        else:
            more = cost[row] / cost[best] - 1.0 if cost[best] > 0 else 0.0
            told.append(
                "costs as much as the best"
                if abs(more) < 0.0005
                else f"costs {share(more)} more than the best"
            )
    return tuple(told)


# ── words ───────────────────────────────────────────────────────────────────────────────────────────────


def _with_words(advice: Advice, words: tuple[str, ...]) -> Advice:
    headline, *sentences = (each for each in words if each)
    return replace(advice, headline=headline, sentences=tuple(sentences))


def _listed(limits: Sequence[Limit]) -> str:
    return " and ".join(str(limit) for limit in limits) + "."


def _kept_count(whole: Score, limits: Sequence[Limit], current: int) -> str:
    fit = int(kept(limits, whole, current).sum())
    return f"{fit} of {len(whole['cost'])} candidates keep the limits."


def _not_worth_it(whole: Score, limits: Sequence[Limit], best: int, current: int) -> tuple[str, ...]:
    cost = whole["cost"]
    return (
        f"Keep the policy as it is: the cheapest variant that keeps {_listed(limits)[:-1]} saves less than {WORTH:.1%}.",
        f"It costs {money(float(cost[best]))} instead of {money(float(cost[current]))}, which is not worth a change.",
        _kept_count(whole, limits, current),
        _allowing_more(limits),
    )


def _allowing_more(limits: Sequence[Limit]) -> str:
    if any(limit.allows_shortage for limit in limits):
        return ""
    return "A limit of your own, such as --at-most unserved=0.1%, may allow a cheaper variant."


def _none_fits(whole: Score, limits: Sequence[Limit], current: int) -> tuple[str, ...]:
    if not np.any(whole["unserved_work"]) and np.isnan(whole["unserved_share"]).all():
        return (
            "Keep the policy as it is: there was no work to serve, which says nothing about any variant.",
        )
    nearest = (
        int(np.nanargmin(whole["unserved_share"])) if np.isfinite(whole["unserved_share"]).any() else current
    )
    return (
        f"Keep the policy as it is: no variant keeps {_listed(limits)}",
        f"The least that any candidate leaves unserved is {share(float(whole['unserved_share'][nearest]))}: vary more, or relax the limits.",
    )


def _told(
    advice: Advice,
    walked: WalkForwardResult,
    plan: Plan,
    limits: Sequence[Limit],
    why: str,
    *,
    must_change: bool,
) -> tuple[str, ...]:
    whole, row, current = walked.whole, advice.row, advice.current
    cost = whole["cost"]
    change = cost[row] / cost[current] - 1.0 if cost[current] > 0 else math.nan
    costs = (
        "for the same cost"
        if math.isnan(change) or abs(change) < 0.005
        else f"for {rounded_share(change)} {'less' if change < 0 else 'more'}"
    )
    keeps = f"keeps {_listed(limits)[:-1]}{', which it does not now,' if must_change else ''} {costs}"
    headline = f"Change the policy: it then {keeps}."
    if advice.verdict is Verdict.UNSURE:
        headline = (
            f"Not distinguishable from the policy as it is: the variant that looks best {keeps}, but {why}."
        )
    return (
        headline,
        _on_everything(whole, row, current),
        _how_sure(advice),
        _walked_forward(advice),
        f"{plural(advice.tried, 'variant was', 'variants were')} tried; {_kept_count(whole, limits, current)}",
        plan.why[:1].upper() + plan.why[1:] + ".",
    )


def _on_everything(whole: Score, row: int, current: int) -> str:
    parts = [
        f"{name} {_moved(show(float(whole[key][current])), show(float(whole[key][row])))}"
        for name, key, show in (
            ("cost", "cost", money),
            ("unserved", "unserved_share", share),
            ("time with shortage", "shortage_s", span),
            ("longest episode", "longest_episode_s", span),
        )
    ]
    return f"On the whole trace: {', '.join(parts)}."


def _moved(before: str, after: str) -> str:
    return f"{after} as now" if before == after else f"from {before} to {after}"


def _how_sure(advice: Advice) -> str:
    cost, unserved = advice.cost_per_day, advice.unserved
    if cost is None or unserved is None or math.isnan(cost.low):
        return ""
    where = "on data not used for the choice" if advice.folds else "on the same data"
    own = advice.own_cost_per_day
    itself = (
        f" This variant alone: {_signed(own.mean)} a day ({_signed(own.low)} to {_signed(own.high)})."
        if own is not None and own != cost
        else ""
    )
    low, high = _signed_points(unserved.low), _signed_points(unserved.high)
    left = (
        "as much unserved"
        if unserved.mean == unserved.low == unserved.high == 0
        else f"unserved {_signed_points(unserved.mean)} points ({low} to {high})"
    )
    return (
        f"Difference to the policy as it is, {where}: {_signed(cost.mean)} a day ({_signed(cost.low)} to {_signed(cost.high)}), {left}; "
        f"{cost.level * 100:.4g}% interval, stationary block bootstrap.{itself}"
    )


def _walked_forward(advice: Advice) -> str:
    if not advice.folds:
        return ""
    same = sum(fold.row == advice.row for fold in advice.folds)
    ranks = "" if math.isnan(advice.rank_stability) else f"; rank stability {advice.rank_stability:.2f}"
    return (
        f"Walk-forward: {same} of {len(advice.folds)} folds chose this variant; their choices saved "
        f"{_mean_gain(advice, 'gain_in')} on the data they were chosen on and {_mean_gain(advice, 'gain_out')} on the data they "
        f"were judged on{ranks}."
    )


def _mean_gain(advice: Advice, which: str) -> str:
    return f"{float(np.mean([getattr(fold, which) for fold in advice.folds])):.1%}"


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else '-' if value < 0 else ''}{money(abs(value))}"


def _signed_points(value: float) -> str:
    return f"{value * 100:+.3g}" if value else "0"
