"""Benchmark plots for a README, drawn by matplotlib: `fronts.svg`, `regret.svg`, `coverage.svg`.

Rules of this file: numbers come from bouts and matches. Text stays text, which keeps the files small. Equal input gives
equal bytes. The colours can be distinguished by colour-blind people (Okabe and Ito 2008), and the policy under test is also
thicker or filled.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from autoscaler.errors import ConfigError
from autoscaler.simulator.benchmark.curves import LEVELS, VOLUME_SHARES, Hull
from autoscaler.simulator.benchmark.tables import coverage_of
from autoscaler.simulator.benchmark.trace_run import Bout, FleetResult
from autoscaler.simulator.benchmark.verdict import Match, geometric_mean, matches
from autoscaler.simulator.judging.calibration import LEVELS as QUANTILES
from autoscaler.simulator.judging.calibration import WITHIN
from autoscaler.simulator.report.columns import SIM_EXTRA

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FRONTS_SVG, REGRET_SVG, COVERAGE_SVG = "fronts.svg", "regret.svg", "coverage.svg"

_OURS, _PEER, _BEST, _LINE = "#d55e00", "#9a9a9a", "#0072b2", "#444444"
_LEVEL_COLOURS = ("#0072b2", "#009e73", "#d55e00")
_ACROSS = 3
_PANEL_INCH = (2.9, 1.9)
_ROW_INCH, _HEAD_INCH = 0.19, 1.0


def require_matplotlib() -> None:
    """Check that plots can be drawn, before a run takes its time.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError:
        raise ConfigError(f"the plots need matplotlib; {SIM_EXTRA}") from None


def plots(bouts: Sequence[Bout], key: str, name: str, peers: Sequence[str]) -> dict[str, str]:
    """Draw the plots, and return the SVG of each by file name. Plots with nothing to show are left out.

    Args:
        bouts: Results of the traces. Only long traces are drawn, or all traces if none is long.
        key: Key of the rule that is compared with the peers.
        name: Its name for people.
        peers: Keys of the peers.
    """
    import matplotlib as mpl

    counted = [bout for bout in bouts if bout.long] or list(bouts)
    shown = [(bout, fleet) for bout in counted for fleet in bout.fleets if key in fleet.curves]
    looks = mpl.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "benchmark",
            "font.family": "DejaVu Sans",
            "font.size": 8.0,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": _LINE,
            "axes.titlesize": 8.0,
            "axes.titlelocation": "left",
        }
    )
    with looks:
        drawn = {
            FRONTS_SVG: _fronts([(bout, fleet) for bout, fleet in shown if _largest(bout, fleet)], key, name, peers),
            REGRET_SVG: _regrets(matches(counted, key, peers), name),
            COVERAGE_SVG: _coverages(coverage_of(counted, key)),
        }  # fmt: skip
        return {file: _svg(figure) for file, figure in drawn.items() if figure is not None}


def _largest(bout: Bout, fleet: FleetResult) -> bool:
    return fleet.size == max(each.size for each in bout.fleets)


def _figure(width_inch: float, height_inch: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width_inch, height_inch), layout="constrained")


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


# ── fronts: cost relative to the least, against work left unserved ──────────────────────────────────────────


def _fronts(
    shown: Sequence[tuple[Bout, FleetResult]], key: str, name: str, peers: Sequence[str]
) -> Figure | None:
    from matplotlib.lines import Line2D

    if not shown:
        return None
    across = min(_ACROSS, len(shown))
    down = math.ceil(len(shown) / across)
    figure = _figure(across * _PANEL_INCH[0], down * _PANEL_INCH[1] + 0.6)
    axes = figure.subplots(down, across, squeeze=False, sharex=True)
    for at, (axis, (bout, fleet)) in enumerate(zip(axes.flat, shown, strict=False)):
        _front(axis, fleet, key, peers)
        axis.set_title(f"{bout.trace}, {fleet.size} VMs")
        axis.tick_params(labelbottom=at + across >= len(shown))
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    figure.legend(
        [Line2D([], [], **_line(mine=mine)) for mine in (True, False)],
        [name, "every other rule, at all its settings"], loc="outside upper left", ncols=2, frameon=False,
    )  # fmt: skip
    figure.supxlabel("share of work left unserved", fontsize=8)
    figure.supylabel("cost, as a multiple of the least possible in hindsight", fontsize=8)
    return figure


