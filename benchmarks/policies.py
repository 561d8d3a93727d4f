"""The policy benchmark in figures: our regret over the best peer's, and what the run takes.

On the folder named by AUTOSCALER_TRACES, with a manifest.csv; on five generated traces where there is none. Takes
minutes, so it runs when it is named: `python -m benchmarks policies`. The tables are `autoscaler benchmark`'s.
"""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

from autoscaler.simulator.benchmark.curves import LEVELS
from autoscaler.simulator.benchmark.entrants import ours
from autoscaler.simulator.benchmark.folder import Part, Shared, run_parts, series_in
from autoscaler.simulator.benchmark.generated import generated
from autoscaler.simulator.benchmark.peer_entries import PEERS, RIVALS
from autoscaler.simulator.benchmark.verdict import Match, matches, summary
from autoscaler.simulator.search.executors import Processes
from benchmarks.calibration import Result

SIZES = (40, 8)
PROCESSES = 2


def run() -> list[Result]:
    folder = os.environ.get("AUTOSCALER_TRACES")
    parts = [Part(file) for file in series_in(Path(folder))] if folder else [Part(t) for t in generated(1)]
    entrant = ours()
    shared = Shared(SIZES, tuple(rival.key for rival in RIVALS), (entrant,))
    before_s, cpu_s = time.perf_counter(), _children_s()
    outcome = run_parts(parts, shared, executor=Processes(PROCESSES))
    took_s, cpu_s = time.perf_counter() - before_s, _children_s() - cpu_s
    found = matches(outcome.bouts, entrant.key, PEERS)
    results = [
        Result("wall time", took_s, "s", f"{len(outcome.bouts)} traces, {PROCESSES} processes"),
        Result("CPU time", cpu_s, "s", "of all processes"),
    ]
    for title, some in (
        ("seven scored days or more", [match for match in found if match.long]),
        ("shorter", [match for match in found if not match.long]),
    ):
        results += _figures(title, some)
    return results + [
        Result("without a result", float(len(outcome.failed)), "", text) for text in outcome.failed
    ]


def _figures(title: str, found: list[Match]) -> list[Result]:
    results = []
    for level in (*LEVELS, None):
        some = [match for match in found if level in (None, match.level)]
        told = summary(some)
        if told.matches:
            at = "all levels" if level is None else f"{level:.1%} unserved"
            note = f"worst {told.worst:.2f}, reached {told.reached} of {told.matches}, better than all {told.won}"
            results.append(Result(f"{title}, {at}: regret over best peer's", told.ratio, "", note))
    return results


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
