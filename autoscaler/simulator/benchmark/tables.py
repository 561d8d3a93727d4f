"""Benchmark results as files for people and programs: `results.csv` and `results.md`.

Rules of this file: numbers come from bouts and matches. Only words are made here.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

import numpy as np

from autoscaler.simulator.benchmark.curves import LEVELS
from autoscaler.simulator.benchmark.trace_run import Bout, PoolVerdict, Promise
from autoscaler.simulator.benchmark.verdict import Match, by_fleet, geometric_mean, matches, summary
from autoscaler.simulator.judging.calibration import LEVELS as QUANTILES
from autoscaler.simulator.judging.calibration import calibrated

RESULTS_CSV, RESULTS_MD = "results.csv", "results.md"

_COLUMNS = (
    "trace", "tick_s", "scored_days", "vms", "rule", "knob", "value", "unserved", "cost_vm_h", "starts", "turns",
)  # fmt: skip


def csv_text(bouts: Sequence[Bout]) -> str:
    """Return `results.csv`: one row per setting of every rule."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for bout in bouts:
        for fleet in bout.fleets:
            for curve in fleet.curves.values():
                for at, value in enumerate(curve.values):
                    writer.writerow(
                        (
                            bout.trace, f"{bout.tick_s:g}", f"{bout.scored_days:.3f}", fleet.size, curve.key, curve.knob,
                            value, repr(float(curve.unserved[at])), repr(float(curve.cost[at])),
                            int(curve.starts[at]), int(curve.turns[at]),
                        )
                    )  # fmt: skip
    return stream.getvalue()


def markdown_text(bouts: Sequence[Bout], key: str, name: str, peers: Sequence[str]) -> str:
    """Return `results.md`: per trace the regrets of a rule and of the best peer, and a summary in sentences."""
    found = matches(bouts, key, peers)
    heads = [f"{level:.1%}".replace(".0%", "%") for level in LEVELS]
    lines = [
        f"| trace | VMs | {' | '.join(f'{head} unserved' for head in heads)} |",
        f"|---|---:|{'---|' * len(LEVELS)}",
    ]
    for (trace, size), row in by_fleet(found).items():
        mark = "" if row[0].long else " *"
        cells = [f"{percent(m.regret)} : {percent(m.best_regret)} {m.best}" for m in row]
        lines.append(f"| {trace}{mark} | {size} | {' | '.join(cells)} |")
    lines += [
        "",
        f"Cost over the least possible, {name} : the best peer at its best setting.",
        "A dash is a level that no setting reaches; * less than seven days are scored.",
        "",
        *(f"{sentence}\n" for sentence in sentences(found)),
        f"{promise_sentence(bouts, key)}\n",
        *promise_lines(bouts, key),
        "",
        *pool_lines(bouts, key),
        "",
        *coverage_lines(bouts, key),
    ]
    return "\n".join(lines).rstrip() + "\n"


def promise_lines(bouts: Sequence[Bout], key: str) -> list[str]:
    """Return a table of the shares that a rule promised and had served after a week. Empty if it promised none."""
    promises = [
        (bout.trace, fleet.size, promise)
        for bout in bouts
        for fleet in bout.fleets
        for promise in fleet.promises.get(key, ())
        if not math.isnan(promise.late_unserved)
    ]
    if not promises:
        return []
    rows: dict[tuple[str, int], list[str]] = {}
    for trace, size, promise in promises:
        rows.setdefault((trace, size), []).append(f"{1.0 - promise.late_unserved:.3%}")
    heads = list(dict.fromkeys(promise.promised for _, _, promise in promises))
    return [
        f"| served after a week | VMs | {' | '.join(f'promised {head}' for head in heads)} |",
        f"|---|---:|{'---:|' * len(heads)}",
        *(f"| {trace} | {size} | {' | '.join(cells)} |" for (trace, size), cells in rows.items()),
    ]


