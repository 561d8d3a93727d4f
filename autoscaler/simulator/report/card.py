"""The score card: which figures a run is judged by, what each means, and their values for run and baselines.

Rules of this file: figures are declared once, in `FIGURES`; the terminal's table, the page and `report.json` are
made from the declaration. A card is plain data and travels in `report.json`, so that a page made later shows
the figures of the run as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from autoscaler.errors import ConfigError
from autoscaler.simulator.replay.timeline import Totals
from autoscaler.simulator.report.wording import Unit

_DAY_S = 86_400.0
Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the card.

    Attributes:
        key: Name for programs.
        label: Name for people.
        unit: What it is measured in.
        better: Which direction is better.
        what: What it means, in a sentence or two.
        group: Heading that it stands under.
    """

    key: str
    label: str
    unit: Unit
    better: Better
    what: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One column of the card: a policy or a baseline on the same run.

    Attributes:
        key: Name for programs.
        name: Name for people.
        what: What served the demand, in a sentence.
        values: By the figures' keys; NaN where unknown.
        judged: Whether it is what the run is about, and not a baseline.
    """

    key: str
    name: str
    what: str
    values: Mapping[str, float]
    judged: bool = False


@dataclass(frozen=True, slots=True)
class Card:
    """Figures by entries; the first entry is what the run is about."""

    figures: tuple[Figure, ...]
    entries: tuple[Entry, ...]

    @property
    def subject(self) -> Entry:
        """What the run is about."""
        return self.entries[0]

    @property
    def headline(self) -> tuple[Entry, Entry | None]:
        """Whose figures are shown first, and beside whose.

        A candidate and what it would replace, or the subject and its first baseline.
        """
        candidate = next((entry for entry in self.entries[1:] if entry.judged), None)
        if candidate is not None:
            return candidate, self.subject
        return self.subject, self.entries[1] if len(self.entries) > 1 else None

    def entry(self, key: str) -> Entry | None:
        """The entry of this key."""
        return next((entry for entry in self.entries if entry.key == key), None)


def _per_day(amount: float, totals: Totals) -> float:
    return amount / (totals.span_s / _DAY_S) if totals.span_s > 0 else math.nan


_OF: tuple[tuple[Figure, Callable[[Totals], float]], ...] = (
    (
        Figure(
            "cost", "Cost", Unit.MONEY, "lower",
            "Everything that is paid for the run: VMs while they are billed as running (at least 60 s per start), "
            "storage of every provisioned VM, and the prices of starts and of new VMs, if the policy has any.",
            "Money",
        ),
        lambda t: t.cost,
    ),
    (
        Figure(
            "cost_per_day", "Cost per day", Unit.MONEY, "lower", "The same for an average day of the run.", "Money"
        ),
        lambda t: _per_day(t.cost, t),
    ),
    (
        Figure(
            "vm_hours", "VM-hours in service", Unit.VM_HOURS, "lower",
            "Hours for which VMs could serve, added up over all VMs.", "Money",
        ),
        lambda t: t.in_service_vm_s / 3600.0,
    ),
    (
        Figure(
            "unserved_share", "Work unserved", Unit.SHARE, "lower",
            "Share of all wanted work for which the VMs in service had no capacity within the objective.", "Service",
        ),
        lambda t: t.unserved_share,
    ),
    (
        Figure(
            "shortage_s", "Time with shortage", Unit.SPAN, "lower",
            "Time in which demand was higher than capacity, however little.", "Service",
        ),
        lambda t: t.shortage_s,
    ),
    (
        Figure(
            "episodes", "Shortage episodes", Unit.COUNT, "lower",
            "How often a shortage began: adjoining ticks with shortage are one episode.", "Service",
        ),
        lambda t: float(t.episodes),
    ),
    (
        Figure(
            "longest_episode_s", "Longest episode", Unit.SPAN, "lower",
            "How long the longest shortage lasted without a pause.", "Service",
        ),
        lambda t: t.longest_episode_s,
    ),
    (
        Figure(
            "starts_per_day", "VMs started per day", Unit.PER_DAY, "lower",
            "Starts that the provider accepted; every one is a call and a boot that can fail.", "Stability",
        ),
        lambda t: _per_day(t.starts, t),
    ),
    (
        Figure(
            "reversals_per_day", "Changes of direction per day", Unit.PER_DAY, "lower",
            "How often the wanted number of VMs turned from rising to falling or back.", "Stability",
        ),
        lambda t: _per_day(float(t.reversals), t),
    ),
)  # fmt: skip

FIGURES: tuple[Figure, ...] = tuple(figure for figure, _ in _OF)


def values_of(totals: Totals) -> dict[str, float]:
    """The figures of a run from its totals."""
    return {figure.key: of(totals) for figure, of in _OF}


def card_json(card: Card) -> dict[str, Any]:
    """As it stands in `report.json`."""
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
            {"key": e.key, "name": e.name, "what": e.what, "judged": e.judged, "values": dict(e.values)}
            for e in card.entries
        ],
    }


def card_from(document: Mapping[str, Any], where: str) -> Card:
    """The card of a `report.json`; of one without a card, that of its totals and baselines.

    Args:
        document: The whole document.
        where: The file, for errors.

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


def _entries_of_totals(document: Mapping[str, Any]) -> Sequence[Entry]:
    told = document.get("details", {})
    found = [("policy", "this policy", str(told.get("policy_in_words", "")), document["totals"], True)]
    found += [(_key(name), name, "", totals, False) for name, totals in document["baselines"].items()]
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
