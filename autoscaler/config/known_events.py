"""Policy section: events known in advance, such as releases, matches, campaigns or the start of a working day.

An event happens once, from a moment on, or recurs on days of the week at a local time. The forecaster takes it as the odds that
demand will be a multiple of what it is. VMs are started ahead if, and only if, their expected price justifies it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, time, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import Field

from autoscaler.config.quantities import BEGINNING, DAYS_OF_WEEK, DURATION, MOMENT, PERCENT, Quantity
from autoscaler.config.section import DAY_S, Filled, Section

BEHIND_S, AHEAD_S = 1 * DAY_S, 8 * DAY_S
"""How far before and after now events are compiled, seconds."""


class KnownEvent(Section):
    """An event that happens once or recurs."""

    name: Filled = Field(description="What it is.")
    begins: Annotated[datetime, MOMENT] | None = Field(
        None, description="Moment at which it begins, for an event that happens once."
    )
    days: Annotated[tuple[int, ...], DAYS_OF_WEEK] = Field(
        tuple(range(7)),
        description="Days on which one that recurs begins: mon-fri, a list such as sat,sun, or daily.",
    )
    at: Annotated[time, BEGINNING] | None = Field(
        None, description="Local time at which one that recurs begins."
    )
    time_zone: Filled = Field(
        "UTC", description="Time zone of that time by its name, for example Europe/Berlin."
    )
    lasts_s: Annotated[float, Quantity(DURATION, 60, 30 * DAY_S)] = Field(description="How long it lasts.")
    factor: Annotated[float, Field(gt=0, le=1000)] = Field(
        description="Expected demand as a multiple of demand just before, in times."
    )
    odds: Annotated[float, Quantity(PERCENT, 0, 1)] = Field(
        0.8, description="How likely that is; otherwise demand is expected as without the event."
    )


def occurrences(event: KnownEvent, now_s: float, run_s: float = 0.0) -> Iterator[tuple[float, float]]:
    """Yield (start, end), in epoch seconds, of each occurrence that touches [now - 1 day, now + run + 8 days], in order.

    Where the clock changes and the local time does not exist or exists twice, the earlier reading is used.
    """
    if event.begins is not None:
        starts = [event.begins.timestamp()]
    elif event.at is not None:
        zone = ZoneInfo(event.time_zone)
        before = int((event.lasts_s + BEHIND_S) // DAY_S) + 2
        first = datetime.fromtimestamp(now_s, zone).date() - timedelta(days=before)
        count = before + int((run_s + AHEAD_S) // DAY_S) + 3
        days = [first + timedelta(days=offset) for offset in range(count)]
        starts = [
            min(datetime.combine(day, event.at, zone).replace(fold=fold).timestamp() for fold in (0, 1))
            for day in days
            if day.weekday() in event.days
        ]
    else:
        starts = []
    for start in starts:
        if start + event.lasts_s > now_s - BEHIND_S and start < now_s + run_s + AHEAD_S:
            yield start, start + event.lasts_s
