"""The conclusion of a run in plain words: read first, and often the only part that is read.

Rules of this file: one headline and a few sentences. Each compares the policy with something, in money and in shortage, and
agrees with the figures of the score card. Nothing is praised. What makes the figures doubtful is said in a separate caution.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autoscaler.simulator.report.card import Card, Entry
from autoscaler.simulator.report.wording import money, plural, rounded_share, share, span

REFERENCES = ("static_peak", "target_tracking", "plain_reactive")
"""Keys of baselines to compare with in the headline, in order of preference."""
CLAIRVOYANT = "clairvoyant"
_NO_RULES = {"static_peak", CLAIRVOYANT}
"""Baselines that know the future, so that nobody could run them instead."""
_ALIKE = 0.005
"""Relative difference of costs below which they are called equal."""
_SERVES_LITTLE = 0.5
"""A rule that leaves a larger share unserved is not compared by cost: it may be cheap because it never starts a first VM."""
_IN_SAMPLE = "The variants were chosen and judged on the same traffic: try the best one on another period before you change anything."


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The words at the top of a report.

    Attributes:
        headline: One sentence without a full stop.
        sentences: Further facts, in order of importance.
        cautions: Reasons why the figures may mislead. Empty if none is known.
    """

    headline: str
    sentences: tuple[str, ...]
    cautions: tuple[str, ...]


def conclude(card: Card, details: Mapping[str, Any]) -> Conclusion:
    """Return the conclusion of a run from its score card and the facts beside it."""
    subject = card.subject
    rivals = [entry for entry in card.entries[1:] if entry.judged]
    if rivals:
        headline = _compared(rivals[0], subject)
        sentences = [_shortage(entry) for entry in (subject, *rivals)]
        sentences += [f"{_compared(rival, subject)}." for rival in rivals[1:]]
    else:
        references = [entry for key in REFERENCES if (entry := card.entry(key)) is not None]
        headline = _compared(subject, references[0], "This policy") if references else _alone(subject)
        sentences = [_promise(subject, details), _shortage(subject)]
        sentences += [_against(subject, reference) for reference in references[1:]]
        sentences.append(_bettered(card, subject))
        sentences.append(_foretold(subject))
    clairvoyant = card.entry(CLAIRVOYANT)
    if clairvoyant is not None:
        sentences.append(_possible(subject, rivals, clairvoyant, card.entry(REFERENCES[0])))
    sentences.insert(0, _amounts(*card.headline, details))
    sentences[1:1] = dict.fromkeys(details.get("certainty", {}).get("sentences", ()))
    return Conclusion(headline, tuple(s for s in sentences if s), tuple(_cautions(details)))


def conclude_sweep(sweep: Mapping[str, Any], conclusion: Conclusion) -> Conclusion:
    """Return the conclusion of a sweep: whether a variant beats the policy in force, and which one.

    Args:
        sweep: The sweep as in `report.json` (see `variants`).
        conclusion: The conclusion for the policy in force.
    """
    cost, lost = sweep["cost"], sweep["shortage"]
    known = [row for row in sweep["rows"] if None not in (row["values"][cost], row["values"][lost])]
    # Plant and prices cannot be chosen, so a variant that is cheaper with others is not better.
    known = [row for row in known if row.get("same_plant", True)]
    current = next((row for row in known if row["current"]), None)
    if current is None:
        return conclusion
    in_force = current["values"]
    better = [
        row for row in known if row["values"][cost] < in_force[cost] and row["values"][lost] <= in_force[lost]
    ]
    told: list[str] = []
    clearly = [row for row in better if row["values"][cost] <= (1.0 - _ALIKE) * in_force[cost]]
    less = "clearly less" if better and not clearly else "less"
    headline = f"No variant costs {less} than the policy in force without leaving more work unserved"
    if better := clearly:
        best = min(better, key=lambda row: (row["values"][cost], row["values"][lost]))
        change = rounded_share(_change(best["values"][cost], in_force[cost]))
        headline = (
            f"One variant costs {change} less than the policy in force and leaves no more work unserved"
        )
        named = ", ".join(f"{name} {value}" for name, value in best["parameters"].items())
        told.append(f"It is {named}: {money(best['values'][cost])} instead of {money(in_force[cost])}.")
        told.append(
            f"Of {plural(len(known), 'variant', 'variants')}, {plural(len(better), 'does', 'do')} better in this sense."
        )
        told.append(_IN_SAMPLE)
    told += [
        f"`{name}` made no difference: all its values gave the same figures."
        for name in sweep["parameters"]
        if _idle(name, sweep["rows"])
    ]
    own = conclusion.sentences if better else (f"{conclusion.headline}.", *conclusion.sentences)
    return Conclusion(headline, (*told, *own), conclusion.cautions)


