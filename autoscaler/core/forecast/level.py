"""The level: one linear forecaster per regime on log ratios, which covers last value, moving averages and seasonality.

The log ratio of the outcome to the last value is regressed on the log ratios of the moving averages, of the same time on earlier
days, and of 1, by least squares with forgetting. The weights for each age of a burst are shrunk towards those of all bursts
together; these, and the weights without a burst, towards a prior of the last value. So the forecaster begins as the last value
and becomes what this series rewards. Ratios make it independent of scale, and a thousandfold jump is a number like 7.

Rules of this file: sums in a fixed order, no BLAS: the small systems of many series are solved side by side by an explicit
elimination.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.forecast.tables import REGIMES
from autoscaler.core.types import Bool, Float

FEATURES = 9
"""Five means, the season by days, by weeks and by the next step, and one."""
_FIRST, _SECOND = np.triu_indices(FEATURES)
_MANY = 40
"""Outcomes, or series, that are many."""
PRODUCTS = len(_FIRST) + FEATURES
"""Sums that are kept per regime: products of features, and of features with the outcome."""
_PAIR = np.zeros((FEATURES, FEATURES), np.int64)
_PAIR[_FIRST, _SECOND] = _PAIR[_SECOND, _FIRST] = np.arange(len(_FIRST))
_PRIOR_WEIGHT, _POOLED_WEIGHT = 20.0, 40.0
"""Outcomes that the prior is worth, and the weights of all bursts."""
MOST_LOG: Float = np.array(3.0)
LEAST_LOG: Float = np.array(-3.0)
"""Neither an outcome nor a forecast is further from the last value than this, in logarithms."""


def products(features: Float, outcome: Float, weight: Float) -> Float:
    """What one outcome adds to the sums: (N, PRODUCTS) of features (N, FEATURES), outcome and weight (N,)."""
    both = np.empty((len(features), PRODUCTS))
    if len(features) < _MANY:
        weighted = np.empty(features.shape)
        weighted[:] = weight[:, np.newaxis]
        weighted *= features
        np.multiply(weighted.take(_FIRST, axis=1), features.take(_SECOND, axis=1), out=both[:, : len(_FIRST)])
        both[:, len(_FIRST) :] = outcome[:, np.newaxis]
        both[:, len(_FIRST) :] *= weighted
        return both
    # The same with the outcomes along the last axis, so that numpy goes through them and not through a few features.
    by_feature = features.T.copy()
    heavy = by_feature * weight
    turned, first = np.empty((PRODUCTS, len(weight))), 0
    for at, each in enumerate(heavy):
        end = first + FEATURES - at
        np.multiply(each, by_feature[at:], out=turned[first:end])
        first = end
    np.multiply(outcome, heavy, out=turned[first:])
    both[:] = turned.T
    return both


def parts(weights: Float, features: Float) -> tuple[Float, Float, Float]:
    """The log ratio of the level to the last value: what means say, what earlier days say, and both as the fit has it.

    Args:
        weights: (..., FEATURES), as fitted.
        features: (..., FEATURES), now.
    """
    terms = weights * features
    means = np.add.accumulate(terms[..., _MEANS], axis=-1)[..., -1]
    means += terms[..., -1]
    seasons = terms[..., _MEANS.stop] + terms[..., _MEANS.stop + 1]
    seasons += terms[..., _MEANS.stop + 2]
    return means, seasons, _bounded(means + seasons)


def believed(means: Float, seasons: Float, doubt: Float) -> Float:
    """The log ratio of the level to the last value as it is believed: (N,).

    What the means say is believed as far as the fit was no worse than the last value lately: in a long rise a fit that was
    learned in quiet times goes back to means that lag. What earlier days say is about a time that comes only once a
    day, and is believed as it is.

    Args:
        means: (N,), what the means say (`parts`).
        seasons: (N,), what earlier days say.
        doubt: (N, 2), mean squares of the errors lately, of the fit alone and of the last value.
    """
    ahead = means * share(doubt)
    ahead += seasons
    return _bounded(ahead)


_MEANS = slice(0, 5)


def _bounded(ahead: Float) -> Float:
    """Within bounds, in place."""
    np.maximum(ahead, LEAST_LOG, out=ahead)
    return np.minimum(ahead, MOST_LOG, out=ahead)


def share(doubt: Float) -> Float:
    """How much of the fit is believed: (N,), all where it was no worse, else less by the square of the ratio."""
    doubt = doubt + QUIET
    ratio: Float = doubt[:, 1] / doubt[:, 0]
    ratio *= ratio
    np.minimum(ratio, _ONE, out=ratio)
    return ratio


_ONE = np.array(1.0)
QUIET = np.array(1e-6)
"""Mean squares below this are no reason to doubt anything."""


def prior(lead_s: Float, means_s: Float) -> Float:
    """The weights (S, FEATURES) of a forecaster that has seen nothing, by lead time and time constants of the means.

    Mostly the last value where the lead time is short, else mostly the means over about the lead time.
    """
    found = np.zeros((len(lead_s), FEATURES))
    rows, near = np.arange(len(lead_s)), np.minimum(np.searchsorted(means_s, lead_s), len(means_s) - 2)
    found[rows, near] = np.where(near > 0, 0.4, 0.2)
    found[rows, near + 1] = np.where(near > 0, 0.3, 0.1)
    return found


def calm(sums: Float, prior: Float) -> Float:
    """Weights (1, FEATURES) without a burst, of `fitted`, of one series: from its sums (1, PRODUCTS) and the prior's weights (1, FEATURES)."""
    return _solved_one(_with_prior_one(sums[0].tolist(), prior[0].tolist())).T


