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
"""Number of features: log ratios to the last value of five means and three seasons (by days, by weeks, next step), and a
constant 1."""
_FIRST, _SECOND = np.triu_indices(FEATURES)
_MANY = 40
"""From this many outcomes or series on, work is arranged for longer numpy loops."""
PRODUCTS = len(_FIRST) + FEATURES
"""Number of sums kept per regime: products of two features (upper triangle), then products of each feature with the outcome."""
_PAIR = np.zeros((FEATURES, FEATURES), np.int64)
_PAIR[_FIRST, _SECOND] = _PAIR[_SECOND, _FIRST] = np.arange(len(_FIRST))
_PRIOR_WEIGHT, _POOLED_WEIGHT = 20.0, 40.0
"""Numbers of outcomes that the prior, and the weights of all bursts together, are worth."""
MOST_LOG: Float = np.array(3.0)
LEAST_LOG: Float = np.array(-3.0)
"""Bounds of the log ratio of an outcome or a forecast to the last value."""


def products(features: Float, outcome: Float, weight: Float) -> Float:
    """Return what each outcome adds to the sums: float64 (N, PRODUCTS).

    Args:
        features: float64 (N, FEATURES), features of the forecast.
        outcome: float64 (N,), log ratio of the outcome to the last value.
        weight: float64 (N,), weight of the outcome.
    """
    both = np.empty((len(features), PRODUCTS))
    if len(features) < _MANY:
        weighted = np.empty(features.shape)
        weighted[:] = weight[:, np.newaxis]
        weighted *= features
        np.multiply(weighted.take(_FIRST, axis=1), features.take(_SECOND, axis=1), out=both[:, : len(_FIRST)])
        both[:, len(_FIRST) :] = outcome[:, np.newaxis]
        both[:, len(_FIRST) :] *= weighted
        return both
    # The same products with outcomes along the last axis, so that numpy's inner loop runs over outcomes, not over a few
    # features.
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
    """Return the log ratio of the level to the last value, in parts.

    Args:
        weights: float64 (..., FEATURES), as fitted.
        features: float64 (..., FEATURES), present features.

    Returns:
        The part of the means (with the constant), the part of the seasons, and their bounded sum: the ratio by the fit alone.
        Each is float64 (...).
    """
    terms = weights * features
    means = np.add.accumulate(terms[..., _MEANS], axis=-1)[..., -1]
    means += terms[..., -1]
    seasons = terms[..., _MEANS.stop] + terms[..., _MEANS.stop + 1]
    seasons += terms[..., _MEANS.stop + 2]
    return means, seasons, _bounded(means + seasons)


def believed(means: Float, seasons: Float, doubt: Float) -> Float:
    """Return the log ratio of the level to the last value, trusting the means as far as the fit deserves: float64 (N,).

    The part of the means is trusted as far as the fit was recently no worse than the last value: in a long rise, a fit
    learned in quiet times returns to means that lag. The part of the seasons concerns a time that comes once a day, so recent
    errors say nothing about it, and it is kept whole.

    Args:
        means: float64 (N,), the part of the means (`parts`).
        seasons: float64 (N,), the part of the seasons.
        doubt: float64 (N, 2), means of recent squared log errors, of the fit alone and of the last value.
    """
    ahead = means * share(doubt)
    ahead += seasons
    return _bounded(ahead)


_MEANS = slice(0, 5)
"""Places of the means among the features."""


def _bounded(ahead: Float) -> Float:
    """Clip to `LEAST_LOG` and `MOST_LOG`, in place."""
    np.maximum(ahead, LEAST_LOG, out=ahead)
    return np.minimum(ahead, MOST_LOG, out=ahead)


def share(doubt: Float) -> Float:
    """Return how much of the fit to trust: all if it was no worse than the last value, else the squared ratio of errors.

    Args:
        doubt: float64 (N, 2), means of recent squared log errors, of the fit alone and of the last value.
    """
    doubt = doubt + QUIET
    ratio: Float = doubt[:, 1] / doubt[:, 0]
    ratio *= ratio
    np.minimum(ratio, _ONE, out=ratio)
    return ratio


_ONE = np.array(1.0)
QUIET = np.array(1e-6)
"""Mean squares far below this never cast doubt on the fit."""


def prior(lead_s: Float, means_s: Float) -> Float:
    """Return the weights before any outcome: float64 (S, FEATURES).

    The two means around the lead time get 0.4 and 0.3, or 0.2 and 0.1 if the lead time is shorter than any mean. As features
    are log ratios to the last value, the rest of the weight is on the last value.

    Args:
        lead_s: float64 (S,), lead times in seconds.
        means_s: float64 (5,), time constants of the means, ascending.
    """
    found = np.zeros((len(lead_s), FEATURES))
    rows, near = np.arange(len(lead_s)), np.minimum(np.searchsorted(means_s, lead_s), len(means_s) - 2)
    found[rows, near] = np.where(near > 0, 0.4, 0.2)
    found[rows, near + 1] = np.where(near > 0, 0.3, 0.1)
    return found


def calm(sums: Float, prior: Float) -> Float:
    """Return the weights of a single series without a burst, as `fitted` does: float64 (1, FEATURES).

    Args:
        sums: float64 (1, PRODUCTS), sums of the regime without a burst.
        prior: float64 (1, FEATURES), weights before any outcome.
    """
    return _solved_one(_with_prior_one(sums[0].tolist(), prior[0].tolist())).T