def promise_sentence(bouts: Sequence[Bout], key: str) -> str:
    """Say how many promised shares were kept on long traces, and which were not. Empty if none was promised."""
    promises = [
        (f"{bout.trace}/{fleet.size}", promise)
        for bout in bouts
        if bout.long
        for fleet in bout.fleets
        for promise in fleet.promises.get(key, ())
        if not math.isnan(promise.late_unserved)
    ]
    if not promises:
        return ""
    broken = [(name, promise) for name, promise in promises if not _is_kept(promise)]
    which = "; ".join(
        f"{promise.promised} on {name} ({1.0 - promise.late_unserved:.2%})" for name, promise in broken
    )
    return (
        f"Promised shares: {len(promises) - len(broken)} of {len(promises)} kept to within twice the permitted unserved work, after a week, on traces "
        f"with seven scored days or more{': not ' + which if which else ''}."
    )


def _is_kept(promise: Promise) -> bool:
    allowed = 1.0 - float(promise.promised.removesuffix("%")) / 100.0
    return promise.late_unserved <= 2.0 * allowed + 1e-12


def pool_lines(bouts: Sequence[Bout], key: str) -> list[str]:
    """Return a table of how a rule's warm pool did on each fleet. Empty if none was judged."""
    rows = [
        (bout.trace, fleet.size, fleet.warm_pools[key])
        for bout in bouts
        for fleet in bout.fleets
        if key in fleet.warm_pools
    ]
    if not rows:
        return []
    heads = (
        "warm pool", "VMs", "stopped, mean", "cost over the least", "missed starts", "knows the next hour",
        "knows the law", "holds the peak", "for a day", "until break-even", "any pool saves",
    )  # fmt: skip
    return [
        f"| {' | '.join(heads)} |",
        f"|---|{'---:|' * (len(heads) - 1)}",
        *(f"| {' | '.join(_pool_cells(trace, size, pool))} |" for trace, size, pool in rows),
    ]


def coverage_of(bouts: Sequence[Bout], key: str) -> list[tuple[Bout, int, tuple[float, ...]]]:
    """List the coverage of a rule that forecasts: the trace, the fleet size, and the shares of outcomes below its quantiles."""
    return [
        (bout, fleet.size, fleet.coverage[key])
        for bout in bouts
        for fleet in bout.fleets
        if key in fleet.coverage and not any(map(math.isnan, fleet.coverage[key]))
    ]


def coverage_lines(bouts: Sequence[Bout], key: str) -> list[str]:
    """Return a table of the shares of outcomes below each quantile of a rule's forecasts. Empty if it makes none."""
    coverages = coverage_of(bouts, key)
    if not coverages:
        return []
    heads = [f"below the {level:.0%} quantile" for level in QUANTILES]
    return [
        f"| forecasts at the lead time | VMs | {' | '.join(heads)} | |",
        f"|---|---:|{'---:|' * len(heads)}---|",
        *(
            f"| {bout.trace}{'' if bout.long else ' *'} | {size} | {' | '.join(f'{each:.1%}' for each in shares)} | "
            f"{'' if calibrated(np.array(shares)) else 'off'} |"
            for bout, size, shares in coverages
        ),
    ]


def coverage_sentence(bouts: Sequence[Bout], key: str) -> str:
    """Say on how many long traces the quantiles of a rule's forecasts are calibrated. Empty if it makes none."""
    coverages = [(bout, shares) for bout, _, shares in coverage_of(bouts, key) if bout.long]
    if not coverages:
        return ""
    names = {bout.trace for bout, _ in coverages}
    off = {bout.trace for bout, shares in coverages if not calibrated(np.array(shares))}
    return (
        f"Forecasts at the lead time: outcomes lie below the 50, 90, 95 and 99 % quantiles as often as these say, within 2, 2, 2 and "
        f"0.7 points, on {len(names - off)} of {len(names)} traces with seven scored days or more"
        f"{': not on ' + ', '.join(sorted(off)) if off else ''}."
    )