def fitted(sums: Float, prior: Float) -> Float:
    """Weights (N, REGIMES, FEATURES) from sums (N, REGIMES, PRODUCTS) and the prior's weights (N, FEATURES)."""
    systems = np.empty(sums.shape)
    systems[:, 0] = _with_prior(sums[:, 0], prior)
    pooled = sums[:, 1].copy()
    for regime in range(2, REGIMES):
        pooled += sums[:, regime]
    whole = _solved(_with_prior(pooled, prior)).T
    # Pseudo-outcomes as they are in all bursts together, whose best weights are those of all together.
    matrix, side = _parts(pooled / np.maximum(pooled[:, _ONES], 1e-300)[:, np.newaxis])
    matrix[:, _DIAGONAL] += matrix[:, _DIAGONAL] * _OWN + 1e-6
    terms = matrix.take(_PAIR, axis=1)
    terms *= whole[:, np.newaxis]
    side[:] = np.add.accumulate(terms, axis=-1)[..., -1]
    systems[:, 1:] = sums[:, 1:] + _POOLED_WEIGHT * np.concatenate([matrix, side], axis=1)[:, np.newaxis]
    own = sums[:, :, _ONES] > 0.0
    own[:, 0] = True
    return _solved_once(systems, own)


def _solved_once(systems: Float, own: Bool) -> Float:
    """Weights (N, REGIMES, FEATURES) that solve (N, REGIMES, PRODUCTS), of which those without outcomes of their own are alike."""
    series, flat = len(systems), systems.reshape(-1, PRODUCTS)
    if series < _MANY or np.count_nonzero(own) >= own.size - series:
        return np.ascontiguousarray(_solved(flat).T).reshape(series, REGIMES, FEATURES)
    # The first of those stands for the others.
    stands = np.where(own, np.arange(REGIMES), np.argmin(own, axis=1)[:, np.newaxis])
    place = np.arange(own.size).reshape(own.shape)
    stands += place[:, :1]
    asked = stands == place
    solved = _solved(flat[asked.reshape(-1)])
    order = np.add.accumulate(asked.reshape(-1)) - 1
    found: Float = solved.T.take(order.take(stands), axis=0)
    return found