def fitted(sums: Float, prior: Float) -> Float:
    """Fit the weights of all regimes by least squares: float64 (N, REGIMES, FEATURES).

    The regime without a burst, and all bursts together, are shrunk towards the prior. Each age of a burst is then shrunk
    towards all bursts together: its sums get `_POOLED_WEIGHT` pseudo-outcomes with their mean products of features, which
    those weights fit exactly.

    Args:
        sums: float64 (N, REGIMES, PRODUCTS), weighted sums of products.
        prior: float64 (N, FEATURES), weights before any outcome.
    """
    systems = np.empty(sums.shape)
    systems[:, 0] = _with_prior(sums[:, 0], prior)
    pooled = sums[:, 1].copy()
    for regime in range(2, REGIMES):
        pooled += sums[:, regime]
    whole = _solved(_with_prior(pooled, prior)).T
    # Pseudo-outcomes with the mean products of all bursts, for which the weights of all bursts are best.
    matrix, side = _parts(pooled / np.maximum(pooled[:, _ONES], 1e-300)[:, np.newaxis])
    matrix[:, _DIAGONAL] += matrix[:, _DIAGONAL] * _SHRINKAGE + 1e-6
    terms = matrix.take(_PAIR, axis=1)
    terms *= whole[:, np.newaxis]
    side[:] = np.add.accumulate(terms, axis=-1)[..., -1]
    systems[:, 1:] = sums[:, 1:] + _POOLED_WEIGHT * np.concatenate([matrix, side], axis=1)[:, np.newaxis]
    own = sums[:, :, _ONES] > 0.0
    own[:, 0] = True
    return _solved_once(systems, own)


def _solved_once(systems: Float, own: Bool) -> Float:
    """Solve systems (N, REGIMES, PRODUCTS) for weights (N, REGIMES, FEATURES).

    Args:
        systems: The systems.
        own: bool (N, REGIMES), which regimes have outcomes. The systems of a series' other regimes are equal, and are solved
            once.
    """
    series, flat = len(systems), systems.reshape(-1, PRODUCTS)
    if series < _MANY or np.count_nonzero(own) >= own.size - series:
        return np.ascontiguousarray(_solved(flat).T).reshape(series, REGIMES, FEATURES)
    # The first regime without outcomes stands for the others.
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
"""The square of the last feature is 1, so this sum counts the outcomes."""
_SHRINKAGE = 0.5
"""Additional weight of the squares of features in those pseudo-outcomes: it shrinks the weights of a regime one by one,
beyond their joint effect."""


def _parts(sums: Float) -> tuple[Float, Float]:
    """Return copies of the products of features and of the products with the outcome."""
    return sums[:, : len(_FIRST)].copy(), sums[:, len(_FIRST) :].copy()


def _with_prior(sums: Float, prior: Float) -> Float:
    """Add `_PRIOR_WEIGHT` outcomes that the prior would have forecast exactly, with features as large as those seen."""
    matrix, side = _parts(sums)
    size = matrix[:, _DIAGONAL] / np.maximum(matrix[:, _ONES], 1e-300)[:, np.newaxis]
    lean = _PRIOR_WEIGHT * (size + 1e-5)
    matrix[:, _DIAGONAL] += lean
    side += lean * prior
    return np.concatenate([matrix, side], axis=1)


def _with_prior_one(sums: list[float], prior: list[float]) -> list[float]:
    """Do the work of `_with_prior` for one series, on plain numbers."""
    ones = max(sums[_ONES], 1e-300)
    for side, (at, wanted) in enumerate(zip(_ON_DIAGONAL, prior, strict=True), len(_FIRST)):
        lean = _PRIOR_WEIGHT * (sums[at] / ones + 1e-5)
        sums[at] += lean
        sums[side] += lean * wanted
    return sums


def _solved(systems: Float) -> Float:
    """Solve symmetric positive definite systems, (N, PRODUCTS): float64 (FEATURES, N).

    By Gauss-Jordan elimination without pivoting, side by side.
    """
    if len(systems) == 1:
        return _solved_one(systems[0].tolist())
    found = np.empty((FEATURES, len(systems)))
    # Parts of equal length, because a part of two systems takes as many calls as a large one.
    length = -(-len(systems) // -(-len(systems) // _AT_ONCE)) if len(systems) else 1
    for first in range(0, len(systems), length):
        some = systems[first : first + length].T
        # Columns of the matrices are along the first axis, so that the remaining ones are contiguous.
        full = np.empty((FEATURES + 1, FEATURES, some.shape[1]))
        full[:FEATURES] = some.take(_PAIR, axis=0)
        full[FEATURES] = some[len(_FIRST) :]
        room = np.empty_like(full[1:])
        for at in range(FEATURES):
            # Columns to the left of the pivot are finished.
            rest = full[at + 1 :]
            pivot = rest[:, at] / np.maximum(full[at, at], _LEAST_PIVOT)
            rest -= np.multiply(full[at], pivot[:, np.newaxis], out=room[: len(rest)])
            rest[:, at] = pivot
        found[:, first : first + length] = full[FEATURES]
    return found


def _solved_one(sums: list[float]) -> Float:
    """Solve one system on plain numbers: a numpy call takes longer than nine multiplications."""
    columns = [[sums[at] for at in places] for places in _COLUMNS]
    columns.append(sums[len(_FIRST) :])
    for at in range(FEATURES):
        c0, c1, c2, c3, c4, c5, c6, c7, c8 = column = columns[at]
        least = max(column[at], _LEAST)
        for after in range(at + 1, FEATURES + 1):
            r0, r1, r2, r3, r4, r5, r6, r7, r8 = rest = columns[after]
            by = rest[at] / least
            # Written out, because a loop over nine numbers takes three times as long.
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
"""Most systems that are solved together; more do not fit the cache of one core."""
