"""Runs many traces, one after another or in parallel: selects them, and collects what became of each.

Rules of this file: a trace that cannot be used, or whose process died, is reported and never stops the others. The results
do not depend on which process computed them.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoscaler.errors import AutoscalerError, ConfigError, TraceError
from autoscaler.simulator.benchmark.conditions import course_of
from autoscaler.simulator.benchmark.entrants import Entrant
from autoscaler.simulator.benchmark.peer_entries import RIVALS, Rival
from autoscaler.simulator.benchmark.trace_run import Bout, run_bout
from autoscaler.simulator.search.executors import Executor, LostPart, SameProcess
from autoscaler.traces.per_vm import read_per_vm
from autoscaler.traces.reading import MANIFEST, read_trace, trace_name
from autoscaler.traces.trace import Trace, TraceKind

PER_VM = "per-vm"
"""The manifest kind of tables with one series per VM."""
_MANIFEST_NAMES = (
    f"a {MANIFEST} names the traces of a folder, in the columns file,kind,interval_s; `autoscaler trace import` and "
    "`synth` write it"
)


@dataclass(frozen=True, slots=True)
class Shared:
    """The settings that all traces of a run have in common.

    Attributes:
        sizes: Fleet sizes to simulate, each as the number of VMs that the 99.9 % quantile of demand needs.
        rivals: Keys of the peers to run.
        entrants: Policies to run.
    """

    sizes: tuple[int, ...]
    rivals: tuple[str, ...]
    entrants: tuple[Entrant, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """One trace to run.

    Attributes:
        source: The trace, or the file to read it from.
        known: An earlier result. Its curves are reused if it was computed from the same recording.
    """

    source: Path | Trace
    known: Bout | None = None

    @property
    def name(self) -> str:
        """The name of the trace."""
        return trace_name(self.source) if isinstance(self.source, Path) else self.source.name


@dataclass(frozen=True, slots=True)
class Outcome:
    """The results of a run.

    Attributes:
        bouts: One result per trace, in the order of the parts. Failed parts are left out.
        failed: One sentence for each part without a result.
        whole: False if the run was interrupted before all parts were done.
    """

    bouts: tuple[Bout, ...]
    failed: tuple[str, ...]
    whole: bool


def series_in(folder: Path, only: Sequence[str] = ()) -> list[Path]:
    """List the demand series of a folder, according to its manifest.

    Args:
        folder: A folder with a `manifest.csv` that has the columns file and kind.
        only: Prefixes of trace names. Empty selects all series.

    Raises:
        ConfigError: The manifest is missing, it names no series, or a prefix matches none.
    """
    files = [folder / row["file"] for row in _manifest(folder) if row["kind"] in set(TraceKind)]
    if not files:
        raise ConfigError(f"{folder / MANIFEST} names no series of kind count or gauge")
    return _named(folder, files, only)


def vms_in(folder: Path, only: Sequence[str] = ()) -> tuple[list[Trace], list[str]]:
    """Read every VM of a folder's per-VM tables as a trace: its CPU utilisation stands for the demand of a fleet.

    Single VMs are traffic of another kind than whole services: long idle nights, jobs that run by the clock.

    Args:
        folder: A folder with a `manifest.csv` that has the columns file, kind and interval_s.
        only: Prefixes of table names. Empty selects all tables.

    Returns:
        One gauge trace per VM, named table/VM, and the names of the VMs whose recording `course_of` refuses.

    Raises:
        ConfigError: The manifest is missing, it names no per-VM table, or a prefix matches none.
        TraceError: A table cannot be read.
    """
    rows = {folder / row["file"]: row for row in _manifest(folder) if row["kind"] == PER_VM}
    if not rows:
        raise ConfigError(f"{folder / MANIFEST} names no table of kind {PER_VM}")
    found, unusable = list[Trace](), list[str]()
    for file in _named(folder, list(rows), only):
        table = read_per_vm(file, interval_s=_interval_s(folder, rows[file]), floor=True)
        for name, percent in zip(table.vms, table.cpu_percent.T, strict=True):
            there, called = np.isfinite(percent), f"{table.name}/{name}"
            try:
                trace = Trace.build(
                    table.timestamps[there], percent[there], kind=TraceKind.GAUGE, name=called,
                    interval_s=table.interval_s,
                )  # fmt: skip
                course_of(trace)
            except TraceError:
                unusable.append(called)
                continue
            found.append(trace)
    return found, unusable


def _manifest(folder: Path) -> list[dict[str, str]]:
    """Read the rows of a folder's manifest. Cells that are missing become empty strings."""
    manifest = folder / MANIFEST
    try:
        with manifest.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines))
    except FileNotFoundError:
        what = f"{manifest} is not there" if folder.is_dir() else f"there is no folder {folder}"
        raise ConfigError(f"{what}; {_MANIFEST_NAMES}") from None
    except NotADirectoryError:
        raise ConfigError(
            f"{folder} is a file; name the folder of the traces, whose {MANIFEST} tells which"
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"{manifest} cannot be read ({why}); {_MANIFEST_NAMES}") from None
    return [{name: str(row.get(name) or "") for name in ("file", "kind", "interval_s")} for row in rows]


