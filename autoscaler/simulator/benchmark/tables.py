"""Benchmark results as files for people and programs: `results.csv` and `results.md`.

Rules of this file: numbers from bouts and matches, nothing is worked out here but words.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

import numpy as np

from autoscaler.simulator.benchmark.bout import Bout, PoolVerdict, Promise
from autoscaler.simulator.benchmark.curves import LEVELS
from autoscaler.simulator.benchmark.verdict import Match, by_fleet, geometric_mean, matches, summary
from autoscaler.simulator.judging.calibration import LEVELS as QUANTILES
from autoscaler.simulator.judging.calibration import calibrated

RESULTS_CSV, RESULTS_MD = "results.csv", "results.md"

_COLUMNS = (
    "trace", "tick_s", "scored_days", "vms", "rule", "knob", "value", "unserved", "cost_vm_h", "starts", "turns",
)  # fmt: skip


def csv_text(bouts: Sequence[Bout]) -> str:
    """Every setting of every rule, one per row."""
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
    """A table for a README: per trace the regrets of a rule and of the best peer, and what they come to."""
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
    """What a rule that promised a served share had served after a week, as a table; nothing where it promised none."""
    told = [
        (bout.trace, fleet.size, promise)
        for bout in bouts
        for fleet in bout.fleets
        for promise in fleet.promises.get(key, ())
        if not math.isnan(promise.late_unserved)
    ]
    if not told:
        return []
    rows: dict[tuple[str, int], list[str]] = {}
    for trace, size, promise in told:
        rows.setdefault((trace, size), []).append(f"{1.0 - promise.late_unserved:.3%}")
    heads = list(dict.fromkeys(promise.promised for _, _, promise in told))
    return [
        f"| served after a week | VMs | {' | '.join(f'promised {head}' for head in heads)} |",
        f"|---|---:|{'---:|' * len(heads)}",
        *(f"| {trace} | {size} | {' | '.join(cells)} |" for (trace, size), cells in rows.items()),
    ]


def promise_sentence(bouts: Sequence[Bout], key: str) -> str:
    """How many promises of served shares were kept on long traces, and which were not; empty where none was made."""
    told = [
        (f"{bout.trace}/{fleet.size}", promise)
        for bout in bouts
        if bout.long
        for fleet in bout.fleets
        for promise in fleet.promises.get(key, ())
        if not math.isnan(promise.late_unserved)
    ]
    if not told:
        return ""
    broken = [(name, promise) for name, promise in told if not _is_kept(promise)]
    which = "; ".join(
        f"{promise.promised} on {name} ({1.0 - promise.late_unserved:.2%})" for name, promise in broken
    )
    return (
        f"Promised shares: {len(told) - len(broken)} of {len(told)} kept to within twice what may stay unserved, after a week, on traces "
        f"with seven scored days or more{': not ' + which if which else ''}."
    )


def _is_kept(promise: Promise) -> bool:
    allowed = 1.0 - float(promise.promised.removesuffix("%")) / 100.0
    return promise.late_unserved <= 2.0 * allowed + 1e-12


def pool_lines(bouts: Sequence[Bout], key: str) -> list[str]:
    """What a rule's warm pool came to, as a table; nothing where none was judged."""
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
        "knows the law", "holds the peak", "until break-even", "any pool saves",
    )  # fmt: skip
    return [
        f"| {' | '.join(heads)} |",
        f"|---|{'---:|' * (len(heads) - 1)}",
        *(f"| {' | '.join(_pool_cells(trace, size, pool))} |" for trace, size, pool in rows),
    ]


def coverage_of(bouts: Sequence[Bout], key: str) -> list[tuple[Bout, int, tuple[float, ...]]]:
    """Where a rule forecasts: the trace, the VMs, and the shares of outcomes below its quantiles."""
    return [
        (bout, fleet.size, fleet.coverage[key])
        for bout in bouts
        for fleet in bout.fleets
        if key in fleet.coverage and not any(map(math.isnan, fleet.coverage[key]))
    ]


