"""The page `report.html`: one file, no network, conclusion first.

Everything that can be said without a chart is written into the page here, so that it reads without scripts
too; page.js draws the charts and answers clicks from the data packed beside it. plotly.js comes from the plotly
package, which is imported when a page is made and not before.

Rules of this file: every text passes `html.escape` on its way into the page, and the page's policy allows
exactly the two scripts written into it, by their digests, and no connection at all. Equal input gives
equal bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from autoscaler.errors import ConfigError
from autoscaler.simulator.report.card import Card, Entry, Figure, card_from
from autoscaler.simulator.report.columns import SIM_EXTRA, Columns
from autoscaler.simulator.report.conclusion import Conclusion, conclude
from autoscaler.simulator.report.packing import packed, zipped
from autoscaler.simulator.report.thinning import chosen_rows
from autoscaler.simulator.report.wording import Unit, count, moment, plural, shown, span
from autoscaler.simulator.timeline import Episode, jsonable, shortage_episodes

PAGE_NAME = "report.html"
MOST_ROWS = 50_000
"""Ticks in a page: a month of one-minute ticks fits whole, longer runs keep their extremes and episodes."""
MOST_EPISODES = 400
_SHOWN_EPISODES = 10
_FOOTER = (
    "<footer><p>Made by vm-autoscaler from report.json and the time line beside it. Charts are drawn by "
    "plotly.js (MIT licence), which this file contains.</p></footer>\n"
)
_KEYS = (
    "Point at a tick to read its decision; drag to look closer; click a shortage to see it tick by tick. With the "
    "chart focused, the arrow keys go from tick to tick and Enter opens the nearest shortage."
)
_AROUND = 15
"""Ticks before and after an episode that are kept with it."""
_DRAWN = ("demand", "capacity", "shortage", "desired")
_KEY_FIGURES = ("cost", "unserved_share", "shortage_s", "starts_per_day")


def write_page(
    path: Path,
    document: Mapping[str, Any],
    columns: Columns | None,
    others: Mapping[str, Columns] | None = None,
) -> None:
    """Write the page of a run.

    Args:
        path: Where to.
        document: What `report.json` holds.
        columns: The time line; None for a sweep, which has none.
        others: Time lines of further runs over the same ticks, by name, drawn beside.

    Raises:
        ConfigError: The document is not a report, plotly is missing, or the file cannot be written.
    """
    text = page(document, columns, others or {}, str(path))
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(text, encoding="utf-8", newline="\n")
        unfinished.replace(path)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror or error}. Give another output directory."
        ) from error
    finally:
        with suppress(OSError):
            unfinished.unlink()


def page(
    document: Mapping[str, Any], columns: Columns | None, others: Mapping[str, Columns], where: str
) -> str:
    """The text of the page; arguments as of `write_page`, `where` names the report in errors."""
    card = card_from(document, where)
    details = document.get("details", {})
    sweep = document.get("sweep")
    episodes = () if columns is None else worst_episodes(columns, details)
    body = "".join(
        (
            _top(card, conclude(card, details), details),
            "<main>",
            _card(card),
            "" if columns is None else _timeline(columns, episodes, details, others),
            "" if sweep is None else _sweep(sweep),
            _decisions(document.get("differences")),
            _identity(document, details),
            "</main>",
        )
    )
    plotly, script = _plotly(), _resource("page.js")
    title = f"{details.get('fleet', 'replay')} on {details.get('trace', 'a trace')}"
    return "".join(
        (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            f'<meta http-equiv="Content-Security-Policy" content="{_policy(plotly, script)}">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            '<meta name="referrer" content="no-referrer">\n',
            f"<title>{escape(title)}</title>\n",
            f"<style>{_resource('page.css')}</style>\n</head>\n<body>\n",
            body,
            _FOOTER,
            _data("meta", json.dumps(_meta(columns, episodes, details, sweep, others))),
            _data("ticks", "" if columns is None else _ticks(columns, episodes, others)),
            _data("plotly", zipped(plotly)),
            f"<script>{script}</script>\n</body>\n</html>\n",
        )
    )


def worst_episodes(columns: Columns, details: Mapping[str, Any]) -> tuple[Episode, ...]:
    """The shortage episodes of the scored part, most unserved work first."""
    found = shortage_episodes(columns.stamps_s, columns["shortage"], columns.interval_s)
    scored_from_s = columns.stamps_s[0] + float(details.get("not_scored_s") or 0.0)
    scored = [episode for episode in found if episode.start_s >= scored_from_s]
    return tuple(sorted(scored, key=lambda episode: (-episode.unserved_work, episode.start_s)))


# ── what is written into the page ───────────────────────────────────────────────────────────────────────


def _top(card: Card, conclusion: Conclusion, details: Mapping[str, Any]) -> str:
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
            against = "" if reference is None else _against(figure, reference)
            value = shown(entry.values[key], figure.unit)
            parts.append(
                f"<div><dt>{escape(figure.label)}</dt><dd>{escape(value)}</dd>"
                f'<dd class="against">{escape(against)}</dd></div>'
            )
    return f'<dl class="key">{"".join(parts)}</dl>'


def _against(figure: Figure, reference: Entry) -> str:
    return f"{reference.name}: {shown(reference.values[figure.key], figure.unit)}"


def _card(card: Card) -> str:
    heads = "".join(f'<th scope="col"{_judged(entry)}>{escape(entry.name)}</th>' for entry in card.entries)
    rows, group = [], ""
    for figure in card.figures:
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
    served = "".join(
        f"<dt>{escape(entry.name)}</dt><dd>{escape(entry.what)}</dd>" for entry in card.entries if entry.what
    )
    return (
        '<section aria-labelledby="card"><h2 id="card">Score card</h2>'
        '<p class="note">Every column served the same demand. Open a figure to read what it means.</p>'
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="card"><table class="card">'
        f'<thead><tr><th scope="col"></th>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        f'<dl class="identity">{served}</dl></section>\n'
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
        change = f"<small>{value / reference - 1.0:+.0%}</small>"
    return f"<td{_judged(entry)}>{escape(shown(value, figure.unit))}{change}</td>"


def _timeline(
    columns: Columns,
    episodes: Sequence[Episode],
    details: Mapping[str, Any],
    others: Mapping[str, Columns],
) -> str:
    beside = "".join(
        f'<li><i class="dashes" style="border-color:var(--starting)"></i>capacity, {escape(name)}</li>'
        for name in others
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
        '<li><i style="border-color:var(--ahead)"></i>demand ahead, 95%</li>'
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
        "are complete without.</p></noscript></div>"
        f'<p id="keys" hidden>{_KEYS}</p>'
        f'<div class="readout" id="readout" aria-live="polite"><p class="numbers">{_KEYS}</p></div>'
        '<div class="episode" id="episode" hidden></div>'
        f"{_episodes(columns, episodes)}</section>\n"
    )


def _episodes(columns: Columns, episodes: Sequence[Episode]) -> str:
    if not episodes:
        return "<h2>Shortage episodes</h2><p>There were none: capacity was enough in every scored tick.</p>"
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
        left_out = f" ({left} smaller ones are only in the time line)" if left else ""
        more = (
            f'<details class="more"><summary>{told}{left_out}</summary><div class="scroll" tabindex="0" '
            f'role="region" aria-label="Further episodes"><table>{head}<tbody>{"".join(rest)}</tbody></table>'
            "</div></details>"
        )
    return (
        '<h2 id="episodes">Shortage episodes, worst first</h2>'
        '<p class="note">Choose one to see it in the chart and tick by tick.</p>'
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="episodes">'
        f"<table>{head}<tbody>{''.join(first)}</tbody></table></div>{more}"
    )


def _episode_row(columns: Columns, number: int, episode: Episode) -> str:
    rows = (columns.stamps_s >= episode.start_s) & (columns.stamps_s < episode.end_s)
    worst = int(np.flatnonzero(rows)[np.argmax(columns["shortage"][rows])])
    return (
        f'<tr><td><button type="button" class="link" data-episode="{number}">'
        f"{escape(moment(episode.start_s))}</button></td><td>{span(episode.end_s - episode.start_s)}</td>"
        f"<td>{count(episode.unserved_work)}</td><td>{count(episode.worst_per_s)}</td>"
        f'<td class="words">{escape(columns.reasons[worst])}</td></tr>'
    )


def _sweep(sweep: Mapping[str, Any]) -> str:
    names = [str(name) for name in sweep["parameters"]]
    choices = "".join(f"<option>{escape(name)}</option>" for name in names)
    heat = (
        '<div><h3>Two parameters</h3><div class="tools"><label>across <select id="across">'
        f'{choices}</select></label><label>up <select id="up">{choices}</select></label>'
        '<label>shows <select id="shows"></select></label></div><div class="chart small" id="heat"></div>'
        '<p class="note">A cell is the median over all variants in it; other parameters vary.</p></div>'
        if len(names) > 1
        else ""
    )
    return (
        '<section aria-labelledby="variants"><h2 id="variants">Variants</h2>'
        f'<p class="note">{count(len(sweep["rows"]))} variants were run on the same demand and the same luck.</p>'
        '<div class="pair"><div><h3>Cost against shortage</h3><div class="chart small" id="pareto"></div>'
        '<p class="note">The line joins the variants that no other beats in both. Point at one to read its '
        f'parameters.</p></div>{heat}</div><p class="readout" id="variant" aria-live="polite">No variant is '
        "chosen yet.</p></section>\n"
    )


def _decisions(differences: Mapping[str, Any] | None) -> str:
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
        f"<details><summary>The first {plural(len(rows), 'tick', 'ticks')} at which they part</summary>"
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="diff">'
        f"<table>{head}<tbody>{told}</tbody></table></div></details></section>\n"
    )


def _difference_row(row: Mapping[str, Any]) -> str:
    wanted = "".join(f"<td>{escape(str(number))}</td>" for number in row["desired"])
    reasons = "".join(f'<td class="words">{escape(str(reason))}</td>' for reason in row["reasons"])
    return f"<tr><td>{escape(str(row['at']))}</td>{wanted}{reasons}</tr>"


def _identity(document: Mapping[str, Any], details: Mapping[str, Any]) -> str:
    identity = document.get("identity", {})
    told = [
        ("Trace", identity.get("trace")),
        ("Policy", identity.get("policy")),
        ("Plant", identity.get("plant")),
        ("Decisions", identity.get("decisions")),
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


# ── data for the script ─────────────────────────────────────────────────────────────────────────────────


def _meta(
    columns: Columns | None,
    episodes: Sequence[Episode],
    details: Mapping[str, Any],
    sweep: Mapping[str, Any] | None,
    others: Mapping[str, Columns],
) -> Any:
    meta: dict[str, Any] = {"sweep": sweep, "others": list(others)}
    if columns is not None:
        capacity = float(details.get("vm_capacity_per_s") or _vm_capacity(columns))
        meta["interval_s"] = columns.interval_s
        meta["ticks"] = len(columns)
        meta["vm_capacity_per_s"] = capacity
        meta["not_scored_s"] = float(details.get("not_scored_s") or 0.0)
        meta["episodes"] = [
            {"start": e.start_s, "end": e.end_s, "work": e.unserved_work, "worst": e.worst_per_s}
            for e in episodes[:MOST_EPISODES]
        ]
    return jsonable(meta)


def _vm_capacity(columns: Columns) -> float:
    """Work per second of one VM, as the time line shows it."""
    serve = columns["in_service"] > 0
    return (
        float(np.median(columns["capacity"][serve] / columns["in_service"][serve]))
        if serve.any()
        else math.nan
    )


def _ticks(columns: Columns, episodes: Sequence[Episode], others: Mapping[str, Columns]) -> str:
    windows = [_window(columns, episode) for episode in episodes]
    rows = chosen_rows([columns[name] for name in _DRAWN], windows, MOST_ROWS)
    arrays: dict[str, np.ndarray] = {"stamp": columns.stamps_s[rows]}
    for name, values in columns.numbers.items():
        arrays[name] = values[rows].astype(np.float32)
    gap = np.diff(columns.stamps_s, prepend=columns.stamps_s[0]) > 1.5 * columns.interval_s
    arrays["gap"] = gap[rows].astype(np.int32)
    for number, other in enumerate(others.values()):
        beside = np.searchsorted(other.stamps_s, columns.stamps_s[rows]).clip(max=len(other) - 1)
        same = np.abs(other.stamps_s[beside] - columns.stamps_s[rows]) < 0.5 * columns.interval_s
        for name in ("capacity", "desired"):
            arrays[f"other{number}.{name}"] = np.where(same, other[name][beside], np.nan).astype(np.float32)
    return packed(arrays, {"reason": [columns.reasons[row] for row in rows]})


def _window(columns: Columns, episode: Episode) -> tuple[int, int]:
    begin, end = np.searchsorted(columns.stamps_s, (episode.start_s, episode.end_s))
    return max(int(begin) - _AROUND, 0), min(int(end) + _AROUND, len(columns))


def _data(name: str, text: str) -> str:
    # A closing tag within the text would end the element; JSON reads the escape as the same character.
    safe = text.replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{safe}</script>\n'


def _policy(*scripts: bytes | str) -> str:
    digests = " ".join(
        "'sha256-" + base64.b64encode(hashlib.sha256(_bytes(script)).digest()).decode() + "'"
        for script in scripts
    )
    return (
        f"default-src 'none'; script-src {digests}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _bytes(script: bytes | str) -> bytes:
    return script if isinstance(script, bytes) else script.encode()


@cache
def _resource(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def require_plotly() -> None:
    """See that a page can be made, before a run takes its time.

    Raises:
        ConfigError: plotly is missing.
    """
    _plotly()


@cache
def _plotly() -> bytes:
    try:
        return (files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    except (ModuleNotFoundError, FileNotFoundError):
        raise ConfigError(f"the page needs plotly; {SIM_EXTRA}") from None
