"""Which runs of ticks can be processed together when samples are known in advance.

Rules of this file: how ticks are cut into stretches affects no result, only the time taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from autoscaler.core.forecast.settings import MOST_ALONE, Settings
from autoscaler.core.forecast.state import SeriesState
from autoscaler.core.forecast.tracks import CHILDHOOD, SampleRows
from autoscaler.core.types import Samples

HEAVY = 2.0**40
"""Weights above this are scaled down."""


def split_stream(settings: Settings, state: SeriesState, samples: Iterable[Samples]) -> Iterator[SampleRows]:
    """Yield stretches of samples to process together. Each must have been processed before the next is taken."""
    stretch: list[Samples] = []
    last, most = 0, 1
    for each in samples:
        tick = int(each.now_s // settings.params.tick_s)
        if stretch and (len(stretch) >= most or tick != last + 1):
            yield SampleRows.of(stretch)
            stretch = []
        if not stretch:
            most = _most_together(settings, state, tick)
        stretch.append(each)
        last = tick
    if stretch:
        yield SampleRows.of(stretch)


def split_rows(settings: Settings, state: SeriesState, samples: SampleRows) -> Iterator[SampleRows]:
    """Yield the same stretches as `split_stream`, from samples that are all known."""
    tick_s, count = settings.params.tick_s, len(samples.now_s)
    first = 0
    while first < count:
        end, tick = first + 1, int(samples.now_s[first] // tick_s)
        most = min(first + _most_together(settings, state, tick), count)
        while end < most and int(samples.now_s[end] // tick_s) == tick + end - first:
            end += 1
        yield samples.some(first, end)
        first = end


def _most_together(settings: Settings, state: SeriesState, tick: int) -> int:
    """Return how many ticks from this one on may be processed together.

    Only one if a series waits for its first sample, ticks were skipped, or weights must soon be scaled down.
    """
    if state.unborn or tick != state.last_tick + 1:
        return 1
    growth = math.log2(float(settings.growth.max()) * (1.0 if state.grown else 1.0 + 1.0 / CHILDHOOD))
    room = math.log2(HEAVY / float(state.weight.max()))
    for most in (MOST_ALONE, settings.together) if len(settings.series) == 1 else (settings.together,):
        if growth * (most + 1) < room:
            return most
    return 1