def coverage_lines(bouts: Sequence[Bout], key: str) -> list[str]:
    """Which share of outcomes lies below each quantile of a rule's forecasts, as a table; nothing where it makes none."""
    told = coverage_of(bouts, key)
    if not told:
        return []
    heads = [f"below the {level:.0%} quantile" for level in QUANTILES]
    return [
        f"| forecasts at the lead time | VMs | {' | '.join(heads)} | |",
        f"|---|---:|{'---:|' * len(heads)}---|",
        *(
            f"| {bout.trace}{'' if bout.long else ' *'} | {size} | {' | '.join(f'{each:.1%}' for each in shares)} | "
            f"{'' if calibrated(np.array(shares)) else 'off'} |"
            for bout, size, shares in told
        ),
    ]


def coverage_sentence(bouts: Sequence[Bout], key: str) -> str:
    """On how many long traces a rule's forecasts keep what they say; empty where it makes none."""
    told = [(bout, shares) for bout, _, shares in coverage_of(bouts, key) if bout.long]
    if not told:
        return ""
    names = {bout.trace for bout, _ in told}
    off = {bout.trace for bout, shares in told if not calibrated(np.array(shares))}
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
        f"{times(verdict.break_even.cost, verdict.least)}, {verdict.break_even.missed} missed",
        f"{verdict.saving:.1%}{'' if verdict.pays else ', does not pay'}",
    )


def _over(costs: Sequence[tuple[float, float]]) -> str:
    return f"{geometric_mean([cost / least for cost, least in costs if least > 0]):.2f}"


def _law_part(pools: Sequence[PoolVerdict]) -> str:
    known = [(pool.lawful, pool.least, pool.starts) for pool in pools if pool.lawful is not None]
    if not known:
        return ""
    missed = share(sum(books.missed for books, _, _ in known), sum(starts for _, _, starts in known))
    return (
        f"the best law of waits and hours, fitted in hindsight to these very ticks, "
        f"{_over([(books.cost, least) for books, least, _ in known])} times with {missed} missed; "
    )


def pool_sentence(bouts: Sequence[Bout], key: str) -> str:
    """What a rule's warm pools came to, in a sentence; empty where none was judged."""
    pools = [fleet.warm_pools[key] for bout in bouts for fleet in bout.fleets if key in fleet.warm_pools]
    if not pools:
        return ""

    missed, starts = sum(pool.own.missed_known for pool in pools), sum(pool.starts for pool in pools)
    return (
        f"Warm pools: {_over([(p.own.cost, p.least) for p in pools])} times the cost of the least pool that misses nothing "
        f"(geometric mean), {missed} of {starts} starts ({share(missed, starts)}) missed within what had been wanted before; "
        f"who knows the next hour {_over([(p.foreseen.cost, p.least) for p in pools])} times; {_law_part(pools)}holding the peak "
        f"{_over([(p.peak.cost, p.least) for p in pools])} times, holding until break-even "
        f"{_over([(p.break_even.cost, p.least) for p in pools])} times with {sum(p.break_even.missed for p in pools)} "
        f"missed; a pool does not pay on {sum(not pool.pays for pool in pools)} of {len(pools)} fleets."
    )


def share(part: int, whole: int) -> str:
    """A part as a share of the whole."""
    return f"{part / whole:.1%}" if whole else "-"


def times(cost: float, least: float) -> str:
    """A cost as a multiple of the least."""
    return f"{cost / least:.2f} x" if least > 0 else "-"


def sentences(found: Sequence[Match]) -> list[str]:
    """What matches come to: long traces, then short ones."""
    parts = (
        ("Traces with seven scored days or more", [m for m in found if m.long]),
        ("Shorter traces", [m for m in found if not m.long]),
    )
    said = []
    for title, some in parts:
        told = summary(some)
        if told.matches:
            worst = f"{told.worst:.2f}" if math.isfinite(told.worst) else "out of reach"
            said.append(
                f"{title}: of {told.matches} comparisons {told.reached} reached, {told.won} better than every peer; ratio of "
                f"regrets {told.ratio:.3f} (geometric mean), {worst} at worst; starts {told.starts:.2f} times "
                "the clairvoyant's."
            )
    return said


def percent(regret: float) -> str:
    """A regret for people; a dash where the level is not reached."""
    return f"{regret:.1%}" if math.isfinite(regret) else "-"


def ratio(value: float) -> str:
    """A ratio for people."""
    return f"{value:.2f}" if math.isfinite(value) else "-"
