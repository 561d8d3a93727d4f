"""The output of a run: `timeline.csv`, `report.json`, and the sums and shortage episodes in them.

Rules of this file: columns and sums are the same for every kind of run (daemon, lanes, loop, baseline). A row is one tick,
stamped with the start of its interval. Unknown values are empty cells and null, never 0, and a sum with an unknown term is
unknown. The arithmetic is on arrays and knows no files. Files are written completely or not at all.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from autoscaler.errors import ConfigError
from autoscaler.traces.trace import describe_time

TIMELINE_NAME = "timeline.csv"
REPORT_NAME = "report.json"
REPORT_VERSION = 1


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """One tick of one fleet. None or NaN means unknown.

    Attributes:
        timestamp_s: Start of the interval, epoch seconds.
        demand: Work wanted in the interval, per second.
        forecast: Median forecast in work per second, issued at the start of the interval, for the first interval that a
            start ordered then can serve.
        forecast_hi: 95 % quantile of the same forecast.
        desired: Number of VMs wanted in service, after guards.
        in_service, starting, draining, stopped: Numbers of VMs in these states.
        warm_target: Number of stopped VMs wanted in the warm pool.
        capacity: Work per second that the VMs in service can do at the objective, without those that were told to leave at the
            start of the interval.
        shortage: Demand that found no capacity, in work per second.
        starts, stops, provisions: Numbers of VMs for which that was accepted in the interval.
        cost: Money spent in the interval.
        reason: One sentence on why `desired` is what it is.
    """

    timestamp_s: float
    demand: float | None
    forecast: float | None
    forecast_hi: float | None
    desired: int | None
    in_service: int | None
    starting: int | None
    draining: int | None
    stopped: int | None
    warm_target: int | None
    capacity: float | None
    shortage: float | None
    starts: int | None
    stops: int | None
    provisions: int | None
    cost: float | None
    reason: str


TIMELINE_COLUMNS: tuple[str, ...] = ("timestamp", *(field.name for field in fields(TimelineRow)[1:]))
"""Columns of the file, in order."""


@dataclass(frozen=True, slots=True)
class Episode:
    """A run of adjoining intervals with shortage.

    Attributes:
        start_s: Start of the first interval, epoch seconds.
        end_s: End of the last interval, epoch seconds.
        unserved_work: Work that found no capacity.
        worst_per_s: The highest shortage, in work per second.
    """

    start_s: float
    end_s: float
    unserved_work: float
    worst_per_s: float


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over a run. A sum is NaN if a term is unknown.

    Attributes:
        span_s: Length of all intervals in seconds.
        unknown_s: Seconds in which demand or shortage is unknown. The next six figures leave them out.
        demand_work: Work wanted.
        unserved_work: Work that found no capacity.
        unserved_share: `unserved_work` as a share of `demand_work`. NaN if no work was wanted.
        shortage_s: Seconds with shortage.
        episodes: Number of shortage episodes.
        longest_episode_s: Length of the longest episode in seconds. 0 without any.
        in_service_vm_s, draining_vm_s, stopped_vm_s: VM-seconds in these states.
        starts, stops, provisions: Numbers of VMs.
        reversals: How often `desired` turned from rising to falling or back.
        cost: Cost in money.
    """

    span_s: float
    unknown_s: float
    demand_work: float
    unserved_work: float
    unserved_share: float
    shortage_s: float
    episodes: int
    longest_episode_s: float
    in_service_vm_s: float
    draining_vm_s: float
    stopped_vm_s: float
    starts: float
    stops: float
    provisions: float
    reversals: int
    cost: float


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """Digests of everything that determines a run. Equal identities give equal results.

    Attributes:
        trace: Digest of the trace.
        policy: Digest of the effective policy.
        plant: Digest of the settings of the simulated VMs and provider.
        code: Version of the program.
        seed: Seed of all randomness.
    """

    trace: str
    policy: str
    plant: str
    code: str
    seed: int


def shortage_episodes(
    timestamps_s: NDArray[np.float64], shortage: NDArray[np.float64], interval_s: float
) -> tuple[Episode, ...]:
    """Find the runs of adjoining intervals with a shortage above 0, in time order.

    An interval that is missing, or whose shortage is unknown, ends a run.

    Args:
        timestamps_s: float64 (n,), starts of the intervals, ascending.
        shortage: float64 (n,), work per second, NaN where unknown.
        interval_s: Length of every interval in seconds.
    """
    short = np.nan_to_num(shortage, nan=0.0) > 0
    where = np.flatnonzero(short)
    if not where.size:
        return ()
    adjoining = (np.diff(where) == 1) & (np.diff(timestamps_s[where]) < 1.5 * interval_s)
    begins = np.concatenate(([0], np.flatnonzero(~adjoining) + 1))
    ends = np.concatenate((begins[1:], [where.size])) - 1
    amounts = shortage[where]
    return tuple(
        Episode(float(start), float(end), float(work), float(worst))
        for start, end, work, worst in zip(
            timestamps_s[where[begins]],
            timestamps_s[where[ends]] + interval_s,
            np.add.reduceat(amounts, begins) * interval_s,
            np.maximum.reduceat(amounts, begins),
            strict=True,
        )
    )


