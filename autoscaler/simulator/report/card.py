"""The score card: the values of the `figures` for the run and its baselines.

Rules of this file: figures are declared once, in `figures`. The terminal's table, the page and `report.json` are made from
that declaration. A card is plain data and is stored in `report.json`, so that a page made later shows the figures of the run
as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autoscaler.errors import ConfigError
from autoscaler.simulator.judging.forecast_score import FORECAST_FIGURES
from autoscaler.simulator.replay.timeline import Totals
from autoscaler.simulator.report.figures import FIGURES, Figure
from autoscaler.simulator.report.wording import DOES_NOT_APPLY, Unit, shown

__all__ = ["Card", "Entry", "Figure", "card_from", "card_json", "values_of"]

_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One column of the card: a policy or a baseline on the same run.

    Attributes:
        key: Key for programs.
        name: Name for people.
        what: One sentence on what served the demand.
        values: Values by figure key. NaN if the value is unknown or the figure does not apply.
        judged: Whether the entry is a policy under test rather than a baseline.
    """

    key: str
    name: str
    what: str
    values: Mapping[str, float]
    judged: bool = False

    def applies(self, key: str) -> bool:
        """Return whether a figure can have a value for this entry, known or not."""
        return not math.isnan(self._value(key)) or not any(ground(self) for ground in _GROUNDS.get(key, ()))

    def formatted(self, figure: Figure) -> str:
        """Format a figure: `?` if it is unknown, `–` if it does not apply."""
        return shown(self._value(figure.key), figure.unit) if self.applies(figure.key) else DOES_NOT_APPLY

    def _value(self, key: str) -> float:
        return self.values.get(key, math.nan)


def _is_reference(entry: Entry) -> bool:
    """Return whether the entry is a peer or a result in hindsight, for which pool, forecasts and regret are not judged."""
    return not entry.judged


def _is_zero(key: str) -> Callable[[Entry], bool]:
    return lambda entry: entry.values.get(key, math.nan) == 0.0


def _is_known(key: str) -> Callable[[Entry], bool]:
    return lambda entry: not math.isnan(entry.values.get(key, math.nan))


def _nothing_wanted(entry: Entry) -> bool:
    return (
        _is_zero("unserved_work")(entry)
        and _is_zero("unknown_s")(entry)
        and not _is_known("unserved_share")(entry)
    )


def _nothing_avoided(entry: Entry) -> bool:
    return entry.values.get("shortage_avoided_s", math.nan) <= 0.0


_GROUNDS: dict[str, tuple[Callable[[Entry], bool], ...]] = {
    "capacity_used": (_is_zero("vm_hours"),),
    "unserved_share": (_nothing_wanted,),
    "mean_episode_s": (_is_zero("episodes"),),
    "mean_wait_s": (_is_zero("longest_wait_s"),),
    "warm_hits": (_is_zero("starts_per_day"),),
    "failed_starts": (_is_zero("starts_per_day"),),
    "regret": (_is_reference, _nothing_wanted),
    # If regret is known but this is not, always on at the peak costs no more than the least possible.
    "captured": (_is_reference, _nothing_wanted, _is_known("regret")),
    "pool_cost": (_is_reference,),
    "shortage_avoided_s": (_is_reference,),
    "cost_per_avoided_s": (_is_reference, _nothing_avoided),
    # If demand is known but these are not, nothing was forecast.
    **{
        figure.key: (_is_reference, _nothing_wanted, _is_known("unserved_share"))
        for figure in FORECAST_FIGURES
    },
}
"""By figure key: conditions under which a figure without a value does not apply. Otherwise it is unknown."""


@dataclass(frozen=True, slots=True)
class Card:
    """The figures and entries of a run. The first entry is the subject of the run."""

    figures: tuple[Figure, ...]
    entries: tuple[Entry, ...]

    @property
    def subject(self) -> Entry:
        """The policy that the run is about."""
        return self.entries[0]

    @property
    def headline(self) -> tuple[Entry, Entry | None]:
        """The entry whose figures are shown first, and the entry that it is compared with.

        These are a candidate and the policy that it would replace, or the subject and its first baseline.
        """
        candidate = next((entry for entry in self.entries[1:] if entry.judged), None)
        if candidate is not None:
            return candidate, self.subject
        return self.subject, self.entries[1] if len(self.entries) > 1 else None

    def entry(self, key: str) -> Entry | None:
        """Return the entry with this key. None if there is none."""
        return next((entry for entry in self.entries if entry.key == key), None)


