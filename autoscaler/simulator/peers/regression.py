"""Peers that fit a model to the last minutes of demand (rules of these files: `peer`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.params import LaneParams
from autoscaler.core.types import Bool, Float, Int, Snapshot
from autoscaler.simulator.peers.classic import Needing
from autoscaler.simulator.peers.peer import ROUNDING, summed


class Window:
    """The last `length` values of a series, the newest last; an unknown value repeats the one before.

    Args:
        length: Number of values.
        lanes: Number of lanes.
    """

    def __init__(self, length: int, lanes: int) -> None:
        self.values: Float = np.full((length, lanes), np.nan)

    def push(self, value: Float, known: Bool) -> None:
        """Append a value and drop the oldest."""
        last = self.values[-1].copy()
        self.values[:-1] = self.values[1:]
        self.values[-1] = np.where(known, value, last)

    @property
    def full(self) -> Bool:
        """Whether all values are known, bool (L,)."""
        known: Bool = ~np.isnan(self.values[0])
        return known


class Reg(Needing):
    """Reg (Iqbal, Dailey, Carrera, Janecek 2011): scales out by the present need, in by regression.

    If need is above the VMs ordered, it wants 1.05 times the need. Otherwise it wants 1.2 times the present value of a
    parabola through the last 60 needs, which is rounded up first, and never more than the VMs ordered.
    """

    _LENGTH, _DEGREE, _OUT, _KEPT = 60, 2, 1.05, 1.2

    def __init__(self, params: LaneParams, *, utilisation: float | Float = 1.0) -> None:
        super().__init__(params, utilisation=utilisation)
        self._past = Window(self._LENGTH, len(params.vm_capacity))
        # The fitted parabola's value at the last point is a fixed weighted sum of the points.
        ages = np.arange(self._LENGTH) / self._LENGTH
        design = np.stack([ages**power for power in range(self._DEGREE + 1)], axis=1)
        self._weights: Float = (design @ np.linalg.pinv(design))[-1]

    def sized(self, snapshot: Snapshot) -> Int:
        """Return the VMs wanted (see `Peer.sized`)."""
        exact, need, size, known = self._sees(snapshot)
        self._past.push(exact, known)
        fitted = summed(self._weights[:, np.newaxis] * self._past.values)
        fitted = np.where(self._past.full, fitted, exact)
        kept = np.ceil(self._KEPT * np.ceil(np.maximum(fitted, 0.0) - ROUNDING) - ROUNDING)
        kept = np.minimum(np.nan_to_num(kept), size).astype(np.int64)
        out = np.ceil(self._OUT * exact - ROUNDING).astype(np.int64)
        return np.where(known, np.where(need > size, np.maximum(out, need), kept), size)

    def memory(self, now_s: float) -> list[NDArray[Any]]:
        """Return all that its future depends on (see `Peer.memory`)."""
        del now_s
        return [self._past.values.copy()]


class ConPaaS(Needing):
    """The predictor of ConPaaS (Fernandez, Pierre, Kielmann 2014), with the model that its published code uses.

    An autoregression of order 9 on the last 20 loads predicts the next 20. VMs are ordered for the mean of these, with
    weights that rise with the step. The autoregression is fitted by Burg's method about the mean of the window, which is
    stable where ordinary least squares on 20 points is not.
    """

    _LENGTH, _ORDER, _STEPS = 20, 9, 20

    def __init__(self, params: LaneParams, *, utilisation: float | Float = 1.0) -> None:
        super().__init__(params, utilisation=utilisation)
        self._past = Window(self._LENGTH, len(params.vm_capacity))

    def sized(self, snapshot: Snapshot) -> Int:
        """Return the VMs wanted (see `Peer.sized`)."""
        exact, need, size, known = self._sees(snapshot)
        self._past.push(exact, known)
        expected = np.where(self._past.full, self._ahead(), exact)
        wish = np.maximum(np.ceil(np.nan_to_num(expected) - ROUNDING), 0.0).astype(np.int64)
        return np.where(known, np.where(self._past.full, wish, need), size)

    def memory(self, now_s: float) -> list[NDArray[Any]]:
        """Return all that its future depends on (see `Peer.memory`)."""
        del now_s
        return [self._past.values.copy()]

    def _ahead(self) -> Float:
        """Return the weighted mean of the predicted loads: (L,)."""
        values = self._past.values
        mean = summed(values) / self._LENGTH
        around = values - mean
        # Reversed, so that the coefficient of the nearest past is multiplied with the newest value.
        weights = burg(around, self._ORDER)[::-1]
        course = np.concatenate((around[-self._ORDER :], np.empty((self._STEPS, len(mean)))))
        for step in range(self._STEPS):
            course[self._ORDER + step] = summed(weights * course[step : step + self._ORDER])
        rising = np.arange(1.0, self._STEPS + 1.0)[:, np.newaxis]
        return mean + summed(rising * course[self._ORDER :]) / float(rising.sum())


def burg(values: Float, order: int) -> Float:
    """Return the coefficients of an autoregression by Burg's recursion, the nearest past first.

    Args:
        values: (n, L), with a mean of zero, the newest last; n must exceed the order.
        order: Number of coefficients.

    Returns:
        float64 (order, L); 0 if the values do not vary.
    """
    ahead, behind = values[1:], values[:-1]
    found: Float = np.zeros((order, values.shape[1]))
    for number in range(order):
        over = summed(ahead * behind)
        under = summed(ahead * ahead + behind * behind)
        usable = under > 0
        part = np.where(usable, 2.0 * over / np.where(usable, under, 1.0), 0.0)
        found[:number] = found[:number] - part * found[:number][::-1]
        found[number] = part
        ahead, behind = (ahead - part * behind)[1:], (behind - part * ahead)[:-1]
    return found
