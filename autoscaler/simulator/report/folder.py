"""The files that a run leaves in a directory, and what can be rebuilt from them.

    report.json       figures, identity, notes
    timeline.csv      one row per tick, or timeline.parquet
    report.html       the page
    journal.sqlite    for `explain`, if the daemon itself was run

A comparison keeps the timeline and the journal of each policy in a subdirectory named after the policy.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from typing import Any, Literal

from autoscaler.errors import ConfigError
from autoscaler.simulator.replay.timeline import (
    REPORT_NAME,
    TIMELINE_NAME,
    TimelineRow,
    write_document,
    write_timeline,
)
from autoscaler.simulator.report.columns import (
    PARQUET_NAME,
    Columns,
    columns_of,
    read_timeline,
    write_parquet,
)
from autoscaler.simulator.report.page import PAGE_NAME, write_page

JOURNAL_NAME = "journal.sqlite"
TimelineForm = Literal["csv", "parquet"]
_LEFT = (REPORT_NAME, PAGE_NAME, TIMELINE_NAME, PARQUET_NAME, JOURNAL_NAME)


def make_room(directory: Path, *, force: bool) -> None:
    """Check that a run can write its files to a directory, before it takes its time.

    An earlier run stays until `replace`. A directory that does not exist yet is only created to try, so that a run that ends
    early leaves none.

    Raises:
        ConfigError: The directory contains an earlier run, is a file, or cannot be written to.
    """
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"{directory} is a file; name a directory for --out")
    if _left_in(directory) and not force:
        raise ConfigError(f"{directory} holds an earlier run; name another --out, or replace it with --force")
    probe = _unfinished(directory)
    try:
        with _made(directory):
            probe.mkdir(exist_ok=True)
            probe.rmdir()
    except OSError as error:
        raise ConfigError(f"{directory} cannot be written to: {error.strerror}; name another --out") from None


@contextmanager
def staging(directory: Path) -> Iterator[Path]:
    """Yield a directory, inside the output directory, for files written before a run is complete. It is removed at the end."""
    place = _unfinished(directory)
    with _made(directory):
        try:
            yield place
        finally:
            rmtree(place, ignore_errors=True)


@contextmanager
def _made(directory: Path) -> Iterator[None]:
    """Create a directory and its parents, and remove those that are new and still empty at the end."""
    new = [each for each in (directory, *directory.parents) if not each.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):
            for each in new:
                each.rmdir()


def replace(directory: Path, *, force: bool, staged: Path | None = None) -> None:
    """Make way for a completed run: remove the files of an earlier run, and move the journal in from its staging directory.

    Raises:
        ConfigError: Another run has written to the directory meanwhile, and may not be replaced.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{directory} cannot be written to: {error.strerror}; name another --out") from None
    used = _left_in(directory)
    if used and not force:
        raise ConfigError(
            f"another run was written to {directory} in the meantime and was left alone; name another --out"
        )
    for file in used:
        with suppress(FileNotFoundError):
            file.unlink()
    if staged is not None and (staged / JOURNAL_NAME).exists():
        (staged / JOURNAL_NAME).replace(directory / JOURNAL_NAME)


def _left_in(directory: Path) -> list[Path]:
    return [directory / name for name in _LEFT if (directory / name).exists()]


def _unfinished(directory: Path) -> Path:
    return directory / f".unfinished.{os.getpid()}"


def write_rows(
    directory: Path, rows: Sequence[TimelineRow], interval_s: float, form: TimelineForm
) -> Columns:
    """Write a timeline in the given format, and return its columns.

    Raises:
        ConfigError: The file cannot be written, or pyarrow is not installed.
    """
    columns = columns_of(rows, interval_s)
    if form == "parquet":
        write_parquet(directory / PARQUET_NAME, columns)
    else:
        write_timeline(directory / TIMELINE_NAME, rows)
    return columns


def write_run(
    directory: Path,
    document: Mapping[str, Any],
    columns: Columns | None,
    others: Mapping[str, Columns],
    *,
    with_page: bool,
) -> None:
    """Write `report.json`, and the page if requested.

    Raises:
        ConfigError: A file cannot be written, or plotly is not installed.
    """
    write_document(directory / REPORT_NAME, document)
    if with_page:
        write_page(directory / PAGE_NAME, document, columns, others)


def rebuild(directory: Path) -> Path:
    """Make the page again from `report.json` and the timelines, and return its path.

    Raises:
        ConfigError: A file is missing or cannot be read.
    """
    document = read_report(directory)
    compared = document.get("details", {}).get("compared") or ()
    columns: Columns | None
    if compared:
        folders = {str(one["name"]): directory / str(one["folder"]) for one in compared}
        lines = {name: read_timeline(folder) for name, folder in folders.items()}
        shown = str(document["details"]["shown"])
        columns, others = lines.pop(shown), lines
    else:
        columns, others = (None if "sweep" in document else read_timeline(directory)), {}
    path = directory / PAGE_NAME
    write_page(path, document, columns, others)
    return path


def read_report(directory: Path) -> Mapping[str, Any]:
    """Read the document in `report.json`.

    Raises:
        ConfigError: There is no such file, or it is not a report.
    """
    path = directory / REPORT_NAME
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}. Name a directory that `autoscaler replay --out` has written"
        ) from None
    except ValueError as error:
        raise ConfigError(f"{path}: is not JSON: {error}; run the replay again") from None
    if not isinstance(document, dict) or not {"version", "identity"} <= document.keys():
        raise ConfigError(f"{path}: is not the report of a run; run the replay again")
    return document