def _per_day(amount: float, totals: Totals) -> float:
    return amount / (totals.span_s / _DAY_S) if totals.span_s > 0 else math.nan


_FROM_TOTALS: dict[str, Callable[[Totals], float]] = {
    "cost": lambda t: t.cost,
    "cost_per_day": lambda t: _per_day(t.cost, t),
    "vm_hours": lambda t: t.in_service_vm_s / 3600.0,
    "unserved_share": lambda t: t.unserved_share,
    "shortage_s": lambda t: t.shortage_s,
    "episodes": lambda t: float(t.episodes),
    "longest_episode_s": lambda t: t.longest_episode_s,
    "starts_per_day": lambda t: _per_day(t.starts, t),
    "reversals_per_day": lambda t: _per_day(float(t.reversals), t),
}
"""How to compute each figure that totals are enough for."""


def values_of(totals: Totals) -> dict[str, float]:
    """Compute the figures of a run from its totals. Figures that need more are NaN."""
    return {f.key: _FROM_TOTALS[f.key](totals) if f.key in _FROM_TOTALS else math.nan for f in FIGURES}


def card_json(card: Card) -> dict[str, Any]:
    """Return the card as it is stored in `report.json`."""
    return {
        "figures": [
            {
                "key": f.key,
                "label": f.label,
                "unit": str(f.unit),
                "better": f.better,
                "what": f.what,
                "group": f.group,
            }
            for f in card.figures
        ],
        "entries": [
            {
                "key": e.key,
                "name": e.name,
                "what": e.what,
                "judged": e.judged,
                "values": dict(e.values),
                "does_not_apply": [f.key for f in card.figures if not e.applies(f.key)],
            }
            for e in card.entries
        ],
    }


def card_from(document: Mapping[str, Any], where: str) -> Card:
    """Read the card of a `report.json`. If it contains none, the card is made from its totals and baselines.

    Args:
        document: The whole document.
        where: Name of the file, for errors.

    Raises:
        ConfigError: The document is not a report.
    """
    try:
        if "card" in document:
            given = document["card"]
            figures = tuple(
                Figure(f["key"], f["label"], Unit(f["unit"]), f["better"], f["what"], f["group"])
                for f in given["figures"]
            )
            entries = tuple(
                Entry(e["key"], e["name"], e["what"], _numbers(e["values"], figures), bool(e["judged"]))
                for e in given["entries"]
            )
        else:
            figures, entries = FIGURES, tuple(_entries_of_totals(document))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{where}: is not a report of this version ({type(error).__name__}: {error}); run the replay again"
        ) from None
    if not entries:
        raise ConfigError(f"{where}: has a score card without entries; run the replay again")
    return Card(figures, entries)


_WHAT = {
    "always on at peak": "As many VMs as the highest demand needs, in service all the time. It knows the peak in advance.",
    "plain reactive": "Demand plus 30% headroom, on the same fleet with the same random draws, run on virtual time.",
    "same, on virtual time": "This policy as it would run if neither API calls nor its own work took any time.",
}
"""Descriptions of the baselines of a demo, by name."""


def _entries_of_totals(document: Mapping[str, Any]) -> Sequence[Entry]:
    told = document.get("details", {})
    found = [("policy", "this policy", str(told.get("policy_in_words", "")), document["totals"], True)]
    found += [
        (_key(name), name, _WHAT.get(name, ""), totals, False)
        for name, totals in document["baselines"].items()
    ]
    return [
        Entry(key, name, what, values_of(Totals(**{k: _number(v) for k, v in totals.items()})), judged)
        for key, name, what, totals, judged in found
    ]


def _key(name: str) -> str:
    return {"always on at peak": "static_peak", "plain reactive": "plain_reactive"}.get(
        name, name.replace(" ", "_")
    )


def _numbers(values: Mapping[str, Any], figures: Sequence[Figure]) -> dict[str, float]:
    return {figure.key: _number(values.get(figure.key)) for figure in figures}


def _number(value: Any) -> Any:
    return math.nan if value is None else value