def _front(axis: Axes, fleet: FleetResult, key: str, peers: Sequence[str]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    dearest = 1.5
    for peer in (*(peer for peer in peers if peer in fleet.curves and peer != key), key):
        shares, costs = _relative_to_least(fleet, fleet.curves[peer].hull())
        mine = peer == key
        if mine:
            dearest = max(1.5, 3.0 * max((cost for cost in costs if math.isfinite(cost)), default=1.0))
        axis.plot(shares, costs, **_line(mine=mine))
    axis.axhline(1.0, color=_LINE, linewidth=0.8, linestyle=":")
    for level in LEVELS:
        axis.axvline(level, color="#e4e4e4", linewidth=0.8, zorder=0)
    axis.set(xscale="log", yscale="log", xlim=(VOLUME_SHARES[0], VOLUME_SHARES[-1]), ylim=(0.95, dearest))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
    axis.yaxis.set_major_locator(
        LogLocator(base=10, subs=(1.0, 1.5, 2.0, 3.0, 5.0) if dearest < 10.0 else (1.0, 2.0, 5.0))
    )
    axis.yaxis.set_major_formatter(FuncFormatter(lambda cost, _: f"{cost:g}x"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def _line(*, mine: bool) -> dict[str, Any]:
    return {"color": _OURS if mine else _PEER, "linewidth": 2.2 if mine else 0.8, "zorder": 3 if mine else 2}


def _relative_to_least(fleet: FleetResult, hull: Hull) -> tuple[list[float], list[float]]:
    """Return the shares of `VOLUME_SHARES` that a front reaches, and its cost there as a multiple of the least cost."""
    points = [
        (share, hull.cost_at(share) / least)
        for share, least in zip(VOLUME_SHARES, fleet.clairvoyant.front, strict=True)
        if least > 0 and math.isfinite(hull.cost_at(share))
    ]
    return [share for share, _ in points], [cost for _, cost in points]


# ── regret: divided by that of the best peer, by fleet ──────────────────────────────────────────────────────


def _regrets(found: Sequence[Match], name: str) -> Figure | None:
    rows: dict[str, list[Match]] = {}
    for match in found:
        if math.isfinite(match.ratio) and match.ratio > 0:
            rows.setdefault(f"{match.trace}, {match.size}", []).append(match)
    if not rows:
        return None
    order = sorted(rows, key=lambda row: -geometric_mean([match.ratio for match in rows[row]]))
    figure = _figure(7.6, _HEAD_INCH + _ROW_INCH * len(rows))
    axis = figure.subplots()
    for at, row in enumerate(order):
        ratios = [match.ratio for match in rows[row]]
        axis.plot([min(ratios), max(ratios)], [at, at], color="#d0d0d0", linewidth=1.5, zorder=1)
    for level, colour in zip(LEVELS, _LEVEL_COLOURS, strict=True):
        points = {at: m.ratio for at, row in enumerate(order) for m in rows[row] if m.level == level}
        words = f"{level:.1%} unserved".replace(".0%", "%")
        axis.scatter(list(points.values()), list(points), s=22, color=colour, label=words, zorder=2)
    axis.axvline(1.0, color=_LINE, linewidth=1.0)
    axis.set_xscale("log")
    _ticks(axis, (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0), "{:g}".format)
    axis.set_yticks(range(len(order)), order)
    axis.set_xlabel(
        f"regret of {name} divided by that of the best other rule at its best setting in hindsight,\n"
        "after adding half a point to both; left of 1 is better"
    )
    figure.legend(loc="outside upper left", ncols=len(LEVELS), frameon=False)
    return figure


def _ticks(axis: Axes, places: Sequence[float], words: Callable[[float], str]) -> None:
    low, high = axis.get_xlim()
    inside = [place for place in places if low <= place <= high]
    axis.set_xticks(inside, [words(place) for place in inside])
    axis.set_xticks([], minor=True)


# ── coverage: how many outcomes lie below each quantile of the forecast ─────────────────────────────────────


def _coverages(found: Sequence[tuple[Bout, int, tuple[float, ...]]]) -> Figure | None:
    if not found:
        return None
    rows = [(f"{bout.trace}, {size}", shares) for bout, size, shares in found]
    figure = _figure(7.6, _HEAD_INCH + _ROW_INCH * len(rows))
    axes = figure.subplots(1, len(QUANTILES), sharey=True, squeeze=False)[0]
    for axis, at in zip(axes, range(len(QUANTILES)), strict=True):
        level, within = float(QUANTILES[at]), float(WITHIN[at])
        axis.axvspan(-100 * within, 100 * within, color="#eaf3fa", zorder=0)
        axis.axvline(0.0, color=_LINE, linewidth=0.8)
        off = [100 * (shares[at] - level) for _, shares in rows]
        colours = [_BEST if abs(each) <= 100 * within + 1e-9 else _OURS for each in off]
        axis.scatter(off, range(len(rows)), s=18, c=colours, zorder=2)
        widest = max(2.0 * 100 * within, *(abs(each) for each in off)) * 1.1
        axis.set(xlim=(-widest, widest), title=f"{level:.0%} quantile")
    axes[0].set_yticks(range(len(rows)), [row for row, _ in rows])
    axes[0].invert_yaxis()
    figure.supxlabel(
        "share of outcomes below the quantile minus its level, in points; the shaded range counts as calibrated",
        fontsize=8,
    )
    return figure
