"""`results.html`: the benchmark on one self-contained page; tables first, charts by an embedded plotly.js.

Rules of this file: the same as in `report.page`. The page's security policy allows exactly the scripts written into it, by
their digests, and no connection. Data is in elements that no browser runs. Equal input gives equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

from autoscaler.simulator.benchmark.curves import LEVELS, VOLUME_SHARES
from autoscaler.simulator.benchmark.peer_entries import RIVALS
from autoscaler.simulator.benchmark.tables import coverage_of, coverage_sentence, percent, ratio, sentences
from autoscaler.simulator.benchmark.trace_run import Bout
from autoscaler.simulator.benchmark.verdict import Match, by_fleet, matches
from autoscaler.simulator.judging.calibration import LEVELS as QUANTILES
from autoscaler.simulator.judging.calibration import calibrated
from autoscaler.simulator.replay.timeline import jsonable
from autoscaler.simulator.report.packing import zipped
from autoscaler.simulator.report.page import data_script, head, require_plotly

RESULTS_HTML = "results.html"

_FOOTER = (
    "<footer><p>Made by vm-autoscaler from the results.json in the same folder. Charts are drawn by plotly.js (MIT licence), which "
    "this file contains.</p></footer>\n"
)


def page_text(bouts: Sequence[Bout], key: str, name: str, peers: Sequence[str]) -> str:
    """Return the HTML of the page.

    Args:
        bouts: Results of the traces.
        key: Key of the policy that is compared with the peers.
        name: Its name for people.
        peers: Keys of the peers.

    Raises:
        ConfigError: plotly is not installed.
    """
    require_plotly()
    found = matches(bouts, key, peers)
    script = (files(__package__) / "fronts.js").read_text(encoding="utf-8")
    style = (files("autoscaler.simulator.report") / "page.css").read_text(encoding="utf-8")
    plotly = (files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    summary = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences(found))
    return "".join(
        (
            head("Benchmark of policies", f"{style}\n{_STYLE}", plotly, script),
            f'<header class="top"><h1>{escape(name[:1].upper() + name[1:])} against every peer at its best setting</h1>{summary}</header>\n',
            "<main><h2>Regret</h2><p>Cost over the least possible at the same share of unserved work;",
            " a dash is a share that no setting reaches.</p>",
            '<div id="bars" class="chart"></div>',
            _table(found),
            '<h2>Fronts</h2><p><label>Fleet <select id="fleet"></select></label></p><div id="front" class="chart"></div>',
            _coverage(bouts, key),
            "<h2>Peers</h2>",
            _peers(),
            "</main>",
            _FOOTER,
            data_script("data", json.dumps(jsonable(_chart_data(bouts, found, key, name)))),
            data_script("plotly", zipped(plotly)),
            f"<script>{script}</script>\n</body>\n</html>\n",
        )
    )


_STYLE = """
.chart { min-height: 30rem; }
.scroll { overflow-x: auto; }
.bench { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
.bench th, .bench td { padding: 0.25rem 0.75rem 0.25rem 0; border-bottom: 1px solid var(--line); text-align: right; }
.bench th:first-child, .bench td:first-child { text-align: left; }
.bench td.won { font-weight: 600; }
.bench.words th, .bench.words td { text-align: left; white-space: normal; }
.bench.words td:nth-child(2) { min-width: 12rem; }
"""


def _table(found: Sequence[Match]) -> str:
    heads = "".join(f"<th>{level:.1%}</th><th>best peer</th><th>ratio</th>" for level in LEVELS)
    body = []
    for (trace, size), row in by_fleet(found).items():
        cells = "".join(
            f"<td{_won(match)}>{percent(match.regret)}</td><td>{percent(match.best_regret)} {escape(match.best)}</td>"
            f"<td>{ratio(match.ratio)}</td>"
            for match in row
        )
        mark = "" if row[0].long else " *"
        body.append(f"<tr><td>{escape(trace)}{mark}</td><td>{size}</td>{cells}</tr>")
    return (
        f'<div class="scroll"><table class="bench"><thead><tr><th>trace</th><th>VMs</th>{heads}</tr></thead>'
        f'<tbody>{"".join(body)}</tbody></table></div><p class="note">* less than seven days are scored</p>'
    )


def _coverage(bouts: Sequence[Bout], key: str) -> str:
    coverages = coverage_of(bouts, key)
    if not coverages:
        return ""
    heads = "".join(f"<th>{level:.0%} quantile</th>" for level in QUANTILES)
    rows = "".join(
        f"<tr><td>{escape(bout.trace)}{'' if bout.long else ' *'}</td><td>{size}</td>"
        f"{''.join(f'<td>{share:.1%}</td>' for share in shares)}"
        f"<td>{'' if calibrated(np.array(shares)) else 'off'}</td></tr>"
        for bout, size, shares in coverages
    )
    return (
        "<h2>Coverage</h2><p>Share of outcomes below each quantile of the forecast at the lead time. "
        f"{escape(coverage_sentence(bouts, key))}</p>"
        f'<div class="scroll"><table class="bench"><thead><tr><th>trace</th><th>VMs</th>{heads}<th></th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _won(match: Match) -> str:
    return ' class="won"' if match.ratio < 1.0 else ""


def _peers() -> str:
    rows = "".join(
        f"<tr><td>{escape(rival.name)}</td><td>{escape(rival.what)}</td><td>{escape(rival.knob)}</td></tr>"
        for rival in RIVALS
    )
    return (
        '<div class="scroll"><table class="bench words"><thead><tr><th>rule</th><th>what it does</th><th>varied</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _chart_data(bouts: Sequence[Bout], found: Sequence[Match], key: str, name: str) -> dict[str, Any]:
    names = {key: name} | {rival.key: rival.name for rival in RIVALS}
    return {
        "name": name,
        "shares": list(VOLUME_SHARES),
        "matches": [
            {
                "name": f"{match.trace}/{match.size} {match.level:.1%}",
                "regret": match.regret,
                "best_regret": match.best_regret,
                "best": match.best,
            }
            for match in found
        ],
        "fleets": [
            {
                "name": f"{bout.trace}, {fleet.size} VMs",
                "clairvoyant": list(fleet.clairvoyant.front),
                "rules": [
                    {
                        "name": names.get(rule, rule),
                        "ours": rule == key,
                        "knob": curve.knob,
                        "values": [curve.values[at] for at in hull.settings],
                        "unserved": [max(share, 5e-5) for share in hull.unserved.tolist()],
                        "cost": hull.cost.tolist(),
                    }
                    for rule, curve in fleet.curves.items()
                    for hull in (curve.hull(),)
                ],
            }
            for bout in bouts
            for fleet in bout.fleets
        ],
    }
