"""Finds where two runs on the same traffic decided differently.

Rules of this file: rows are matched by their timestamps. Ticks that only one run has are not compared, but counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autoscaler.simulator.replay.timeline import TimelineRow
from autoscaler.simulator.report.wording import count, moment, plural, share
from autoscaler.traces.trace import describe_time

COMPARED = ("desired", "in_service", "starts", "stops", "provisions")
LISTED = 40
"""Number of ticks for which the decisions of both runs are kept."""


def differences(
    first: tuple[str, Sequence[TimelineRow]], second: tuple[str, Sequence[TimelineRow]]
) -> dict[str, Any]:
    """Compare the decisions of two runs, and return values for `report.json`.

    Args:
        first: Name and timeline of one run.
        second: Name and timeline of the other.

    Returns:
        `names` of the runs; the number of `ticks` compared, and of ticks `not_compared`; `differing`, the number of ticks
        that differ, by field; `first_at`, the first tick with any difference; `rows`, the first ticks at which the desired
        numbers part again, with both numbers and reasons; and `sentences` that summarise them.
    """
    (name_a, rows_a), (name_b, rows_b) = first, second
    other = {row.timestamp_s: row for row in rows_b}
    pairs = [(row, other[row.timestamp_s]) for row in rows_a if row.timestamp_s in other]
    differing = {field: sum(getattr(a, field) != getattr(b, field) for a, b in pairs) for field in COMPARED}
    apart = [(a, b) for a, b in pairs if any(getattr(a, f) != getattr(b, f) for f in COMPARED)]
    parted = [
        now
        for before, now in zip([None, *pairs], pairs, strict=False)
        if now[0].desired != now[1].desired and (before is None or before[0].desired == before[1].desired)
    ]
    return {
        "names": [name_a, name_b],
        "ticks": len(pairs),
        "not_compared": len(rows_a) + len(rows_b) - 2 * len(pairs),
        "differing": differing,
        "first_at": describe_time(apart[0][0].timestamp_s) if apart else None,
        "rows": [
            {
                "at": describe_time(a.timestamp_s),
                "demand": a.demand,
                "desired": [a.desired, b.desired],
                "reasons": [a.reason, b.reason],
            }
            for a, b in parted[:LISTED]
        ],
        "sentences": list(_sentences(name_a, name_b, pairs, apart, differing)),
    }


def _sentences(
    name_a: str,
    name_b: str,
    pairs: Sequence[tuple[TimelineRow, TimelineRow]],
    apart: Sequence[tuple[TimelineRow, TimelineRow]],
    differing: dict[str, int],
) -> Sequence[str]:
    if not pairs:
        return ["The two runs have no tick in common."]
    if not apart:
        return [f"{name_a} and {name_b} decide the same in all {count(len(pairs))} ticks."]
    a, b = apart[0]
    lead = [
        f"Decisions first differ at {moment(a.timestamp_s)} UTC: {name_a} wants {_vms(a)}, {name_b} {_vms(b)}.",
        f"{name_a}: {a.reason}.",
        f"{name_b}: {b.reason}.",
    ]
    number = differing["desired"]
    if number:
        more = sum((b.desired or 0) > (a.desired or 0) for a, b in pairs)
        lead.append(
            f"They want different numbers of VMs in {plural(number, 'tick', 'ticks')} "
            f"({share(number / len(pairs))}); {name_b} wants more in {count(more)} and fewer in {count(number - more)}."
        )
    return lead


def _vms(row: TimelineRow) -> str:
    return "an unknown number" if row.desired is None else plural(row.desired, "VM", "VMs")
