"""Formats numbers for people (money, durations, shares, times), in one place so that terminal and page agree.

Rules of this file: NaN and None become "?", never 0. Callers show "–" for a figure that does not apply. Times are UTC.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from enum import StrEnum


class Unit(StrEnum):
    """The unit of a figure."""

    MONEY = "money"
    VM_HOURS = "VM-hours"
    SHARE = "share"
    SPAN = "span"
    COUNT = "count"
    PER_DAY = "per day"
    WORK = "work"
    NUMBER = "number"


UNKNOWN = "?"
DOES_NOT_APPLY = "–"
"""Shown for a figure that has no meaning for the run, in contrast to one that is not known."""


def shown(value: float | None, unit: Unit) -> str:
    """Format a figure, with its unit unless the number alone makes it clear."""
    if value is None or math.isnan(value):
        return UNKNOWN
    return {
        Unit.MONEY: money,
        Unit.VM_HOURS: quantity,
        Unit.SHARE: share,
        Unit.SPAN: span,
        Unit.COUNT: count,
        Unit.PER_DAY: quantity,
        Unit.WORK: count,
        Unit.NUMBER: quantity,
    }[unit](value)


def money(value: float) -> str:
    """Format an amount of money: two decimals, more if it is very small, none if it is large."""
    if math.isnan(value):
        return UNKNOWN
    if value != 0 and abs(value) < 0.1:
        return f"{value:.4f}"
    return f"{value:,.2f}" if abs(value) < 10_000 else f"{value:,.0f}"


def each_unit(price: float) -> str:
    """Format a price per unit of work, or per as many units as make a small price readable."""
    for units, name in ((1.0, "a unit"), (1e3, "a thousand units"), (1e6, "a million units")):
        if abs(price) * units >= 0.01:
            return f"{price * units:.3g} {name}"
    return f"{price * 1e9:.3g} a billion units" if price else "0 a unit"


def share(value: float) -> str:
    """Format a fraction as a percentage, with enough digits to show a small one."""
    if math.isnan(value):
        return UNKNOWN
    percent = abs(value) * 100
    if percent == 0 or percent >= 10:
        return f"{value:.0%}" if percent == 0 else f"{value:.1%}"
    if percent < 0.001:
        return "< 0.001%"
    return f"{value:.2%}" if percent >= 1 else f"{value:.3%}"


def rounded_share(value: float) -> str:
    """Format the size of a fraction as a whole percentage for sentences, or as "less than 1%" below half a per cent."""
    if math.isnan(value):
        return UNKNOWN
    if abs(value) < 0.005:
        return "less than 1%" if value else "0%"
    return f"{abs(value) * 100:.0f}%"


def span(seconds: float) -> str:
    """Format a length of time in a suitable unit. A negative length gets a minus sign."""
    if math.isnan(seconds):
        return UNKNOWN
    if seconds < 0:
        return f"-{span(-seconds)}"
    for unit_s, least_s, name in (
        (1, 0, "s"),
        (60, 120, "min"),
        (3600, 7200, "h"),
        (86_400, 172_800, "days"),
    ):
        if seconds >= least_s:
            size, unit = unit_s, name
    amount = seconds / size
    number = f"{amount:.0f}" if amount >= 10 else f"{amount:.1f}".removesuffix(".0")
    return f"{number} {unit}"


def count(value: float) -> str:
    """Format a whole number with separators."""
    return UNKNOWN if math.isnan(value) else f"{value:,.0f}"


def quantity(value: float) -> str:
    """Format a number, with one decimal while it is small."""
    if math.isnan(value):
        return UNKNOWN
    return f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:,.1f}"


def moment(at_s: float) -> str:
    """Format a moment as date and time, with seconds only if they are not 0."""
    at = datetime.fromtimestamp(at_s, UTC)
    return at.strftime("%a %d %b %Y %H:%M:%S" if at.second else "%a %d %b %Y %H:%M")


def plural(number: float, one: str, many: str) -> str:
    """Format a count with its noun."""
    return f"{number:,.0f} {one if number == 1 else many}"