def _pool_cells(trace: str, size: int, verdict: PoolVerdict) -> tuple[str, ...]:
    known, lawful = verdict.own.missed_known, verdict.lawful
    missed = f"{verdict.own.missed} of {verdict.starts}, {known} ({share(known, verdict.starts)})"
    return (
        trace,
        str(size),
        f"{verdict.own.mean_stopped:.1f}",
        times(verdict.own.cost, verdict.least),
        f"{missed} within what had been wanted",
        f"{times(verdict.foreseen.cost, verdict.least)}, {verdict.foreseen.missed} missed",
        "-" if lawful is None else f"{times(lawful.cost, verdict.least)}, {lawful.missed} missed",
        f"{times(verdict.peak.cost, verdict.least)}, {verdict.peak.missed} missed",
        f"{times(verdict.for_a_day.cost, verdict.least)}, {verdict.for_a_day.missed} missed",
        f"{times(verdict.break_even.cost, verdict.least)}, {verdict.break_even.missed} missed",
        f"{verdict.saving:.1%}{'' if verdict.pays else ', does not pay'}",
    )


def _geometric_mean_ratio(costs: Sequence[tuple[float, float]]) -> str:
    return f"{geometric_mean([cost / least for cost, least in costs if least > 0]):.2f}"


def _law_part(pools: Sequence[PoolVerdict]) -> str:
    known = [(pool.lawful, pool.least, pool.starts) for pool in pools if pool.lawful is not None]
    if not known:
        return ""
    missed = share(sum(books.missed for books, _, _ in known), sum(starts for _, _, starts in known))
    return (
        f"the best law of waits and hours, fitted in hindsight to the same ticks, "
        f"{_geometric_mean_ratio([(books.cost, least) for books, least, _ in known])} times with {missed} missed; "
    )


def pool_sentence(bouts: Sequence[Bout], key: str) -> str:
    """Say how a rule's warm pools did over all fleets. Empty if none was judged."""
    pools = [fleet.warm_pools[key] for bout in bouts for fleet in bout.fleets if key in fleet.warm_pools]
    if not pools:
        return ""

    missed, starts = sum(pool.own.missed_known for pool in pools), sum(pool.starts for pool in pools)
    return (
        f"Warm pools: {_geometric_mean_ratio([(p.own.cost, p.least) for p in pools])} times the cost of the least pool that misses nothing "
        f"(geometric mean), {missed} of {starts} starts ({share(missed, starts)}) missed within what had been wanted before; "
        f"a rule that knows the next hour pays {_geometric_mean_ratio([(p.foreseen.cost, p.least) for p in pools])} times; {_law_part(pools)}holding the peak "
        f"{_geometric_mean_ratio([(p.peak.cost, p.least) for p in pools])} times, holding for a day {_geometric_mean_ratio([(p.for_a_day.cost, p.least) for p in pools])} times with "
        f"{sum(p.for_a_day.missed for p in pools)} missed, holding until break-even "
        f"{_geometric_mean_ratio([(p.break_even.cost, p.least) for p in pools])} times with {sum(p.break_even.missed for p in pools)} "
        f"missed; a pool does not pay on {sum(not pool.pays for pool in pools)} of {len(pools)} fleets."
    )


def share(part: int, whole: int) -> str:
    """Format a part as a percentage of the whole. A dash if the whole is 0."""
    return f"{part / whole:.1%}" if whole else "-"


def times(cost: float, least: float) -> str:
    """Format a cost as a multiple of the least cost. A dash if that is 0."""
    return f"{cost / least:.2f} x" if least > 0 else "-"


def sentences(found: Sequence[Match]) -> list[str]:
    """Summarise matches in sentences, one for long traces and one for short traces."""
    parts = (
        ("Traces with seven scored days or more", [m for m in found if m.long]),
        ("Shorter traces", [m for m in found if not m.long]),
    )
    lines = []
    for title, found_of_kind in parts:
        figures = summary(found_of_kind)
        if figures.matches:
            worst = f"{figures.worst:.2f}" if math.isfinite(figures.worst) else "out of reach"
            lines.append(
                f"{title}: of {figures.matches} comparisons {figures.reached} reached, {figures.won} better than every peer; ratio of "
                f"regrets {figures.ratio:.3f} (geometric mean), {worst} at worst; starts {figures.starts:.2f} times "
                "the clairvoyant's."
            )
    return lines


def percent(regret: float) -> str:
    """Format a regret as a percentage. A dash if the level is not reached."""
    return f"{regret:.1%}" if math.isfinite(regret) else "-"


def ratio(value: float) -> str:
    """Format a ratio of regrets. A dash if it is not finite."""
    return f"{value:.2f}" if math.isfinite(value) else "-"
