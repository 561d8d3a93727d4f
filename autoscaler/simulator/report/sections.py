"""The sections of the page: conclusion, score card, shortage episodes, variants, differences, identity.

Rules of this file: text in, HTML out. Every text passes `html.escape` on its way in. Nothing here needs a script to be read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from autoscaler.simulator.replay.timeline import Episode
from autoscaler.simulator.report.card import Card, Entry, Figure
from autoscaler.simulator.report.columns import Columns
from autoscaler.simulator.report.conclusion import Conclusion
from autoscaler.simulator.report.wording import (
    DOES_NOT_APPLY,
    UNKNOWN,
    Unit,
    count,
    each_unit,
    moment,
    plural,
    shown,
    span,
)

MOST_EPISODES = 400
_SHOWN_EPISODES = 10
_KEY_FIGURES = ("cost", "unserved_share", "shortage_s", "starts_per_day")
_MAIN_FIGURES = (
    "cost", "cost_per_day", "vm_hours", "unserved_share", "shortage_s", "episodes", "longest_episode_s", "mean_wait_s",
    "starts_per_day", "reversals_per_day", "captured", "regret",
)  # fmt: skip
_KEYS = (
    "Point at a tick to read its decision, drag to zoom in, and click a shortage to see it tick by tick. With the "
    "chart focused, the arrow keys move from tick to tick, and Enter opens the nearest shortage."
)


def top_section(card: Card, conclusion: Conclusion, details: Mapping[str, Any]) -> str:
    """Return the conclusion, its cautions, and the key figures."""
    about = " · ".join(str(part) for part in _about(details))
    sentences = "".join(f"<p>{escape(text)}</p>" for text in conclusion.sentences)
    cautions = "".join(f'<p class="caution">{escape(text)}</p>' for text in conclusion.cautions)
    return (
        f'<header class="top" id="conclusion"><p class="about">{escape(about)}</p>'
        f"<h1>{escape(conclusion.headline)}.</h1>{sentences}{cautions}{_key_figures(card)}</header>\n"
    )


def _about(details: Mapping[str, Any]) -> Iterator[str]:
    if "fleet" in details:
        yield f"Fleet {details['fleet']}"
    if "policy_file" in details:
        yield Path(str(details["policy_file"])).name
    if "trace" in details:
        yield f"trace {details['trace']}"
    if details.get("span_s"):
        yield f"{span(details['span_s'])} in ticks of {span(details['tick_s'])}"


def _key_figures(card: Card) -> str:
    known = {figure.key: figure for figure in card.figures}
    entry, reference = card.headline
    parts = []
    for key in _KEY_FIGURES:
        if key in known:
            figure = known[key]
            against = "" if reference is None else f"{reference.name}: {reference.formatted(figure)}"
            value = entry.formatted(figure)
            parts.append(
                f"<div><dt>{escape(figure.label)}</dt><dd>{escape(value)}</dd>"
                f'<dd class="against">{escape(against)}</dd></div>'
            )
    return f'<dl class="key">{"".join(parts)}</dl>'


def card_section(card: Card) -> str:
    """Return the main figures of all entries, and all figures in a fold. The meaning of a figure folds out of its name."""
    known = [figure for figure in card.figures if _is_known(figure, card)]
    main = [figure for figure in known if figure.key in _MAIN_FIGURES]
    rest = (
        f"<details><summary>All {len(known)} figures</summary>{_card_table(card, known)}</details>"
        if len(known) > len(main)
        else ""
    )
    served = "".join(
        f"<dt>{escape(entry.name)}</dt><dd>{escape(entry.what)}</dd>" for entry in card.entries if entry.what
    )
    return (
        '<section aria-labelledby="card"><h2 id="card">Score card</h2>'
        f'<p class="note">Every column served the same demand. Open a figure to read what it means.{_signs(card, known)}</p>'
        f'{_card_table(card, main)}{rest}<dl class="identity served">{served}</dl></section>\n'
    )


def _signs(card: Card, figures: Sequence[Figure]) -> str:
    """Explain the signs that stand for missing numbers. Empty if no number is missing."""
    told = {entry.formatted(figure) for figure in figures for entry in card.entries}
    apart = {DOES_NOT_APPLY: "does not apply to that column", UNKNOWN: "is not known"}
    meant = [f"{sign}: the figure {meaning}." for sign, meaning in apart.items() if sign in told]
    return "".join(f" {escape(text)}" for text in meant)


def _is_known(figure: Figure, card: Card) -> bool:
    return any(not math.isnan(entry.values[figure.key]) for entry in card.entries)


def _card_table(card: Card, figures: Sequence[Figure]) -> str:
    heads = "".join(f'<th scope="col"{_judged(entry)}>{escape(entry.name)}</th>' for entry in card.entries)
    rows, group = [], ""
    for figure in figures:
        if figure.group != group:
            group = figure.group
            rows.append(
                f'<tr><th class="group" colspan="{len(card.entries) + 1}" scope="rowgroup">{escape(group)}</th></tr>'
            )
        cells = "".join(_cell(figure, entry, card.subject) for entry in card.entries)
        rows.append(
            f'<tr><th scope="row"><details><summary>{escape(figure.label)}</summary>'
            f"<p>{escape(figure.what)}{_direction(figure)}</p></details></th>{cells}</tr>"
        )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="card"><table class="card">'
        f'<thead><tr><th scope="col"></th>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _judged(entry: Entry) -> str:
    return ' class="judged"' if entry.judged else ""


def _direction(figure: Figure) -> str:
    return "" if figure.better == "neither" else f" {figure.better.capitalize()} is better."


def _cell(figure: Figure, entry: Entry, subject: Entry) -> str:
    value, reference = entry.values[figure.key], subject.values[figure.key]
    change = ""
    comparable = figure.unit in {Unit.MONEY, Unit.VM_HOURS} and entry is not subject
    if comparable and reference > 0 and not math.isnan(value):
        more = value / reference - 1.0
        change = f"<small>{more:+.0%}</small>" if abs(more) >= 0.005 else "<small>±0%</small>"
    return f"<td{_judged(entry)}>{escape(entry.formatted(figure))}{change}</td>"


def timeline_section(
    columns: Columns,
    episodes: Sequence[Episode],
    details: Mapping[str, Any],
    others: Mapping[str, Columns],
) -> str:
    """Return the place for the chart with its legend and tools, and the shortage episodes.

    Args:
        columns: The timeline.
        episodes: Its shortage episodes, worst first.
        details: Facts beside the figures.
        others: Timelines drawn in the same chart, by name.
    """
    beside = "".join(
        f'<li><i class="dashes" style="border-color:var(--beside{at % 3})"></i>capacity, {escape(name)}</li>'
        for at, name in enumerate(others)
    )
    ahead = (
        ""
        if np.isnan(columns["forecast_hi"]).all()
        else '<li><i style="border-color:var(--ahead)"></i>forecast, 95% quantile</li>'
    )
    whose = f": policy {details['shown']}" if "shown" in details else ""
    unscored = float(details.get("not_scored_s") or 0.0)
    said = [f"Times are UTC; one tick is {span(columns.interval_s)}."]
    if unscored:
        said.append(f"The first {span(unscored)} are shaded and not scored.")
    return (
        f'<section aria-labelledby="line"><h2 id="line">Demand against capacity{escape(whose)}</h2>'
        f'<p class="note">{escape(" ".join(said))} <span id="thinned"></span></p>'
        '<ul class="legend"><li><i style="border-color:var(--demand)"></i>demand</li>'
        '<li><i style="border-color:var(--capacity)"></i>capacity in service</li>'
        '<li><i class="dots" style="border-color:var(--wanted)"></i>capacity wanted</li>'
        f"{ahead}"
        '<li><i class="area"></i>shortage</li>'
        f"{beside}"
        '<li><i style="border-color:var(--starting)"></i>VMs starting</li>'
        '<li><i style="border-color:var(--warm)"></i>VMs in the warm pool</li></ul>'
        '<div class="tools"><button type="button" id="whole">Whole run</button>'
        '<button type="button" id="closer">Closer</button><button type="button" id="wider">Wider</button>'
        '<button type="button" id="earlier">Earlier</button><button type="button" id="later">Later</button>'
        '<span class="gap"></span><button type="button" id="worst">Worst episode</button></div>'
        '<div class="chart" id="chart" tabindex="0" role="application" aria-describedby="keys" '
        'aria-label="Demand and capacity over time"><noscript><p>The chart needs scripts. The tables below '
        "are complete without it.</p></noscript></div>"
        f'<p id="keys" hidden>{_KEYS}</p>'
        f'<div class="readout" id="readout" aria-live="polite"><p class="numbers">{_KEYS}</p></div>'
        '<div class="episode" id="episode" hidden></div>'
        f"{_episodes(columns, episodes)}</section>\n"
    )


def _episodes(columns: Columns, episodes: Sequence[Episode]) -> str:
    if not episodes:
        return (
            "<h2>Shortage episodes</h2><p>There were none: capacity was sufficient in every scored tick.</p>"
        )
    rows = [_episode_row(columns, number, episode) for number, episode in enumerate(episodes[:MOST_EPISODES])]
    head = (
        '<thead><tr><th scope="col">Began</th><th scope="col">Lasted</th><th scope="col">Work unserved</th>'
        '<th scope="col">Highest shortage, work/s</th><th scope="col" class="words">Decision at the worst tick'
        "</th></tr></thead>"
    )
    first, rest = rows[:_SHOWN_EPISODES], rows[_SHOWN_EPISODES:]
    more = ""
    if rest:
        told = f"{plural(len(rest), 'further episode', 'further episodes')}"
        left = len(episodes) - len(rows)
        left_out = f" ({left} smaller ones are only in the timeline)" if left else ""
        more = (
            f'<details class="more"><summary>{told}{left_out}</summary><div class="scroll" tabindex="0" '
            f'role="region" aria-label="Further episodes"><table class="ticks worst">{head}<tbody>{"".join(rest)}</tbody></table>'
            "</div></details>"
        )
    return (
        '<h2 id="episodes">Shortage episodes, worst first</h2>'
        '<p class="note">Choose one to see it in the chart and tick by tick.</p>'
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="episodes">'
        f'<table class="ticks worst">{head}<tbody>{"".join(first)}</tbody></table></div>{more}'
    )


def _episode_row(columns: Columns, number: int, episode: Episode) -> str:
    rows = (columns.stamps_s >= episode.start_s) & (columns.stamps_s < episode.end_s)
    worst = int(np.flatnonzero(rows)[np.argmax(columns["shortage"][rows])])
    return (
        f'<tr><td><button type="button" class="link" data-episode="{number}">'
        f"{escape(moment(episode.start_s))}</button></td>"
        f'<td data-name="Lasted">{span(episode.end_s - episode.start_s)}</td>'
        f'<td data-name="Work unserved">{count(episode.unserved_work)}</td>'
        f'<td data-name="Highest, work/s">{count(episode.worst_per_s)}</td>'
        f'<td class="words">{escape(columns.reasons[worst])}</td></tr>'
    )


def sweep_section(sweep: Mapping[str, Any]) -> str:
    """Return the places for the charts of a sweep. `sweep` is as in `report.json` (see `variants`)."""
    names = [str(name) for name in sweep["parameters"]]
    choices = "".join(f"<option>{escape(name)}</option>" for name in names)
    heat = (
        '<div><h3>Two parameters</h3><div class="tools"><label>across <select id="across">'
        f'{choices}</select></label><label>up <select id="up">{choices}</select></label>'
        '<label>shows <select id="shows"></select></label></div><div class="chart small" id="heat"></div>'
        '<p class="note">A cell shows the median over all variants with its two values; other parameters vary.</p></div>'
        if len(names) > 1
        else ""
    )
    return (
        '<section aria-labelledby="variants"><h2 id="variants">Variants</h2>'
        f'<p class="note">{count(len(sweep["rows"]))} variants were run on the same demand with the same random draws.</p>'
        '<div class="pair"><div><h3>Cost against shortage</h3><div class="chart small" id="pareto"></div>'
        '<p class="note">The line connects the variants that no other beats in both. Point at one to read its '
        f'parameters.</p></div>{heat}</div><p class="readout" id="variant" aria-live="polite">No variant is '
        "selected yet.</p></section>\n"
    )


def worlds_section(recommendation: Mapping[str, Any] | None) -> str:
    """Return the results of a recommendation in other worlds than the recording, one row per world.

    They are shown for the present policy and, if another variant looks best, for that variant. Empty if no other world was
    tried.
    """
    worlds = (recommendation or {}).get("worlds")
    if not recommendation or not worlds:
        return ""
    whose = ("now", "best") if recommendation["changes"] else ("now",)
    heads = "".join(
        f'<th scope="col">{name}{f", {who}" if len(whose) > 1 else ""}</th>'
        for name in ("Cost", "Unserved", "Regret")
        for who in whose
    )
    rows = "".join(_world_row(world, len(whose)) for world in worlds)
    beside = (
        "“Now” is the policy as it is, “best” is the variant that looks best. "
        if len(whose) > 1
        else "The figures are for the policy as it is. "
    )
    return (
        '<section aria-labelledby="worlds"><h2 id="worlds">Results in other worlds</h2>'
        f'<p class="note">{beside}Regret is the money by which its cost in that world, including unserved work at '
        f"{each_unit(float(worlds[0]['unserved_price']))}, exceeds that of the best of "
        f"{plural(len(recommendation['finalists']), 'variant', 'variants')} tried there.</p>"
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="worlds"><table class="worlds">'
        f'<thead><tr><th scope="col" class="words">World</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
        "</section>\n"
    )


def _world_row(world: Mapping[str, Any], columns: int) -> str:
    cells = "".join(
        f"<td>{escape(shown(value, unit))}</td>"
        for key, unit in (("cost", Unit.MONEY), ("unserved_share", Unit.SHARE), ("regret", Unit.MONEY))
        for value in world[key][:columns]
    )
    what = f"<br><small>{escape(str(world['what']))}</small>" if "what" in world else ""
    return f'<tr><th scope="row" class="words">{escape(str(world["world"]))}{what}</th>{cells}</tr>'


def decisions_section(differences: Mapping[str, Any] | None) -> str:
    """Return where two policies decided differently. Empty if no policies were compared."""
    if not differences:
        return ""
    said = "".join(f"<p>{escape(str(text))}</p>" for text in differences["sentences"])
    rows = differences["rows"]
    if not rows:
        return f'<section aria-labelledby="diff"><h2 id="diff">Where decisions differ</h2>{said}</section>\n'
    first, second = (escape(str(name)) for name in differences["names"])
    head = (
        f'<thead><tr><th scope="col">Tick</th><th scope="col">{first} wants</th><th scope="col">{second} wants</th>'
        f'<th scope="col" class="words">{first}</th><th scope="col" class="words">{second}</th></tr></thead>'
    )
    told = "".join(_difference_row(row) for row in rows)
    return (
        f'<section aria-labelledby="diff"><h2 id="diff">Where decisions differ</h2>{said}'
        f"<details><summary>The first {plural(len(rows), 'tick', 'ticks')} at which they diverge</summary>"
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="diff">'
        f"<table>{head}<tbody>{told}</tbody></table></div></details></section>\n"
    )


def _difference_row(row: Mapping[str, Any]) -> str:
    wanted = "".join(f"<td>{escape(str(number))}</td>" for number in row["desired"])
    reasons = "".join(f'<td class="words">{escape(str(reason))}</td>' for reason in row["reasons"])
    return f"<tr><td>{escape(str(row['at']))}</td>{wanted}{reasons}</tr>"


def identity_section(document: Mapping[str, Any], details: Mapping[str, Any]) -> str:
    """Return the notes on the run and the digests of its inputs."""
    identity = document.get("identity", {})
    told = [
        ("Trace", identity.get("trace")),
        ("Policy", identity.get("policy")),
        ("Plant", identity.get("plant")),
        ("Decisions", details.get("decisions")),
        ("Program", identity.get("code")),
        ("Seed", identity.get("seed")),
        ("Engine", details.get("engine")),
    ]
    notes = "".join(f"<li>{escape(str(text))}</li>" for text in details.get("notes", ()))
    rows = "".join(
        f"<dt>{name}</dt><dd><code>{escape(str(value))}</code></dd>"
        for name, value in told
        if value is not None
    )
    return (
        '<section aria-labelledby="identity"><h2 id="identity">How this was made</h2>'
        f'<ul class="notes">{notes}</ul><p class="note">Equal digests and an equal seed give equal results.</p>'
        f'<dl class="identity">{rows}</dl></section>\n'
    )
