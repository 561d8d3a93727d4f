"""`report.html`: one self-contained page that starts with the conclusion.

Everything that needs no chart is written into the page (`sections`), so that it can be read without scripts. page.js draws
the charts and answers clicks, from data packed into the same page. plotly.js comes from the plotly package, which is
imported only when a page is made.

Rules of this file: the page's security policy allows exactly the scripts written into it, by their digests, and no
connection. Data is in elements that no browser runs, without any character that could end them. Equal input gives equal
bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from autoscaler.errors import ConfigError
from autoscaler.simulator.replay.timeline import Episode, jsonable, shortage_episodes, written_whole
from autoscaler.simulator.report.card import card_from
from autoscaler.simulator.report.columns import SIM_EXTRA, Columns
from autoscaler.simulator.report.conclusion import Conclusion, conclude, conclude_sweep
from autoscaler.simulator.report.packing import packed, zipped
from autoscaler.simulator.report.sections import (
    MOST_EPISODES,
    card_section,
    decisions_section,
    identity_section,
    sweep_section,
    timeline_section,
    top_section,
    worlds_section,
)
from autoscaler.simulator.report.thinning import chosen_rows

PAGE_NAME = "report.html"
_SCRIPTS = ("variants.js", "page.js")
MOST_ROWS = 50_000
"""Ticks in a page. A month of one-minute ticks fits completely; longer runs keep their extremes and episodes."""
_FOOTER = (
    "<footer><p>Made by vm-autoscaler from report.json and the timeline beside it. Charts are drawn by "
    "plotly.js (MIT licence), which this file contains.</p></footer>\n"
)
_AROUND = 15
"""Ticks before and after an episode that are kept with it."""
_DRAWN = ("demand", "capacity", "shortage", "desired")


def write_page(
    path: Path,
    document: Mapping[str, Any],
    columns: Columns | None,
    others: Mapping[str, Columns] | None = None,
) -> None:
    """Write the page of a run.

    Args:
        path: File to write.
        document: The document in `report.json`. If it has a `recommendation` (`headline` and `sentences`), this replaces the
            conclusion of the run.
        columns: The timeline. None for a sweep, which has none.
        others: Timelines of further runs over the same ticks, by name, to draw in the same chart.

    Raises:
        ConfigError: The document is not a report, plotly is not installed, or the file cannot be written.
    """
    text = page(document, columns, others or {}, str(path))
    with written_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")


def page(
    document: Mapping[str, Any], columns: Columns | None, others: Mapping[str, Columns], where: str
) -> str:
    """Return the HTML of the page. The arguments are those of `write_page`; `where` names the report in errors."""
    card = card_from(document, where)
    details = document.get("details", {})
    sweep = document.get("sweep")
    conclusion = _conclusion(document, conclude(card, details))
    episodes = () if columns is None else worst_episodes(columns, details)
    body = "".join(
        (
            top_section(card, conclusion, details),
            "<main>",
            worlds_section(document.get("recommendation")),
            "" if sweep is None else sweep_section(sweep),
            card_section(card),
            "" if columns is None else timeline_section(columns, episodes, details, others),
            decisions_section(document.get("differences")),
            identity_section(document, details),
            "</main>",
        )
    )
    plotly, scripts = _plotly(), [_resource(name) for name in _SCRIPTS]
    title = f"{details.get('fleet', 'replay')} on {details.get('trace', 'a trace')}"
    return "".join(
        (
            head(title, _resource("page.css"), plotly, *scripts),
            body,
            _FOOTER,
            data_script("meta", json.dumps(_meta(columns, episodes, details, sweep, others))),
            data_script("ticks", "" if columns is None else _ticks(columns, episodes, others)),
            data_script("plotly", zipped(plotly)),
            *(f"<script>{script}</script>\n" for script in scripts),
            "</body>\n</html>\n",
        )
    )


def _conclusion(document: Mapping[str, Any], own: Conclusion) -> Conclusion:
    """Return the words at the top: the recommendation if there is one, otherwise the conclusion of the sweep or run."""
    told = document.get("recommendation")
    if told is not None:
        return Conclusion(str(told["headline"]).rstrip("."), tuple(map(str, told["sentences"])), own.cautions)
    return conclude_sweep(document["sweep"], own) if document.get("sweep") else own


def worst_episodes(columns: Columns, details: Mapping[str, Any]) -> tuple[Episode, ...]:
    """Return the shortage episodes of the scored part, those with the most unserved work first."""
    found = shortage_episodes(columns.stamps_s, columns["shortage"], columns.interval_s)
    scored_from_s = columns.stamps_s[0] + float(details.get("not_scored_s") or 0.0)
    scored = [episode for episode in found if episode.start_s >= scored_from_s]
    return tuple(sorted(scored, key=lambda episode: (-episode.unserved_work, episode.start_s)))


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
            {
                "start": e.start_s,
                "end": e.end_s,
                "work": _short(e.unserved_work),
                "worst": _short(e.worst_per_s),
            }
            for e in episodes[:MOST_EPISODES]
        ]
    return jsonable(meta)


def _short(value: float) -> float:
    # Fewer digits than the timeline file has, so that a page made again from the file is the same.
    return float(f"{value:.8g}")


def _vm_capacity(columns: Columns) -> float:
    """Return the capacity of one VM in work per second, derived from the timeline."""
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


def head(title: str, style: str, *scripts: bytes | str) -> str:
    """Return the page up to its body. The page opens no connection and runs only these scripts."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(*scripts)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
    )


def data_script(name: str, text: str) -> str:
    """Return an element with JSON text for the page's scripts."""
    # A closing tag in the text would end the element. JSON reads the escape as the same character.
    safe = text.replace("<", "\\u003c")
    return f'<script type="text/plain" id="{name}">{safe}</script>\n'


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
    """Check that a page can be made, before a run takes its time.

    Raises:
        ConfigError: plotly is not installed.
    """
    _plotly()


@cache
def _plotly() -> bytes:
    try:
        return (files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    except (ModuleNotFoundError, FileNotFoundError):
        raise ConfigError(f"the page needs plotly; {SIM_EXTRA}") from None
