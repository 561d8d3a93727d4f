"""Lead times, learned per fleet, per kind of start, and per phase of the start.

A start is divided at the moments that can be observed: the order, the cloud's report that it is under way (pending), that the VM
runs, and the moment from which it serves. Each phase and the total have their own histogram (`histograms`).

The policy's start time is the first guess. Once there is evidence, a high quantile of the measurements replaces it, within bounds
around the guess, so that neither a bad day nor a wrong clock can lead far astray.

Rules of this file: lanes do not see each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

import numpy as np

from autoscaler.core.learned.histograms import LogHistograms, evidence, quantile
from autoscaler.core.state_base import Remembered
from autoscaler.core.types import Float, Int

BINS = 96
SHORTEST_S, LONGEST_S = 0.5, 7200.0
HALF_LIFE = 200.0
"""Number of starts of a kind after which an older one has half its weight."""
PLANNED_LEVEL = 0.9
"""The quantile of measured start times that is used for planning."""
ENOUGH = 20.0
"""Effective number of starts from which measured times replace the policy's guess."""
LEAST, MOST = 0.5, 3.0
"""The planned time stays within these factors of the policy's guess."""


class StartSource(IntEnum):
    """The state that a start begins from."""

    STOPPED = 0
    HIBERNATED = 1
    FRESH = 2
    """Newly provisioned."""


class Span(IntEnum):
    """A part of the time from the order until the VM serves."""

    PENDING = 0
    """From the order until the cloud reports that it is under way."""
    RUNNING = 1
    """From then until the VM runs."""
    READY = 2
    """From then until its readiness probe passes and it serves."""
    WHOLE = 3
    """From the order until it serves."""


SPANS, SOURCES = len(Span), len(StartSource)


@dataclass(slots=True)
class LeadTimes(Remembered):
    """What was learned about the starts of L lanes.

    Attributes:
        times: Histograms in seconds; cells are spans × sources × lanes, the lanes fastest.
    """

    version: ClassVar[int] = 1
    times: LogHistograms

    @classmethod
    def empty(cls, lanes: int) -> LeadTimes:
        """A state that has seen no start."""
        return cls(
            LogHistograms.empty(
                SPANS * SOURCES * lanes, bins=BINS, low=SHORTEST_S, high=LONGEST_S, half_life=HALF_LIFE
            )
        )

    @classmethod
    def parts(cls) -> dict[str, type[Remembered]]:
        """The fields that are states themselves."""
        return {"times": LogHistograms}

    @property
    def lanes(self) -> int:
        """Number of lanes."""
        return int(self.times.weight.shape[1]) // (SPANS * SOURCES)

    def take(self, lane: Int, source: Int, seconds: Float) -> None:
        """Add completed starts.

        Args:
            lane: int64 (N,), the lane of each start.
            source: int64 (N,) of `StartSource`.
            seconds: float64 (SPANS, N), the duration of each span; NaN if not observed.
        """
        cell = source * self.lanes + lane
        for span in Span:
            self.times.take(span * SOURCES * self.lanes + cell, seconds[span])

    def quantile(self, level: float, span: Span, *sources: StartSource) -> Float:
        """The quantile of a span's duration over starts from any of these sources, seconds: float64 (L,), NaN without starts."""
        return quantile(self._of(span, sources), level, SHORTEST_S, LONGEST_S)

    def evidence(self, span: Span, *sources: StartSource) -> Float:
        """Effective number of starts behind `quantile`: float64 (L,)."""
        return evidence(self._of(span, sources))

    def planned_s(self, guess_s: Float) -> Float:
        """The start time from the warm pool to plan with, float64 (L,), if the policy guesses `guess_s`."""
        warm = StartSource.STOPPED, StartSource.HIBERNATED
        measured = self.quantile(PLANNED_LEVEL, Span.WHOLE, *warm)
        bounded = np.minimum(np.maximum(measured, LEAST * guess_s), MOST * guess_s)
        planned: Float = np.where(self.evidence(Span.WHOLE, *warm) >= ENOUGH, bounded, guess_s)
        return planned

    def hibernation_saving_s(self, stopped_s: Float, hibernated_s: Float) -> Float:
        """How many seconds sooner a hibernated VM serves than a stopped one, by measured medians: float64 (L,).

        Args:
            stopped_s: float64 (L,), guess for starts from stopped, used until enough of them were measured.
            hibernated_s: float64 (L,), guess for starts from hibernation; NaN if there is none, which makes the result NaN
                until enough starts were measured.
        """
        found = []
        for guess_s, source in ((stopped_s, StartSource.STOPPED), (hibernated_s, StartSource.HIBERNATED)):
            known = self.evidence(Span.WHOLE, source) >= ENOUGH
            found.append(np.where(known, self.quantile(0.5, Span.WHOLE, source), guess_s))
        sooner: Float = found[0] - found[1]
        return sooner

    def carried_over(self, lanes: Int) -> LeadTimes:
        """Return the state for other lanes, each new or continuing a lane of this state, which is not changed.

        Args:
            lanes: int64 (N,), the lane of this state that each lane continues; -1 for a new lane.
        """
        kinds = np.arange(SPANS * SOURCES, dtype=np.int64)[:, np.newaxis]
        cells = np.where(lanes >= 0, kinds * self.lanes + lanes, -1)
        return LeadTimes(self.times.carried_over(cells.ravel()))

    def of_lane(self, lane: int) -> Float:
        """Everything learned about one lane: float64 (BINS, SPANS * SOURCES), a copy."""
        return self.times.weight[:, lane :: self.lanes].copy()

    def put_lane(self, lane: int, learned: Float) -> None:
        """Restore what `of_lane` returned."""
        self.times.weight[:, lane :: self.lanes] = learned

    def _of(self, span: Span, sources: tuple[StartSource, ...]) -> Float:
        lanes = self.lanes
        first, *more = (
            self.times.weight[:, (span * SOURCES + source) * lanes : (span * SOURCES + source + 1) * lanes]
            for source in sources
        )
        total: Float = first
        for other in more:
            total = total + other
        return total