_DIAGONAL = _PAIR[np.arange(FEATURES), np.arange(FEATURES)]
_ONES = int(_PAIR[-1, -1])
"""The square of the last feature is 1, so its sum counts the outcomes."""
_OWN = 0.5
"""How far the weights of a regime are held to those of all bursts one by one, beside as they work together."""


def _parts(sums: Float) -> tuple[Float, Float]:
    return sums[:, : len(_FIRST)].copy(), sums[:, len(_FIRST) :].copy()


def _with_prior(sums: Float, prior: Float) -> Float:
    """Add outcomes that the prior would have forecast exactly, with features as large as those seen."""
    matrix, side = _parts(sums)
    size = matrix[:, _DIAGONAL] / np.maximum(matrix[:, _ONES], 1e-300)[:, np.newaxis]
    lean = _PRIOR_WEIGHT * (size + 1e-5)
    matrix[:, _DIAGONAL] += lean
    side += lean * prior
    return np.concatenate([matrix, side], axis=1)


def _with_prior_one(sums: list[float], prior: list[float]) -> list[float]:
    """The same of one series, number by number."""
    ones = max(sums[_ONES], 1e-300)
    for side, (at, wanted) in enumerate(zip(_ON_DIAGONAL, prior, strict=True), len(_FIRST)):
        lean = _PRIOR_WEIGHT * (sums[at] / ones + 1e-5)
        sums[at] += lean
        sums[side] += lean * wanted
    return sums


def _solved(systems: Float) -> Float:
    """Solutions (FEATURES, N) of symmetric positive definite systems (N, PRODUCTS), by elimination without pivots."""
    if len(systems) == 1:
        return _solved_one(systems[0].tolist())
    found = np.empty((FEATURES, len(systems)))
    # Parts of one length, since a part of two systems takes as many calls.
    length = -(-len(systems) // -(-len(systems) // _AT_ONCE)) if len(systems) else 1
    for first in range(0, len(systems), length):
        some = systems[first : first + length].T
        # Columns of the matrices along the first axis, so that what is left of them is one piece.
        full = np.empty((FEATURES + 1, FEATURES, some.shape[1]))
        full[:FEATURES] = some.take(_PAIR, axis=0)
        full[FEATURES] = some[len(_FIRST) :]
        room = np.empty_like(full[1:])
        for at in range(FEATURES):
            # What is left of the pivot is nothing already.
            rest = full[at + 1 :]
            pivot = rest[:, at] / np.maximum(full[at, at], _LEAST_PIVOT)
            rest -= np.multiply(full[at], pivot[:, np.newaxis], out=room[: len(rest)])
            rest[:, at] = pivot
        found[:, first : first + length] = full[FEATURES]
    return found


def _solved_one(sums: list[float]) -> Float:
    """The same of one system, number by number: numpy takes longer for a call than for nine numbers."""
    columns = [[sums[at] for at in places] for places in _COLUMNS]
    columns.append(sums[len(_FIRST) :])
    for at in range(FEATURES):
        c0, c1, c2, c3, c4, c5, c6, c7, c8 = column = columns[at]
        least = max(column[at], _LEAST)
        for after in range(at + 1, FEATURES + 1):
            r0, r1, r2, r3, r4, r5, r6, r7, r8 = rest = columns[after]
            by = rest[at] / least
            # Written out, since a loop over nine numbers takes three times as long.
            columns[after] = rest = [
                r0 - c0 * by,
                r1 - c1 * by,
                r2 - c2 * by,
                r3 - c3 * by,
                r4 - c4 * by,
                r5 - c5 * by,
                r6 - c6 * by,
                r7 - c7 * by,
                r8 - c8 * by,
            ]
            rest[at] = by
    return np.array(columns[-1])[:, np.newaxis]


_COLUMNS: list[list[int]] = _PAIR.tolist()
_ON_DIAGONAL: list[int] = _DIAGONAL.tolist()
_LEAST = 1e-12
_LEAST_PIVOT = np.array(_LEAST)
_AT_ONCE = 240
"""Systems that are solved together at most, since more do not fit the cache of one core."""
