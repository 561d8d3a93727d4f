"""The results of a sweep: parameters and figures, one row per variant, and the files written.

    results.csv       one row per variant: number, parameters, every figure; or results.parquet
    report.json       the same for programs and the page, with the run's identity
    report.html       the page

Rules of this file: rows keep the variants' own numbers, so that results of a part of a sweep can be matched with those of the
whole. Variant 0 is the policy as it is. Unknown is an empty cell, never zero. Nothing is chosen here.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from autoscaler.core.types import Bool, Float, Int
from autoscaler.simulator.judging.score import FIGURES, LanePrices, Score, score
from autoscaler.simulator.replay.preparing import Replay
from autoscaler.simulator.replay.timeline import REPORT_VERSION, written_whole
from autoscaler.simulator.report.card import Card, Entry, card_json
from autoscaler.simulator.report.columns import pyarrow
from autoscaler.simulator.report.variants import variants_json
from autoscaler.simulator.search.sweep import SweepResult
from autoscaler.simulator.search.variants import Variant, is_given
from autoscaler.traces.trace import describe_time

RESULTS_CSV, RESULTS_PARQUET = "results.csv", "results.parquet"
Form = Literal["csv", "parquet"]
CURRENT = 0
"""Number of the variant that is the policy as it is."""
COST, UNSERVED = "cost", "unserved_share"


@dataclass(frozen=True, slots=True)
class Landscape:
    """Parameters and figures of V variants.

    Attributes:
        numbers: int64 (V,), the variants' numbers, ascending.
        parameters: For each path, V values as written.
        figures: float64 (V,) by the keys of `score.FIGURES`.
        decisions: Digest of all decisions of all variants.
    """

    numbers: Int
    parameters: Mapping[str, tuple[object, ...]]
    figures: Mapping[str, Float]
    decisions: str

    @property
    def current(self) -> int | None:
        """Row of the policy as it is; None if it did not finish."""
        rows = np.flatnonzero(self.numbers == CURRENT)
        return int(rows[0]) if len(rows) else None

    @property
    def front(self) -> Bool:
        """Whether no other variant with the same plant and prices beats a variant in cost and unserved work: bool (V,).

        Plant and prices cannot be chosen, so a variant that is cheaper because of them beats no other.
        """
        on: Bool = np.zeros(len(self.numbers), np.bool_)
        plants = self._plants()
        for plant in sorted(set(plants)):
            rows = np.array([row for row, of in enumerate(plants) if of == plant])
            on[rows] = front(self.figures[COST][rows], self.figures[UNSERVED][rows])
        return on

    @property
    def same_plant(self) -> Bool:
        """Whether a variant has the plant and the prices of the policy as it is: bool (V,)."""
        plants = self._plants()
        return np.array([self.current is not None and of == plants[self.current] for of in plants], np.bool_)

    def _plants(self) -> list[str]:
        paths = [path for path in self.parameters if is_given(path)]
        return [repr([self.parameters[path][row] for path in paths]) for row in range(len(self.numbers))]

    def named(self, row: int) -> str:
        """Describe a variant by the values in which it differs from the policy as it is."""
        now = self.current
        parts = [
            f"{path} {column[row]}"
            for path, column in self.parameters.items()
            if now is None or column[row] != column[now]
        ]
        return ", ".join(parts) or "as it is"

    def alone(self, path: str, row: int) -> int | None:
        """Return the variant that differs from the policy as it is only in this field, where it has the value of `row`."""
        now = self.current
        if now is None:
            return None
        wanted = {each: column[row if each == path else now] for each, column in self.parameters.items()}
        rows = (
            at
            for at in range(len(self.numbers))
            if all(self.parameters[each][at] == value for each, value in wanted.items())
        )
        return next(rows, None)

    def of_row(self, row: int) -> dict[str, float]:
        """Return the figures of one variant."""
        return {key: float(column[row]) for key, column in self.figures.items()}


def landscape(found: SweepResult, current: Mapping[str, object]) -> Landscape:
    """Compute the figures of the variants of a sweep that finished.

    Args:
        found: Result of a sweep whose first variant is the policy as it is; at least one variant has finished.
        current: The values of that policy at the varied paths.
    """
    assert found.sums is not None
    prices = LanePrices.of([each.policy for each in found.variants])
    figures = score(found.sums, prices)
    return landscape_of(found.variants, found.numbers.tolist(), figures, found.digests, current)


def landscape_of(
    variants: Sequence[Variant],
    numbers: Sequence[int],
    figures: Score,
    digests: Sequence[str],
    current: Mapping[str, object],
) -> Landscape:
    """Build a landscape from known figures of V variants, with their numbers and digests."""
    known = {figure.key: figures[figure.key] for figure in FIGURES}
    paths = dict.fromkeys([*current, *(path for each in variants for path in each.values)])
    parameters = {
        path: tuple(each.values.get(path, current.get(path)) for each in variants) for path in paths
    }
    whole = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return Landscape(np.array(numbers, np.int64), parameters, known, whole)


def front(cost: Float, shortage: Float) -> Bool:
    """Return the Pareto front, bool (V,): true if no other is as good in both and better in one.

    A variant with an unknown figure is never on it. Of variants that are equal in both, all are on it.
    """
    known = np.isfinite(cost) & np.isfinite(shortage)
    on: Bool = np.zeros(len(cost), np.bool_)
    order = np.lexsort((shortage, cost))
    least, at_cost = math.inf, math.nan
    for row in order[known[order]]:
        ties = shortage[row] == least and cost[row] == at_cost
        if shortage[row] < least or ties:
            on[row] = True
            least, at_cost = shortage[row], cost[row]
    return on


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────


def write_results(
    directory: Path, found: Landscape, form: Form, remarks: Mapping[str, Sequence[str]] | None = None
) -> Path:
    """Write one row per variant and return the file's path.

    Args:
        directory: The directory to write to.
        found: The results.
        form: CSV or Parquet.
        remarks: Further columns of text, one entry per variant.

    Raises:
        ConfigError: The file cannot be written, or pyarrow is missing.
    """
    columns: dict[str, Sequence[object]] = {"variant": found.numbers.tolist()}
    columns |= found.parameters
    columns |= {key: column.tolist() for key, column in found.figures.items()}
    columns |= remarks or {}
    path = directory / (RESULTS_CSV if form == "csv" else RESULTS_PARQUET)
    stale = directory / (RESULTS_PARQUET if form == "csv" else RESULTS_CSV)
    data = _as_csv(columns) if form == "csv" else _as_parquet(columns, found)
    with written_whole(path) as unfinished:
        unfinished.write_bytes(data)
    stale.unlink(missing_ok=True)
    return path


def _as_csv(columns: Mapping[str, Sequence[object]]) -> bytes:
    text = io.StringIO(newline="")
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(columns)
    lines.writerows([_cell(value) for value in row] for row in zip(*columns.values(), strict=True))
    return text.getvalue().encode()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.10g}" if math.isfinite(value) else ""
    return str(value)


def _as_parquet(columns: Mapping[str, Sequence[object]], found: Landscape) -> bytes:
    pa, pq = pyarrow()
    numbers = {"variant", *found.figures}
    table = pa.table(
        {
            name: pa.array(column, from_pandas=True)
            if name in numbers or all(isinstance(each, (int, float)) for each in column)
            else pa.array([_cell(each) or None for each in column], pa.string())
            for name, column in columns.items()
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


# ── the report ──────────────────────────────────────────────────────────────────────────────────────────


def document_of(
    replay: Replay,
    found: Landscape,
    *,
    beside: int | None,
    cautions: Sequence[str] = (),
    partial: bool = False,
) -> dict[str, Any]:
    """Return the content of a sweep's `report.json`.

    Args:
        replay: The replay that was varied; its first variant finished.
        found: The results.
        beside: Row that the policy is compared with on the score card; None for none.
        cautions: Reasons to doubt the figures, in addition to those that the replay gives.
        partial: Whether variants are missing.
    """
    assert found.current is not None
    entries = [
        Entry("policy", "this policy", replay.in_words, found.of_row(found.current), judged=True),
    ]
    if beside is not None:
        name = f"with {found.named(beside)}"
        entries.append(Entry("variant", name, name, found.of_row(beside), judged=True))
    scored_s = (replay.ticks - replay.warm_up_ticks) * replay.tick_s
    card = Card(FIGURES, tuple(entries))
    known = {key: column for key, column in found.figures.items() if np.isfinite(column).any()}
    sweep = variants_json(
        found.parameters,
        known,
        cost=COST,
        shortage=UNSERVED if UNSERVED in known else COST,
        current=found.current,
    )
    for row, same in zip(sweep["rows"], found.same_plant.tolist(), strict=True):
        row["same_plant"] = same
    return {
        "version": REPORT_VERSION,
        "identity": asdict(replay.identity),
        "card": card_json(card),
        "details": {
            "fleet": replay.policy.fleet,
            "policy_file": str(replay.policy_file),
            "policy_in_words": replay.in_words,
            "trace": replay.trace.name,
            "begin": describe_time(replay.begin_s),
            "end": describe_time(replay.begin_s + replay.ticks * replay.tick_s),
            "asked_s": replay.ticks * replay.tick_s,
            "span_s": replay.ticks * replay.tick_s,
            "not_scored_s": replay.ticks * replay.tick_s - scored_s,
            "partial": False,
            "variants_missing": partial,
            "tick_s": replay.tick_s,
            "vms": replay.plant.vms,
            "vm_capacity_per_s": replay.policy.vm.capacity_per_s,
            "engine": "lanes",
            "decisions": found.decisions,
            "notes": list(replay.notes),
            "cautions": [*replay.cautions, *cautions],
        },
        "sweep": sweep,
    }