def _idle(name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a parameter makes no difference: all variants that differ only in it have the same figures.

    False if no two variants differ only in this parameter.
    """
    alike: dict[str, tuple[Any, Any]] = {}
    seen = False
    for row in rows:
        others = repr({key: value for key, value in row["parameters"].items() if key != name})
        value, figures = alike.setdefault(others, (row["parameters"][name], row["values"]))
        if figures != row["values"]:
            return False
        seen |= value != row["parameters"][name]
    return seen


def _amounts(entry: Entry, other: Entry | None, details: Mapping[str, Any]) -> str:
    """Say the two costs and the length of the scored time. Empty if a cost is 0 or unknown."""
    cost = entry.values["cost"]
    scored_s = details.get("span_s", 0.0) - (details.get("not_scored_s") or 0.0)
    if other is None or not cost > 0 or not other.values["cost"] > 0 or scored_s <= 0:
        return ""
    return f"That is {money(cost)} instead of {money(other.values['cost'])} in {span(scored_s)}."


def _alone(subject: Entry) -> str:
    return f"{_who(subject)} costs {money(subject.values['cost'])} over the run"


def _compared(entry: Entry, other: Entry, name: str = "") -> str:
    """Compare cost and service of two entries in one sentence without a full stop."""
    cost = _change(entry.values["cost"], other.values["cost"])
    if entry.values["cost"] == other.values["cost"] == 0:
        return f"{_who(entry, name)} has no prices and {_service(entry, other)}"
    told = _who(entry, name)
    if other.values["cost"] == 0 and not math.isnan(entry.values["cost"]):
        return (
            f"{told} costs {money(entry.values['cost'])} ({other.name}: nothing) and {_service(entry, other)}"
        )
    if math.isnan(cost):
        return f"The cost of {entry.name} or of {other.name} is not known"
    if abs(cost) < _ALIKE:
        costs = f"costs as much as {other.name}"
    else:
        costs = f"costs {rounded_share(cost)} {'less' if cost < 0 else 'more'} than {other.name}"
    comma = "," if math.isnan(entry.values["unserved_share"]) else ""
    return f"{told} {costs}{comma} and {_service(entry, other)}"


def _service(entry: Entry, other: Entry) -> str:
    mine, theirs = entry.values["unserved_share"], other.values["unserved_share"]
    if math.isnan(mine) and entry.values["unserved_work"] == 0:
        return "there was no work to serve"
    if math.isnan(mine):
        return "how much work it left unserved is not known"
    if mine == 0:
        return "leaves no work unserved" if theirs else "leaves no work unserved either"
    said = share(mine).replace("<", "less than")
    if said == share(theirs).replace("<", "less than"):
        return f"leaves {'' if mine == theirs else 'about '}the same share of the work unserved ({said})"
    against = "" if not theirs or math.isnan(theirs) else f", against {share(theirs)}"
    return f"leaves {said} of the work unserved{against}"


def _foretold(subject: Entry) -> str:
    """Say how accurate the forecasts were. Empty if there were none."""
    error, within = (subject.values.get(key, math.nan) for key in ("forecast_wape", "forecast_coverage_95"))
    if math.isnan(error) or math.isnan(within):
        return ""
    return (
        f"Its forecasts at the lead time were off by {share(error)} of demand, and demand did not exceed the 95% forecast in "
        f"{share(within)} of the ticks."
    )


def _promise(subject: Entry, details: Mapping[str, Any]) -> str:
    """Say whether the policy served the share of the work that it promises. Empty if it promises none."""
    promised, unserved = details.get("promised_served"), subject.values["unserved_share"]
    if promised is None or math.isnan(unserved):
        return ""
    # A promise has at most five digits, so the tolerance only absorbs rounding.
    kept = "was kept" if unserved <= 1.0 - promised + 1e-9 else "was missed"
    return f"Its objective to serve {100 * promised:.5g}% of the work {kept}: it served {100 * (1 - unserved):.5g}%."


def _shortage(entry: Entry) -> str:
    values = entry.values
    if math.isnan(values["shortage_s"]):
        return ""
    if not values["episodes"]:
        return f"{_who(entry)} was never short of capacity."
    return (
        f"{_who(entry)} was short of capacity for {span(values['shortage_s'])} in "
        f"{plural(values['episodes'], 'episode', 'episodes')}, the longest of {span(values['longest_episode_s'])}."
    )


def _against(subject: Entry, reference: Entry) -> str:
    cost = _change(subject.values["cost"], reference.values["cost"])
    short = subject.values["shortage_s"] - reference.values["shortage_s"]
    if math.isnan(cost) or math.isnan(short):
        return ""
    costs = (
        "costs the same"
        if abs(cost) < _ALIKE
        else f"costs {rounded_share(cost)} {'less' if cost < 0 else 'more'}"
    )
    unserved = reference.values["unserved_share"]
    if unserved > _SERVES_LITTLE and subject.values["unserved_share"] < unserved:
        return f"{reference.name} leaves {share(unserved)} of the work unserved here, so its cost cannot be compared."
    never = not subject.values["shortage_s"] and short == 0
    shorts = (
        "neither is ever short"
        if never
        else "is short for as long"
        if short == 0
        else f"is short for {span(abs(short))} {'less' if short < 0 else 'longer'}"
    )
    return f"Compared with {reference.name} it {costs} and {shorts}."


def _bettered(card: Card, subject: Entry) -> str:
    """Name the cheapest rule that clearly costs less and leaves no more work unserved. Empty if there is none."""
    mine = subject.values
    better = [
        entry
        for entry in card.entries[1:]
        if not entry.judged
        and entry.key not in _NO_RULES
        and _change(entry.values["cost"], mine["cost"]) <= -_ALIKE
        and entry.values["unserved_share"] <= mine["unserved_share"]
    ]
    if not better:
        return ""
    best = min(better, key=lambda entry: entry.values["cost"])
    change = rounded_share(_change(best.values["cost"], mine["cost"]))
    lost = best.values["unserved_share"]
    left = "no work unserved" if lost == 0 else f"no more work unserved ({share(lost)})"
    return f"Here {best.name} costs {change} less than this policy and leaves {left}."


def _possible(subject: Entry, rivals: Sequence[Entry], clairvoyant: Entry, peak: Entry | None) -> str:
    cost, least = subject.values["cost"], clairvoyant.values["cost"]
    if math.isnan(cost) or math.isnan(least) or cost == 0:
        return ""
    if rivals:
        known = (
            f"A schedule that knew the future and left no more unserved than {subject.name} would have cost"
        )
        return f"{known} {money(least)}.{_saved([subject, *rivals])}"
    known = f"A schedule that knew the future would have cost {money(least)}"
    most = math.nan if peak is None else peak.values["cost"]
    if math.isnan(most) or most <= least:
        return f"{known}, {money(cost - least)} less." if cost > least else f"{known}, which is no less."
    captured = (most - cost) / (most - least)
    if captured < 0:
        return f"{known}; this policy achieves none of the possible savings."
    return f"{known}; this policy achieves {rounded_share(min(captured, 1.0))} of the possible savings."


def _saved(judged: Sequence[Entry]) -> str:
    """Say which share of the savings possible at its own level of service each entry achieves, where that is known."""
    told: list[str] = []
    for entry in judged:
        captured = min(entry.values["captured"], 1.0)
        if not math.isnan(captured):
            verb = "" if told else " achieves"
            told.append(f"{entry.name}{verb} {rounded_share(captured) if captured > 0 else 'none'}")
    if not told:
        return ""
    listed = " and ".join(filter(None, [", ".join(told[:-1]), told[-1]]))
    return f" Of the savings possible at its own level of service, {listed}."


def _change(value: float, reference: float) -> float:
    return value / reference - 1.0 if reference > 0 else math.nan


def _cautions(details: Mapping[str, Any]) -> Iterator[str]:
    if details.get("partial"):
        yield (
            f"The run was interrupted: it covers {span(details['span_s'])} of "
            f"{span(details['asked_s'])}, and all figures are for that part."
        )
    for text in details.get("cautions", ()):
        yield str(text)


def _who(entry: Entry, name: str = "") -> str:
    """Return a name for the beginning of a sentence. File names keep their letters."""
    if name or not entry.judged or entry.name.startswith("this "):
        told = name or entry.name
        return told[:1].upper() + told[1:]
    return f"Policy {entry.name}"