def _interval_s(folder: Path, row: dict[str, str]) -> float:
    try:
        return float(row["interval_s"])
    except ValueError:
        raise ConfigError(
            f"{folder / MANIFEST} does not say how long an interval of {row['file']} is (column interval_s)"
        ) from None


def _named(folder: Path, files: list[Path], only: Sequence[str]) -> list[Path]:
    """Return the files whose trace name starts with one of the prefixes."""
    unknown = [name for name in only if not any(trace_name(file).startswith(name) for file in files)]
    if unknown:
        known = ", ".join(trace_name(file) for file in files)
        raise ConfigError(f"{folder} has no series called {', '.join(unknown)}; it has {known}")
    return [file for file in files if not only or any(trace_name(file).startswith(name) for name in only)]


def run_parts(
    parts: Sequence[Part],
    shared: Shared,
    *,
    executor: Executor | None = None,
    on_part: Callable[[float], None] | None = None,
) -> Outcome:
    """Run all parts and collect their results. A keyboard interrupt keeps the results that are complete.

    The largest files run first, so that no long part is left running alone at the end.

    Args:
        parts: The traces.
        shared: The settings they have in common.
        executor: Where the parts are computed. None means this process.
        on_part: Called after each part with the share of the work that is done.
    """
    order = sorted(range(len(parts)), key=lambda at: -_weight(parts[at]))
    bouts: dict[int, Bout] = {}
    failed: dict[int, str] = {}
    weights = [_weight(part) for part in parts]
    done, whole = 0, True
    running = (executor or SameProcess()).run(_work, shared, [parts[at] for at in order])
    try:
        for found in running:
            at = order[found.number]
            if isinstance(found.result, Bout):
                bouts[at] = found.result
            else:
                why = found.result.why if isinstance(found.result, LostPart) else str(found.result)
                failed[at] = f"{parts[at].name}: {why}"
            done += weights[at]
            if on_part is not None:
                on_part(done / sum(weights))
    except KeyboardInterrupt:
        whole = False
    finally:
        close = getattr(running, "close", None)
        if close is not None:
            close()
    return Outcome(
        tuple(bouts[at] for at in sorted(bouts)), tuple(failed[at] for at in sorted(failed)), whole
    )


def _work(shared: Shared, part: Part) -> Bout | str:
    """Run one trace in an executor. An error becomes a returned message, so that the other traces go on."""
    try:
        trace = read_trace(part.source) if isinstance(part.source, Path) else part.source
        known = part.known if part.known is not None and part.known.digest == trace.digest else None
        rivals = [rival for rival in RIVALS if _must_run(rival, known, shared)]
        return run_bout(trace, shared.sizes, rivals, shared.entrants, known)
    except AutoscalerError as error:
        return str(error)


def _must_run(rival: Rival, known: Bout | None, shared: Shared) -> bool:
    if rival.key not in shared.rivals:
        return False
    fleets = {fleet.size: fleet for fleet in known.fleets} if known else {}
    return any(size not in fleets or rival.key not in fleets[size].curves for size in shared.sizes)


def _weight(part: Part) -> int:
    if isinstance(part.source, Path):
        return part.source.stat().st_size if part.source.exists() else 1
    return len(part.source.values)
