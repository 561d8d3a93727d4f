"""A changed policy beside the one in force, on the same traffic and random draws: text for a pull request.

Rules of this file: it returns Markdown, prints nothing and writes no files. The conclusion comes first. What makes the
figures doubtful follows directly, not in a footnote. The last line has everything that is needed to repeat the run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autoscaler.config.policy import Policy
from autoscaler.config.rendering import effective_data
from autoscaler.simulator.replay.certainty import Certainty, certainty, certainty_json, in_words
from autoscaler.simulator.replay.differing import differences
from autoscaler.simulator.replay.preparing import Replay
from autoscaler.simulator.replay.replaying import ReplayResult, entry_of
from autoscaler.simulator.replay.timeline import TimelineRow, column, shortage_episodes
from autoscaler.simulator.report.card import Entry, Figure
from autoscaler.simulator.report.figures import FIGURES
from autoscaler.simulator.report.wording import (
    DOES_NOT_APPLY,
    UNKNOWN,
    Unit,
    moment,
    money,
    rounded_share,
    share,
    shown,
    span,
)

_PARTINGS_SHOWN = 5
_EPISODES_SHOWN = 3
_TOO_SHORT_S = 86_400.0

_SHOWN = (
    "cost",
    "cost_per_day",
    "vm_hours",
    "unserved_share",
    "shortage_s",
    "episodes",
    "longest_episode_s",
    "starts_per_day",
    "reversals_per_day",
)
"""Figures for the reviewer of a change. The others are in the reports."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Two runs to compare.

    Attributes:
        fleet: Name of the fleet.
        traffic: The source of demand in words, such as `trace day` or `the journal, last 7 days`.
        in_force, changed: The replays of the two policies, on one plant.
        ran_in_force, ran_changed: Their results.
        notes: Sentences on the traffic.
    """

    fleet: str
    traffic: str
    in_force: Replay
    ran_in_force: ReplayResult
    changed: Replay
    ran_changed: ReplayResult
    notes: tuple[str, ...] = ()


def changed_fields(before: Policy, after: Policy) -> tuple[tuple[str, str, str], ...]:
    """Return path, old value and new value of every field that differs between two policies. A missing value is `-`."""
    was, now = (dict(_flat(effective_data(policy), "")) for policy in (before, after))
    names = [*was, *(name for name in now if name not in was)]
    return tuple(
        (name, was.get(name, "-"), now.get(name, "-")) for name in names if was.get(name) != now.get(name)
    )


def _flat(data: Mapping[str, Any], above: str) -> Iterator[tuple[str, str]]:
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", _plain(value)


def _plain(value: object) -> str:
    if isinstance(value, list):
        return "; ".join(map(_plain, value)) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, bool):
        return "true" if value else "false"
    return "-" if value is None else str(value)


def plan_json(plan: Plan) -> dict[str, Any]:
    """Return the comparison as values for programs. Unknown figures are NaN."""
    entries = {
        "in_force": _entry(plan.in_force, plan.ran_in_force),
        "changed": _entry(plan.changed, plan.ran_changed),
    }
    return {
        "fleet": plan.fleet,
        "traffic": plan.traffic,
        "span_s": _scored_s(plan),
        "fields": [
            {"field": name, "before": before, "after": after}
            for name, before, after in changed_fields(plan.in_force.policy, plan.changed.policy)
        ],
        "figures": {key: dict(entry.values) for key, entry in entries.items()},
        "differences": _differences(plan),
        "certainty": certainty_json(_certainty(plan)),
        "doubts": list(_doubts(plan)),
        "whole": plan.ran_in_force.whole and plan.ran_changed.whole,
    }


def plan_markdown(plan: Plan) -> str:
    """Return the comparison as Markdown."""
    before, after = _entry(plan.in_force, plan.ran_in_force), _entry(plan.changed, plan.ran_changed)
    lines = [
        f"### `{plan.fleet}`: what the changed policy would have done",
        "",
        _headline(plan, before, after),
    ]
    if sure := in_words(_certainty(plan), "Changed", "in force"):
        lines += ["", sure]
    if doubts := list(_doubts(plan)):
        lines += ["", "**Doubts**", "", *(f"- {doubt}" for doubt in doubts)]
    lines += ["", *_fields(plan)]
    lines += ["", "| | in force | changed | difference |", "|---|---:|---:|---:|"]
    lines += [_row(figure, before, after) for figure in FIGURES if figure.key in _SHOWN]
    lines += ["", *_decisions(plan)]
    if episodes := list(_episodes(plan)):
        lines += ["", *episodes]
    lines += ["", _identity(plan)]
    return "\n".join(lines) + "\n"


def _entry(replay: Replay, ran: ReplayResult) -> Entry:
    return entry_of(replay, ran, replay.policy_file.name)


def _scored_s(plan: Plan) -> float:
    return len(plan.ran_changed.scored) * plan.changed.tick_s


def _headline(plan: Plan, before: Entry, after: Entry) -> str:
    rows = plan.ran_changed.scored
    when = f"{moment(rows[0].timestamp_s)} to {moment(rows[-1].timestamp_s + plan.changed.tick_s)} UTC"
    where = f"On {plan.traffic} ({span(_scored_s(plan))}, {when})"
    if not any(_differences(plan)["differing"].values()):
        return f"{where}, **nothing would have been different**: both decide the same in every tick."
    was, now = before.values["cost"], after.values["cost"]
    if was > 0 and now != was:
        direction = "less" if now < was else "more"
        cost = f"it would have cost **{money(now)} instead of {money(was)}, {rounded_share(now / was - 1)} {direction}**"
        if money(now) == money(was):
            cost = f"it would have cost **{money(now)}, about as much as before**"
    else:
        cost = (
            f"it would have cost **{money(now)}, as much as before**"
            if now == was
            else f"it would have cost **{money(now)}**"
        )
    lost_before, lost_after = before.values["unserved_share"], after.values["unserved_share"]
    if lost_before == lost_after or (math.isnan(lost_before) and math.isnan(lost_after)):
        lost = f"left as much work unserved as before ({share(lost_after)})"
    elif share(lost_before) == share(lost_after):
        lost = f"left about as much work unserved as before ({share(lost_after)})"
    else:
        lost = f"left **{share(lost_after)} of the work unserved instead of {share(lost_before)}**"
    return f"{where}, {cost}, and {lost}."


def _fields(plan: Plan) -> Iterator[str]:
    fields = changed_fields(plan.in_force.policy, plan.changed.policy)
    if not fields:
        yield "No field of the effective policy differs."
        return
    yield "| field | in force | changed |"
    yield "|---|---|---|"
    for name, before, after in fields:
        yield f"| `{name}` | {_cell(before)} | {_cell(after)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _row(figure: Figure, before: Entry, after: Entry) -> str:
    return f"| {figure.label} | {before.formatted(figure)} | {after.formatted(figure)} | {_change(before, after, figure)} |"


def _change(before: Entry, after: Entry, figure: Figure) -> str:
    was, now = before.values[figure.key], after.values[figure.key]
    if math.isnan(was) or math.isnan(now):
        return UNKNOWN if before.applies(figure.key) and after.applies(figure.key) else DOES_NOT_APPLY
    if was == now:
        return "="
    sign = "+" if now > was else "−"
    amount = f"{sign}{shown(abs(now - was), figure.unit)}"
    if figure.unit is Unit.SHARE:
        amount = f"{sign}{share(abs(now - was)).replace('<', 'less than').removesuffix('%')} points"
    elif was > 0:
        amount += f" ({sign}{rounded_share(now / was - 1)})"
    worse = (now > was) == (figure.better == "lower") and figure.better != "neither"
    return f"{amount}{' ▲ worse' if worse else ''}"


def _certainty(plan: Plan) -> Certainty:
    return certainty(
        plan.ran_in_force.scored, plan.ran_changed.scored, plan.changed.tick_s, plan.changed.seed
    )


def _differences(plan: Plan) -> dict[str, Any]:
    return differences(("in force", plan.ran_in_force.scored), ("changed", plan.ran_changed.scored))


def _decisions(plan: Plan) -> Iterator[str]:
    found = _differences(plan)
    yield "**Decisions**"
    yield ""
    yield " ".join(found["sentences"])
    if not found["rows"]:
        return
    yield ""
    yield "| at | demand /s | in force wants | changed wants | why (changed) |"
    yield "|---|---:|---:|---:|---|"
    for row in found["rows"][:_PARTINGS_SHOWN]:
        demand = "?" if row["demand"] is None or math.isnan(row["demand"]) else f"{row['demand']:,.0f}"
        wants = " | ".join("?" if vms is None else str(vms) for vms in row["desired"])
        yield f"| {row['at']} | {demand} | {wants} | {_cell(row['reasons'][1])} |"
    left = len(found["rows"]) - _PARTINGS_SHOWN
    if left > 0:
        yield f"| and {left}{' or more' if len(found['rows']) >= 40 else ''} further times | | | | |"


def _episodes(plan: Plan) -> Iterator[str]:
    """List the worst shortages under the changed policy, with the shortage under the policy in force at the same time."""
    rows, tick_s = plan.ran_changed.scored, plan.changed.tick_s
    found = shortage_episodes(column(rows, "timestamp_s"), column(rows, "shortage"), tick_s)
    worst = sorted(found, key=lambda each: each.unserved_work, reverse=True)[:_EPISODES_SHOWN]
    if not worst:
        return
    yield "**Worst shortages under the changed policy**"
    yield ""
    for episode in worst:
        then = _unserved(plan.ran_in_force.scored, episode.start_s, episode.end_s, tick_s)
        yield (
            f"- {moment(episode.start_s)} UTC, {span(episode.end_s - episode.start_s)}: {episode.unserved_work:,.0f} units "
            f"of work unserved; under the policy in force {then:,.0f} in the same time"
        )


def _unserved(rows: Sequence[TimelineRow], from_s: float, to_s: float, tick_s: float) -> float:
    short = [row.shortage for row in rows if from_s <= row.timestamp_s < to_s]
    return math.fsum(each for each in short if each is not None and not math.isnan(each)) * tick_s


def _doubts(plan: Plan) -> Iterator[str]:
    if not (plan.ran_in_force.whole and plan.ran_changed.whole):
        yield "The runs were interrupted: the figures cover the part that was run."
    if _scored_s(plan) < _TOO_SHORT_S:
        yield f"{span(_scored_s(plan))} are less than a day: a daily cycle was not seen."
    yield from plan.notes
    yield from dict.fromkeys((*plan.in_force.cautions, *plan.changed.cautions))
    if plan.in_force.plant != plan.changed.plant:
        yield "The two policies were run on different plants."


def _identity(plan: Plan) -> str:
    one, other = plan.in_force.identity, plan.changed.identity
    vms = plan.changed.plant.vms
    return (
        f"<sub>Engine {plan.ran_changed.engine}, ticks of {span(plan.changed.tick_s)}, plant of {vms} VMs, seed "
        f"{plan.changed.seed}; trace {one.trace[:12]}, policies {one.policy[:12]} → {other.policy[:12]}, version {one.code}."
        "</sub>"
    )
