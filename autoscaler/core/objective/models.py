"""The competing models: each gives a lowest and highest number of VMs for a fleet, and has a description.

A model is an order-up-to rule with a dead zone: below `low` VMs it goes up to `low`, above `high` it comes down to `high`. Economic
models read the forecast by the prices (`worth`), others the distribution of demand (`habits`). Plain ones take current demand, or its
recent maximum, plus headroom, as the autoscalers of Kubernetes and Google do; some have break-even timers, or fall step by step as
AWS's step scaling does.

Models based on habits or on yesterday do not follow demand, which may be what makes them cheap. But a rise that has lasted as long
as a start takes would have been worth ordering when it began. So no model wants fewer VMs than would do half of the work present
throughout that time (`Trial.lows`).

Rules of this file: names and constants; `economic`, `habits` and `experts` compute what models want.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import NamedTuple


class Kind(IntEnum):
    """How a model comes to its numbers."""

    WORTH = 0
    """What earns more than it costs, by the forecast."""
    DEMAND = 1
    """Demand plus headroom; down only to its highest of a window."""
    USUAL = 2
    """What is usually needed, by all hours."""
    HOUR = 3
    """What is usually needed at this hour."""
    YESTERDAY = 4
    """What was needed at this time yesterday, plus headroom."""
    BOTH = 5
    """What was needed at this time yesterday, plus headroom, and what the forecast is worth where that is more."""
    FALLING = 6
    """Demand plus headroom; down only as fast as its highest falls exponentially."""
    EVER = 7
    """What was needed ever, and what may yet be."""
    AMPLE = 8
    """Several times demand; down only to that of its highest of an hour."""
    EITHER = 9
    """What was needed at this time yesterday or a week ago, the more of the two, plus headroom, and demand likewise."""
    AVERAGE_DAY = 10
    """What the days of the last week needed at about this time, on the average, plus headroom, and demand likewise."""
    ANY_DAY = 11
    """What any of these days needed at about this time, plus headroom, and demand likewise."""


class Window(IntEnum):
    """What keeps a VM: a window of the forecast for WORTH, of the past for DEMAND, a time of falling for FALLING."""

    NOW = 0
    SHORT = 1
    MIDDLE = 2
    LONG = 3
    DAILY = 4


PAST_S: dict[Window, float] = {
    Window.NOW: 0.0,
    Window.MIDDLE: 600.0,
    Window.LONG: 3600.0,
    Window.DAILY: 86400.0,
}
"""Windows of the past in seconds, by the window they are named after, ascending."""
PRICE_FACTORS: tuple[float, ...] = (1.0, 2.0)
"""Prices of shortage at which forecasts and habits are tried, in prices of shortage."""
HEADROOMS: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 1.0)
"""Headrooms that are tried."""
DEMAND_HEADROOMS = (0, 2, 4)
"""Which of them are tried with demand and its highest of the past: what is between them never cost noticeably less."""
AHEAD = (Window.NOW, Window.SHORT, Window.LONG)
"""Windows of the forecast."""
AMPLE_HEADROOMS: tuple[float, ...] = (3.0, 7.0, 19.0)
"""Headrooms that are tried for demand which comes in rare crowds, many times what it usually is, and in proportion to it."""
FALLS_S: dict[Window, float] = {Window.LONG: 1.5 * 3600.0, Window.DAILY: 6 * 3600.0}
"""In which time the highest demand falls by half, by the window it is named after. On recordings of tweets and of a model's interface 90 to
180 minutes cost less than an hour, for which a window of the past holds anyway."""
BAND_TOPS: tuple[float, ...] = (2.0, 8.0, 32.0, 128.0, 512.0, math.inf)
"""Numbers of VMs at which bands end: what the first two VMs are for is not what the thousandth is for, so that in a band
another model may drive (`bands`)."""
FALLING_HEADROOMS = (0, 2, 3, 4)
"""Which of the headrooms are tried with it."""

EITHER_HEADROOMS = 3
"""How many of the headrooms are tried with the more of what yesterday and a week ago needed."""

AVERAGE_DAY_HEADROOMS, ANY_DAY_HEADROOMS = (1, 3, 4), (0, 2, 4)
"""Which of the headrooms are tried with the days of the last week."""

_LEAST = {
    Kind.YESTERDAY: ("yesterday", ""),
    Kind.EITHER: ("yesterday or last week", ", at least demand"),
    Kind.BOTH: ("yesterday", ", at least by the forecast"),
}


_AHEAD = {
    Window.NOW: "at the lead time",
    Window.SHORT: "until a stopped VM is back",
    Window.LONG: "within the hold window",
}


def _price(knob: int) -> str:
    factor = PRICE_FACTORS[knob]
    return "its price" if factor == 1.0 else f"{factor:g} times its price"


class Model(NamedTuple):
    """One model: its kind, which of the factors or headrooms, and its window."""

    kind: Kind
    knob: int
    window: Window = Window.NOW

    def __str__(self) -> str:
        """In a few words."""
        if self.kind in (Kind.USUAL, Kind.HOUR):
            hours = "all hours" if self.kind is Kind.USUAL else "this hour"
            return f"usual of {hours}, shortage at {_price(self.knob)}"
        if self.kind is Kind.WORTH:
            return f"forecast {_AHEAD[self.window]}, shortage at {_price(self.knob)}"
        if self.kind is Kind.EVER:
            return f"needed ever, shortage at {_price(self.knob)}"
        if self.kind is Kind.FALLING:
            return (
                f"demand + {HEADROOMS[self.knob]:.0%}, falling by half in {FALLS_S[self.window] / 3600.0:g} h"
            )
        if self.kind in _LEAST:
            when, least = _LEAST[self.kind]
            longer = ", longer" if self.window is Window.LONG else ""
            return f"this time {when} + {HEADROOMS[self.knob]:.0%}{least}{longer}"
        if self.kind in (Kind.AVERAGE_DAY, Kind.ANY_DAY):
            days = "the days of a week" if self.kind is Kind.AVERAGE_DAY else "any day of a week"
            return f"about this time on {days} + {HEADROOMS[self.knob]:.0%}, at least demand"
        headrooms = AMPLE_HEADROOMS if self.kind is Kind.AMPLE else HEADROOMS
        return f"demand + {headrooms[self.knob]:.0%}, {PAST_S[self.window] / 60.0:g} min"


MODELS: tuple[Model, ...] = (
    *(Model(Kind.WORTH, knob, window) for knob in range(len(PRICE_FACTORS)) for window in AHEAD),
    *(Model(kind, knob) for kind in (Kind.USUAL, Kind.HOUR) for knob in range(len(PRICE_FACTORS))),
    *(Model(Kind.EVER, knob) for knob in range(len(PRICE_FACTORS))),
    *(Model(Kind.DEMAND, knob, window) for knob in DEMAND_HEADROOMS for window in PAST_S),
    *(Model(Kind.AMPLE, knob, Window.LONG) for knob in range(len(AMPLE_HEADROOMS))),
    *(Model(Kind.FALLING, knob, window) for window in FALLS_S for knob in FALLING_HEADROOMS),
    *(Model(Kind.YESTERDAY, knob) for knob in range(len(HEADROOMS))),
    *(Model(Kind.EITHER, knob) for knob in range(EITHER_HEADROOMS)),
    *(Model(Kind.AVERAGE_DAY, knob) for knob in AVERAGE_DAY_HEADROOMS),
    *(Model(Kind.ANY_DAY, knob) for knob in ANY_DAY_HEADROOMS),
    *(Model(Kind.BOTH, knob, window) for knob in range(3) for window in (Window.NOW, Window.LONG)),
)
"""All of them, M; the number of a model is its place."""
CAREFUL = MODELS.index(Model(Kind.DEMAND, HEADROOMS.index(0.25), Window.MIDDLE))
"""The model that drives until there is a reason for another, and where there is no forecast: what a careful person would do by
hand. One wild reading makes it start little, and what it started is stopped soon."""


def rows_of(kind: Kind) -> slice[int, int, None]:
    """The places of the models of a kind, which follow each other."""
    places = [place for place, model in enumerate(MODELS) if model.kind is kind]
    return slice(places[0], places[-1] + 1)
