"""The constraints of a recommendation, as people write them: `unserved=0.1%`, `longest_episode=5m`, `starts_per_day=200`.

Rules of this file: a limit names a figure of the score card and is read in its unit. An unknown figure breaks every limit.
If no limit says how much shortage may be, a candidate must leave no more unserved than the policy as it is. Otherwise a
limit on starts alone would favour the policy that serves least.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoscaler.config.quantities import DURATION, PERCENT
from autoscaler.core.types import Bool, Float
from autoscaler.errors import ConfigError
from autoscaler.simulator.judging.score import FIGURES, Score
from autoscaler.simulator.report.card import Figure
from autoscaler.simulator.report.wording import Unit, shown

_UNITS = ("_share", "_s")
_BESIDE = {"regret", "captured", "pool_cost", "shortage_avoided_s", "cost_per_avoided_s"}
"""Figures that compare with something that is not run here."""
_OF_SHORTAGE = {
    "unserved_share", "unserved_work", "shortage_s", "episodes", "longest_episode_s", "worst_shortage",
    "under_accuracy", "under_time",
}  # fmt: skip
"""Figures whose highest value says how much shortage may be."""
_NAMES = {f.key: f for f in FIGURES if f.key not in _BESIDE}
_SHORT = {
    key.removesuffix(unit): figure for key, figure in _NAMES.items() for unit in _UNITS if key.endswith(unit)
}


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit that a candidate must keep.

    Attributes:
        figure: The figure of the score card.
        value: The limit, in the figure's unit; None for the value of the policy as it is, on the same time.
        at_least: Whether the limit is a lowest value, not a highest.
    """

    figure: Figure
    value: float | None
    at_least: bool = False

    @property
    def relative(self) -> bool:
        """Whether it is compared with the policy as it is."""
        return self.value is None

    @property
    def allows_shortage(self) -> bool:
        """Whether it says how much shortage may be."""
        return not (self.relative or self.at_least) and self.figure.key in _OF_SHORTAGE

    def __str__(self) -> str:
        """Return the limit in words."""
        name = _within_a_sentence(self.figure.label)
        if self.value is None:
            return f"{name} no worse than now"
        sign = "at least" if self.at_least else "at most"
        return f"{name} {sign} {shown(self.value, self.figure.unit)}"

    def kept(self, figures: Score, current: int) -> Bool:
        """Return bool (V,), which candidates keep it."""
        values = figures[self.figure.key]
        bound = values[current] if self.value is None else self.value
        with np.errstate(invalid="ignore"):
            return np.asarray(values >= bound if self.at_least else values <= bound, np.bool_)

    def broken_by(self, value: float) -> str:
        """Return in words that a value breaks it."""
        return f"{self}: {shown(value, self.figure.unit)}"


NO_WORSE = Limit(_NAMES["unserved_share"], None)
"""The limit that applies if none says how much shortage may be."""


def limits_of(at_most: Sequence[str] = (), at_least: Sequence[str] = ()) -> tuple[Limit, ...]:
    """Read limits, and add `NO_WORSE` if none of them says how much shortage may be.

    Raises:
        ConfigError: There is no such figure, or a value is not in its unit.
    """
    given = (*map(read_limit, at_most), *(read_limit(each, at_least=True) for each in at_least))
    return given if any(limit.allows_shortage for limit in given) else (*given, NO_WORSE)


def read_limit(text: str, *, at_least: bool = False) -> Limit:
    """Read one limit.

    Raises:
        ConfigError: There is no such figure, or the value is not in its unit.
    """
    name, equals, raw = (part.strip() for part in text.partition("="))
    option = "--at-least" if at_least else "--at-most"
    if not equals or not name or not raw:
        raise ConfigError(f"{option} {text!r}: write FIGURE=VALUE, for example unserved=0.1%")
    figure = _NAMES.get(name) or _SHORT.get(name)
    if figure is None:
        close = difflib.get_close_matches(name, [*_NAMES, *_SHORT], 1)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(_NAMES)}"
        raise ConfigError(f"{option} {text!r}: there is no figure {name}; {hint}")
    return Limit(figure, _read(figure, raw, f"{option} {text!r}"), at_least)


def _read(figure: Figure, raw: str, where: str) -> float:
    try:
        if figure.unit is Unit.SHARE:
            value = PERCENT.read(0 if raw == "0" else raw)
        elif figure.unit is Unit.SPAN:
            value = DURATION.read(0 if raw == "0" else raw)
        else:
            value = float(raw)
    except ValueError as error:
        hint = str(error) if figure.unit in {Unit.SHARE, Unit.SPAN} else "write a plain number"
        name = _within_a_sentence(figure.label)
        raise ConfigError(f"{where}: {raw!r} is no value of {name}; {hint}") from None
    if not np.isfinite(value):
        raise ConfigError(f"{where}: {raw!r} limits nothing")
    return float(value)


def _within_a_sentence(label: str) -> str:
    return label if label[1:2].isupper() else label[:1].lower() + label[1:]


def kept(limits: Sequence[Limit], figures: Score, current: int) -> Bool:
    """Return bool (V,), which candidates keep all limits."""
    every: Bool = np.ones(len(figures["cost"]), np.bool_)
    for limit in limits:
        every &= limit.kept(figures, current)
    return every


def first_broken(limits: Sequence[Limit], figures: Score, current: int) -> list[str]:
    """Return, for each candidate, the first limit that it breaks, in words; empty if it keeps all."""
    told = [""] * len(figures["cost"])
    for limit in limits:
        values: Float = figures[limit.figure.key]
        for row in np.flatnonzero(~limit.kept(figures, current)).tolist():
            told[row] = told[row] or limit.broken_by(float(values[row]))
    return told
