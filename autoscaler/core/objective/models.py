"""The competing models: each gives a lowest and highest number of VMs for a fleet, and has a description.

A model is an order-up-to rule with a dead zone: below `low` VMs it goes up to `low`, above `high` it comes down to `high`. Economic
models read the forecast by the prices (`worth`), others the distribution of demand (`habits`). Plain ones take current demand, or its
recent maximum, plus headroom, as the autoscalers of Kubernetes and Google do; some have break-even timers, or fall step by step as
AWS's step scaling does.

Models based on habits or on yesterday do not follow demand, which may be what makes them cheap. But a rise that has lasted as long
as a start takes would have been worth ordering when it began. So none of them wants fewer VMs than have each had at least half of
their work throughout that time (`Trial.lows`).

Rules of this file: names and constants only. `worth`, `habits` and `plain_models` compute what models want, and `competition` compares them.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import NamedTuple


class Kind(IntEnum):
    """How a model computes its two numbers of VMs."""

    WORTH = 0
    """As many VMs as earn more than they cost, by the forecast."""
    DEMAND = 1
    """Current demand plus headroom; goes down only to the maximum of a past window plus headroom."""
    USUAL = 2
    """As many VMs as are usually needed, by the demand of all hours."""
    HOUR = 3
    """As many VMs as are usually needed at this hour of the day."""
    YESTERDAY = 4
    """Demand at this time yesterday plus headroom."""
    BOTH = 5
    """YESTERDAY, or WORTH at the plain price of shortage if that is more."""
    FALLING = 6
    """Current demand plus headroom; goes down only as fast as an exponentially decaying maximum plus headroom."""
    EVER = 7
    """As many VMs as were ever needed, and as a crowd that was never seen may need."""
    AMPLE = 8
    """Several times current demand; goes down only to the same multiple of the last hour's maximum."""
    EITHER = 9
    """Demand at this time yesterday or a week ago, whichever is more, plus headroom; at least current demand."""
    AVERAGE_DAY = 10
    """Demand around this time on the last seven days, averaged over the days, or current demand if that is more; plus
    headroom."""
    ANY_DAY = 11
    """Highest demand around this time on any of the last seven days, or current demand if that is more; plus headroom."""


class Window(IntEnum):
    """The window that keeps a VM: of the forecast for WORTH, of the past for DEMAND, and the half-life of the maximum
    for FALLING.
    """

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
"""Lengths of the past windows in seconds, ascending."""
PRICE_FACTORS: tuple[float, ...] = (1.0, 2.0)
"""Multiples of the price of shortage at which models based on forecasts and habits are tried."""
HEADROOMS: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 1.0)
"""Headrooms that are tried, as shares of demand."""
DEMAND_HEADROOMS = (0, 2, 4)
"""Places in `HEADROOMS` that are tried for DEMAND. Those in between never cost noticeably less."""
AHEAD = (Window.NOW, Window.SHORT, Window.LONG)
"""Windows of the forecast that are tried."""
AMPLE_HEADROOMS: tuple[float, ...] = (3.0, 7.0, 19.0)
"""Headrooms that are tried for AMPLE: for demand that comes in rare crowds of many times the usual demand, and in
proportion to it."""
FALLS_S: dict[Window, float] = {Window.LONG: 1.5 * 3600.0, Window.DAILY: 6 * 3600.0}
"""Half-lives of the decaying maximum in seconds, by the window that each is named after. On recordings of tweets and of
an LLM's API, 90 to 180 minutes cost less than an hour; the past window LONG covers an hour anyway."""
BAND_TOPS: tuple[float, ...] = (2.0, 8.0, 32.0, 128.0, 512.0, math.inf)
"""Numbers of VMs at which bands end. The first two VMs serve another purpose than the thousandth, so another model may
drive in each band (`bands`)."""
FALLING_HEADROOMS = (0, 2, 3, 4)
"""Places in `HEADROOMS` that are tried for FALLING."""

EITHER_HEADROOMS = 3
"""How many of `HEADROOMS`, from the first on, are tried for EITHER."""

AVERAGE_DAY_HEADROOMS, ANY_DAY_HEADROOMS = (1, 3, 4), (0, 2, 4)
"""Places in `HEADROOMS` that are tried for AVERAGE_DAY and ANY_DAY."""

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
    """One model.

    Attributes:
        kind: How it computes its numbers.
        knob: Place of its factor in `PRICE_FACTORS`, or of its headroom in `HEADROOMS` (`AMPLE_HEADROOMS` for AMPLE).
        window: The window that keeps a VM.
    """

    kind: Kind
    knob: int
    window: Window = Window.NOW

    def __str__(self) -> str:
        """Describe the model in a few words."""
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
"""All M models. A model's number is its place here."""
CAREFUL = MODELS.index(Model(Kind.DEMAND, HEADROOMS.index(0.25), Window.MIDDLE))
"""Place of the model that drives until there is a reason for another, and wherever there is no forecast: demand plus a
quarter, held for ten minutes, as a careful person would size a fleet by hand. A single wild reading makes it start
few VMs, and they stop soon."""


def rows_of(kind: Kind) -> slice[int, int, None]:
    """Return the places in `MODELS` of all models of a kind, which are consecutive."""
    places = [place for place, model in enumerate(MODELS) if model.kind is kind]
    return slice(places[0], places[-1] + 1)
