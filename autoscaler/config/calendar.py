"""Compiles schedules to epoch seconds: wall-clock times and time zones for the days around now.

It is here because core knows no calendar. A window is compiled to half-open spans of epoch seconds up to a week ahead,
so a program that runs longer compiles again at least once a day.

Where the clock changes and a local time does not exist or exists twice, the longer window is used: a window is a floor,
and too many VMs for an hour is the cheaper mistake.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from autoscaler.config.freshness import QuietWindow
from autoscaler.config.section import DAY_S
from autoscaler.config.wishes import ScheduleWindow

BEHIND_S = 1 * DAY_S
AHEAD_S = 8 * DAY_S
"""How far before and after now windows are compiled, seconds."""


def spans(window: ScheduleWindow | QuietWindow, now_s: float) -> Iterator[tuple[float, float]]:
    """Yield (start, end), in epoch seconds, of each occurrence that touches [now - 1 day, now + 8 days], in order."""
    zone = ZoneInfo(window.time_zone)
    first = datetime.fromtimestamp(now_s - BEHIND_S, zone).date() - timedelta(days=2)
    for offset in range(int((BEHIND_S + AHEAD_S) // DAY_S) + 5):
        day = first + timedelta(days=offset)
        if day.weekday() not in window.days:
            continue
        start = min(_instants(day, window.from_ or time(0), zone))
        end = max(_instants(*_last_moment(day, window), zone))
        if end > now_s - BEHIND_S and start < now_s + AHEAD_S:
            yield start, end


def _last_moment(day: date, window: ScheduleWindow | QuietWindow) -> tuple[date, time]:
    next_day = day + timedelta(days=1)
    if window.to is None:
        return next_day, time(0)
    return (next_day if window.to <= (window.from_ or time(0)) else day), window.to


def _instants(day: date, at: time, zone: ZoneInfo) -> tuple[float, float]:
    """Return both readings of a local time; they differ only where the clock changes."""
    local = datetime.combine(day, at, zone)
    return local.replace(fold=0).timestamp(), local.replace(fold=1).timestamp()
