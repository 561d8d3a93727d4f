"""Runs many traces, one after another or in parallel: selects them, and collects what became of each.

Rules of this file: a trace that cannot be used, or whose process died, is told and stops no other. Who computes
changes no figure.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoscaler.errors import AutoscalerError, ConfigError, TraceError
from autoscaler.simulator.benchmark.bout import Bout, fought
from autoscaler.simulator.benchmark.course import course_of
from autoscaler.simulator.benchmark.entrants import Entrant
from autoscaler.simulator.benchmark.rivals import RIVALS, Rival
from autoscaler.simulator.search.executors import Executor, Here, Lost
from autoscaler.traces.per_vm import read_per_vm
from autoscaler.traces.reading import MANIFEST, read_trace, trace_name
from autoscaler.traces.trace import Trace, TraceKind

PER_VM = "per-vm"
"""The kind by which a manifest tells tables of single VMs."""
_MANIFEST_NAMES = (
    f"a {MANIFEST} names the traces of a folder, in the columns file,kind,interval_s; `autoscaler trace import` and "
    "`synth` write it"
)


@dataclass(frozen=True, slots=True)
class Shared:
    """What all traces are run with.

    Attributes:
        sizes: VMs that the 99.9 % quantile of demand needs, fleet by fleet.
        rivals: Keys of the peers to run.
        entrants: Policies to run.
    """

    sizes: tuple[int, ...]
    rivals: tuple[str, ...]
    entrants: tuple[Entrant, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """One trace to be run.

    Attributes:
        source: A file, or the trace itself.
        known: An earlier bout, whose rules are kept if it was on the same recording.
    """

    source: Path | Trace
    known: Bout | None = None

    @property
    def name(self) -> str:
        """Of the trace."""
        return trace_name(self.source) if isinstance(self.source, Path) else self.source.name


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to.

    Attributes:
        bouts: In the order of the parts.
        failed: Sentences about parts without a result.
        whole: Whether all parts were run.
    """

    bouts: tuple[Bout, ...]
    failed: tuple[str, ...]
    whole: bool


def series_in(folder: Path, only: Sequence[str] = ()) -> list[Path]:
    """The demand series of a folder, as its manifest tells them.

    Args:
        folder: With a `manifest.csv` of the columns file and kind.
        only: Beginnings of names; all where empty.

    Raises:
        ConfigError: There is no manifest, no series, or none with such a name.
    """
    files = [folder / row["file"] for row in _manifest(folder) if row["kind"] in set(TraceKind)]
    if not files:
        raise ConfigError(f"{folder / MANIFEST} names no series of kind count or gauge")
    return _named(folder, files, only)


def vms_in(folder: Path, only: Sequence[str] = ()) -> tuple[list[Trace], list[str]]:
    """The utilisation of each VM in the per-VM tables of a folder, as the demand of a fleet.

    What a single VM did is traffic, too, of another kind than that of whole services: nights of nothing, jobs on the clock.

    Args:
        folder: With a `manifest.csv` of the columns file, kind and interval_s.
        only: Beginnings of names of tables; all where empty.

    Returns:
        A gauge for each VM, called table/VM; and the names of VMs whose recording cannot be run (`course_of`).

    Raises:
        ConfigError: There is no manifest, no per-VM table, or none with such a name.
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
    """Its rows; what a row does not say is empty."""
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
    """Those files whose names begin so."""
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
    """Run all parts, the largest files first, so that none is alone at the end. An interrupt keeps those that are done.

    Args:
        parts: The traces.
        shared: What they are run with.
        executor: Who computes; None for this process.
        on_part: Told the share that is done.
    """
    order = sorted(range(len(parts)), key=lambda at: -_weight(parts[at]))
    bouts: dict[int, Bout] = {}
    failed: dict[int, str] = {}
    weights = [_weight(part) for part in parts]
    done, whole = 0, True
    running = (executor or Here()).run(_work, shared, [parts[at] for at in order])
    try:
        for found in running:
            at = order[found.number]
            if isinstance(found.result, Bout):
                bouts[at] = found.result
            else:
                why = found.result.why if isinstance(found.result, Lost) else str(found.result)
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
    """One trace: a part for an executor. What is wrong with it is told, not raised, so that others go on."""
    try:
        trace = read_trace(part.source) if isinstance(part.source, Path) else part.source
        known = part.known if part.known is not None and part.known.digest == trace.digest else None
        rivals = [rival for rival in RIVALS if _must_run(rival, known, shared)]
        return fought(trace, shared.sizes, rivals, shared.entrants, known)
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
