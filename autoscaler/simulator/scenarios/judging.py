"""Checks a scenario's expectations against a run.

Rules of this file: a figure that is unknown breaks its bound, and so does a history that is too short. Nothing passes
because there was nothing to see.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from autoscaler.simulator.replay.timeline import shortage_episodes
from autoscaler.simulator.report.wording import moment, span
from autoscaler.simulator.scenarios.figures import FIGURES, RunTicks
from autoscaler.simulator.scenarios.playing import ScenarioResult
from autoscaler.simulator.scenarios.reading import Expectation

LEAST_TICKS = 6
"""Ticks of known demand that are needed to judge anything."""
_SHORTAGES_TOLD = 3
LEAST_KNOWN = 0.9
"""Least share of the ticks whose demand must be known."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One expectation and whether it holds.

    Attributes:
        expectation: The expectation.
        value: Value of the figure. NaN if unknown.
        broken: How the expectation was broken, in words. Empty if it holds.
    """

    expectation: Expectation
    value: float
    broken: str

    @property
    def holds(self) -> bool:
        """Whether the expectation holds."""
        return not self.broken

    def __str__(self) -> str:
        figure = FIGURES[self.expectation.figure]
        bound = bounds_in_words(self.expectation)
        state = "holds" if self.holds else "BROKEN"
        return f"{state}: {figure.label} {figure.shown(self.value)} ({bound}): {self.broken or self.expectation.why}"


def judge(played: ScenarioResult) -> tuple[Verdict, ...]:
    """Check all expectations of a scenario, in their order."""
    return tuple(_judge(one, played) for one in played.scenario.expectations)


def worst_shortages(played: ScenarioResult) -> str:
    """Say when the worst shortages of a run were, counted from its beginning as in the scenario. Empty without any."""
    seen = played.seen(0.0, played.scenario.given.length_s)
    found = shortage_episodes(seen.at_s, seen.shortage, seen.tick_s)
    worst = sorted(found, key=lambda each: each.unserved_work, reverse=True)[:_SHORTAGES_TOLD]
    told = [
        f"{span(each.end_s - each.start_s)} at {_since(each.start_s - played.scenario.begin_s)} ({moment(each.start_s)} UTC)"
        for each in sorted(worst, key=lambda each: each.start_s)
    ]
    more = f" and {len(found) - len(worst)} more" if len(found) > len(worst) else ""
    return f"shortages: {', '.join(told)}{more}" if told else ""


def _since(seconds: float) -> str:
    """Write a time as in a scenario, such as 31m30s."""
    minutes, rest = divmod(round(seconds), 60)
    return "".join(f"{part}{unit}" for part, unit in ((minutes, "m"), (rest, "s")) if part) or "0s"


def bounds_in_words(expectation: Expectation) -> str:
    """Format the bounds of an expectation."""
    figure = FIGURES[expectation.figure]
    bounds = (("at least", expectation.at_least), ("at most", expectation.at_most))
    return " and ".join(f"{word} {figure.shown(bound)}" for word, bound in bounds if bound is not None)


def _judge(expectation: Expectation, played: ScenarioResult) -> Verdict:
    seen = played.seen(expectation.from_s, expectation.to_s)
    if too_short := _too_short(seen):
        return Verdict(expectation, math.nan, too_short)
    value = FIGURES[expectation.figure].measure(seen)
    return Verdict(expectation, value, _broken(expectation, value))


def _too_short(seen: RunTicks) -> str:
    known = int(np.count_nonzero(~np.isnan(seen.demand)))
    if known < LEAST_TICKS:
        return f"demand is known in only {known} ticks; at least {LEAST_TICKS} are needed"
    if known < LEAST_KNOWN * len(seen.demand):
        return f"demand is known in only {known} of {len(seen.demand)} ticks"
    return ""


def _broken(expectation: Expectation, value: float) -> str:
    figure = FIGURES[expectation.figure]
    if math.isnan(value):
        return f"{figure.label} is unknown, so its bounds cannot be checked"
    if expectation.at_most is not None and not value <= expectation.at_most:
        return f"{figure.shown(value)} is more than {figure.shown(expectation.at_most)}, so this does not hold: {expectation.why}"
    if expectation.at_least is not None and not value >= expectation.at_least:
        return f"{figure.shown(value)} is less than {figure.shown(expectation.at_least)}, so this does not hold: {expectation.why}"
    return ""