def reversals(desired: NDArray[np.float64]) -> int:
    """Count how often a series turned from rising to falling or back, however long it was flat in between."""
    steps = np.diff(desired[~np.isnan(desired)])
    directions = np.sign(steps[steps != 0])
    return int(np.count_nonzero(np.diff(directions)))


def column(rows: Sequence[TimelineRow], name: str) -> NDArray[np.float64]:
    """Return one numeric field of all rows: float64 (n,), NaN where unknown."""
    return np.array([*map(attrgetter(name), rows)], dtype=np.float64)


def totals(rows: Sequence[TimelineRow], interval_s: float) -> Totals:
    """Sum up a run.

    Args:
        rows: Rows in time order.
        interval_s: Length of every row's interval in seconds.
    """
    demand, shortage = column(rows, "demand"), column(rows, "shortage")
    known = ~(np.isnan(demand) | np.isnan(shortage))
    work = float(demand[known].sum()) * interval_s
    unserved = float(shortage[known].sum()) * interval_s
    shortage = np.where(known, shortage, np.nan)
    episodes = shortage_episodes(column(rows, "timestamp_s"), shortage, interval_s)
    sums = {
        name: float(column(rows, name).sum())
        for name in ("in_service", "draining", "stopped", "starts", "stops", "provisions", "cost")
    }
    return Totals(
        span_s=len(rows) * interval_s,
        unknown_s=float(np.count_nonzero(~known)) * interval_s,
        demand_work=work,
        unserved_work=unserved,
        unserved_share=unserved / work if work > 0 else math.nan,
        shortage_s=float(np.count_nonzero(shortage > 0)) * interval_s,
        episodes=len(episodes),
        longest_episode_s=max((episode.end_s - episode.start_s for episode in episodes), default=0.0),
        in_service_vm_s=sums["in_service"] * interval_s,
        draining_vm_s=sums["draining"] * interval_s,
        stopped_vm_s=sums["stopped"] * interval_s,
        starts=sums["starts"],
        stops=sums["stops"],
        provisions=sums["provisions"],
        reversals=reversals(column(rows, "desired")),
        cost=sums["cost"],
    )


def write_timeline(path: Path, rows: Iterable[TimelineRow]) -> None:
    """Write the rows as CSV with the columns `TIMELINE_COLUMNS`.

    Raises:
        ConfigError: The file cannot be written.
    """
    with _written(path) as stream:
        write_rows(stream, rows)


def write_rows(stream: TextIO, rows: Iterable[TimelineRow]) -> int:
    """Write header and rows as CSV. Returns the number of rows."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(TIMELINE_COLUMNS)
    count, cells = 0, attrgetter(*TIMELINE_COLUMNS[1:])
    for row in rows:
        # Values that are not floats are written as they are; None gives an empty cell.
        values = [_digits(cell) if isinstance(cell, float) else cell for cell in cells(row)]
        writer.writerow((describe_time(row.timestamp_s), *values))
        count += 1
    return count


def report_of(
    identity: RunIdentity, run: Totals, baselines: Mapping[str, Totals], details: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the `report.json` document of a run without a score card.

    Args:
        identity: Identity of the run.
        run: Totals of the run.
        baselines: Totals of the baselines on the same run, by name.
        details: Further facts, as JSON types.
    """
    return {
        "version": REPORT_VERSION,
        "identity": asdict(identity),
        "totals": asdict(run),
        "baselines": {name: asdict(baseline) for name, baseline in baselines.items()},
        "details": dict(details),
    }


def write_document(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document of JSON types, with NaN as null. Equal documents give equal bytes.

    Raises:
        ConfigError: The file cannot be written.
    """
    with _written(path) as stream:
        json.dump(jsonable(document), stream, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        stream.write("\n")


def _digits(value: float) -> str:
    # Ten digits: more than any measurement has, and free of the tail of binary fractions.
    return "" if math.isnan(value) else f"{value:.10g}"


def jsonable(value: Any) -> Any:
    """Convert a value to JSON types. NaN and infinities become null, because JSON does not have them."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_text(path: Path, text: str) -> None:
    """Write a text file, completely or not at all.

    Raises:
        ConfigError: The file cannot be written.
    """
    with _written(path) as stream:
        stream.write(text)


@contextmanager
def _written(path: Path) -> Iterator[TextIO]:
    with (
        written_whole(path) as unfinished,
        unfinished.open("w", encoding="utf-8", errors="replace", newline="") as stream,
    ):
        yield stream


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield the path of an unfinished file in the same folder, and move it to `path` when the block has filled it.

    Raises:
        ConfigError: The file or its folder cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        unfinished.replace(path)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror or error}. Give another output directory."
        ) from error
    finally:
        with suppress(OSError):
            unfinished.unlink()
